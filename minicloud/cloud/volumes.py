"""Volumes as their owners see them. Making, attaching and changing them comes with the volume API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.cloud.block_devices import VOLUME_TYPES
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import VOLUMES, narrow_to, require, require_one
from minicloud.errors import ApiError
from minicloud.model.resources import Attachment, Volume, Zone
from minicloud.model.states import AttachmentState, HostState
from minicloud.store.filters import volumes as filters
from minicloud.store.search import EVERYTHING, Asked, FilterSet, Found
from minicloud.store.store import Tx

# EBS user guide, "General Purpose SSD volumes": gp2 has three IOPS per GiB, within these bounds.
GP2_IOPS_PER_GIB = 3
GP2_IOPS = (100, 16000)


@dataclass(frozen=True, slots=True)
class VolumeView:
    """A volume, its zone, what holds it (one attachment at most; detached ones are history), and its tags."""

    volume: Volume
    zone: Zone
    attachments: tuple[Attachment, ...]
    tags: Mapping[str, str]

    @property
    def iops(self) -> int | None:
        """The IOPS that the owner asked for, or the type's own; None for the types that EC2 shows without."""
        if self.volume.iops is not None:
            return self.volume.iops
        if self.volume.volume_type == "gp2":
            return min(max(GP2_IOPS[0], GP2_IOPS_PER_GIB * self.volume.size_gib), GP2_IOPS[1])
        return VOLUME_TYPES[self.volume.volume_type].default_iops

    @property
    def throughput_mibps(self) -> int | None:
        """The throughput that the owner asked for, or the type's own; None for types that have none to set."""
        if self.volume.throughput_mibps is not None:
            return self.volume.throughput_mibps
        return VOLUME_TYPES[self.volume.volume_type].default_throughput


@dataclass(frozen=True, slots=True)
class VolumeStatus:
    """Whether a volume was found in order: `checked` says that it is there, on a host that can be reached."""

    view: VolumeView
    checked: bool


def describe_volumes(cloud: Cloud, caller: Caller, ids: Iterable[str], asked: Asked = EVERYTHING) -> Found[VolumeView]:
    """Return a page of the named volumes, of all of the caller's if none is named.

    Raises InvalidVolumeID.Malformed, InvalidVolume.NotFound.
    """
    wanted = list(ids)

    def look(tx: Tx) -> Found[VolumeView]:
        found = _search(tx, caller, wanted, filters.VOLUMES, asked)
        return Found(_view(tx, found.items), found.after)

    return cloud.store.read(look)


def describe_volume_status(
    cloud: Cloud, caller: Caller, ids: Iterable[str], asked: Asked = EVERYTHING
) -> Found[VolumeStatus]:
    """Return a page of volumes with their status. Raises InvalidVolumeID.Malformed, InvalidVolume.NotFound."""
    wanted = list(ids)

    def look(tx: Tx) -> Found[VolumeStatus]:
        found = _search(tx, caller, wanted, filters.VOLUME_STATUSES, asked)
        pools = {pool.id: pool for pool in tx.pools.where(id={row.pool_id for row in found.items})}
        hosts = {host.id: host for host in tx.hosts.where(id={pool.host_id for pool in pools.values()})}
        statuses = [
            VolumeStatus(
                view,
                view.volume.state in filters.CHECKED_STATES
                and hosts[pools[view.volume.pool_id].host_id].state is not HostState.DOWN,
            )
            for view in _view(tx, found.items)
        ]
        return Found(statuses, found.after)

    return cloud.store.read(look)


def find_volume(cloud: Cloud, caller: Caller, volume_id: str) -> Volume:
    """Return one volume's row. Raises InvalidVolumeID.Malformed, InvalidVolume.NotFound."""
    return cloud.store.read(lambda tx: require_one(tx, caller, VOLUMES, volume_id))


def refuse_unmodified(cloud: Cloud, caller: Caller, ids: Iterable[str]) -> None:
    """Refuse to tell of modifications of named volumes: volumes cannot be modified yet.

    Raises InvalidVolumeID.Malformed, InvalidVolume.NotFound, InvalidVolumeModification.NotFound.
    """
    rows = cloud.store.read(lambda tx: require(tx, caller, VOLUMES, ids))
    if rows:
        raise ApiError("InvalidVolumeModification.NotFound", f"Modification for volume '{rows[0].id}' does not exist.")


def _search(tx: Tx, caller: Caller, wanted: list[str], known: FilterSet, asked: Asked) -> Found[Volume]:
    scope = {"account_id": caller.account_id, "region": caller.region, **narrow_to(tx, caller, VOLUMES, wanted)}
    return tx.volumes.search(known, asked, **scope)


def _view(tx: Tx, rows: list[Volume]) -> list[VolumeView]:
    ids = [row.id for row in rows]
    attachments: dict[str, list[Attachment]] = {}
    for one in tx.attachments.where(volume_id=ids):
        if one.state is not AttachmentState.DETACHED:
            attachments.setdefault(one.volume_id, []).append(one)
    zones = {zone.id: zone for zone in tx.zones.where(id={row.zone for row in rows})}
    tags = tx.tags.of(ids)
    return [VolumeView(row, zones[row.zone], tuple(attachments.get(row.id, ())), tags.get(row.id, {})) for row in rows]
