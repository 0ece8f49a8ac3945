"""Filters of VPCs."""

from __future__ import annotations

from sqlalchemy import Column, select

from minicloud import ids
from minicloud.store import schema
from minicloud.store.filters.derived import derived_id
from minicloud.store.search import ABSENT, Condition, FilterSet, boolean, constant, text

_vpcs = schema.vpcs.c

VPCS = FilterSet(
    {
        "cidr": text(_vpcs.cidr),
        "cidr-block-association.association-id": text(
            derived_id(ids.VPC_CIDR_ASSOCIATION, _vpcs.id, _vpcs.cidr),
        ),
        "cidr-block-association.cidr-block": text(_vpcs.cidr),
        "cidr-block-association.state": constant("associated"),
        "dhcp-options-id": text(derived_id(ids.DHCP_OPTIONS, _vpcs.account_id, _vpcs.region)),
        "ipv6-cidr-block-association.association-id": ABSENT,
        "ipv6-cidr-block-association.ipv6-cidr-block": ABSENT,
        "ipv6-cidr-block-association.ipv6-pool": ABSENT,
        "ipv6-cidr-block-association.state": ABSENT,
        "is-default": boolean(_vpcs.is_default),
        # Not documented any more; Terraform asks by it.
        "isDefault": boolean(_vpcs.is_default),
        "owner-id": text(_vpcs.account_id),
        "state": constant("available"),
        "vpc-id": text(_vpcs.id),
    },
    _vpcs.id,
)


def in_vpcs_of(vpc_id: Column[str], account_id: str, region: str) -> Condition:
    """Rows of other tables, by their column of VPC ids, that are in an account's VPCs of a region."""
    return vpc_id.in_(select(_vpcs.id).where(_vpcs.account_id == account_id, _vpcs.region == region))
