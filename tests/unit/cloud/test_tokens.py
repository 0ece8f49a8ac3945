"""Client tokens: the same call twice has one effect."""

from __future__ import annotations

from typing import Any

import pytest
from support.bare_cloud import IMAGE_ID, OTHER, ROOT, BareCloud

from minicloud.cloud import images, imports
from minicloud.cloud.context import Caller
from minicloud.cloud.images import CopyRequest
from minicloud.cloud.imports import DiskSource, ImportRequest
from minicloud.cloud.metadata_options import MetadataRequest
from minicloud.errors import ApiError
from minicloud.model.states import InstanceState

DAY_SECONDS = 24 * 3600


def test_the_same_token_gives_the_same_reservation(bare: BareCloud) -> None:
    first = bare.run(client_token="t", min_count=2, max_count=2, user_data=b"\x00\xff")
    with bare.unchanged(), bare.one_transaction():
        again = bare.run(client_token="t", min_count=2, max_count=2, user_data=b"\x00\xff")
    assert again == first


def test_the_repeated_answer_shows_instances_as_they_are_now(bare: BareCloud) -> None:
    first = bare.run_one(client_token="t")
    bare.rest(first.instance.id, InstanceState.RUNNING)
    assert bare.run_one(client_token="t").instance.state is InstanceState.RUNNING


def test_a_token_survives_what_would_refuse_the_call_now(bare: BareCloud) -> None:
    first = bare.run(client_token="t")
    images.deregister_image(bare.cloud, ROOT, IMAGE_ID)
    assert bare.run(client_token="t").id == first.id


