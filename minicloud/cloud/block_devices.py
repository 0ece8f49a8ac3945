"""Block device mappings: what disks an instance gets of its image's mapping, the caller's and its type. Pure.

Owns EC2's rules of block devices (EC2 user guide, "Block device mappings"; EBS user guide, "Volume types") and the
numbering of devices: root ports count 0 for the first network interface, 1 for the root volume, then the other disks by
device name, so that /dev/sdb is the guest's second disk. Instance-store disks: every instance of a type gets all that
the type has, as EC2's Nitro types do; a mapping of `ephemeralN` only chooses the device name, and one beyond what the
type has is ignored, as EC2 does.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.cloud.instance_types import instance_store_bytes
from minicloud.errors import ApiError
from minicloud.model.resources import Attachment, BlockDevice, EphemeralDisk, InstanceType, Snapshot

NIC_SLOT = 0
ROOT_SLOT = 1
# Devices that may be hot-attached to one instance; also how many volumes a launch may bring besides the root.
ATTACH_QUOTA = 16
DEFAULT_VOLUME_TYPE = "gp3"
MAX_MIBPS_PER_IOPS = 0.25

_DEVICE_NAME = re.compile(r"(?:/dev/)?(?:(sd|vd|hd)([a-z])([1-9]|1[0-5])?|xvd([a-z]{1,2})([1-9]|1[0-5])?)")
_VIRTUAL_NAME = re.compile(r"ephemeral([0-9]{1,2})")


@dataclass(frozen=True, slots=True)
class VolumeLimits:
    """Bounds of a volume type, from the EBS user guide; None where the type has no such setting."""

    min_gib: int
    max_gib: int
    iops: tuple[int, int] | None = None
    default_iops: int | None = None
    iops_required: bool = False
    throughput: tuple[int, int] | None = None
    default_throughput: int | None = None
    max_iops_per_gib: int | None = None


VOLUME_TYPES: dict[str, VolumeLimits] = {
    "gp3": VolumeLimits(
        1, 65536, (3000, 80000), 3000, throughput=(125, 2000), default_throughput=125, max_iops_per_gib=500
    ),
    "gp2": VolumeLimits(1, 16384),
    "io1": VolumeLimits(4, 16384, (100, 64000), iops_required=True, max_iops_per_gib=50),
    "io2": VolumeLimits(4, 65536, (100, 256000), iops_required=True, max_iops_per_gib=1000),
    "st1": VolumeLimits(125, 16384),
    "sc1": VolumeLimits(125, 16384),
    "standard": VolumeLimits(1, 1024),
}


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """One BlockDeviceMapping as a caller gave it; None means not given."""

    device_name: str | None = None
    virtual_name: str | None = None
    no_device: bool = False
    snapshot_id: str | None = None
    size_gib: int | None = None
    volume_type: str | None = None
    iops: int | None = None
    throughput_mibps: int | None = None
    delete_on_termination: bool | None = None
    encrypted: bool | None = None

    @property
    def has_ebs(self) -> bool:
        """Whether anything of an EBS volume was given."""
        return any(
            value is not None
            for value in (
                self.snapshot_id,
                self.size_gib,
                self.volume_type,
                self.iops,
                self.throughput_mibps,
                self.delete_on_termination,
                self.encrypted,
            )
        )


@dataclass(frozen=True, slots=True)
class LaunchVolume:
    """A volume to make for a new instance."""

    device_name: str
    pci_slot: int
    snapshot_id: str | None
    size_gib: int
    volume_type: str
    iops: int | None
    throughput_mibps: int | None
    delete_on_termination: bool


@dataclass(frozen=True, slots=True)
class LaunchDisks:
    """All disks of a new instance; the root volume comes first."""

    volumes: tuple[LaunchVolume, ...]
    ephemeral: tuple[EphemeralDisk, ...]


def invalid_mapping(message: str) -> ApiError:
    """Return EC2's error for a block device mapping that cannot be."""
    return ApiError("InvalidBlockDeviceMapping", message)


