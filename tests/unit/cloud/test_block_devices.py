"""Which disks an instance gets: EC2's rules of block device mappings and of EBS volumes."""

from __future__ import annotations

from typing import Any

import pytest
from support import rows as make
from support.bare_cloud import ROOT_DEVICE, SNAPSHOT_ID

from minicloud.cloud.block_devices import (
    DeviceRequest,
    LaunchDisks,
    choose_disks,
    choose_volume,
    device_letter,
    merge_mappings,
)
from minicloud.errors import ApiError
from minicloud.model.resources import BlockDevice, EphemeralDisk, InstanceType

MIB = 1024**2
OTHER_SNAPSHOT = make.number("snap", 2)
SNAPSHOTS = {SNAPSHOT_ID: make.snapshot(1, size_gib=8), OTHER_SNAPSHOT: make.snapshot(2, size_gib=20)}
IMAGE = (
    BlockDevice(ROOT_DEVICE, SNAPSHOT_ID, 8),
    BlockDevice("/dev/sdf", OTHER_SNAPSHOT, 20, volume_type="io1", iops=500, delete_on_termination=False),
    BlockDevice("/dev/sdb", virtual_name="ephemeral0"),
)
PLAIN = InstanceType("plain", 2, 512)
STORE = InstanceType("store", 2, 512, instance_store_gb=(75, 50))


def ask(device_name: str | None, **changes: Any) -> DeviceRequest:
    return DeviceRequest(device_name=device_name, **changes)


def merged(*requested: DeviceRequest, image: tuple[BlockDevice, ...] = IMAGE) -> dict[str, DeviceRequest]:
    return {str(one.device_name): one for one in merge_mappings(ROOT_DEVICE, image, requested)}


def disks(
    *requested: DeviceRequest, type_: InstanceType = PLAIN, image: tuple[BlockDevice, ...] = IMAGE
) -> LaunchDisks:
    return choose_disks(ROOT_DEVICE, merge_mappings(ROOT_DEVICE, image, requested), type_, SNAPSHOTS)


def refused(code: str, message: str) -> Any:
    return pytest.raises(ApiError, match=f"(?s)^{code}: .*{message}")


# Device names


@pytest.mark.parametrize(
    ("name", "letter"),
    [
        ("/dev/sda1", "a"), ("/dev/sda", "a"), ("/dev/xvda", "a"), ("xvdb", "b"), ("sdf", "f"), ("/dev/sdz15", "z"),
        ("/dev/vdc", "c"), ("/dev/hdd", "d"), ("/dev/xvdba", "ba"), ("/dev/xvdcz", "cz"),
    ],
)  # fmt: skip
def test_device_names(name: str, letter: str) -> None:
    assert device_letter(name) == letter


@pytest.mark.parametrize(
    "name",
    ["", "/dev/", "/dev/nvme0n1", "/dev/sda16", "/dev/sda0", "/dev/sdaa", "/dev/sdA", "../sda", "/dev/sdb\n", "sd"],
)
def test_other_names_are_refused(name: str) -> None:
    with refused("InvalidParameterValue", "is not a valid EBS device name"):
        device_letter(name)


# The image's mapping and the caller's over it


def test_without_requests_the_image_decides() -> None:
    found = merged()
    assert list(found) == [ROOT_DEVICE, "/dev/sdf", "/dev/sdb"]
    assert found["/dev/sdf"] == ask(
        "/dev/sdf",
        snapshot_id=OTHER_SNAPSHOT,
        size_gib=20,
        volume_type="io1",
        iops=500,
        delete_on_termination=False,
    )
    assert found["/dev/sdb"] == ask("/dev/sdb", virtual_name="ephemeral0")


@pytest.mark.parametrize(
    "change",
    [{"size_gib": 30}, {"delete_on_termination": False}, {"encrypted": False}, {"iops": 600}],
    ids=lambda change: next(iter(change)),
)
def test_a_setting_changes_that_setting_alone(change: dict[str, Any]) -> None:
    before = merged()["/dev/sdf"]
    after = merged(ask("/dev/sdf", **change))["/dev/sdf"]
    for name in before.__slots__:
        assert getattr(after, name) == change.get(name, getattr(before, name))


def test_another_volume_type_drops_the_first_ones_settings() -> None:
    after = merged(ask("/dev/sdf", volume_type="gp2"))["/dev/sdf"]
    assert (after.volume_type, after.iops, after.size_gib) == ("gp2", None, 20)


