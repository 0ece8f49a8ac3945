"""Network interfaces as their owners see them: each is the port of an instance, made and ended with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import NETWORK_INTERFACES, narrow_to, require_one
from minicloud.model.resources import Instance, NetworkInterface, SecurityGroup, Subnet, Zone
from minicloud.store.filters import network_interfaces as filters
from minicloud.store.search import EVERYTHING, Asked, Found
from minicloud.store.store import Tx


@dataclass(frozen=True, slots=True)
class NetworkInterfaceView:
    """An interface with its instance, its zone and subnet, its groups in their order, and its tags."""

    port: NetworkInterface
    instance: Instance
    zone: Zone
    subnet: Subnet
    groups: tuple[SecurityGroup, ...]
    tags: Mapping[str, str]


def describe_network_interfaces(
    cloud: Cloud, caller: Caller, ids: Iterable[str], asked: Asked = EVERYTHING
) -> Found[NetworkInterfaceView]:
    """Return a page of the named interfaces, of all of the caller's if none is. Raises InvalidNetworkInterfaceI*."""
    wanted = list(ids)

    def look(tx: Tx) -> Found[NetworkInterfaceView]:
        named = narrow_to(tx, caller, NETWORK_INTERFACES, wanted)
        owned = filters.network_interfaces_of(caller.account_id, caller.region)
        found = tx.network_interfaces.search(filters.NETWORK_INTERFACES, asked, owned, **named)
        return Found(_view(tx, found.items), found.after)

    return cloud.store.read(look)


def describe_network_interface(cloud: Cloud, caller: Caller, interface_id: str) -> NetworkInterfaceView:
    """Return one interface, for its attributes. Raises InvalidNetworkInterfaceI*."""

    def look(tx: Tx) -> NetworkInterfaceView:
        return _view(tx, [require_one(tx, caller, NETWORK_INTERFACES, interface_id)])[0]

    return cloud.store.read(look)


def _view(tx: Tx, rows: list[NetworkInterface]) -> list[NetworkInterfaceView]:
    instances = {row.id: row for row in tx.instances.where(id=[row.instance_id for row in rows])}
    groups = {
        group.id: group
        for group in tx.security_groups.where(id={group_id for row in rows for group_id in row.group_ids})
    }
    zones = {zone.id: zone for zone in tx.zones.where(id={row.zone for row in rows})}
    subnets = {subnet.id: subnet for subnet in tx.subnets.where(id={row.subnet_id for row in rows})}
    tags = tx.tags.of([row.id for row in rows])
    return [
        NetworkInterfaceView(
            row,
            instances[row.instance_id],
            zones[row.zone],
            subnets[row.subnet_id],
            tuple(groups[group_id] for group_id in row.group_ids),
            tags.get(row.id, {}),
        )
        for row in rows
    ]