def device_letter(device_name: str) -> str:
    """Return what makes a device name unique: `b` for /dev/sdb and xvdb alike. Raises EC2's error if malformed."""
    match = _DEVICE_NAME.fullmatch(device_name)
    if match is None:
        shown = device_name[:100]
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({shown}) for parameter device is invalid. {shown} is not a valid EBS device name.",
        )
    return match[2] or match[4]


def merge_mappings(
    root_device_name: str, image: Iterable[BlockDevice], requested: Iterable[DeviceRequest]
) -> list[DeviceRequest]:
    """Return the image's mappings with the caller's over them, by device name; suppressed ones are left out.

    A caller's EBS setting changes that setting of the image's volume and no other; another snapshot makes it another
    volume altogether, which the root cannot be. Raises InvalidBlockDeviceMapping.
    """
    merged = {device.device_name: _from_image(device) for device in image if not device.no_device}
    seen: set[str] = set()
    for one in requested:
        if one.device_name is None:
            raise ApiError("MissingParameter", "The request must contain the parameter deviceName")
        device_letter(one.device_name)
        if one.device_name in seen:
            raise invalid_mapping(f"The device '{one.device_name}' is used in more than one block-device mapping")
        seen.add(one.device_name)
        kinds = [one.no_device, one.virtual_name is not None, one.has_ebs]
        if sum(kinds) > 1:
            raise invalid_mapping(f"The mapping of '{one.device_name}' must be one of Ebs, VirtualName and NoDevice")
        if not any(kinds):
            raise invalid_mapping(f"The mapping of '{one.device_name}' names no device")
        if one.no_device:
            merged.pop(one.device_name, None)
            continue
        base = merged.get(one.device_name)
        changes_snapshot = base is not None and one.snapshot_id not in (None, base.snapshot_id)
        if changes_snapshot and one.device_name == root_device_name:
            raise invalid_mapping("The snapshot of the root device cannot be changed")
        if base is None or changes_snapshot or one.virtual_name is not None or base.virtual_name is not None:
            merged[one.device_name] = one
        else:
            merged[one.device_name] = _over(base, one)
    letters: dict[str, str] = {}
    for name in merged:
        other = letters.setdefault(device_letter(name), name)
        if other != name:
            raise invalid_mapping(f"The devices '{other}' and '{name}' are the same device")
    return list(merged.values())


def choose_disks(
    root_device_name: str,
    mappings: Iterable[DeviceRequest],
    type_: InstanceType,
    snapshots: Mapping[str, Snapshot],
) -> LaunchDisks:
    """Return the disks of an instance from its merged mappings. `snapshots` holds every snapshot they name.

    Raises InvalidBlockDeviceMapping, MissingParameter, InvalidParameterValue/Combination, AttachmentLimitExceeded.
    """
    mappings = list(mappings)
    root = next((one for one in mappings if one.device_name == root_device_name), None)
    if root is None or root.virtual_name is not None:
        raise invalid_mapping(f"The root device '{root_device_name}' must be an EBS volume")
    if root.snapshot_id is None:
        raise invalid_mapping(f"The root device '{root_device_name}' must have a snapshot")
    others = [one for one in mappings if one is not root and one.virtual_name is None]
    if len(others) > ATTACH_QUOTA:
        raise ApiError(
            "AttachmentLimitExceeded",
            f"At most {ATTACH_QUOTA} volumes besides the root may be attached to an instance.",
        )
    ephemeral = _ephemeral_names(mappings, type_)
    names = sorted([str(one.device_name) for one in others] + list(ephemeral.values()), key=_order)
    slots = {name: ROOT_SLOT + 1 + index for index, name in enumerate(names)}
    return LaunchDisks(
        volumes=(
            choose_volume(root, ROOT_SLOT, snapshots),
            *(choose_volume(one, slots[str(one.device_name)], snapshots) for one in others),
        ),
        ephemeral=tuple(
            EphemeralDisk(f"ephemeral{index}", name, instance_store_bytes(type_.instance_store_gb[index]), slots[name])
            for index, name in sorted(ephemeral.items())
        ),
    )


