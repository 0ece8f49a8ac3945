"""Filters of security groups and of their rules.

A filter about rules finds the groups of which any rule matches; two such filters may be met by two rules (EC2 API
reference, DescribeSecurityGroups).
"""

from __future__ import annotations

from sqlalchemy import select

from minicloud.store import schema
from minicloud.store.filters.vpcs import in_vpcs_of
from minicloud.store.search import ABSENT, Condition, Field, FilterSet, number, text, through, when

_groups = schema.security_groups.c
_rules = schema.security_group_rules.c
_sources = schema.security_groups.alias("sources").c


def _of_rules(egress: bool) -> dict[str, Field]:
    def any_rule(field: Field) -> Field:
        return through(_groups.id, _rules.group_id, field, _rules.egress.is_(egress))

    prefix = "egress.ip-permission" if egress else "ip-permission"
    return {
        f"{prefix}.cidr": any_rule(text(_rules.cidr)),
        f"{prefix}.from-port": any_rule(number(_rules.from_port)),
        f"{prefix}.group-id": any_rule(text(_rules.source_group_id)),
        f"{prefix}.group-name": any_rule(through(_rules.source_group_id, _sources.id, text(_sources.name))),
        f"{prefix}.ipv6-cidr": ABSENT,
        f"{prefix}.prefix-list-id": ABSENT,
        f"{prefix}.protocol": any_rule(text(_rules.protocol)),
        f"{prefix}.to-port": any_rule(number(_rules.to_port)),
        f"{prefix}.user-id": any_rule(when(_rules.source_group_id.is_not(None), text(_rules.account_id))),
    }


SECURITY_GROUPS = FilterSet(
    {
        "description": text(_groups.description),
        **_of_rules(egress=True),
        "group-id": text(_groups.id),
        "group-name": text(_groups.name),
        **_of_rules(egress=False),
        "owner-id": text(_groups.account_id),
        "vpc-id": text(_groups.vpc_id),
    },
    _groups.id,
)

SECURITY_GROUP_RULES = FilterSet(
    {"group-id": text(_rules.group_id), "security-group-rule-id": text(_rules.id)}, _rules.id
)


def security_groups_of(account_id: str, region: str) -> Condition:
    """The groups of an account's VPCs in a region."""
    return in_vpcs_of(_groups.vpc_id, account_id, region)


def security_group_rules_of(account_id: str, region: str) -> Condition:
    """The rules of those groups."""
    return _rules.group_id.in_(select(_groups.id).where(security_groups_of(account_id, region)))
