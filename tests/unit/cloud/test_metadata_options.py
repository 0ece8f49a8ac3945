"""Metadata options: what a launch gets of whom, and what a change writes and wakes."""

from __future__ import annotations

from typing import Any

import pytest
from support import rows as make
from support.bare_cloud import OTHER, ROOT, UNKNOWN, BareCloud

from minicloud.cloud import metadata_options
from minicloud.cloud.metadata_options import (
    DefaultsRequest,
    MetadataRequest,
    choose_metadata_options,
    shown_options_state,
)
from minicloud.cloud.tags import create_tags, delete_tags
from minicloud.errors import ApiError
from minicloud.model.resources import Instance, MetadataDefaults, MetadataOptions
from minicloud.model.states import InstanceState

PENDING, RUNNING, STOPPING = InstanceState.PENDING, InstanceState.RUNNING, InstanceState.STOPPING
STOPPED, SHUTTING_DOWN, TERMINATED = InstanceState.STOPPED, InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED
NONE = MetadataDefaults(ROOT.account_id, ROOT.region)
VERSION_2 = make.image(1, imds_support="v2.0")
ANY_VERSION = make.image(1, imds_support=None)


def modify(bare: BareCloud, instance_id: str, **options: Any) -> Instance:
    return metadata_options.modify_metadata_options(bare.cloud, ROOT, instance_id, MetadataRequest(**options))


def modify_defaults(bare: BareCloud, **options: Any) -> None:
    metadata_options.modify_metadata_defaults(bare.cloud, ROOT, DefaultsRequest(**options))


def test_nobody_said_anything() -> None:
    assert choose_metadata_options(MetadataRequest(), NONE, ANY_VERSION) == MetadataOptions()
    assert choose_metadata_options(MetadataRequest(), NONE, VERSION_2) == MetadataOptions(
        http_tokens="required", http_put_response_hop_limit=2
    )


def test_the_account_comes_before_the_image_and_the_request_before_both() -> None:
    account = MetadataDefaults(ROOT.account_id, ROOT.region, "disabled", "optional", 7, "enabled")
    assert choose_metadata_options(MetadataRequest(), account, VERSION_2) == MetadataOptions(
        "disabled", "optional", 7, "enabled"
    )
    given = MetadataRequest("enabled", "required", 9, "disabled")
    assert choose_metadata_options(given, account, ANY_VERSION) == MetadataOptions("enabled", "required", 9, "disabled")


@pytest.mark.parametrize("enforced", ["enabled", "disabled", None])
def test_enforced_tokens(enforced: str | None) -> None:
    account = MetadataDefaults(ROOT.account_id, ROOT.region, http_tokens_enforced=enforced)
    assert choose_metadata_options(MetadataRequest(http_tokens="required"), account, ANY_VERSION)
    assert choose_metadata_options(MetadataRequest(), account, VERSION_2)
    if enforced == "enabled":
        with pytest.raises(ApiError) as caught:
            choose_metadata_options(MetadataRequest(), account, ANY_VERSION)
        assert caught.value.code == "UnsupportedOperation"
    else:
        assert choose_metadata_options(MetadataRequest(), account, ANY_VERSION)


@pytest.mark.parametrize("state", [PENDING, RUNNING, STOPPING])
def test_a_change_wakes_the_controller(bare: BareCloud, state: InstanceState) -> None:
    instance_id = bare.run_in(state).id
    with bare.one_transaction():
        row = modify(bare, instance_id, http_tokens="required")
    assert row.metadata_options == MetadataOptions(http_tokens="required", state="pending")
    assert shown_options_state(row) == "pending"
    assert bare.woken == [frozenset({instance_id})]
    assert bare.instance(instance_id) == row


def test_a_stopped_instance_has_no_guest_to_answer(bare: BareCloud) -> None:
    row = modify(bare, bare.run_in(STOPPED).id, http_put_response_hop_limit=64)
    assert row.metadata_options == MetadataOptions(http_put_response_hop_limit=64)
    assert shown_options_state(row) == "applied"


def test_what_is_as_asked_is_left_alone(bare: BareCloud) -> None:
    instance_id = bare.run_in(RUNNING).id
    with bare.unchanged():
        modify(bare, instance_id)
        modify(bare, instance_id, http_tokens="optional", http_put_response_hop_limit=1)
    # Also while the change that made it so is on its way.
    modify(bare, instance_id, http_tokens="required")
    with bare.unchanged():
        assert modify(bare, instance_id, http_tokens="required").metadata_options.state == "pending"


@pytest.mark.parametrize("state", [SHUTTING_DOWN, TERMINATED])
def test_an_instance_that_ends_keeps_its_options(bare: BareCloud, state: InstanceState) -> None:
    instance_id = bare.run_in(state).id
    with bare.refuses("IncorrectInstanceState"):
        modify(bare, instance_id, http_tokens="required")


def test_options_that_cannot_be(bare: BareCloud) -> None:
    instance_id = bare.run_in(RUNNING).id
    for limit in (-1, 0, 65):
        with bare.refuses("InvalidParameterValue", "HttpPutResponseHopLimit"):
            modify(bare, instance_id, http_put_response_hop_limit=limit)
    with bare.refuses("InvalidInstanceID.NotFound"):
        modify(bare, f"i-{UNKNOWN}", http_tokens="required")
    create_tags(bare.cloud, ROOT, [instance_id], {"a/b": ""})
    with bare.refuses("InvalidParameterValue", "a/b"):
        modify(bare, instance_id, instance_metadata_tags="enabled")


def test_enforced_tokens_stay(bare: BareCloud) -> None:
    instance_id = bare.run_in(RUNNING).id
    modify_defaults(bare, http_tokens_enforced="enabled")
    with bare.refuses("UnsupportedOperation"):
        modify(bare, instance_id, http_tokens="optional")
    modify(bare, instance_id, http_put_response_hop_limit=2)


def test_tags_that_a_guest_sees_wake_its_controller(bare: BareCloud) -> None:
    sees = bare.run_in(RUNNING, metadata=MetadataRequest(instance_metadata_tags="enabled")).id
    does_not = bare.run_in(RUNNING).id
    create_tags(bare.cloud, ROOT, [does_not], {"Name": "two"})
    assert bare.woken == []
    create_tags(bare.cloud, ROOT, [sees, does_not], {"Name": "one"})
    assert bare.woken == [frozenset({sees})]
    delete_tags(bare.cloud, ROOT, [sees, does_not], [("Name", None)])
    assert bare.woken == [frozenset({sees})] * 2


def test_defaults_belong_to_an_account_and_a_region(bare: BareCloud) -> None:
    assert metadata_options.get_metadata_defaults(bare.cloud, ROOT) == NONE
    modify_defaults(bare, http_tokens="required", http_put_response_hop_limit=2)
    modify_defaults(bare, instance_metadata_tags="enabled")
    assert metadata_options.get_metadata_defaults(bare.cloud, ROOT) == MetadataDefaults(
        ROOT.account_id, ROOT.region, None, "required", 2, "enabled"
    )
    assert metadata_options.get_metadata_defaults(bare.cloud, OTHER) == MetadataDefaults(OTHER.account_id, OTHER.region)
    modify_defaults(bare, http_tokens="no-preference", http_put_response_hop_limit=-1)
    assert metadata_options.get_metadata_defaults(bare.cloud, ROOT) == MetadataDefaults(
        ROOT.account_id, ROOT.region, instance_metadata_tags="enabled"
    )
    for limit in (-2, 0, 65):
        with bare.refuses("InvalidParameterValue"):
            modify_defaults(bare, http_put_response_hop_limit=limit)