def choose_ephemeral(
    current: Iterable[EphemeralDisk], attachments: Iterable[Attachment], type_: InstanceType
) -> tuple[EphemeralDisk, ...]:
    """Return the instance-store disks of an instance that becomes another type, beside the volumes it keeps.

    A disk of a number that both types have keeps its device name and its slot; a new one gets the next free of each.
    """
    kept = {disk.virtual_name: disk for disk in current}
    attachments = list(attachments)
    names = _ephemeral_names(
        [DeviceRequest(device_name=one.device_name, size_gib=1) for one in attachments]
        + [DeviceRequest(device_name=disk.device_name, virtual_name=name) for name, disk in kept.items()],
        type_,
    )
    wanted = {f"ephemeral{number}": name for number, name in sorted(names.items())}
    taken = {one.pci_slot for one in attachments} | {disk.pci_slot for name, disk in kept.items() if name in wanted}
    free = (slot for slot in itertools.count(ROOT_SLOT + 1) if slot not in taken)
    return tuple(
        EphemeralDisk(
            virtual_name,
            device_name,
            instance_store_bytes(size_gb),
            kept[virtual_name].pci_slot if virtual_name in kept else next(free),
        )
        for (virtual_name, device_name), size_gb in zip(wanted.items(), type_.instance_store_gb, strict=True)
    )


def choose_volume(one: DeviceRequest, pci_slot: int, snapshots: Mapping[str, Snapshot]) -> LaunchVolume:
    """Return the volume that a mapping asks for. Raises as `choose_disks`."""
    snapshot = snapshots[one.snapshot_id] if one.snapshot_id is not None else None
    if one.encrypted:
        raise ApiError("UnsupportedOperation", "Encrypted volumes are not supported.")
    size_gib = one.size_gib if one.size_gib is not None else (snapshot.size_gib if snapshot else None)
    if size_gib is None:
        raise ApiError("MissingParameter", "The request must contain the parameter size or snapshotId")
    if snapshot is not None and size_gib < snapshot.size_gib:
        raise invalid_mapping(
            f"Volume of size {size_gib}GB is smaller than snapshot '{snapshot.id}', "
            f"expect size >= {snapshot.size_gib}GB"
        )
    volume_type = one.volume_type or DEFAULT_VOLUME_TYPE
    limits = VOLUME_TYPES.get(volume_type)
    if limits is None:
        raise ApiError("InvalidParameterValue", f"Value ({volume_type}) for parameter volumeType is invalid.")
    if not limits.min_gib <= size_gib <= limits.max_gib:
        raise ApiError(
            "InvalidParameterValue",
            f"Volume of {size_gib}GiB is invalid for volume type {volume_type}: expecting {limits.min_gib} to "
            f"{limits.max_gib} GiB.",
        )
    _check_setting("iops", one.iops, limits.iops, volume_type)
    _check_setting("throughput", one.throughput_mibps, limits.throughput, volume_type)
    if limits.iops_required and one.iops is None:
        raise ApiError("MissingParameter", f"The parameter iops must be specified for {volume_type} volumes.")
    _check_ratios(one, size_gib, limits)
    return LaunchVolume(
        device_name=str(one.device_name),
        pci_slot=pci_slot,
        snapshot_id=one.snapshot_id,
        size_gib=size_gib,
        volume_type=volume_type,
        iops=one.iops,
        throughput_mibps=one.throughput_mibps,
        delete_on_termination=True if one.delete_on_termination is None else one.delete_on_termination,
    )


