"""AMIs: registered, copied, shared, described, deregistered."""

from __future__ import annotations

from typing import Any

import pytest
from support import rows as make
from support.bare_cloud import IMAGE_ID, OTHER, ROOT, ROOT_DEVICE, SNAPSHOT_ID, UNKNOWN, BareCloud

from minicloud.cloud import bootstrap, images, tags, zones
from minicloud.cloud.block_devices import DeviceRequest
from minicloud.cloud.context import Caller
from minicloud.cloud.images import CopyRequest, LaunchPermissions, RegisterRequest
from minicloud.model.resources import BlockDevice, Image
from minicloud.model.states import ImageState, SnapshotState

NOBODY = LaunchPermissions(False, ())
EVERYBODY = LaunchPermissions(True, ())
ELSEWHERE = Caller(ROOT.account_id, "lab-2")


def registration(**changes: Any) -> RegisterRequest:
    root = DeviceRequest(ROOT_DEVICE, snapshot_id=SNAPSHOT_ID)
    return RegisterRequest(**{"name": "mine", "root_device_name": ROOT_DEVICE, "block_devices": (root,), **changes})


def register(bare: BareCloud, caller: Caller = ROOT, **changes: Any) -> Image:
    return images.register_image(bare.cloud, caller, registration(**changes))


def copy(bare: BareCloud, caller: Caller = ROOT, **changes: Any) -> Image:
    wanted = {"name": "second", "source_image_id": IMAGE_ID, "source_region": "lab-1", **changes}
    return images.copy_image(bare.cloud, caller, CopyRequest(**wanted))


def share(bare: BareCloud, *accounts: str) -> None:
    images.modify_launch_permissions(bare.cloud, ROOT, IMAGE_ID, LaunchPermissions(False, accounts), NOBODY)


def seen(bare: BareCloud, caller: Caller, *ids: str, owners: Any = (), executable_by: Any = ()) -> list[str]:
    with bare.one_transaction():
        views = images.describe_images(bare.cloud, caller, ids, owners, executable_by).items
    return [view.image.id for view in views]


# RegisterImage


def test_an_image_is_made_of_a_snapshot(bare: BareCloud) -> None:
    with bare.one_transaction():
        image = register(bare, description="web", boot_mode="uefi", imds_support="v2.0", ena_support=True)
    assert (image.state, image.name, image.description) == (ImageState.AVAILABLE, "mine", "web")
    assert (image.boot_mode, image.imds_support, image.ena_support, image.architecture) == (
        "uefi", "v2.0", True, "x86_64",
    )  # fmt: skip
    assert (image.public, image.allowed_account_ids) == (False, ())
    # The size is the snapshot's.
    assert image.block_devices == (BlockDevice(ROOT_DEVICE, SNAPSHOT_ID, 8),)
    (view,) = images.describe_images(bare.cloud, ROOT, [image.id], [], []).items
    assert (view.image, view.snapshot_sizes_gib) == (image, {SNAPSHOT_ID: 8})


def test_an_image_maps_more_than_its_root(bare: BareCloud) -> None:
    image = register(
        bare,
        block_devices=(
            DeviceRequest(ROOT_DEVICE, snapshot_id=SNAPSHOT_ID, size_gib=20, delete_on_termination=False),
            DeviceRequest("/dev/sdf", size_gib=5, volume_type="io1", iops=100),
            DeviceRequest("/dev/sdb", virtual_name="ephemeral0"),
            DeviceRequest("/dev/sdc", no_device=True),
        ),
    )
    assert image.block_devices == (
        BlockDevice(ROOT_DEVICE, SNAPSHOT_ID, 20, delete_on_termination=False),
        BlockDevice("/dev/sdf", None, 5, "io1", iops=100),
        BlockDevice("/dev/sdb", virtual_name="ephemeral0"),
    )
    view = bare.run_one(image_id=image.id)
    assert [volume.size_gib for _, volume in view.attachments] == [20, 5]


@pytest.mark.parametrize("name", ["abc", "x" * 128, "a ()[]./-'@_Z9"])
def test_names(bare: BareCloud, name: str) -> None:
    assert register(bare, name=name).name == name


