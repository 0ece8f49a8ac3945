"""Block device mappings: merging, choosing, numbering; pure."""

from __future__ import annotations

from typing import Any

import pytest
from support import rows as make

from minicloud.cloud.block_devices import (
    ATTACH_QUOTA,
    DeviceRequest,
    choose_disks,
    choose_volume,
    device_letter,
    merge_mappings,
)
from minicloud.errors import ApiError
from minicloud.model.resources import BlockDevice, InstanceType

SNAPSHOT = make.snapshot(1, size_gib=2)
SNAPSHOTS = {SNAPSHOT.id: SNAPSHOT}
IMAGE = (BlockDevice("/dev/sda1", snapshot_id=SNAPSHOT.id),)
PLAIN = InstanceType("plain", 2, 512)
STORE = InstanceType("store", 2, 512, instance_store_gb=(75, 150))


def disks(type_: InstanceType = PLAIN, *requested: DeviceRequest, image: Any = IMAGE) -> Any:
    return choose_disks("/dev/sda1", merge_mappings("/dev/sda1", image, requested), type_, SNAPSHOTS)


def code(call: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(ApiError) as caught:
        call(*arguments, **keywords)
    return caught.value.code


@pytest.mark.parametrize(
    ("name", "letter"),
    [
        ("/dev/sda1", "a"),
        ("sdb", "b"),
        ("/dev/sdz15", "z"),
        ("/dev/xvda", "a"),
        ("xvdba", "ba"),
        ("/dev/vdb", "b"),
        ("/dev/hda", "a"),
    ],
)
def test_device_names(name: str, letter: str) -> None:
    assert device_letter(name) == letter


@pytest.mark.parametrize(
    "name", ["", "/dev/", "/dev/sd", "/dev/sdA", "/dev/sda16", "/dev/sdb\n", "/dev/sd b", "a" * 999]
)
def test_names_that_are_none(name: str) -> None:
    assert code(device_letter, name) == "InvalidParameterValue"


def test_the_root_takes_slot_one_and_its_snapshot_s_size() -> None:
    (root,) = disks().volumes
    assert (root.device_name, root.pci_slot, root.size_gib, root.volume_type) == ("/dev/sda1", 1, 2, "gp3")
    assert root.delete_on_termination is True


def test_a_caller_changes_only_what_they_name() -> None:
    image = (BlockDevice("/dev/sda1", SNAPSHOT.id, 9, "gp2", False),)
    (root,) = disks(PLAIN, DeviceRequest("/dev/sda1", size_gib=20), image=image).volumes
    assert (root.size_gib, root.volume_type, root.delete_on_termination) == (20, "gp2", False)
    (root,) = disks(PLAIN, DeviceRequest("/dev/sda1", volume_type="gp3", iops=4000), image=image).volumes
    assert (root.size_gib, root.volume_type, root.iops) == (9, "gp3", 4000)


def test_iops_of_another_type_are_forgotten() -> None:
    image = (BlockDevice("/dev/sda1", SNAPSHOT.id, 9, "io1", iops=500),)
    (root,) = disks(PLAIN, DeviceRequest("/dev/sda1", volume_type="gp2"), image=image).volumes
    assert root.iops is None


def test_disks_are_numbered_by_letter_after_the_root() -> None:
    found = disks(
        STORE,
        DeviceRequest("/dev/sdf", size_gib=1),
        DeviceRequest("/dev/sdd", virtual_name="ephemeral1"),
        DeviceRequest("/dev/xvdb", size_gib=1),
    )
    slots = {volume.device_name: volume.pci_slot for volume in found.volumes}
    assert slots == {"/dev/sda1": 1, "/dev/xvdb": 2, "/dev/sdf": 5}
    # ephemeral0, which nobody mapped, takes the first letter that is free.
    assert [(disk.virtual_name, disk.device_name, disk.pci_slot) for disk in found.ephemeral] == [
        ("ephemeral0", "/dev/sdc", 3),
        ("ephemeral1", "/dev/sdd", 4),
    ]
    assert [disk.size_bytes for disk in found.ephemeral] == [75 * 10**9, 150 * 10**9]


def test_two_letters_come_after_one() -> None:
    found = disks(PLAIN, DeviceRequest("xvdba", size_gib=1), DeviceRequest("/dev/sdz", size_gib=1))
    assert {volume.device_name: volume.pci_slot for volume in found.volumes} == {
        "/dev/sda1": 1,
        "/dev/sdz": 2,
        "xvdba": 3,
    }


def test_no_device_takes_away_what_the_image_maps() -> None:
    image = (*IMAGE, BlockDevice("/dev/sdb", size_gib=5), BlockDevice("/dev/sdc", virtual_name="ephemeral0"))
    found = disks(STORE, DeviceRequest("/dev/sdb", no_device=True), image=image)
    assert [volume.device_name for volume in found.volumes] == ["/dev/sda1"]
    assert [disk.device_name for disk in found.ephemeral] == ["/dev/sdc", "/dev/sdb"]


def test_another_snapshot_is_another_volume_but_never_the_root() -> None:
    image = (*IMAGE, BlockDevice("/dev/sdb", size_gib=50, volume_type="gp2"))
    found = disks(PLAIN, DeviceRequest("/dev/sdb", snapshot_id=SNAPSHOT.id), image=image)
    assert [(volume.size_gib, volume.volume_type) for volume in found.volumes] == [(2, "gp3"), (2, "gp3")]
    assert code(disks, PLAIN, DeviceRequest("/dev/sda1", snapshot_id="snap-2")) == "InvalidBlockDeviceMapping"


def test_as_many_as_may_be_attached_and_no_more() -> None:
    letters = "bcdefghijklmnopqrstuvwxyz"
    requests = [DeviceRequest(f"/dev/sd{letter}", size_gib=1) for letter in letters]
    assert len(disks(PLAIN, *requests[:ATTACH_QUOTA]).volumes) == ATTACH_QUOTA + 1
    assert code(disks, PLAIN, *requests[: ATTACH_QUOTA + 1]) == "AttachmentLimitExceeded"


@pytest.mark.parametrize(
    "request_",
    [
        DeviceRequest("/dev/sdb", virtual_name="ephemeral0", size_gib=1),
        DeviceRequest("/dev/sdb", no_device=True, size_gib=1),
        DeviceRequest("/dev/sdb"),
        DeviceRequest("/dev/sdb", virtual_name="ephemeral100"),
        DeviceRequest("/dev/sda1", no_device=True),
    ],
)
def test_mappings_that_contradict_themselves(request_: DeviceRequest) -> None:
    assert code(disks, STORE, request_) == "InvalidBlockDeviceMapping"


def test_an_ephemeral_disk_is_mapped_once() -> None:
    twice = [DeviceRequest(f"/dev/sd{letter}", virtual_name="ephemeral0") for letter in "bc"]
    assert code(disks, STORE, *twice) == "InvalidBlockDeviceMapping"


@pytest.mark.parametrize(
    ("type_", "size", "iops", "throughput", "expected"),
    [
        ("gp3", 1, None, None, None),
        ("gp3", 1, 2999, None, "InvalidParameterValue"),
        ("gp3", 1, 3000, 125, None),
        ("gp3", 1, None, 124, "InvalidParameterValue"),
        ("gp2", 1, 100, None, "InvalidParameterCombination"),
        ("gp2", 1, None, 125, "InvalidParameterCombination"),
        ("io1", 4, None, None, "MissingParameter"),
        ("io1", 3, 100, None, "InvalidParameterValue"),
        ("io2", 4, 100, None, None),
        ("st1", 124, None, None, "InvalidParameterValue"),
        ("sc1", 125, None, None, None),
        ("standard", 1025, None, None, "InvalidParameterValue"),
        ("floppy", 1, None, None, "InvalidParameterValue"),
    ],
)
def test_volume_types_have_bounds(
    type_: str, size: int, iops: int | None, throughput: int | None, expected: str | None
) -> None:
    request = DeviceRequest("/dev/sdb", size_gib=size, volume_type=type_, iops=iops, throughput_mibps=throughput)
    if expected is None:
        assert choose_volume(request, 2, {}).volume_type == type_
    else:
        assert code(choose_volume, request, 2, {}) == expected