def test_the_same_volume_type_keeps_them() -> None:
    assert merged(ask("/dev/sdf", volume_type="io1"))["/dev/sdf"].iops == 500


def test_another_snapshot_is_another_volume() -> None:
    after = merged(ask("/dev/sdf", snapshot_id=SNAPSHOT_ID))["/dev/sdf"]
    assert after == ask("/dev/sdf", snapshot_id=SNAPSHOT_ID)


def test_the_same_snapshot_is_the_same_volume() -> None:
    assert merged(ask("/dev/sdf", snapshot_id=OTHER_SNAPSHOT))["/dev/sdf"].iops == 500


def test_devices_are_added_and_suppressed() -> None:
    found = merged(ask("/dev/sdf", no_device=True), ask("/dev/sdg", size_gib=5), ask("/dev/sdh", no_device=True))
    assert list(found) == [ROOT_DEVICE, "/dev/sdb", "/dev/sdg"]


def test_a_volume_may_take_an_instance_stores_name_and_the_other_way_round() -> None:
    found = merged(ask("/dev/sdb", size_gib=5), ask("/dev/sdf", virtual_name="ephemeral1"))
    assert found["/dev/sdb"] == ask("/dev/sdb", size_gib=5)
    assert found["/dev/sdf"] == ask("/dev/sdf", virtual_name="ephemeral1")


def test_a_suppression_in_the_image_is_no_device() -> None:
    assert list(merged(image=(IMAGE[0], BlockDevice("/dev/sdc", no_device=True)))) == [ROOT_DEVICE]