@pytest.mark.parametrize("name", ["", "ab", "x" * 129, "a:b", "a\nb", "äöü", "abc\n", "a*b"])
def test_bad_names(bare: BareCloud, name: str) -> None:
    with bare.refuses("InvalidAMIName.Malformed", "between 3 and 128 characters"):
        register(bare, name=name)
    with bare.refuses("InvalidAMIName.Malformed"):
        copy(bare, name=name)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"root_device_name": None}, "MissingParameter", "RootDeviceName"),
        ({"root_device_name": "/dev/nope"}, "InvalidParameterValue", "is not a valid EBS device name"),
        ({"root_device_name": "/dev/sda1"}, "InvalidBlockDeviceMapping", "'/dev/sda1' must be mapped to a snapshot"),
        ({"block_devices": ()}, "InvalidBlockDeviceMapping", "must be mapped to a snapshot"),
        (
            {"block_devices": (DeviceRequest(ROOT_DEVICE, size_gib=1),)},
            "InvalidBlockDeviceMapping",
            "must be mapped to a snapshot",
        ),
        (
            {"block_devices": (DeviceRequest(ROOT_DEVICE, virtual_name="ephemeral0"),)},
            "InvalidBlockDeviceMapping",
            "must be mapped to a snapshot",
        ),
        (
            {"block_devices": (DeviceRequest(ROOT_DEVICE, snapshot_id=f"snap-{UNKNOWN}"),)},
            "InvalidSnapshot.NotFound",
            f"The snapshot 'snap-{UNKNOWN}' does not exist.",
        ),
        ({"block_devices": (DeviceRequest(ROOT_DEVICE, snapshot_id="snap-1"),)}, "InvalidSnapshotID.Malformed", ""),
        (
            {"block_devices": (DeviceRequest(ROOT_DEVICE, snapshot_id=SNAPSHOT_ID, size_gib=7),)},
            "InvalidBlockDeviceMapping",
            "expect size >= 8GB",
        ),
        (
            {
                "block_devices": (
                    DeviceRequest(ROOT_DEVICE, snapshot_id=SNAPSHOT_ID),
                    DeviceRequest("/dev/sdb", virtual_name="floppy"),
                )
            },
            "InvalidBlockDeviceMapping",
            "is not a virtual device name",
        ),
        ({"architecture": "arm64"}, "UnsupportedOperation", "'arm64' is not supported"),
        ({"description": "x" * 256}, "InvalidParameterValue", "at most 255"),
        ({"tags": {"snapshot": {"a": "1"}}}, "InvalidParameterValue", "'snapshot' is not a valid taggable"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_images_that_cannot_be(bare: BareCloud, changes: dict[str, Any], code: str, message: str) -> None:
    with bare.refuses(code, message):
        register(bare, **changes)


@pytest.mark.parametrize("state", [SnapshotState.PENDING, SnapshotState.ERROR])
def test_a_snapshot_must_be_completed(bare: BareCloud, state: SnapshotState) -> None:
    bare.add_snapshot(5, state=state)
    with bare.refuses("IncorrectState", f"is not completed: it is {state.value}."):
        register(bare, block_devices=(DeviceRequest(ROOT_DEVICE, snapshot_id=make.number("snap", 5)),))


@pytest.mark.parametrize("of", [{"account_id": OTHER.account_id}, {"region": "lab-2"}], ids=str)
def test_a_snapshot_must_be_ones_own(bare: BareCloud, of: dict[str, str]) -> None:
    bare.add_snapshot(5, **of)
    with bare.refuses("InvalidSnapshot.NotFound"):
        register(bare, block_devices=(DeviceRequest(ROOT_DEVICE, snapshot_id=make.number("snap", 5)),))


@pytest.mark.parametrize("again", [register, copy])
def test_a_name_is_one_images(bare: BareCloud, again: Any) -> None:
    first = register(bare, name="mine")
    with bare.refuses("InvalidAMIName.Duplicate", f"AMI name mine is already in use by AMI {first.id}"):
        again(bare, name="mine")
    images.deregister_image(bare.cloud, ROOT, first.id)
    assert again(bare, name="mine").name == "mine"


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"state": ImageState.PENDING}, True),
        ({"state": ImageState.FAILED}, False),
        ({"account_id": OTHER.account_id}, False),
        ({"region": "lab-2"}, False),
    ],
    ids=str,
)
def test_whose_names_are_taken(bare: BareCloud, changes: dict[str, Any], taken: bool) -> None:
    bare.add_image(5, name="mine", **changes)
    if taken:
        with bare.refuses("InvalidAMIName.Duplicate"):
            register(bare)
    else:
        assert register(bare).name == "mine"


