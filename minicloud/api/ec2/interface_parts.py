"""What DescribeInstances and DescribeNetworkInterfaces show of a network interface alike. Called by both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minicloud.clock import to_datetime
from minicloud.cloud.metadata import private_dns_name
from minicloud.model.resources import Instance, NetworkInterface, SecurityGroup
from minicloud.model.states import InstanceState
from minicloud.store.filters.instances import PUBLIC_IP_OWNER

# No DNS publishes public names, so there are none: as in a VPC of EC2's whose DNS host names are off.
NO_PUBLIC_NAME = ""


def render_interface(port: NetworkInterface, instance: Instance, groups: Mapping[str, SecurityGroup]) -> dict[str, Any]:
    """Return an interface of an instance; `groups` holds at least its own security groups, by id."""
    name = private_dns_name(port.private_ip, instance.region)
    association = None
    if port.public_ip is not None:
        association = {"IpOwnerId": PUBLIC_IP_OWNER, "PublicDnsName": NO_PUBLIC_NAME, "PublicIp": port.public_ip}
    return {
        "NetworkInterfaceId": port.id,
        "OwnerId": port.account_id,
        "VpcId": port.vpc_id,
        "SubnetId": port.subnet_id,
        "Description": "",
        "InterfaceType": "interface",
        "Status": "in-use",
        "SourceDestCheck": True,
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
        "Groups": render_groups(port, groups),
        "Attachment": render_attachment(port, instance),
    }


def render_attachment(port: NetworkInterface, instance: Instance) -> dict[str, Any]:
    """Return how an interface is attached to its instance."""
    attaching = instance.shown_state is InstanceState.PENDING
    return {
        "AttachmentId": port.attachment_id,
        "AttachTime": to_datetime(port.attached_us),
        "DeleteOnTermination": port.delete_on_termination,
        "DeviceIndex": port.device_index,
        "NetworkCardIndex": 0,
        "Status": "attaching" if attaching else "attached",
    }


def render_groups(port: NetworkInterface, groups: Mapping[str, SecurityGroup]) -> list[dict[str, str]]:
    """Return the groups of an interface as EC2 shows them."""
    return [{"GroupId": id, "GroupName": groups[id].name} for id in port.group_ids if id in groups]
