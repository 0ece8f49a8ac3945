"""Route tables and internet gateways: how routers on hosts send packets, in EC2's terms (see cloud/vpc_parts.py)."""

from __future__ import annotations

from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud.vpc_parts import (
    ANYWHERE,
    INTERNET_GATEWAYS,
    ROUTE_TABLES,
    Part,
    describe_parts,
    internet_gateway_id,
    main_association_id,
)

_ROUTE_TABLE_FILTERS = ShownFilters(
    "RouteTableId",
    {
        "association.gateway-id": "Associations.GatewayId",
        "association.main": "Associations.Main",
        "association.route-table-association-id": "Associations.RouteTableAssociationId",
        "association.route-table-id": "Associations.RouteTableId",
        "association.subnet-id": "Associations.SubnetId",
        "owner-id": "OwnerId",
        "route-table-id": "RouteTableId",
        "route.destination-cidr-block": "Routes.DestinationCidrBlock",
        "route.destination-ipv6-cidr-block": "Routes.DestinationIpv6CidrBlock",
        "route.destination-prefix-list-id": "Routes.DestinationPrefixListId",
        "route.egress-only-internet-gateway-id": "Routes.EgressOnlyInternetGatewayId",
        "route.gateway-id": "Routes.GatewayId",
        "route.instance-id": "Routes.InstanceId",
        "route.nat-gateway-id": "Routes.NatGatewayId",
        "route.origin": "Routes.Origin",
        "route.state": "Routes.State",
        "route.transit-gateway-id": "Routes.TransitGatewayId",
        "route.vpc-peering-connection-id": "Routes.VpcPeeringConnectionId",
        "vpc-id": "VpcId",
    },
    has_tags=True,
)
_INTERNET_GATEWAY_FILTERS = ShownFilters(
    "InternetGatewayId",
    {
        "attachment.state": "Attachments.State",
        "attachment.vpc-id": "Attachments.VpcId",
        "internet-gateway-id": "InternetGatewayId",
        "owner-id": "OwnerId",
    },
    has_tags=True,
)


def describe_route_tables(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeRouteTables: the main table of each VPC. Subnets use it implicitly, so no association names one."""
    parts = describe_parts(context.cloud, context.caller, ROUTE_TABLES, parameters.get("RouteTableIds", ()))
    found = _ROUTE_TABLE_FILTERS.page([_render_route_table(one) for one in parts], context.asked)
    return {"RouteTables": found.items, "NextToken": context.next_token(found)}


def describe_internet_gateways(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeInternetGateways."""
    parts = describe_parts(context.cloud, context.caller, INTERNET_GATEWAYS, parameters.get("InternetGatewayIds", ()))
    found = _INTERNET_GATEWAY_FILTERS.page([_render_internet_gateway(one) for one in parts], context.asked)
    return {"InternetGateways": found.items, "NextToken": context.next_token(found)}


def _render_route_table(one: Part) -> dict[str, Any]:
    return {
        "RouteTableId": one.id,
        "VpcId": one.vpc.id,
        "OwnerId": one.vpc.account_id,
        "Associations": [
            {
                "RouteTableAssociationId": main_association_id(one.vpc.id),
                "RouteTableId": one.id,
                "Main": True,
                "AssociationState": {"State": "associated"},
            }
        ],
        "Routes": [
            {
                "DestinationCidrBlock": one.vpc.cidr,
                "GatewayId": "local",
                "Origin": "CreateRouteTable",
                "State": "active",
            },
            {
                "DestinationCidrBlock": ANYWHERE,
                "GatewayId": internet_gateway_id(one.vpc.id),
                "Origin": "CreateRoute",
                "State": "active",
            },
        ],
        "PropagatingVgws": [],
        "Tags": [],
    }


def _render_internet_gateway(one: Part) -> dict[str, Any]:
    return {
        "InternetGatewayId": one.id,
        "OwnerId": one.vpc.account_id,
        # The state that EC2 shows, though its model lists others.
        "Attachments": [{"State": "available", "VpcId": one.vpc.id}],
        "Tags": [],
    }


ROWS: Rows = {
    "DescribeRouteTables": row(
        describe_route_tables, "RouteTableIds", filters=_ROUTE_TABLE_FILTERS, pages=Pages(5, 100)
    ),
    "DescribeInternetGateways": row(
        describe_internet_gateways, "InternetGatewayIds", filters=_INTERNET_GATEWAY_FILTERS, pages=Pages(5, 1000)
    ),
}