def test_an_image_is_registered_with_tags(bare: BareCloud) -> None:
    image = register(bare, tags={"image": {"Name": "x"}})
    assert bare.tags(image.id) == {"Name": "x"}


# CopyImage


def test_a_copy_has_snapshots_of_its_own_and_the_same_blocks(bare: BareCloud) -> None:
    with bare.one_transaction():
        made = copy(bare, tags={"image": {"a": "1"}, "snapshot": {"b": "2"}})
    assert (made.name, made.source_image_id, made.source_region, made.state) == (
        "second", IMAGE_ID, "lab-1", ImageState.PENDING,
    )  # fmt: skip
    (device,) = made.block_devices
    assert device.snapshot_id is not None
    old, new = bare.store.read(lambda tx: (tx.snapshots.get(SNAPSHOT_ID), tx.snapshots.get(device.snapshot_id)))
    assert new.id != old.id
    assert (new.manifest_digest, new.size_gib, new.virtual_size_bytes) == (
        old.manifest_digest, old.size_gib, old.virtual_size_bytes,
    )  # fmt: skip
    assert new.description == (
        f"Copied for DestinationAmi {made.id} from SourceAmi {IMAGE_ID} for SourceSnapshot {SNAPSHOT_ID}."
    )
    assert (bare.tags(made.id), bare.tags(new.id)) == ({"a": "1"}, {"b": "2"})
    task = bare.store.read(lambda tx: tx.tasks.get(made.id))
    assert (task.kind, task.step, task.facts) == ("image_copy", "copy", {"sources": {new.id: SNAPSHOT_ID}})


def test_a_copy_outlives_its_source(bare: BareCloud) -> None:
    made = copy(bare)
    (device,) = made.block_devices
    assert device.snapshot_id is not None
    bare.store.write(lambda tx: tx.images.update(made.id, state=ImageState.AVAILABLE))
    bare.store.write(lambda tx: tx.snapshots.update(device.snapshot_id, state=SnapshotState.COMPLETED))
    images.deregister_image(bare.cloud, ROOT, IMAGE_ID)
    assert bare.run_one(image_id=made.id).attachments[0][1].snapshot_id == device.snapshot_id


def test_a_copy_is_private_and_the_copiers(bare: BareCloud) -> None:
    images.modify_launch_permissions(bare.cloud, ROOT, IMAGE_ID, LaunchPermissions(True, (OTHER.account_id,)), NOBODY)
    made = copy(bare, OTHER)
    assert (made.account_id, made.public, made.allowed_account_ids) == (OTHER.account_id, False, ())
    (device,) = made.block_devices
    snapshot = bare.store.read(lambda tx: tx.snapshots.get(str(device.snapshot_id)))
    assert snapshot is not None
    assert snapshot.account_id == OTHER.account_id


def test_a_copys_description(bare: BareCloud) -> None:
    images.set_description(bare.cloud, ROOT, IMAGE_ID, "first")
    assert copy(bare, name="same").description == "first"
    assert copy(bare, name="other", description="else").description == "else"


def test_tags_are_copied_on_request(bare: BareCloud) -> None:
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {"a": "1", "b": "2"})
    assert bare.tags(copy(bare, name="plain").id) == {}
    made = copy(bare, name="tagged", copy_tags=True, tags={"image": {"b": "3", "c": "4"}})
    assert bare.tags(made.id) == {"a": "1", "b": "3", "c": "4"}


def test_another_accounts_tags_are_not_copied(bare: BareCloud) -> None:
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {"secret": "1"})
    share(bare, OTHER.account_id)
    assert bare.tags(copy(bare, OTHER, copy_tags=True).id) == {}