@pytest.mark.parametrize(
    ("requested", "code", "message"),
    [
        ([ask(None, size_gib=1)], "MissingParameter", "deviceName"),
        ([ask("/dev/nope", size_gib=1)], "InvalidParameterValue", "/dev/nope"),
        ([ask("/dev/sdg")], "InvalidBlockDeviceMapping", "names no device"),
        (
            [ask("/dev/sdg", size_gib=1), ask("/dev/sdg", size_gib=2)],
            "InvalidBlockDeviceMapping",
            "more than one block-device mapping",
        ),
        ([ask("/dev/sdg", size_gib=1, no_device=True)], "InvalidBlockDeviceMapping", "must be one of"),
        ([ask("/dev/sdg", size_gib=1, virtual_name="ephemeral0")], "InvalidBlockDeviceMapping", "must be one of"),
        ([ask("/dev/sdg", no_device=True, virtual_name="ephemeral0")], "InvalidBlockDeviceMapping", "must be one of"),
        ([ask(ROOT_DEVICE, snapshot_id=OTHER_SNAPSHOT)], "InvalidBlockDeviceMapping", "root device cannot be changed"),
        ([ask("/dev/sdg", size_gib=1), ask("/dev/xvdg", size_gib=1)], "InvalidBlockDeviceMapping", "the same device"),
        ([ask("/dev/sda1", size_gib=1)], "InvalidBlockDeviceMapping", "the same device"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mappings_that_cannot_be(requested: list[DeviceRequest], code: str, message: str) -> None:
    with refused(code, message):
        merged(*requested)


# The disks


def test_the_root_is_first_and_the_others_follow_by_name() -> None:
    found = disks(ask("/dev/xvdba", size_gib=1), ask("/dev/sdg", size_gib=1), ask("/dev/sdc", size_gib=1))
    assert [(one.device_name, one.pci_slot) for one in found.volumes] == [
        (ROOT_DEVICE, 1),
        ("/dev/sdf", 3),
        ("/dev/xvdba", 5),
        ("/dev/sdg", 4),
        ("/dev/sdc", 2),
    ]


def test_root_volume_of_the_image() -> None:
    root = disks(ask(ROOT_DEVICE, size_gib=10)).volumes[0]
    assert (root.snapshot_id, root.size_gib, root.volume_type, root.delete_on_termination) == (
        SNAPSHOT_ID,
        10,
        "gp3",
        True,
    )


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (ask(ROOT_DEVICE, no_device=True), "must be an EBS volume"),
        (ask(ROOT_DEVICE, virtual_name="ephemeral0"), "must be an EBS volume"),
    ],
)
def test_the_root_is_an_ebs_volume(requested: DeviceRequest, message: str) -> None:
    with refused("InvalidBlockDeviceMapping", message):
        disks(requested, type_=STORE)


def test_the_root_has_a_snapshot() -> None:
    with refused("InvalidBlockDeviceMapping", "must have a snapshot"):
        disks(image=(BlockDevice(ROOT_DEVICE, None, 8),))


def test_instance_store_comes_with_the_type_mapped_or_not() -> None:
    """Sizes are whole MiB: QEMU cannot open a disk that ends within a block of its file system."""
    found = disks(type_=STORE)
    # sdb is the image's choice for ephemeral0; ephemeral1 gets the next free letter.
    assert found.ephemeral == (
        EphemeralDisk("ephemeral0", "/dev/sdb", 71526 * MIB, 2),
        EphemeralDisk("ephemeral1", "/dev/sdc", 47684 * MIB, 3),
    )
    assert [(one.device_name, one.pci_slot) for one in found.volumes] == [(ROOT_DEVICE, 1), ("/dev/sdf", 4)]


def test_a_mapping_names_an_instance_store_disk() -> None:
    found = disks(ask("/dev/sdb", no_device=True), ask("/dev/sdk", virtual_name="ephemeral1"), type_=STORE, image=IMAGE)
    assert {one.virtual_name: one.device_name for one in found.ephemeral} == {
        "ephemeral0": "/dev/sdb",
        "ephemeral1": "/dev/sdk",
    }


def test_instance_store_avoids_the_letters_of_volumes() -> None:
    found = disks(ask("/dev/sdb", size_gib=1), ask("/dev/xvdc", size_gib=1), type_=STORE, image=(IMAGE[0],))
    assert [one.device_name for one in found.ephemeral] == ["/dev/sdd", "/dev/sde"]


def test_a_mapping_beyond_what_the_type_has_is_ignored() -> None:
    found = disks(ask("/dev/sdc", virtual_name="ephemeral7"))
    assert found.ephemeral == ()
    assert [one.device_name for one in found.volumes] == [ROOT_DEVICE, "/dev/sdf"]


@pytest.mark.parametrize("name", ["ephemeral", "ephemeralx", "ephemeral100", "Ephemeral0", "scratch0", ""])
def test_bad_virtual_names(name: str) -> None:
    with refused("InvalidBlockDeviceMapping", "is not a virtual device name"):
        disks(ask("/dev/sdc", virtual_name=name))


def test_an_instance_store_disk_is_mapped_once() -> None:
    with refused("InvalidBlockDeviceMapping", "'ephemeral0' is mapped more than once"):
        disks(ask("/dev/sdc", virtual_name="ephemeral0"), type_=STORE)


def test_at_most_sixteen_volumes_besides_the_root() -> None:
    many = [ask(f"/dev/sd{letter}", size_gib=1) for letter in "bcdefghijklmnopqr"]
    assert len(disks(*many[:16], image=IMAGE[:1]).volumes) == 17
    with refused("AttachmentLimitExceeded", "16 volumes"):
        disks(*many, image=IMAGE[:1])


def test_the_most_disks_there_can_be_all_have_names_and_slots() -> None:
    type_ = InstanceType("most", 2, 512, instance_store_gb=(1,) * 8)
    many = [ask(f"/dev/sd{letter}", size_gib=1) for letter in "bcdefghijklmnopq"]
    found = disks(*many, type_=type_, image=IMAGE[:1])
    slots = [one.pci_slot for one in (*found.volumes, *found.ephemeral)]
    names = {one.device_name for one in (*found.volumes, *found.ephemeral)}
    assert sorted(slots) == list(range(1, 26))
    assert len(names) == 25


# Volumes


def volume(**changes: Any) -> Any:
    return choose_volume(ask("/dev/sdf", **changes), 2, SNAPSHOTS)


def test_defaults_of_a_volume() -> None:
    made = volume(snapshot_id=OTHER_SNAPSHOT)
    assert (made.size_gib, made.volume_type, made.iops, made.throughput_mibps) == (20, "gp3", None, None)
    assert made.delete_on_termination is True
    assert volume(size_gib=1, delete_on_termination=False).delete_on_termination is False


LARGEST = {"gp3": 65536, "gp2": 16384, "io1": 16384, "io2": 65536, "st1": 16384, "sc1": 16384, "standard": 1024}
SMALLEST = {"gp3": 1, "gp2": 1, "io1": 4, "io2": 4, "st1": 125, "sc1": 125, "standard": 1}


@pytest.mark.parametrize("volume_type", LARGEST)
def test_every_type_has_its_sizes(volume_type: str) -> None:
    required = {"iops": 100} if volume_type.startswith("io") else {}
    for size_gib in (SMALLEST[volume_type], LARGEST[volume_type]):
        assert volume(volume_type=volume_type, size_gib=size_gib, **required).size_gib == size_gib
    for size_gib in (SMALLEST[volume_type] - 1, LARGEST[volume_type] + 1, 0, -1):
        with refused("InvalidParameterValue", f"Volume of {size_gib}GiB is invalid"):
            volume(volume_type=volume_type, size_gib=size_gib, **required)


@pytest.mark.parametrize(
    "settings",
    [
        {"volume_type": "gp3", "size_gib": 1, "iops": 3000},
        {"volume_type": "gp3", "size_gib": 8, "iops": 4000},
        {"volume_type": "gp3", "size_gib": 200, "iops": 80000, "throughput_mibps": 2000},
        {"volume_type": "gp3", "size_gib": 1, "throughput_mibps": 125},
        {"volume_type": "gp3", "size_gib": 1, "throughput_mibps": 750},
        {"volume_type": "io1", "size_gib": 4, "iops": 200},
        {"volume_type": "io1", "size_gib": 1280, "iops": 64000},
        {"volume_type": "io2", "size_gib": 256, "iops": 256000},
    ],
    ids=str,
)
def test_settings_at_their_bounds(settings: dict[str, Any]) -> None:
    made = volume(**settings)
    assert (made.iops, made.throughput_mibps) == (settings.get("iops"), settings.get("throughput_mibps"))


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({}, "MissingParameter", "size or snapshotId"),
        ({"volume_type": "gp3"}, "MissingParameter", "size or snapshotId"),
        ({"size_gib": 1, "volume_type": "nvme"}, "InvalidParameterValue", "for parameter volumeType is invalid"),
        (
            {"snapshot_id": OTHER_SNAPSHOT, "size_gib": 19},
            "InvalidBlockDeviceMapping",
            f"Volume of size 19GB is smaller than snapshot '{OTHER_SNAPSHOT}', expect size >= 20GB",
        ),
        ({"size_gib": 1, "encrypted": True}, "UnsupportedOperation", "Encrypted"),
        ({"size_gib": 4, "volume_type": "io1"}, "MissingParameter", "iops must be specified for io1"),
        ({"size_gib": 4, "volume_type": "io2"}, "MissingParameter", "iops must be specified for io2"),
        ({"size_gib": 4, "volume_type": "io1", "iops": 99}, "InvalidParameterValue", "expecting 100 to 64000"),
        ({"size_gib": 9999, "volume_type": "io1", "iops": 64001}, "InvalidParameterValue", "expecting 100 to 64000"),
        ({"size_gib": 9999, "volume_type": "io2", "iops": 256001}, "InvalidParameterValue", "expecting 100 to 256000"),
        ({"size_gib": 4, "iops": 2999}, "InvalidParameterValue", "expecting 3000 to 80000"),
        ({"size_gib": 4, "iops": 80001}, "InvalidParameterValue", "expecting 3000 to 80000"),
        ({"size_gib": 4, "throughput_mibps": 124}, "InvalidParameterValue", "expecting 125 to 2000"),
        ({"size_gib": 4, "throughput_mibps": 2001}, "InvalidParameterValue", "expecting 125 to 2000"),
        ({"size_gib": 4, "volume_type": "gp2", "iops": 100}, "InvalidParameterCombination", "iops is not supported"),
        (
            {"size_gib": 4, "volume_type": "gp2", "throughput_mibps": 125},
            "InvalidParameterCombination",
            "throughput is not supported for gp2",
        ),
        (
            {"size_gib": 4, "volume_type": "io1", "iops": 100, "throughput_mibps": 125},
            "InvalidParameterCombination",
            "throughput is not supported for io1",
        ),
        (
            {"size_gib": 20, "iops": 15000},
            "InvalidParameterValue",
            "Iops to volume size ratio of 750.000000 is too high; maximum is 500",
        ),
        ({"size_gib": 4, "volume_type": "io1", "iops": 201}, "InvalidParameterValue", "maximum is 50"),
        ({"size_gib": 4, "volume_type": "io2", "iops": 4001}, "InvalidParameterValue", "maximum is 1000"),
        (
            {"size_gib": 4, "throughput_mibps": 1000},
            "InvalidParameterValue",
            r"Throughput \(MiBps\) to iops ratio of 0.333333 is too high; maximum is 0.250000 MiBps per iops.",
        ),
    ],
    ids=str,
)
def test_volumes_that_cannot_be(settings: dict[str, Any], code: str, message: str) -> None:
    with refused(code, message):
        volume(**settings)
