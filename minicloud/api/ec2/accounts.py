"""What belongs to the account as a whole: its attributes, and its elastic addresses, of which there are none."""

from __future__ import annotations

from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud.account_attributes import describe_account_attributes as describe
from minicloud.cloud.elastic_ips import require_addresses


def describe_account_attributes(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeAccountAttributes."""
    found = describe(context.cloud, context.caller, parameters.get("AttributeNames", ()))
    return {
        "AccountAttributes": [
            {"AttributeName": name, "AttributeValues": [{"AttributeValue": value}]} for name, value in found.items()
        ]
    }


def describe_addresses(_context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeAddresses."""
    require_addresses(parameters.get("AllocationIds", ()), parameters.get("PublicIps", ()))
    return {"Addresses": []}


def describe_addresses_attribute(_context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeAddressesAttribute."""
    require_addresses(parameters.get("AllocationIds", ()), ())
    return {"Addresses": []}


# Known, so that an unknown one is EC2's error; no address shows anything.
ADDRESSES = ShownFilters(
    "AllocationId",
    {
        "allocation-id": "AllocationId",
        "association-id": "AssociationId",
        "domain": "Domain",
        "instance-id": "InstanceId",
        "network-border-group": "NetworkBorderGroup",
        "network-interface-id": "NetworkInterfaceId",
        "network-interface-owner-id": "NetworkInterfaceOwnerId",
        "private-ip-address": "PrivateIpAddress",
        "public-ip": "PublicIp",
    },
    has_tags=True,
)

ROWS: Rows = {
    "DescribeAccountAttributes": row(describe_account_attributes, "AttributeNames"),
    "DescribeAddresses": row(describe_addresses, "AllocationIds", "PublicIps", filters=ADDRESSES),
    "DescribeAddressesAttribute": row(
        describe_addresses_attribute, "AllocationIds", tolerates={"Attribute": ANYTHING}, pages=Pages(1, 1000)
    ),
}
