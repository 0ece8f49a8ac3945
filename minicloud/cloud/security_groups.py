"""Security groups and their rules as their owners see them. What is described here is what hosts enforce.

Making and changing them comes with the network API; bootstrap.py makes the default one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import MAX_IDS, SECURITY_GROUP_RULES, SECURITY_GROUPS, narrow_to, require, too_many
from minicloud.cloud.vpcs import default_vpc
from minicloud.errors import ApiError
from minicloud.model.resources import SecurityGroup, SecurityGroupRule
from minicloud.store.filters import security_groups as filters
from minicloud.store.search import EVERYTHING, Asked, Found
from minicloud.store.store import Tx


@dataclass(frozen=True, slots=True)
class SecurityGroupView:
    """A security group, its rules in a stable order, and its tags."""

    group: SecurityGroup
    rules: tuple[SecurityGroupRule, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SecurityGroupRuleView:
    """A rule and its tags."""

    rule: SecurityGroupRule
    tags: Mapping[str, str]


def describe_security_groups(
    cloud: Cloud, caller: Caller, ids: Iterable[str], names: Iterable[str], asked: Asked = EVERYTHING
) -> Found[SecurityGroupView]:
    """Return a page of the groups named by id or, in the default VPC, by name; of all if none is.

    Raises InvalidGroupId.Malformed, InvalidGroup.NotFound, InvalidParameterValue (too many).
    """
    wanted_ids, wanted_names = list(ids), list(dict.fromkeys(names))
    if len(wanted_ids) + len(wanted_names) > MAX_IDS:
        raise too_many()

    def look(tx: Tx) -> Found[SecurityGroupView]:
        named: dict[str, object] = {}
        if wanted_ids or wanted_names:
            rows = require(tx, caller, SECURITY_GROUPS, wanted_ids) + groups_by_name(tx, caller, wanted_names)
            named["id"] = {row.id for row in rows}
        owned = filters.security_groups_of(caller.account_id, caller.region)
        found = tx.security_groups.search(filters.SECURITY_GROUPS, asked, owned, **named)
        return Found(_view_groups(tx, found.items), found.after)

    return cloud.store.read(look)


def describe_security_group_rules(
    cloud: Cloud, caller: Caller, ids: Iterable[str], asked: Asked = EVERYTHING
) -> Found[SecurityGroupRuleView]:
    """Return a page of the named rules, of all of the caller's if none is. Raises InvalidSecurityGroupRuleId.*."""
    wanted = list(ids)

    def look(tx: Tx) -> Found[SecurityGroupRuleView]:
        named = narrow_to(tx, caller, SECURITY_GROUP_RULES, wanted)
        owned = filters.security_group_rules_of(caller.account_id, caller.region)
        found = tx.security_group_rules.search(filters.SECURITY_GROUP_RULES, asked, owned, **named)
        tags = tx.tags.of([row.id for row in found.items])
        return Found([SecurityGroupRuleView(row, tags.get(row.id, {})) for row in found.items], found.after)

    return cloud.store.read(look)


def require_security_groups(cloud: Cloud, caller: Caller, ids: Iterable[str]) -> list[SecurityGroup]:
    """Return the rows of groups. Raises InvalidGroupId.Malformed, InvalidGroup.NotFound."""
    return cloud.store.read(lambda tx: require(tx, caller, SECURITY_GROUPS, ids))


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


def _view_groups(tx: Tx, rows: list[SecurityGroup]) -> list[SecurityGroupView]:
    rules: dict[str, list[SecurityGroupRule]] = {}
    for rule in sorted(tx.security_group_rules.where(group_id=[row.id for row in rows]), key=lambda rule: rule.id):
        rules.setdefault(rule.group_id, []).append(rule)
    tags = tx.tags.of([row.id for row in rows])
    return [SecurityGroupView(row, tuple(rules.get(row.id, ())), tags.get(row.id, {})) for row in rows]