def test_a_copy_holds_fifty_tags(bare: BareCloud) -> None:
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {f"k{n}": "" for n in range(50)})
    with bare.refuses("TagLimitExceeded"):
        copy(bare, copy_tags=True, tags={"image": {"more": ""}})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"source_region": "us-east-1"}, "InvalidParameterValue"),
        ({"source_image_id": f"ami-{UNKNOWN}"}, "InvalidAMIID.NotFound"),
        ({"source_image_id": "ami-x"}, "InvalidAMIID.Malformed"),
        ({"description": "x" * 256}, "InvalidParameterValue"),
        ({"tags": {"volume": {}}}, "InvalidParameterValue"),
    ],
)
def test_copies_that_cannot_be(bare: BareCloud, changes: dict[str, Any], code: str) -> None:
    with bare.refuses(code):
        copy(bare, **changes)


@pytest.mark.parametrize("state", [ImageState.PENDING, ImageState.FAILED, ImageState.DEREGISTERED])
def test_only_an_available_image_is_copied_or_launched(bare: BareCloud, state: ImageState) -> None:
    image = bare.add_image(5, state=state)
    with bare.refuses("InvalidAMIID.Unavailable", state.value):
        copy(bare, source_image_id=image.id)
    with bare.refuses("InvalidAMIID.Unavailable", state.value):
        bare.run(image_id=image.id)


# Who sees and launches


def test_a_private_image_does_not_exist_for_others(bare: BareCloud) -> None:
    assert seen(bare, OTHER) == []
    with bare.refuses("InvalidAMIID.NotFound", f"The image id '[{IMAGE_ID}]' does not exist"):
        images.describe_images(bare.cloud, OTHER, [IMAGE_ID], [], [])
    for change in (
        lambda: images.deregister_image(bare.cloud, OTHER, IMAGE_ID),
        lambda: images.set_description(bare.cloud, OTHER, IMAGE_ID, "mine now"),
        lambda: copy(bare, OTHER),
        lambda: images.describe_image(bare.cloud, OTHER, IMAGE_ID),
    ):
        with bare.refuses("InvalidAMIID.NotFound"):
            change()


@pytest.mark.parametrize("permission", [EVERYBODY, LaunchPermissions(False, (OTHER.account_id,))], ids=["all", "one"])
def test_a_shared_image_is_seen_but_not_changed_by_others(bare: BareCloud, permission: LaunchPermissions) -> None:
    images.modify_launch_permissions(bare.cloud, ROOT, IMAGE_ID, permission, NOBODY)
    assert seen(bare, OTHER) == seen(bare, OTHER, IMAGE_ID) == [IMAGE_ID]
    for change in (
        lambda: images.deregister_image(bare.cloud, OTHER, IMAGE_ID),
        lambda: images.set_description(bare.cloud, OTHER, IMAGE_ID, "mine now"),
        lambda: images.describe_image(bare.cloud, OTHER, IMAGE_ID),
        lambda: images.modify_launch_permissions(bare.cloud, OTHER, IMAGE_ID, EVERYBODY, NOBODY),
        lambda: images.reset_launch_permissions(bare.cloud, OTHER, IMAGE_ID),
    ):
        with bare.refuses("AuthFailure", f"Not authorized for image:{IMAGE_ID}", 403):
            change()


def test_an_image_is_shared_without_its_tags(bare: BareCloud) -> None:
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {"secret": "1"})
    share(bare, OTHER.account_id)
    (theirs,) = images.describe_images(bare.cloud, OTHER, [IMAGE_ID], [], []).items
    (mine,) = images.describe_images(bare.cloud, ROOT, [IMAGE_ID], [], []).items
    assert (theirs.tags, mine.tags) == ({}, {"secret": "1"})


def test_images_of_another_region_do_not_exist(bare: BareCloud) -> None:
    images.modify_launch_permissions(bare.cloud, ROOT, IMAGE_ID, EVERYBODY, NOBODY)
    assert seen(bare, ELSEWHERE) == []
    with bare.refuses("InvalidAMIID.NotFound"):
        images.describe_images(bare.cloud, ELSEWHERE, [IMAGE_ID], [], [])


