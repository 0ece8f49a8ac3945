"""VPCs."""

from __future__ import annotations

from typing import Any

from minicloud import ids
from minicloud.api.ec2.common import render_tags
from minicloud.api.listing import Pages
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import vpcs
from minicloud.cloud.vpc_parts import dhcp_options_id
from minicloud.store.filters.vpcs import VPCS


def describe_vpcs(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeVpcs."""
    found = vpcs.describe_vpcs(context.cloud, context.caller, parameters.get("VpcIds", ()), context.asked)
    return {"Vpcs": [_render(one) for one in found.items], "NextToken": context.next_token(found)}


def describe_vpc_attribute(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeVpcAttribute. Routers answer DNS for every VPC; no public names are published; nothing is metered."""
    vpc = vpcs.find_vpc(context.cloud, context.caller, parameters["VpcId"])
    shown = {
        "enableDnsSupport": {"EnableDnsSupport": {"Value": True}},
        "enableDnsHostnames": {"EnableDnsHostnames": {"Value": False}},
        "enableNetworkAddressUsageMetrics": {"EnableNetworkAddressUsageMetrics": {"Value": False}},
    }
    return {"VpcId": vpc.id, **shown[parameters["Attribute"]]}


def _render(one: vpcs.VpcView) -> dict[str, Any]:
    vpc = one.vpc
    return {
        "VpcId": vpc.id,
        "OwnerId": vpc.account_id,
        "State": "available",
        "CidrBlock": vpc.cidr,
        "DhcpOptionsId": dhcp_options_id(vpc.account_id, vpc.region),
        "InstanceTenancy": "default",
        "IsDefault": vpc.is_default,
        "CidrBlockAssociationSet": [
            {
                "AssociationId": ids.derived_id(ids.VPC_CIDR_ASSOCIATION, vpc.id, vpc.cidr),
                "CidrBlock": vpc.cidr,
                "CidrBlockState": {"State": "associated"},
            }
        ],
        "Ipv6CidrBlockAssociationSet": [],
        "Tags": render_tags(one.tags),
    }


ROWS: Rows = {
    "DescribeVpcs": row(describe_vpcs, "VpcIds", filters=VPCS, pages=Pages(5, 1000)),
    "DescribeVpcAttribute": row(describe_vpc_attribute, "VpcId", "Attribute"),
}
