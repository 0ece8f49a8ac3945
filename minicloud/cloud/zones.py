"""Regions and availability zones. A zone comes with its default subnet, the next free /20 of the default VPC.

Called by the front door for DescribeRegions and DescribeAvailabilityZones, and by `minicloud zone add`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from minicloud import ids
from minicloud.cloud.context import Caller, Cloud
from minicloud.errors import ApiError
from minicloud.model.resources import Subnet, Vpc, Zone
from minicloud.model.states import HostState
from minicloud.store.store import Tx

# A /16 is cut into /20s as AWS does; a smaller VPC into sixteen parts as well.
SUBNET_BITS = 4


@dataclass(frozen=True, slots=True)
class Region:
    """A region and the endpoint that serves it."""

    name: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class ZoneView:
    """A zone and whether anything can start in it: how many hosts it has, how many are up."""

    zone: Zone
    hosts: int
    hosts_up: int


def check_zone_name(caller: Caller, name: str) -> None:
    """Raise InvalidParameterValue for a name that is not the region's and a letter."""
    if not re.fullmatch(re.escape(caller.region) + r"[a-z]", name):
        raise ApiError(
            "InvalidParameterValue",
            f"A zone of region {caller.region} is called {caller.region}a, {caller.region}b, ...: not '{name[:100]}'",
        )


def add_zone(cloud: Cloud, caller: Caller, name: str) -> Zone:
    """Make a zone and its default subnet; an existing zone is returned as it is.

    Raises InvalidParameterValue as check_zone_name does, SubnetLimitExceeded past sixteen.
    """
    check_zone_name(caller, name)

    def decide(tx: Tx) -> Zone:
        existing = tx.zones.get(name)
        if existing is not None:
            return existing
        number = ord(name[-1]) - ord("a") + 1
        zone = Zone(
            id=name,
            region=caller.region,
            zone_id=f"{caller.region.replace('-', '')}-az{number}",
            created_us=tx.now_us,
        )
        tx.zones.insert(zone)
        for vpc in tx.vpcs.where(region=caller.region, is_default=True):
            tx.subnets.insert(_default_subnet(cloud, tx, vpc, zone))
        return zone

    return cloud.store.write(decide)


def _default_subnet(cloud: Cloud, tx: Tx, vpc: Vpc, zone: Zone) -> Subnet:
    taken = [ipaddress.IPv4Network(subnet.cidr) for subnet in tx.subnets.where(vpc_id=vpc.id)]
    candidates = ipaddress.IPv4Network(vpc.cidr).subnets(prefixlen_diff=SUBNET_BITS)
    free = next((one for one in candidates if not any(one.overlaps(other) for other in taken)), None)
    if free is None:
        raise ApiError("SubnetLimitExceeded", f"The default VPC {vpc.id} has no address space left for another zone.")
    return Subnet(
        id=cloud.make_id(ids.SUBNET),
        account_id=vpc.account_id,
        vpc_id=vpc.id,
        zone=zone.id,
        cidr=str(free),
        is_default=True,
        map_public_ip_on_launch=True,
        created_us=tx.now_us,
    )


def describe_regions(cloud: Cloud, caller: Caller, names: Iterable[str]) -> list[Region]:
    """Return the region of this endpoint. Raises InvalidParameterValue for another name."""
    unknown = [name for name in dict.fromkeys(names) if name != caller.region]
    if unknown:
        raise ApiError("InvalidParameterValue", f"Region not found: {', '.join(name[:100] for name in unknown)}")
    return [Region(caller.region, cloud.config.endpoint_url)]


def describe_zones(cloud: Cloud, caller: Caller, names: Iterable[str], zone_ids: Iterable[str]) -> list[ZoneView]:
    """Return the zones that bear one of the names or ids, all if none is given. Raises InvalidParameterValue."""
    wanted_names, wanted_ids = list(dict.fromkeys(names)), list(dict.fromkeys(zone_ids))

    def look(tx: Tx) -> list[ZoneView]:
        zones = sorted(tx.zones.where(region=caller.region), key=lambda zone: zone.id)
        for wanted, known, what in (
            (wanted_names, {zone.id for zone in zones}, "availability zone"),
            (wanted_ids, {zone.zone_id for zone in zones}, "availability zone-id"),
        ):
            unknown = [one[:100] for one in wanted if one not in known]
            if unknown:
                raise ApiError("InvalidParameterValue", f"Invalid {what}: [{', '.join(unknown)}]")
        hosts = tx.hosts.where(zone=[zone.id for zone in zones])
        return [
            ZoneView(
                zone,
                sum(host.zone == zone.id for host in hosts),
                sum(host.zone == zone.id and host.state is HostState.UP for host in hosts),
            )
            for zone in zones
            if not (wanted_names or wanted_ids) or zone.id in wanted_names or zone.zone_id in wanted_ids
        ]

    return cloud.store.read(look)