def test_images_are_found_by_owner_and_by_who_may_launch_them(bare: BareCloud) -> None:
    public = bare.add_image(2, account_id=OTHER.account_id, public=True, name="public").id
    shared = bare.add_image(3, account_id=OTHER.account_id, allowed_account_ids=(ROOT.account_id,), name="shared").id
    bare.add_image(4, account_id=OTHER.account_id, name="private")
    assert seen(bare, ROOT) == [IMAGE_ID, public, shared]
    assert seen(bare, ROOT, owners=["self"]) == [IMAGE_ID]
    assert seen(bare, ROOT, owners=[OTHER.account_id]) == [public, shared]
    assert seen(bare, ROOT, owners=["self", OTHER.account_id]) == [IMAGE_ID, public, shared]
    assert seen(bare, ROOT, owners=["amazon"]) == []
    assert seen(bare, ROOT, executable_by=["all"]) == [public]
    assert seen(bare, ROOT, executable_by=["self"]) == [shared]
    assert seen(bare, ROOT, executable_by=[ROOT.account_id, "all"]) == [public, shared]
    assert seen(bare, ROOT, public, owners=["self"]) == []


def test_whom_an_image_is_shared_with_is_told_to_its_owner_alone(bare: BareCloud) -> None:
    third = "100000000777"
    shared = bare.add_image(
        3, account_id=OTHER.account_id, allowed_account_ids=(ROOT.account_id, third), name="shared"
    ).id
    share(bare, third)
    assert seen(bare, OTHER, executable_by=[third]) == [shared]
    assert seen(bare, ROOT, executable_by=[third]) == [IMAGE_ID]
    assert seen(bare, ROOT, executable_by=[third, "self"]) == [IMAGE_ID, shared]


@pytest.mark.parametrize(
    ("before", "add", "remove", "after"),
    [
        (NOBODY, EVERYBODY, NOBODY, (True, ())),
        (EVERYBODY, NOBODY, EVERYBODY, (False, ())),
        (EVERYBODY, NOBODY, NOBODY, (True, ())),
        (NOBODY, LaunchPermissions(False, ("1" * 12, "2" * 12)), NOBODY, (False, ("1" * 12, "2" * 12))),
        (LaunchPermissions(False, ("1" * 12,)), LaunchPermissions(False, ("1" * 12,)), NOBODY, (False, ("1" * 12,))),
        (
            LaunchPermissions(True, ("1" * 12, "2" * 12)),
            NOBODY,
            LaunchPermissions(False, ("1" * 12, "3" * 12)),
            (True, ("2" * 12,)),
        ),
    ],
)
def test_launch_permissions(
    bare: BareCloud,
    before: LaunchPermissions,
    add: LaunchPermissions,
    remove: LaunchPermissions,
    after: tuple[bool, tuple[str, ...]],
) -> None:
    images.modify_launch_permissions(bare.cloud, ROOT, IMAGE_ID, before, NOBODY)
    with bare.one_transaction():
        images.modify_launch_permissions(bare.cloud, ROOT, IMAGE_ID, add, remove)
    image = images.describe_image(bare.cloud, ROOT, IMAGE_ID).image
    assert (image.public, image.allowed_account_ids) == after
    images.reset_launch_permissions(bare.cloud, ROOT, IMAGE_ID)
    image = images.describe_image(bare.cloud, ROOT, IMAGE_ID).image
    assert (image.public, image.allowed_account_ids) == (False, ())


@pytest.mark.parametrize(
    "account", ["", "12345678901", "1234567890123", "abcdefghijkl", "all", "１２３４５６７８９０１２"]
)
def test_permissions_are_of_accounts(bare: BareCloud, account: str) -> None:
    for add, remove in ((LaunchPermissions(False, (account,)), NOBODY), (NOBODY, LaunchPermissions(False, (account,)))):
        with bare.refuses("InvalidAMIAttributeItemValue", f'"{account}" for userId'):
            images.modify_launch_permissions(bare.cloud, ROOT, IMAGE_ID, add, remove)


