"""Filters of subnets."""

from __future__ import annotations

from sqlalchemy import Integer, cast, func, literal, select

from minicloud.store import schema
from minicloud.store.filters.vpcs import in_vpcs_of
from minicloud.store.search import (
    ABSENT,
    Condition,
    FilterSet,
    boolean,
    concat,
    constant,
    number,
    text,
    through,
)

# VPC user guide, "Subnet CIDR reservations": the first four addresses and the last of every subnet are reserved.
RESERVED = 5

_subnets = schema.subnets.c
_zones = schema.zones.c
_interfaces = schema.network_interfaces.c

# The CIDR's last two characters: "16", or "/8".
_prefix_length = cast(func.replace(func.substr(_subnets.cidr, func.length(_subnets.cidr) - 1), "/", ""), Integer)
_used = (
    select(func.count())
    .select_from(schema.network_interfaces)
    .where(_interfaces.subnet_id == _subnets.id)
    .correlate(schema.subnets)
    .scalar_subquery()
)
_free = literal(1, Integer).bitwise_lshift(32 - _prefix_length) - RESERVED - _used
_region = select(_zones.region).where(_zones.id == _subnets.zone).correlate(schema.subnets).scalar_subquery()
_zone = text(_subnets.zone)
_zone_id = through(_subnets.zone, _zones.id, text(_zones.zone_id))
_cidr = text(_subnets.cidr)
_is_default = boolean(_subnets.is_default)

SUBNETS = FilterSet(
    {
        "availability-zone": _zone,
        "availabilityZone": _zone,
        "availability-zone-id": _zone_id,
        "availabilityZoneId": _zone_id,
        "available-ip-address-count": number(_free),
        "cidr": _cidr,
        "cidr-block": _cidr,
        "cidrBlock": _cidr,
        "customer-owned-ipv4-pool": ABSENT,
        "default-for-az": _is_default,
        "defaultForAz": _is_default,
        "enable-dns64": constant("false"),
        "enable-lni-at-device-index": ABSENT,
        "ipv6-cidr-block-association.association-id": ABSENT,
        "ipv6-cidr-block-association.ipv6-cidr-block": ABSENT,
        "ipv6-cidr-block-association.state": ABSENT,
        "ipv6-native": constant("false"),
        "map-customer-owned-ip-on-launch": constant("false"),
        "map-public-ip-on-launch": boolean(_subnets.map_public_ip_on_launch),
        "outpost-arn": ABSENT,
        "owner-id": text(_subnets.account_id),
        "private-dns-name-options-on-launch.enable-resource-name-dns-a-record": constant("false"),
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": constant("false"),
        "private-dns-name-options-on-launch.hostname-type": constant("ip-name"),
        "state": constant("available"),
        "subnet-arn": text(
            concat("arn:aws:ec2:", _region, ":", _subnets.account_id, ":subnet/", _subnets.id),
        ),
        "subnet-id": text(_subnets.id),
        "vpc-id": text(_subnets.vpc_id),
    },
    _subnets.id,
)


def subnets_of(account_id: str, region: str) -> Condition:
    """The subnets of an account's VPCs in a region."""
    return in_vpcs_of(_subnets.vpc_id, account_id, region)
