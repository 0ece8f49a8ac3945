"""Filters of snapshots."""

from __future__ import annotations

from sqlalchemy import Text, cast, func

from minicloud.store import schema
from minicloud.store.search import ABSENT, FilterSet, boolean, concat, constant, number, text, time

# What EC2 shows as the volume of a snapshot that was not made of one (EC2 API reference, Snapshot, "VolumeId").
NO_VOLUME = "vol-ffffffff"

_snapshots = schema.snapshots.c

SNAPSHOTS = FilterSet(
    {
        "description": text(_snapshots.description),
        "encrypted": boolean(_snapshots.encrypted),
        "owner-alias": ABSENT,
        "owner-id": text(_snapshots.account_id),
        "progress": text(concat(cast(_snapshots.progress_percent, Text), "%")),
        "snapshot-id": text(_snapshots.id),
        "start-time": time(_snapshots.created_us),
        "status": text(_snapshots.state),
        "storage-tier": constant("standard"),
        "transfer-type": ABSENT,
        "volume-id": text(func.coalesce(_snapshots.volume_id, NO_VOLUME)),
        "volume-size": number(_snapshots.size_gib),
    },
    _snapshots.id,
)
