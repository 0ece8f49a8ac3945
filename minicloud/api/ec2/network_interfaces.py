"""Network interfaces."""

from __future__ import annotations

from typing import Any

from minicloud.api.ec2.common import render_tags
from minicloud.api.listing import Pages
from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud import network_interfaces
from minicloud.cloud.metadata import private_dns_name
from minicloud.errors import ApiError
from minicloud.model.states import InstanceState
from minicloud.store.filters.network_interfaces import NETWORK_INTERFACES, PUBLIC_IP_OWNER

# No DNS publishes public names.
NO_PUBLIC_NAME = ""


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
        "groupSet": {"Groups": _render_groups(one)},
        "sourceDestCheck": {"SourceDestCheck": {"Value": True}},
        "attachment": {"Attachment": _render_attachment(one)},
        "associatePublicIpAddress": {"AssociatePublicIpAddress": one.subnet.map_public_ip_on_launch},
    }
    return {"NetworkInterfaceId": one.port.id, **shown[attribute]}


def _render(one: network_interfaces.NetworkInterfaceView) -> dict[str, Any]:
    port = one.port
    name = private_dns_name(port.private_ip, one.zone.region)
    association = None
    if port.public_ip is not None:
        association = {"IpOwnerId": PUBLIC_IP_OWNER, "PublicDnsName": NO_PUBLIC_NAME, "PublicIp": port.public_ip}
    return {
        "NetworkInterfaceId": port.id,
        "OwnerId": port.account_id,
        "VpcId": port.vpc_id,
        "SubnetId": port.subnet_id,
        "AvailabilityZone": one.zone.id,
        "AvailabilityZoneId": one.zone.zone_id,
        "Description": "",
        "InterfaceType": "interface",
        "Status": "in-use",
        "SourceDestCheck": True,
        "RequesterManaged": False,
        "Operator": {"Managed": False},
        "MacAddress": port.mac,
        "PrivateIpAddress": port.private_ip,
        "PrivateDnsName": name,
        "Association": association,
        "PrivateIpAddresses": [
            {
                "Primary": True,
                "PrivateIpAddress": port.private_ip,
                "PrivateDnsName": name,
                "Association": association,
            }
        ],
        "Ipv6Addresses": [],
        "Groups": _render_groups(one),
        "Attachment": _render_attachment(one),
        "TagSet": render_tags(one.tags),
    }


def _render_groups(one: network_interfaces.NetworkInterfaceView) -> list[dict[str, str]]:
    return [{"GroupId": group.id, "GroupName": group.name} for group in one.groups]


def _render_attachment(one: network_interfaces.NetworkInterfaceView) -> dict[str, Any]:
    attaching = one.instance.shown_state is InstanceState.PENDING
    return {
        "AttachmentId": one.port.attachment_id,
        "AttachTime": to_datetime(one.port.attached_us),
        "DeleteOnTermination": one.port.delete_on_termination,
        "DeviceIndex": one.port.device_index,
        "NetworkCardIndex": 0,
        "InstanceId": one.instance.id,
        "InstanceOwnerId": one.instance.account_id,
        "Status": "attaching" if attaching else "attached",
    }


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
