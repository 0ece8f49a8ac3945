"""What several EC2 operations read or show alike: tags, block device mappings, times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minicloud.cloud.block_devices import DeviceRequest
from minicloud.cloud.tags import check_tags
from minicloud.errors import ApiError

# The members of a block device mapping that are honoured, below its own name.
BLOCK_DEVICE_MEMBERS = (
    "DeviceName",
    "VirtualName",
    "NoDevice",
    "Ebs.SnapshotId",
    "Ebs.VolumeSize",
    "Ebs.VolumeType",
    "Ebs.Iops",
    "Ebs.Throughput",
    "Ebs.DeleteOnTermination",
    "Ebs.Encrypted",
)


def block_device_honours() -> tuple[str, ...]:
    """Return the honoured paths of a BlockDeviceMappings parameter."""
    return tuple(f"BlockDeviceMappings.{member}" for member in BLOCK_DEVICE_MEMBERS)


def parse_block_devices(mappings: Iterable[Mapping[str, Any]]) -> tuple[DeviceRequest, ...]:
    """Read a BlockDeviceMappings parameter. `NoDevice` suppresses whatever its text is: EC2's own tools send none."""
    return tuple(_parse_block_device(mapping) for mapping in mappings)


def _parse_block_device(mapping: Mapping[str, Any]) -> DeviceRequest:
    ebs = mapping.get("Ebs", {})
    return DeviceRequest(
        device_name=mapping.get("DeviceName"),
        virtual_name=mapping.get("VirtualName"),
        no_device="NoDevice" in mapping,
        snapshot_id=ebs.get("SnapshotId"),
        size_gib=ebs.get("VolumeSize"),
        volume_type=ebs.get("VolumeType"),
        iops=ebs.get("Iops"),
        throughput_mibps=ebs.get("Throughput"),
        delete_on_termination=ebs.get("DeleteOnTermination"),
        encrypted=ebs.get("Encrypted"),
    )


def parse_tag_specifications(specifications: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Read a TagSpecifications parameter: tags by resource type. Raises ApiError for tags that cannot be."""
    parsed: dict[str, dict[str, str]] = {}
    for one in specifications:
        resource_type = one.get("ResourceType")
        if resource_type is None:
            raise ApiError("InvalidParameterValue", "Tag specification resource type must have a value")
        if resource_type in parsed:
            raise ApiError("InvalidParameterValue", f"Duplicate resource type '{resource_type}' in tag specifications.")
        if not one.get("Tags"):
            raise ApiError("InvalidParameterValue", "Tag specification must have at least one tag")
        parsed[resource_type] = check_tags((tag.get("Key"), tag.get("Value")) for tag in one["Tags"])
    return parsed


def render_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as EC2 lists them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