def test_others_launch_a_shared_image_from_its_owners_snapshot(bare: BareCloud) -> None:
    bootstrap.ensure_region(bare.cloud, OTHER.account_id, OTHER.region)
    zones.add_zone(bare.cloud, ROOT, "lab-1c")
    bare.add_host("host-c", "lab-1c")
    with bare.refuses("InvalidAMIID.NotFound"):
        bare.run(OTHER, zone="lab-1c")
    share(bare, OTHER.account_id)
    (view,) = bare.run(OTHER, zone="lab-1c").instances
    assert view.instance.account_id == OTHER.account_id
    assert view.attachments[0][1].snapshot_id == SNAPSHOT_ID
    # But a snapshot of that owner which the image does not hold stays out of reach.
    foreign = bare.add_snapshot(9)
    with bare.refuses("InvalidSnapshot.NotFound"):
        bare.run(OTHER, zone="lab-1c", block_devices=(DeviceRequest("/dev/sdf", snapshot_id=foreign.id),))


# DeregisterImage, descriptions


def test_a_deregistered_image_is_gone_but_for_its_instances(bare: BareCloud) -> None:
    instance = bare.run_one().instance
    tags.create_tags(bare.cloud, ROOT, [IMAGE_ID], {"a": "1"})
    images.modify_launch_permissions(bare.cloud, ROOT, IMAGE_ID, EVERYBODY, NOBODY)
    with bare.one_transaction():
        images.deregister_image(bare.cloud, ROOT, IMAGE_ID)
    assert seen(bare, ROOT) == seen(bare, OTHER) == []
    assert bare.tags(IMAGE_ID) == {}
    with bare.refuses("InvalidAMIID.NotFound"):
        images.describe_images(bare.cloud, ROOT, [IMAGE_ID], [], [])
    with bare.refuses("InvalidAMIID.Unavailable"):
        bare.run()
    with bare.refuses("InvalidAMIID.Unavailable"):
        images.deregister_image(bare.cloud, ROOT, IMAGE_ID)
    assert bare.instance(instance.id).image_id == IMAGE_ID
    assert bare.store.read(lambda tx: tx.snapshots.get(SNAPSHOT_ID)) is not None


def test_an_image_under_way_cannot_be_deregistered_a_failed_one_can(bare: BareCloud) -> None:
    pending = bare.add_image(5, state=ImageState.PENDING)
    failed = bare.add_image(6, state=ImageState.FAILED)
    with bare.refuses("IncorrectState", "still being imported"):
        images.deregister_image(bare.cloud, ROOT, pending.id)
    images.deregister_image(bare.cloud, ROOT, failed.id)
    assert seen(bare, ROOT) == [IMAGE_ID, pending.id]


def test_descriptions(bare: BareCloud) -> None:
    with bare.one_transaction():
        images.set_description(bare.cloud, ROOT, IMAGE_ID, "x" * 255)
    assert images.describe_image(bare.cloud, ROOT, IMAGE_ID).image.description == "x" * 255
    with bare.refuses("InvalidParameterValue", "at most 255"):
        images.set_description(bare.cloud, ROOT, IMAGE_ID, "x" * 256)


@pytest.mark.parametrize(
    ("image_id", "code"), [("ami-1", "InvalidAMIID.Malformed"), (f"ami-{UNKNOWN}", "InvalidAMIID.NotFound")]
)
def test_bad_ids(bare: BareCloud, image_id: str, code: str) -> None:
    for call in (
        lambda: images.describe_images(bare.cloud, ROOT, [IMAGE_ID, image_id], [], []).items,
        lambda: images.deregister_image(bare.cloud, ROOT, image_id),
        lambda: images.describe_image(bare.cloud, ROOT, image_id),
        lambda: images.set_description(bare.cloud, ROOT, image_id, "x"),
        lambda: images.reset_launch_permissions(bare.cloud, ROOT, image_id),
        lambda: images.modify_launch_permissions(bare.cloud, ROOT, image_id, EVERYBODY, NOBODY),
        lambda: bare.run(image_id=image_id),
    ):
        with bare.refuses(code):
            call()
