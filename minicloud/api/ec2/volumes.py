"""Volumes."""

from __future__ import annotations

from typing import Any

from minicloud.api.ec2.common import render_tags
from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud import volumes
from minicloud.store.filters.volumes import VOLUME_STATUSES, VOLUMES

# EC2 API reference as it documented MaxResults: 5 to 1000, and not with volume ids.
_PAGES = Pages(5, 1000, not_with=("VolumeIds",))
_MODIFICATION_FILTERS = ShownFilters(
    "VolumeId",
    {
        "modification-state": "ModificationState",
        "original-iops": "OriginalIops",
        "original-size": "OriginalSize",
        "original-volume-type": "OriginalVolumeType",
        "originalMultiAttachEnabled": "OriginalMultiAttachEnabled",
        "start-time": "StartTime",
        "target-iops": "TargetIops",
        "target-size": "TargetSize",
        "target-volume-type": "TargetVolumeType",
        "targetMultiAttachEnabled": "TargetMultiAttachEnabled",
        "volume-id": "VolumeId",
    },
)


def describe_volumes(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeVolumes. Nothing is managed by others, so IncludeManagedResources changes nothing."""
    found = volumes.describe_volumes(context.cloud, context.caller, parameters.get("VolumeIds", ()), context.asked)
    return {"Volumes": [_render(one) for one in found.items], "NextToken": context.next_token(found)}


def describe_volume_status(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeVolumeStatus. Performance is not judged, as EC2 does not for all but provisioned IOPS."""
    found = volumes.describe_volume_status(
        context.cloud, context.caller, parameters.get("VolumeIds", ()), context.asked
    )
    return {"VolumeStatuses": [_render_status(one) for one in found.items], "NextToken": context.next_token(found)}


def describe_volume_attribute(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeVolumeAttribute. I/O of a volume is never cut off, so none is switched on again by itself."""
    volume = volumes.find_volume(context.cloud, context.caller, parameters["VolumeId"])
    shown: dict[str, dict[str, Any]] = {
        "autoEnableIO": {"AutoEnableIO": {"Value": False}},
        "productCodes": {"ProductCodes": []},
    }
    return {"VolumeId": volume.id, **shown[parameters["Attribute"]]}


def describe_volumes_modifications(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeVolumesModifications: none so far, for no volume can be modified yet."""
    volumes.refuse_unmodified(context.cloud, context.caller, parameters.get("VolumeIds", ()))
    found = _MODIFICATION_FILTERS.page([], context.asked)
    return {"VolumesModifications": found.items, "NextToken": context.next_token(found)}


def _render(one: volumes.VolumeView) -> dict[str, Any]:
    volume = one.volume
    return {
        "VolumeId": volume.id,
        "AvailabilityZone": one.zone.id,
        "AvailabilityZoneId": one.zone.zone_id,
        "State": volume.state.value,
        "Size": volume.size_gib,
        "VolumeType": volume.volume_type,
        "Iops": one.iops,
        "Throughput": one.throughput_mibps,
        "Encrypted": volume.encrypted,
        # A volume that was made empty has the empty text here, as EC2 shows it.
        "SnapshotId": volume.snapshot_id or "",
        "CreateTime": to_datetime(volume.created_us),
        "MultiAttachEnabled": False,
        "FastRestored": False,
        "Operator": {"Managed": False},
        "Attachments": [
            {
                "VolumeId": volume.id,
                "InstanceId": attachment.instance_id,
                "Device": attachment.device_name,
                "State": attachment.state.value,
                "AttachTime": to_datetime(attachment.attached_us),
                "DeleteOnTermination": attachment.delete_on_termination,
            }
            for attachment in one.attachments
        ],
        "Tags": render_tags(one.tags),
    }


def _render_status(one: volumes.VolumeStatus) -> dict[str, Any]:
    volume = one.view.volume
    status, enabled, performance = "insufficient-data", "insufficient-data", "insufficient-data"
    if one.checked:
        status, enabled, performance = "ok", "passed", "not-applicable"
    return {
        "VolumeId": volume.id,
        "AvailabilityZone": one.view.zone.id,
        "AvailabilityZoneId": one.view.zone.zone_id,
        "VolumeStatus": {
            "Status": status,
            "Details": [
                {"Name": "io-enabled", "Status": enabled},
                {"Name": "io-performance", "Status": performance},
            ],
        },
        "AttachmentStatuses": [
            {"InstanceId": attachment.instance_id, "IoPerformance": "not-applicable"}
            for attachment in one.view.attachments
        ],
        "Actions": [],
        "Events": [],
    }


ROWS: Rows = {
    "DescribeVolumes": row(
        describe_volumes, "VolumeIds", tolerates={"IncludeManagedResources": ANYTHING}, filters=VOLUMES, pages=_PAGES
    ),
    "DescribeVolumeStatus": row(
        describe_volume_status,
        "VolumeIds",
        tolerates={"IncludeManagedResources": ANYTHING},
        filters=VOLUME_STATUSES,
        pages=_PAGES,
    ),
    "DescribeVolumeAttribute": row(describe_volume_attribute, "VolumeId", "Attribute"),
    "DescribeVolumesModifications": row(
        describe_volumes_modifications,
        "VolumeIds",
        tolerates={"IncludeManagedResources": ANYTHING},
        filters=_MODIFICATION_FILTERS,
        pages=Pages(1, 500),
    ),
}
