"""VPCs, subnets and security groups as their owners see them. What is described here is what hosts enforce.

Making and changing them comes with the network API; bootstrap.py and zones.py make the defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.cloud.addresses import subnet_addresses
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import SECURITY_GROUPS, SUBNETS, VPCS, require
from minicloud.errors import ApiError
from minicloud.model.resources import SecurityGroup, SecurityGroupRule, Subnet, Vpc, Zone
from minicloud.store import queries
from minicloud.store.store import Tx


@dataclass(frozen=True, slots=True)
class VpcView:
    """A VPC and its tags."""

    vpc: Vpc
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SubnetView:
    """A subnet, its zone, how many addresses are free, and its tags."""

    subnet: Subnet
    zone: Zone
    free_addresses: int
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SecurityGroupView:
    """A security group, its rules in a stable order, and its tags."""

    group: SecurityGroup
    rules: tuple[SecurityGroupRule, ...]
    tags: Mapping[str, str]


def describe_vpcs(cloud: Cloud, caller: Caller, ids: Iterable[str]) -> list[VpcView]:
    """Return the named VPCs of the caller, all if none is named. Raises InvalidVpcID.NotFound."""
    wanted = list(ids)

    def look(tx: Tx) -> list[VpcView]:
        rows = require(tx, caller, VPCS, wanted) if wanted else _own_vpcs(tx, caller)
        tags = tx.tags.of([row.id for row in rows])
        return [VpcView(row, tags.get(row.id, {})) for row in rows]

    return cloud.store.read(look)


def describe_subnets(cloud: Cloud, caller: Caller, ids: Iterable[str]) -> list[SubnetView]:
    """Return the named subnets of the caller, all if none is named. Raises InvalidSubnetID.NotFound."""
    wanted = list(ids)

    def look(tx: Tx) -> list[SubnetView]:
        if wanted:
            rows = require(tx, caller, SUBNETS, wanted)
        else:
            rows = tx.subnets.where(vpc_id=[vpc.id for vpc in _own_vpcs(tx, caller)])
        tags = tx.tags.of([row.id for row in rows])
        zones = {zone.id: zone for zone in tx.zones.where(id={row.zone for row in rows})}
        return [
            SubnetView(
                row,
                zones[row.zone],
                len(subnet_addresses(row.cidr)) - len(queries.used_private_ips(tx, row.id)),
                tags.get(row.id, {}),
            )
            for row in rows
        ]

    return cloud.store.read(look)


def describe_security_groups(
    cloud: Cloud, caller: Caller, ids: Iterable[str], names: Iterable[str]
) -> list[SecurityGroupView]:
    """Return the groups named by id or, in the default VPC, by name; all if none is. Raises InvalidGroup.NotFound."""
    wanted_ids, wanted_names = list(ids), list(dict.fromkeys(names))

    def look(tx: Tx) -> list[SecurityGroupView]:
        rows = require(tx, caller, SECURITY_GROUPS, wanted_ids)
        rows += [row for row in groups_by_name(tx, caller, wanted_names) if row not in rows]
        if not (wanted_ids or wanted_names):
            rows = tx.security_groups.where(vpc_id=[vpc.id for vpc in _own_vpcs(tx, caller)])
        rules = tx.security_group_rules.where(group_id=[row.id for row in rows])
        tags = tx.tags.of([row.id for row in rows])
        return [
            SecurityGroupView(
                row,
                tuple(sorted((rule for rule in rules if rule.group_id == row.id), key=lambda rule: rule.id)),
                tags.get(row.id, {}),
            )
            for row in rows
        ]

    return cloud.store.read(look)


def groups_by_name(tx: Tx, caller: Caller, names: Iterable[str]) -> list[SecurityGroup]:
    """Return the groups of the default VPC that bear the names. Raises InvalidGroup.NotFound."""
    wanted = list(names)
    if not wanted:
        return []
    default = default_vpc(tx, caller)
    found = {group.name: group for group in tx.security_groups.where(vpc_id=default.id, name=wanted)}
    for name in wanted:
        if name not in found:
            raise ApiError(
                "InvalidGroup.NotFound",
                f"The security group '{name[:255]}' does not exist in default VPC '{default.id}'",
            )
    return [found[name] for name in wanted]


def default_vpc(tx: Tx, caller: Caller) -> Vpc:
    """Return the caller's default VPC. Raises VPCIdNotSpecified where there is none."""
    found = tx.vpcs.where(account_id=caller.account_id, region=caller.region, is_default=True)
    if not found:
        raise ApiError("VPCIdNotSpecified", "No default VPC for this user")
    return found[0]


def _own_vpcs(tx: Tx, caller: Caller) -> list[Vpc]:
    return tx.vpcs.where(account_id=caller.account_id, region=caller.region)
