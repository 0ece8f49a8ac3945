"""Security groups and their rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minicloud.api.ec2.common import render_tags
from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import security_groups, vpcs
from minicloud.model.resources import SecurityGroupRule
from minicloud.store.filters.security_groups import SECURITY_GROUP_RULES, SECURITY_GROUPS

# DescribeStaleSecurityGroups has pages, but neither filters nor anything to show.
_NO_STALE_GROUPS = ShownFilters("GroupId", {})


def describe_security_groups(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeSecurityGroups."""
    found = security_groups.describe_security_groups(
        context.cloud,
        context.caller,
        parameters.get("GroupIds", ()),
        parameters.get("GroupNames", ()),
        context.asked,
    )
    region = context.caller.region
    return {
        "SecurityGroups": [_render_group(one, region) for one in found.items],
        "NextToken": context.next_token(found),
    }


def describe_security_group_rules(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeSecurityGroupRules."""
    found = security_groups.describe_security_group_rules(
        context.cloud, context.caller, parameters.get("SecurityGroupRuleIds", ()), context.asked
    )
    region = context.caller.region
    return {
        "SecurityGroupRules": [_render_rule(one, region) for one in found.items],
        "NextToken": context.next_token(found),
    }


def describe_security_group_references(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeSecurityGroupReferences: nobody refers to groups from beyond a peering, for there is none."""
    security_groups.require_security_groups(context.cloud, context.caller, parameters["GroupId"])
    return {"SecurityGroupReferenceSet": []}


def describe_stale_security_groups(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeStaleSecurityGroups: without peerings, and while a group that rules refer to cannot go, none is."""
    vpcs.find_vpc(context.cloud, context.caller, parameters["VpcId"])
    found = _NO_STALE_GROUPS.page([], context.asked)
    return {"StaleSecurityGroupSet": found.items, "NextToken": context.next_token(found)}


def _render_group(one: security_groups.SecurityGroupView, region: str) -> dict[str, Any]:
    group = one.group
    return {
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.description,
        "OwnerId": group.account_id,
        "VpcId": group.vpc_id,
        "SecurityGroupArn": f"arn:aws:ec2:{region}:{group.account_id}:security-group/{group.id}",
        "IpPermissions": _render_permissions(rule for rule in one.rules if not rule.egress),
        "IpPermissionsEgress": _render_permissions(rule for rule in one.rules if rule.egress),
        "Tags": render_tags(one.tags),
    }


def _render_permissions(rules: Iterable[SecurityGroupRule]) -> list[dict[str, Any]]:
    """Return rules as EC2 does: one permission per protocol and ports, with all its sources."""
    permissions: dict[tuple[str, int | None, int | None], dict[str, Any]] = {}
    for rule in rules:
        permission = permissions.setdefault(
            (rule.protocol, rule.from_port, rule.to_port),
            {
                "IpProtocol": rule.protocol,
                "FromPort": rule.from_port,
                "ToPort": rule.to_port,
                "IpRanges": [],
                "Ipv6Ranges": [],
                "PrefixListIds": [],
                "UserIdGroupPairs": [],
            },
        )
        if rule.cidr is not None:
            permission["IpRanges"].append({"CidrIp": rule.cidr, "Description": rule.description})
        else:
            permission["UserIdGroupPairs"].append(
                {"GroupId": rule.source_group_id, "UserId": rule.account_id, "Description": rule.description}
            )
    return list(permissions.values())


def _render_rule(one: security_groups.SecurityGroupRuleView, region: str) -> dict[str, Any]:
    rule = one.rule
    reference = None
    if rule.source_group_id is not None:
        reference = {"GroupId": rule.source_group_id, "UserId": rule.account_id}
    return {
        "SecurityGroupRuleId": rule.id,
        "SecurityGroupRuleArn": f"arn:aws:ec2:{region}:{rule.account_id}:security-group-rule/{rule.id}",
        "GroupId": rule.group_id,
        "GroupOwnerId": rule.account_id,
        "IsEgress": rule.egress,
        "IpProtocol": rule.protocol,
        # Unlike DescribeSecurityGroups, EC2 shows -1 here where a rule is about all ports.
        "FromPort": -1 if rule.from_port is None else rule.from_port,
        "ToPort": -1 if rule.to_port is None else rule.to_port,
        "CidrIpv4": rule.cidr,
        "ReferencedGroupInfo": reference,
        "Description": rule.description,
        "Tags": render_tags(one.tags),
    }


ROWS: Rows = {
    "DescribeSecurityGroups": row(
        describe_security_groups, "GroupIds", "GroupNames", filters=SECURITY_GROUPS, pages=Pages(5, 1000)
    ),
    "DescribeSecurityGroupRules": row(
        describe_security_group_rules, "SecurityGroupRuleIds", filters=SECURITY_GROUP_RULES, pages=Pages(5, 1000)
    ),
    "DescribeSecurityGroupReferences": row(describe_security_group_references, "GroupId"),
    "DescribeStaleSecurityGroups": row(describe_stale_security_groups, "VpcId", pages=Pages(5, 255)),
}
