"""Subnets."""

from __future__ import annotations

from typing import Any

from minicloud.api.ec2.common import render_tags
from minicloud.api.listing import Pages
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import subnets
from minicloud.store.filters.subnets import SUBNETS


def describe_subnets(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeSubnets."""
    found = subnets.describe_subnets(context.cloud, context.caller, parameters.get("SubnetIds", ()), context.asked)
    return {"Subnets": [_render(one) for one in found.items], "NextToken": context.next_token(found)}


def _render(one: subnets.SubnetView) -> dict[str, Any]:
    subnet, zone = one.subnet, one.zone
    return {
        "SubnetId": subnet.id,
        "SubnetArn": f"arn:aws:ec2:{zone.region}:{subnet.account_id}:subnet/{subnet.id}",
        "OwnerId": subnet.account_id,
        "VpcId": subnet.vpc_id,
        "State": "available",
        "CidrBlock": subnet.cidr,
        "AvailableIpAddressCount": one.free_addresses,
        "AvailabilityZone": zone.id,
        "AvailabilityZoneId": zone.zone_id,
        "DefaultForAz": subnet.is_default,
        "MapPublicIpOnLaunch": subnet.map_public_ip_on_launch,
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


ROWS: Rows = {"DescribeSubnets": row(describe_subnets, "SubnetIds", filters=SUBNETS, pages=Pages(5, 1000))}
