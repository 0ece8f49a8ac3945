"""Snapshots."""

from __future__ import annotations

from typing import Any

from minicloud.api.ec2.common import render_tags
from minicloud.api.listing import Pages
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud import snapshots
from minicloud.store.filters.snapshots import NO_VOLUME, SNAPSHOTS


def describe_snapshots(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeSnapshots."""
    found = snapshots.describe_snapshots(
        context.cloud,
        context.caller,
        parameters.get("SnapshotIds", ()),
        parameters.get("OwnerIds", ()),
        parameters.get("RestorableByUserIds", ()),
        context.asked,
    )
    return {"Snapshots": [_render(one) for one in found.items], "NextToken": context.next_token(found)}


def describe_snapshot_attribute(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeSnapshotAttribute: nobody but its owner may make volumes of a snapshot, and none is a product."""
    snapshot = snapshots.find_snapshot(context.cloud, context.caller, parameters["SnapshotId"])
    shown: dict[str, dict[str, Any]] = {
        "createVolumePermission": {"CreateVolumePermissions": []},
        "productCodes": {"ProductCodes": []},
    }
    return {"SnapshotId": snapshot.id, **shown[parameters["Attribute"]]}


def _render(one: snapshots.SnapshotView) -> dict[str, Any]:
    snapshot = one.snapshot
    return {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.account_id,
        "Description": snapshot.description,
        "State": snapshot.state.value,
        "StateMessage": snapshot.state_reason,
        "Progress": f"{snapshot.progress_percent}%",
        "StartTime": to_datetime(snapshot.created_us),
        "CompletionTime": None if snapshot.completed_us is None else to_datetime(snapshot.completed_us),
        "VolumeId": snapshot.volume_id or NO_VOLUME,
        "VolumeSize": snapshot.size_gib,
        "Encrypted": snapshot.encrypted,
        "StorageTier": "standard",
        "Tags": render_tags(one.tags),
    }


ROWS: Rows = {
    "DescribeSnapshots": row(
        describe_snapshots,
        "SnapshotIds",
        "OwnerIds",
        "RestorableByUserIds",
        filters=SNAPSHOTS,
        # EC2 API reference as it documented MaxResults: 5 to 1000, and not with snapshot ids.
        pages=Pages(5, 1000, not_with=("SnapshotIds",)),
    ),
    "DescribeSnapshotAttribute": row(describe_snapshot_attribute, "SnapshotId", "Attribute"),
}
