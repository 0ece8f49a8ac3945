"""Network interfaces."""

from __future__ import annotations

from typing import Any

from minicloud.api.ec2.common import render_tags
from minicloud.api.ec2.interface_parts import render_attachment, render_groups, render_interface
from minicloud.api.listing import Pages
from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import network_interfaces
from minicloud.errors import ApiError
from minicloud.model.resources import SecurityGroup
from minicloud.store.filters.network_interfaces import NETWORK_INTERFACES


def describe_network_interfaces(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeNetworkInterfaces. Nothing is managed by others, so IncludeManagedResources changes nothing."""
    found = network_interfaces.describe_network_interfaces(
        context.cloud, context.caller, parameters.get("NetworkInterfaceIds", ()), context.asked
    )
    return {"NetworkInterfaces": [_render(one) for one in found.items], "NextToken": context.next_token(found)}


def describe_network_interface_attribute(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeNetworkInterfaceAttribute."""
    attribute = parameters.get("Attribute")
    if attribute is None:
        raise ApiError("MissingParameter", "The request must contain the parameter attribute")
    one = network_interfaces.describe_network_interface(context.cloud, context.caller, parameters["NetworkInterfaceId"])
    shown: dict[str, dict[str, Any]] = {
        "description": {"Description": {"Value": ""}},
        "groupSet": {"Groups": render_groups(one.port, _groups(one))},
        "sourceDestCheck": {"SourceDestCheck": {"Value": True}},
        "attachment": {"Attachment": _render_attachment(one)},
        "associatePublicIpAddress": {"AssociatePublicIpAddress": one.subnet.map_public_ip_on_launch},
    }
    return {"NetworkInterfaceId": one.port.id, **shown[attribute]}


def _render(one: network_interfaces.NetworkInterfaceView) -> dict[str, Any]:
    return {
        **render_interface(one.port, one.instance, _groups(one)),
        "AvailabilityZone": one.zone.id,
        "AvailabilityZoneId": one.zone.zone_id,
        "RequesterManaged": False,
        "Attachment": _render_attachment(one),
        "TagSet": render_tags(one.tags),
    }


def _render_attachment(one: network_interfaces.NetworkInterfaceView) -> dict[str, Any]:
    return {
        **render_attachment(one.port, one.instance),
        "InstanceId": one.instance.id,
        "InstanceOwnerId": one.instance.account_id,
    }


def _groups(one: network_interfaces.NetworkInterfaceView) -> dict[str, SecurityGroup]:
    return {group.id: group for group in one.groups}


ROWS: Rows = {
    "DescribeNetworkInterfaces": row(
        describe_network_interfaces,
        "NetworkInterfaceIds",
        tolerates={"IncludeManagedResources": ANYTHING},
        filters=NETWORK_INTERFACES,
        pages=Pages(5, 1000, not_with=("NetworkInterfaceIds",)),
    ),
    "DescribeNetworkInterfaceAttribute": row(describe_network_interface_attribute, "NetworkInterfaceId", "Attribute"),
}
