"""Filters of volumes, and of their status.

A volume's status is known while its host is reachable and the volume is there to be checked; see cloud/volumes.py.
"""

from __future__ import annotations

from sqlalchemy import and_, case, exists, select

from minicloud.model.states import AttachmentState, HostState, VolumeState
from minicloud.store import schema
from minicloud.store.search import (
    ABSENT,
    Field,
    FilterSet,
    any_of,
    boolean,
    constant,
    number,
    text,
    through,
    time,
    when,
)

_volumes = schema.volumes.c
_attachments = schema.attachments.c
_pools = schema.pools.c
_hosts = schema.hosts.c
_zones = schema.zones.c

CHECKED_STATES = (VolumeState.AVAILABLE, VolumeState.IN_USE)


def _attached(field: Field) -> Field:
    """A field of what holds the volume; a detached row is history."""
    return through(_volumes.id, _attachments.volume_id, field, _attachments.state != AttachmentState.DETACHED.value)


VOLUMES = FilterSet(
    {
        "attachment.attach-time": _attached(time(_attachments.attached_us)),
        "attachment.delete-on-termination": _attached(boolean(_attachments.delete_on_termination)),
        "attachment.device": _attached(text(_attachments.device_name)),
        "attachment.instance-id": _attached(text(_attachments.instance_id)),
        "attachment.status": _attached(text(_attachments.state)),
        "availability-zone": text(_volumes.zone),
        "availability-zone-id": through(_volumes.zone, _zones.id, text(_zones.zone_id)),
        "create-time": time(_volumes.created_us),
        "encrypted": boolean(_volumes.encrypted),
        "fast-restored": constant("false"),
        "multi-attach-enabled": constant("false"),
        "operator.managed": constant("false"),
        "operator.principal": ABSENT,
        "size": number(_volumes.size_gib),
        "snapshot-id": text(_volumes.snapshot_id),
        "status": text(_volumes.state),
        "volume-id": text(_volumes.id),
        "volume-type": text(_volumes.volume_type),
    },
    _volumes.id,
)

_is_checked = and_(
    _volumes.state.in_([state.value for state in CHECKED_STATES]),
    exists(
        select(_hosts.id)
        .join(schema.pools, _pools.host_id == _hosts.id)
        .where(_pools.id == _volumes.pool_id, _hosts.state != HostState.DOWN.value)
        .correlate(schema.volumes)
    ),
)

VOLUME_STATUSES = FilterSet(
    {
        "action.code": ABSENT,
        "action.description": ABSENT,
        "action.event-id": ABSENT,
        "attachment-status.instance-id": _attached(text(_attachments.instance_id)),
        "attachment-status.io-performance": _attached(constant("not-applicable")),
        "availability-zone": text(_volumes.zone),
        "event.description": ABSENT,
        "event.event-id": ABSENT,
        "event.event-type": ABSENT,
        "event.not-after": ABSENT,
        "event.not-before": ABSENT,
        "volume-status.details-name": any_of(constant("io-enabled"), constant("io-performance")),
        "volume-status.details-status": any_of(
            text(case((_is_checked, "passed"), else_="insufficient-data")),
            when(_is_checked, constant("not-applicable")),
        ),
        "volume-status.status": text(case((_is_checked, "ok"), else_="insufficient-data")),
    }
)
