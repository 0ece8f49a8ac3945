"""ImportSnapshot and ImportImage: rows and task at once, content later."""

from __future__ import annotations

from typing import Any

import pytest
from support.bare_cloud import OTHER, ROOT, UNKNOWN, BareCloud

from minicloud.cloud import imports
from minicloud.cloud.imports import DiskSource, ImportRequest
from minicloud.model.resources import BlockDevice
from minicloud.model.states import ImageState, ImportTaskState, SnapshotState

SOURCE = DiskSource("file:///disks/a.qcow2", "/disks/real.qcow2", 12345, False)


def wanted(**changes: Any) -> ImportRequest:
    return ImportRequest(**{"url": SOURCE.url, "format": "QCOW2", **changes})


def of_snapshot(bare: BareCloud, **changes: Any) -> imports.ImportView:
    return imports.import_snapshot(bare.cloud, ROOT, wanted(**changes), lambda _: SOURCE)


def of_image(bare: BareCloud, boot_mode: str | None = None, **changes: Any) -> imports.ImportView:
    return imports.import_image(bare.cloud, ROOT, wanted(**changes), lambda _: SOURCE, "x86_64", boot_mode)


def test_a_snapshot_import_has_a_task_and_a_pending_snapshot(bare: BareCloud) -> None:
    with bare.one_transaction():
        view = of_snapshot(bare, tags={"import-snapshot-task": {"a": "1"}})
    task = view.task
    assert task.id.startswith("import-snap-")
    assert (task.kind, task.state, task.status_message, task.progress_percent) == (
        "snapshot", ImportTaskState.ACTIVE, "pending", 0,
    )  # fmt: skip
    assert (task.url, task.path, task.format, task.disk_image_size_bytes) == (
        "file:///disks/a.qcow2", "/disks/real.qcow2", "qcow2", 12345,
    )  # fmt: skip
    assert (task.image_id, task.remove_source) == (None, False)
    assert view.tags == bare.tags(task.id) == {"a": "1"}
    snapshot, durable, images = bare.store.read(
        lambda tx: (tx.snapshots.get(task.snapshot_id), tx.tasks.get(task.id), tx.images.count())
    )
    assert snapshot is not None
    assert (snapshot.state, snapshot.size_gib, snapshot.manifest_digest) == (SnapshotState.PENDING, 0, None)
    assert snapshot.description == f"Created by AWS-VMImport service for {task.id}"
    assert durable is not None
    assert (durable.kind, durable.step) == ("import", "start")
    assert bare.woken == [frozenset({task.id})]
    assert images == 1


@pytest.mark.parametrize(("boot_mode", "of_the_image"), [(None, "legacy-bios"), ("uefi", "uefi")])
def test_an_image_import_has_a_pending_image_called_as_its_task(
    bare: BareCloud, boot_mode: str | None, of_the_image: str
) -> None:
    with bare.one_transaction():
        task = of_image(bare, boot_mode, description="web").task
    assert task.id.startswith("import-ami-")
    assert task.boot_mode == boot_mode
    image, snapshot = bare.store.read(
        lambda tx: (tx.images.get(str(task.image_id)), tx.snapshots.get(task.snapshot_id))
    )
    assert image is not None
    assert snapshot is not None
    assert (image.name, image.state, image.description, image.boot_mode) == (
        task.id, ImageState.PENDING, "web", of_the_image,
    )  # fmt: skip
    assert image.root_device_name == "/dev/sda1"
    assert image.block_devices == (BlockDevice("/dev/sda1", snapshot.id),)
    assert snapshot.description == "web"
    with bare.refuses("InvalidAMIID.Unavailable"):
        bare.run(image_id=image.id)


@pytest.mark.parametrize("start", [of_snapshot, of_image])
@pytest.mark.parametrize("format_", ["vmdk", "VHD", "", "qcow", "raw\n"])
def test_other_formats_are_refused(bare: BareCloud, start: Any, format_: str) -> None:
    with bare.refuses("InvalidParameterValue", "only qcow2 and raw are"):
        start(bare, format=format_)


def test_other_architectures_are_refused(bare: BareCloud) -> None:
    with bare.refuses("UnsupportedOperation", "arm64"):
        imports.import_image(bare.cloud, ROOT, wanted(), lambda _: SOURCE, "arm64", None)


@pytest.mark.parametrize(
    ("start", "right", "wrong"),
    [
        (of_snapshot, "import-snapshot-task", "import-image-task"),
        (of_image, "import-image-task", "import-snapshot-task"),
    ],
)
def test_tags_are_of_the_task(bare: BareCloud, start: Any, right: str, wrong: str) -> None:
    assert start(bare, tags={right: {"a": "1"}}).tags == {"a": "1"}
    with bare.refuses("InvalidParameterValue", f"'{wrong}' is not a valid taggable"):
        start(bare, tags={wrong: {"a": "1"}})


def test_tasks_are_described_by_kind(bare: BareCloud) -> None:
    snapshot, image = of_snapshot(bare), of_image(bare)
    with bare.one_transaction():
        assert imports.describe_import_snapshot_tasks(bare.cloud, ROOT, []).items == [snapshot]
    assert imports.describe_import_image_tasks(bare.cloud, ROOT, []).items == [image]
    assert imports.describe_import_snapshot_tasks(bare.cloud, ROOT, [snapshot.task.id]).items == [snapshot]
    assert imports.describe_import_snapshot_tasks(bare.cloud, OTHER, []).items == []


@pytest.mark.parametrize(
    ("describe", "prefix"),
    [
        (imports.describe_import_snapshot_tasks, "import-snap"),
        (imports.describe_import_image_tasks, "import-ami"),
    ],
)
def test_unknown_tasks(bare: BareCloud, describe: Any, prefix: str) -> None:
    theirs = {"import-snap": of_snapshot, "import-ami": of_image}[prefix](bare).task.id
    other_kind = {"import-snap": of_image, "import-ami": of_snapshot}[prefix](bare).task.id
    with bare.refuses("InvalidConversionTaskId", UNKNOWN):
        describe(bare.cloud, ROOT, [f"{prefix}-{UNKNOWN}"])
    with bare.refuses("InvalidConversionTaskId"):
        describe(bare.cloud, OTHER, [theirs])
    for malformed in (other_kind, "nonsense"):
        with bare.refuses("InvalidConversionTaskId.Malformed"):
            describe(bare.cloud, ROOT, [malformed])


def test_the_spool_keeps_what_an_import_still_needs(bare: BareCloud) -> None:
    upload = DiskSource("file:///spool/one", "/spool/one", 1, True)
    task = imports.import_image(bare.cloud, ROOT, wanted(url=upload.url), lambda _: upload, "x86_64", None).task
    of_image(bare)
    assert imports.spool_paths_in_use(bare.cloud) == {"/spool/one"}
    bare.store.write(lambda tx: tx.import_tasks.update(task.id, state=ImportTaskState.COMPLETED))
    assert imports.spool_paths_in_use(bare.cloud) == set()