@pytest.mark.parametrize(
    "changes",
    [
        {"max_count": 2},
        {"instance_type": "t3.micro"},
        {"user_data": b"x"},
        {"tags": {"instance": {"a": "1"}}},
        {"metadata": MetadataRequest(http_tokens="required")},
        {"zone": "lab-1b"},
        {"disable_api_stop": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_parameters_with_the_same_token_are_a_mismatch(bare: BareCloud, changes: dict[str, Any]) -> None:
    bare.run(client_token="t")
    with bare.refuses("IdempotentParameterMismatch"):
        bare.run(client_token="t", **changes)


def test_a_refused_launch_leaves_its_token_free(bare: BareCloud) -> None:
    with bare.refuses("InsufficientInstanceCapacity", status=500):
        bare.run(client_token="t", min_count=100, max_count=100)
    assert len(bare.run(client_token="t").instances) == 1


@pytest.mark.parametrize("caller", [OTHER, Caller(ROOT.account_id, "lab-2")])
def test_a_token_is_of_an_account_and_a_region(bare: BareCloud, caller: Caller) -> None:
    imports.import_snapshot(bare.cloud, ROOT, import_request(), find_source)
    assert (
        imports.import_snapshot(bare.cloud, caller, import_request(), find_source).task.account_id == caller.account_id
    )


def test_no_token_no_memory(bare: BareCloud) -> None:
    assert bare.run().id != bare.run().id


def test_a_terminated_instance_is_not_launched_again(bare: BareCloud) -> None:
    views = bare.run(client_token="t", min_count=2, max_count=2).instances
    bare.rest(views[0].instance.id, InstanceState.TERMINATED)
    assert len(bare.run(client_token="t", min_count=2, max_count=2).instances) == 2
    bare.rest(views[1].instance.id, InstanceState.TERMINATED)
    with bare.refuses("IdempotentInstanceTerminated"):
        bare.run(client_token="t", min_count=2, max_count=2)
    for view in views:
        bare.store.write(lambda tx, id=view.instance.id: tx.instances.delete(id))
    with bare.refuses("IdempotentInstanceTerminated"):
        bare.run(client_token="t", min_count=2, max_count=2)


def test_a_token_is_kept_for_a_day(bare: BareCloud) -> None:
    first = bare.run(client_token="t")
    bare.clock.advance(DAY_SECONDS)
    assert bare.run(client_token="t").id == first.id
    bare.clock.advance(1)
    # Without any other call in between, and even with other parameters.
    assert bare.run(client_token="t", instance_type="t3.micro").id != first.id


def test_old_tokens_are_forgotten(bare: BareCloud) -> None:
    bare.run(client_token="old")
    bare.clock.advance(DAY_SECONDS + 1)
    bare.run(client_token="new")
    assert [row.token for row in bare.store.read(lambda tx: tx.client_tokens.where())] == ["new"]


@pytest.mark.parametrize("token", ["x" * 65, "tökén"])
def test_bad_tokens(bare: BareCloud, token: str) -> None:
    with bare.refuses("InvalidParameterValue", "at most 64 ASCII characters"):
        bare.run(client_token=token)
    with bare.refuses("InvalidParameterValue", "at most 64 ASCII characters"):
        images.copy_image(bare.cloud, ROOT, copy_request(client_token=token))


def test_the_longest_token(bare: BareCloud) -> None:
    assert bare.run(client_token="x" * 64).id == bare.run(client_token="x" * 64).id


def copy_request(**changes: Any) -> CopyRequest:
    return CopyRequest(
        **{"name": "second", "source_image_id": IMAGE_ID, "source_region": "lab-1", "client_token": "t", **changes}
    )


def import_request(**changes: Any) -> ImportRequest:
    return ImportRequest(**{"url": "file:///disks/a.qcow2", "format": "qcow2", "client_token": "t", **changes})


def find_source(url: str) -> DiskSource:
    return DiskSource(url, "/disks/a.qcow2", 100, False)


def test_copies_of_an_image(bare: BareCloud) -> None:
    first = images.copy_image(bare.cloud, ROOT, copy_request())
    with bare.unchanged():
        assert images.copy_image(bare.cloud, ROOT, copy_request()) == first
    with bare.refuses("IdempotentParameterMismatch"):
        images.copy_image(bare.cloud, ROOT, copy_request(name="third"))


def test_imports(bare: BareCloud) -> None:
    first = imports.import_snapshot(bare.cloud, ROOT, import_request(), find_source)
    with bare.unchanged():
        assert imports.import_snapshot(bare.cloud, ROOT, import_request(), find_source) == first
    with bare.refuses("IdempotentParameterMismatch"):
        imports.import_snapshot(bare.cloud, ROOT, import_request(format="raw"), find_source)


def test_a_file_that_was_imported_may_be_gone_when_its_import_is_asked_for_again(bare: BareCloud) -> None:
    def gone(_: str) -> DiskSource:
        raise ApiError("InvalidParameterValue", "The URL of the disk image cannot be used: the file cannot be read.")

    first = imports.import_snapshot(bare.cloud, ROOT, import_request(), find_source)
    assert imports.import_snapshot(bare.cloud, ROOT, import_request(), gone) == first
    with bare.refuses("IdempotentParameterMismatch"):
        imports.import_snapshot(bare.cloud, ROOT, import_request(url="file:///disks/b.qcow2"), gone)
    with bare.refuses("InvalidParameterValue"):
        imports.import_snapshot(bare.cloud, ROOT, import_request(client_token="other"), gone)


def test_another_boot_mode_is_another_import(bare: BareCloud) -> None:
    first = imports.import_image(bare.cloud, ROOT, import_request(), find_source, "x86_64", "uefi")
    assert imports.import_image(bare.cloud, ROOT, import_request(), find_source, "x86_64", "uefi") == first
    with bare.refuses("IdempotentParameterMismatch"):
        imports.import_image(bare.cloud, ROOT, import_request(), find_source, "x86_64", None)


def test_one_token_may_serve_two_operations(bare: BareCloud) -> None:
    bare.run(client_token="t")
    images.copy_image(bare.cloud, ROOT, copy_request())
    imports.import_snapshot(bare.cloud, ROOT, import_request(), find_source)
    imports.import_image(bare.cloud, ROOT, import_request(), find_source, "x86_64", None)
    assert bare.store.read(lambda tx: tx.client_tokens.count()) == 4
