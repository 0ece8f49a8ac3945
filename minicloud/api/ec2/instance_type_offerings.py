"""DescribeInstanceTypeOfferings: where each instance type can be had, which is everywhere."""

from __future__ import annotations

from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import zones
from minicloud.cloud.instance_types import describe_instance_types

# What orders the offerings, and is not shown.
_KEY = "Key"
FILTERS = ShownFilters(_KEY, {"instance-type": "InstanceType", "location": "Location"})


def describe_instance_type_offerings(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeInstanceTypeOfferings. There are no outposts, so nothing is offered at one."""
    location_type = parameters.get("LocationType", "region")
    offered = [
        {
            _KEY: f"{location} {one.name}",
            "InstanceType": one.name,
            "LocationType": location_type,
            "Location": location,
        }
        for location in _locations(context, location_type)
        for one in describe_instance_types(context.cloud, context.caller, ())
    ]
    found = FILTERS.page(offered, context.asked)
    return {
        "InstanceTypeOfferings": [{name: value for name, value in one.items() if name != _KEY} for one in found.items],
        "NextToken": context.next_token(found),
    }


def _locations(context: Context, location_type: str) -> list[str]:
    if location_type == "region":
        return [context.caller.region]
    if location_type == "outpost":
        return []
    found = zones.describe_zones(context.cloud, context.caller, (), ())
    return [one.zone.zone_id if location_type == "availability-zone-id" else one.zone.id for one in found]


ROWS: Rows = {
    "DescribeInstanceTypeOfferings": row(
        describe_instance_type_offerings, "LocationType", filters=FILTERS, pages=Pages(5, 1000)
    ),
}
