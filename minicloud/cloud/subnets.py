"""Subnets as their owners see them. Making them comes with the network API; zones.py makes the default ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.cloud.addresses import subnet_addresses
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import SUBNETS, narrow_to
from minicloud.model.resources import Subnet, Zone
from minicloud.store import queries
from minicloud.store.filters import subnets as filters
from minicloud.store.search import EVERYTHING, Asked, Found
from minicloud.store.store import Tx


@dataclass(frozen=True, slots=True)
class SubnetView:
    """A subnet, its zone, how many addresses are free, and its tags."""

    subnet: Subnet
    zone: Zone
    free_addresses: int
    tags: Mapping[str, str]


def describe_subnets(cloud: Cloud, caller: Caller, ids: Iterable[str], asked: Asked = EVERYTHING) -> Found[SubnetView]:
    """Return a page of the named subnets, of all of the caller's if none is named. Raises InvalidSubnetID.NotFound."""
    wanted = list(ids)

    def look(tx: Tx) -> Found[SubnetView]:
        named = narrow_to(tx, caller, SUBNETS, wanted)
        owned = filters.subnets_of(caller.account_id, caller.region)
        found = tx.subnets.search(filters.SUBNETS, asked, owned, **named)
        subnet_ids = [row.id for row in found.items]
        tags = tx.tags.of(subnet_ids)
        used = queries.count_private_ips(tx, subnet_ids)
        zones = {zone.id: zone for zone in tx.zones.where(id={row.zone for row in found.items})}
        views = [
            SubnetView(
                row, zones[row.zone], len(subnet_addresses(row.cidr)) - used.get(row.id, 0), tags.get(row.id, {})
            )
            for row in found.items
        ]
        return Found(views, found.after)

    return cloud.store.read(look)
