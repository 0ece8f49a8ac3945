"""VPCs, subnets and security groups."""

from __future__ import annotations

from typing import Any

from minicloud import ids
from minicloud.api.ec2.common import render_tags
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import networks
from minicloud.model.resources import SecurityGroupRule


def describe_vpcs(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeVpcs. There are no DHCP option sets: every VPC has the default ones."""
    found = networks.describe_vpcs(context.cloud, context.caller, parameters.get("VpcIds", ()))
    return {
        "Vpcs": [
            {
                "VpcId": one.vpc.id,
                "OwnerId": one.vpc.account_id,
                "State": "available",
                "CidrBlock": one.vpc.cidr,
                "DhcpOptionsId": "default",
                "InstanceTenancy": "default",
                "IsDefault": one.vpc.is_default,
                "CidrBlockAssociationSet": [
                    {
                        "AssociationId": ids.derived_id("vpc-cidr-assoc", one.vpc.id, one.vpc.cidr),
                        "CidrBlock": one.vpc.cidr,
                        "CidrBlockState": {"State": "associated"},
                    }
                ],
                "Ipv6CidrBlockAssociationSet": [],
                "Tags": render_tags(one.tags),
            }
            for one in found
        ]
    }


def describe_subnets(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeSubnets."""
    found = networks.describe_subnets(context.cloud, context.caller, parameters.get("SubnetIds", ()))
    region = context.caller.region
    return {
        "Subnets": [
            {
                "SubnetId": one.subnet.id,
                "SubnetArn": f"arn:aws:ec2:{region}:{one.subnet.account_id}:subnet/{one.subnet.id}",
                "OwnerId": one.subnet.account_id,
                "VpcId": one.subnet.vpc_id,
                "State": "available",
                "CidrBlock": one.subnet.cidr,
                "AvailableIpAddressCount": one.free_addresses,
                "AvailabilityZone": one.zone.id,
                "AvailabilityZoneId": one.zone.zone_id,
                "DefaultForAz": one.subnet.is_default,
                "MapPublicIpOnLaunch": one.subnet.map_public_ip_on_launch,
                "MapCustomerOwnedIpOnLaunch": False,
                "AssignIpv6AddressOnCreation": False,
                "EnableDns64": False,
                "Ipv6Native": False,
                "Ipv6CidrBlockAssociationSet": [],
                "PrivateDnsNameOptionsOnLaunch": {
                    "HostnameType": "ip-name",
                    "EnableResourceNameDnsARecord": False,
                    "EnableResourceNameDnsAAAARecord": False,
                },
                "Tags": render_tags(one.tags),
            }
            for one in found
        ]
    }


def describe_security_groups(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeSecurityGroups."""
    found = networks.describe_security_groups(
        context.cloud, context.caller, parameters.get("GroupIds", ()), parameters.get("GroupNames", ())
    )
    region = context.caller.region
    return {
        "SecurityGroups": [
            {
                "GroupId": one.group.id,
                "GroupName": one.group.name,
                "Description": one.group.description,
                "OwnerId": one.group.account_id,
                "VpcId": one.group.vpc_id,
                "SecurityGroupArn": f"arn:aws:ec2:{region}:{one.group.account_id}:security-group/{one.group.id}",
                "IpPermissions": _render_permissions(rule for rule in one.rules if not rule.egress),
                "IpPermissionsEgress": _render_permissions(rule for rule in one.rules if rule.egress),
                "Tags": render_tags(one.tags),
            }
            for one in found
        ]
    }


def _render_permissions(rules: Any) -> list[dict[str, Any]]:
    """Return rules as EC2 does: one permission per protocol and ports, with all its sources."""
    permissions: dict[tuple[str, int | None, int | None], dict[str, Any]] = {}
    rule: SecurityGroupRule
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


ROWS: Rows = {
    "DescribeVpcs": row(describe_vpcs, "VpcIds"),
    "DescribeSubnets": row(describe_subnets, "SubnetIds"),
    "DescribeSecurityGroups": row(describe_security_groups, "GroupIds", "GroupNames"),
}