def _check_setting(name: str, value: int | None, bounds: tuple[int, int] | None, volume_type: str) -> None:
    if value is None:
        return
    if bounds is None:
        raise ApiError(
            "InvalidParameterCombination", f"The parameter {name} is not supported for {volume_type} volumes."
        )
    if not bounds[0] <= value <= bounds[1]:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter {name} is invalid for {volume_type} volumes: expecting {bounds[0]} to "
            f"{bounds[1]}.",
        )


def _check_ratios(one: DeviceRequest, size_gib: int, limits: VolumeLimits) -> None:
    """Refuse more IOPS than a volume's size, or more throughput than its IOPS, can carry; any size has the default."""
    ratio = limits.max_iops_per_gib
    iops = one.iops if one.iops is not None else limits.default_iops
    if ratio is not None and iops is not None and iops > max(ratio * size_gib, limits.default_iops or 0):
        raise ApiError(
            "InvalidParameterValue",
            f"Iops to volume size ratio of {iops / size_gib:.6f} is too high; maximum is {ratio}",
        )
    if one.throughput_mibps is not None and iops is not None and one.throughput_mibps > iops * MAX_MIBPS_PER_IOPS:
        raise ApiError(
            "InvalidParameterValue",
            f"Throughput (MiBps) to iops ratio of {one.throughput_mibps / iops:.6f} is too high; maximum is "
            f"{MAX_MIBPS_PER_IOPS:.6f} MiBps per iops.",
        )


def _ephemeral_names(mappings: Iterable[DeviceRequest], type_: InstanceType) -> dict[int, str]:
    """Return the device name of each instance-store disk of the type, by its number."""
    chosen: dict[int, str] = {}
    taken = set()
    for one in mappings:
        name = str(one.device_name)
        if one.virtual_name is None:
            taken.add(device_letter(name))
            continue
        match = _VIRTUAL_NAME.fullmatch(one.virtual_name)
        if match is None:
            raise invalid_mapping(f"'{one.virtual_name[:100]}' is not a virtual device name such as ephemeral0")
        number = int(match[1])
        if number >= len(type_.instance_store_gb):
            continue
        if number in chosen:
            raise invalid_mapping(f"The virtual device '{one.virtual_name}' is mapped more than once")
        chosen[number] = name
        taken.add(device_letter(name))
    free = (letter for letter in "bcdefghijklmnopqrstuvwxyz" if letter not in taken)
    for number in range(len(type_.instance_store_gb)):
        if number not in chosen:
            chosen[number] = f"/dev/sd{next(free)}"
    return chosen


def _order(device_name: str) -> tuple[int, str, str]:
    letter = device_letter(device_name)
    return len(letter), letter, device_name


def _from_image(device: BlockDevice) -> DeviceRequest:
    if device.virtual_name is not None:
        return DeviceRequest(device_name=device.device_name, virtual_name=device.virtual_name)
    return DeviceRequest(
        device_name=device.device_name,
        snapshot_id=device.snapshot_id,
        size_gib=device.size_gib,
        volume_type=device.volume_type,
        iops=device.iops,
        throughput_mibps=device.throughput_mibps,
        delete_on_termination=device.delete_on_termination,
        encrypted=device.encrypted or None,
    )


def _over(base: DeviceRequest, given: DeviceRequest) -> DeviceRequest:
    # Settings of one volume type mean nothing to another.
    keep = given.volume_type in (None, base.volume_type)
    return DeviceRequest(
        device_name=base.device_name,
        snapshot_id=base.snapshot_id,
        size_gib=given.size_gib if given.size_gib is not None else base.size_gib,
        volume_type=given.volume_type or base.volume_type,
        iops=given.iops if given.iops is not None or not keep else base.iops,
        throughput_mibps=(
            given.throughput_mibps if given.throughput_mibps is not None or not keep else base.throughput_mibps
        ),
        delete_on_termination=(
            given.delete_on_termination if given.delete_on_termination is not None else base.delete_on_termination
        ),
        encrypted=given.encrypted if given.encrypted is not None else base.encrypted,
    )
