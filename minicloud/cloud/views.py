"""Instances as their owners see them: the row with its interfaces, volumes, groups and tags, by reservation.

Owns what is read together to show an instance. Called by the use cases that return instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import INSTANCES, narrow_to, require
from minicloud.model.resources import (
    Attachment,
    Image,
    Instance,
    InstanceType,
    NetworkInterface,
    SecurityGroup,
    Volume,
    Zone,
)
from minicloud.model.states import AttachmentState
from minicloud.store.filters.instances import INSTANCE_STATUSES, IS_RUNNING
from minicloud.store.filters.instances import INSTANCES as INSTANCE_FILTERS
from minicloud.store.search import EVERYTHING, Asked, Condition, FilterSet, Found
from minicloud.store.store import Tx


@dataclass(frozen=True, slots=True)
class InstanceView:
    """Everything that DescribeInstances shows of an instance. A terminated one has neither interface nor volume.

    `attachments` pairs each attachment with its volume, by slot; `image` and `type` are None once they are gone.
    """

    instance: Instance
    zone: Zone
    image: Image | None
    type: InstanceType | None
    ports: tuple[NetworkInterface, ...]
    groups: Mapping[str, SecurityGroup]
    attachments: tuple[tuple[Attachment, Volume], ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reservation:
    """The instances of one RunInstances call, by launch index."""

    id: str
    account_id: str
    instances: tuple[InstanceView, ...]


def describe_instances(
    cloud: Cloud, caller: Caller, ids: Iterable[str], asked: Asked = EVERYTHING
) -> Found[Reservation]:
    """Return a page of the named instances, of all of the caller's if none is named. Raises InvalidInstanceID.*.

    A page counts instances; a reservation may go on in the next one.
    """
    wanted = list(ids)

    def look(tx: Tx) -> Found[Reservation]:
        found = _search(tx, caller, wanted, INSTANCE_FILTERS, asked)
        return Found(group_reservations(view_instances(cloud, tx, found.items)), found.after)

    return cloud.store.read(look)


def describe_instance_status(
    cloud: Cloud, caller: Caller, ids: Iterable[str], include_all: bool, asked: Asked = EVERYTHING
) -> Found[tuple[Instance, Zone]]:
    """Return a page of instances with their zones: running ones only, unless `include_all`."""
    wanted = list(ids)

    def look(tx: Tx) -> Found[tuple[Instance, Zone]]:
        conditions = () if include_all else (IS_RUNNING,)
        found = _search(tx, caller, wanted, INSTANCE_STATUSES, asked, *conditions)
        zones = {zone.id: zone for zone in tx.zones.where(id={row.zone for row in found.items})}
        return Found([(row, zones[row.zone]) for row in found.items], found.after)

    return cloud.store.read(look)


def _search(
    tx: Tx, caller: Caller, wanted: list[str], filters: FilterSet, asked: Asked, *conditions: Condition
) -> Found[Instance]:
    owned = {"account_id": caller.account_id, "region": caller.region, **narrow_to(tx, caller, INSTANCES, wanted)}
    return tx.instances.search(filters, asked, *conditions, **owned)


def find_instance(cloud: Cloud, caller: Caller, instance_id: str) -> Instance:
    """Return one instance's row. Raises InvalidInstanceID.*."""
    return cloud.store.read(lambda tx: require(tx, caller, INSTANCES, [instance_id])[0])


def group_reservations(views: Iterable[InstanceView]) -> list[Reservation]:
    """Return views by reservation, in the order the reservations come."""
    by_id: dict[str, list[InstanceView]] = {}
    for view in views:
        by_id.setdefault(view.instance.reservation_id, []).append(view)
    return [
        Reservation(id, group[0].instance.account_id, tuple(sorted(group, key=lambda view: view.instance.launch_index)))
        for id, group in by_id.items()
    ]


def view_instances(cloud: Cloud, tx: Tx, rows: list[Instance]) -> list[InstanceView]:
    """Return views of rows, in their order, with one query per kind of row."""
    ids = [row.id for row in rows]
    ports = _by_instance(sorted(tx.network_interfaces.where(instance_id=ids), key=lambda port: port.device_index))
    attached = [one for one in tx.attachments.where(instance_id=ids) if one.state is not AttachmentState.DETACHED]
    attachments = _by_instance(sorted(attached, key=lambda one: one.pci_slot))
    volumes = {
        volume.id: volume
        for volume in tx.volumes.where(id=[one.volume_id for group in attachments.values() for one in group])
    }
    groups = {
        group.id: group
        for group in tx.security_groups.where(
            id={group_id for group_ports in ports.values() for port in group_ports for group_id in port.group_ids}
        )
    }
    zones = {zone.id: zone for zone in tx.zones.where(id={row.zone for row in rows})}
    images = {image.id: image for image in tx.images.where(id={row.image_id for row in rows})}
    tags = tx.tags.of(ids)
    return [
        InstanceView(
            instance=row,
            zone=zones[row.zone],
            image=images.get(row.image_id),
            type=cloud.types.get(row.instance_type),
            ports=tuple(ports.get(row.id, ())),
            groups=groups,
            attachments=tuple((one, volumes[one.volume_id]) for one in attachments.get(row.id, ())),
            tags=tags.get(row.id, {}),
        )
        for row in rows
    ]


def _by_instance(rows: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.instance_id, []).append(row)
    return found
