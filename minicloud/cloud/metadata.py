"""What 169.254.169.254 tells an instance of itself: the meta-data tree and the identity document. Pure.

Owns EC2's paths and texts (EC2 user guide, "Instance metadata categories"); the host side serves them from files. Every
leaf that is listed has a text: cloud-init drops all metadata when one listed leaf fails. Called by plans.py.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.clock import to_datetime
from minicloud.model.plans import MetadataPlan
from minicloud.model.resources import (
    Attachment,
    Instance,
    NetworkInterface,
    SecurityGroup,
    Subnet,
    Vpc,
    Zone,
)

IDENTITY_VERSION = "2017-09-30"
DOMAIN = "amazonaws.com"
PARTITION = "aws"


@dataclass(frozen=True, slots=True)
class InstanceRows:
    """An instance and the rows that say what it is made of."""

    instance: Instance
    zone: Zone
    vpc: Vpc
    subnet: Subnet
    port: NetworkInterface
    groups: tuple[SecurityGroup, ...]
    attachments: tuple[Attachment, ...]
    tags: Mapping[str, str]


def private_dns_domain(region: str) -> str:
    """Return the domain of private names, as EC2 has it outside us-east-1."""
    return f"{region}.compute.internal"


def private_hostname(private_ip: str) -> str:
    """Return the first label of an instance's private name: ip-172-31-0-4."""
    return "ip-" + private_ip.replace(".", "-")


def private_dns_name(private_ip: str, region: str) -> str:
    """Return an instance's private name: ip-172-31-0-4.local-1.compute.internal."""
    return f"{private_hostname(private_ip)}.{private_dns_domain(region)}"


def render_metadata(rows: InstanceRows) -> MetadataPlan:
    """Return what the metadata service answers one instance."""
    instance = rows.instance
    options = instance.metadata_options
    leaves = _leaves(rows)
    listings = {}
    if instance.public_key is not None:
        leaves["public-keys/0/openssh-key"] = instance.public_key
        listings["public-keys/"] = f"0={instance.key_name}"
    if options.instance_metadata_tags == "enabled":
        # Keys with a slash or a space cannot be paths: EC2 refuses such tags at launch, see tags.check_metadata_tags.
        leaves.update({f"tags/instance/{key}": value for key, value in rows.tags.items()})
    return MetadataPlan(
        http_endpoint=options.http_endpoint,
        http_tokens=options.http_tokens,
        hop_limit=options.http_put_response_hop_limit,
        leaves=dict(sorted(leaves.items())),
        listings=listings,
        identity_document=_identity_document(rows),
        user_data_base64=None if instance.user_data is None else base64.b64encode(instance.user_data).decode(),
    )


def _leaves(rows: InstanceRows) -> dict[str, str]:
    instance, port = rows.instance, rows.port
    name = private_dns_name(port.private_ip, instance.region)
    # There is no public DNS here, so no public name: as in a VPC of EC2's whose DNS host names are off.
    leaves = {
        "ami-id": instance.image_id,
        "ami-launch-index": str(instance.launch_index),
        "ami-manifest-path": "(unknown)",
        "hostname": name,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-life-cycle": "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": name,
        "local-ipv4": port.private_ip,
        "mac": port.mac,
        "placement/availability-zone": rows.zone.id,
        "placement/availability-zone-id": rows.zone.zone_id,
        "placement/region": instance.region,
        "profile": "default-hvm",
        "public-hostname": "",
        "reservation-id": instance.reservation_id,
        "security-groups": _lines(group.name for group in rows.groups),
        "services/domain": DOMAIN,
        "services/partition": PARTITION,
    }
    if port.public_ip is not None:
        leaves["public-ipv4"] = port.public_ip
    leaves.update({f"block-device-mapping/{key}": value for key, value in _block_devices(rows).items()})
    leaves.update({f"network/interfaces/macs/{port.mac}/{key}": value for key, value in _interface(rows, name).items()})
    return leaves


def _block_devices(rows: InstanceRows) -> dict[str, str]:
    instance = rows.instance
    devices = {"ami": instance.root_device_name, "root": instance.root_device_name}
    for disk in instance.ephemeral_disks:
        devices[disk.virtual_name] = disk.device_name.removeprefix("/dev/")
    others = [one for one in rows.attachments if one.device_name != instance.root_device_name]
    for number, attachment in enumerate(sorted(others, key=lambda one: one.pci_slot), start=1):
        devices[f"ebs{number}"] = attachment.device_name.removeprefix("/dev/")
    return devices


def _interface(rows: InstanceRows, name: str) -> dict[str, str]:
    port = rows.port
    leaves = {
        "device-number": str(port.device_index),
        "interface-id": port.id,
        "local-hostname": name,
        "local-ipv4s": port.private_ip,
        "mac": port.mac,
        "owner-id": port.account_id,
        "public-hostname": "",
        "security-group-ids": _lines(group.id for group in rows.groups),
        "security-groups": _lines(group.name for group in rows.groups),
        "subnet-id": rows.subnet.id,
        "subnet-ipv4-cidr-block": rows.subnet.cidr,
        "vpc-id": rows.vpc.id,
        "vpc-ipv4-cidr-block": rows.vpc.cidr,
        "vpc-ipv4-cidr-blocks": rows.vpc.cidr,
    }
    if port.public_ip is not None:
        leaves["public-ipv4s"] = port.public_ip
        leaves[f"ipv4-associations/{port.public_ip}"] = port.private_ip
    return leaves


def _identity_document(rows: InstanceRows) -> str:
    instance = rows.instance
    document = {
        "accountId": instance.account_id,
        "architecture": instance.architecture,
        "availabilityZone": rows.zone.id,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "kernelId": None,
        "pendingTime": to_datetime(instance.launched_us).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "privateIp": rows.port.private_ip,
        "ramdiskId": None,
        "region": instance.region,
        "version": IDENTITY_VERSION,
    }
    return json.dumps(document, indent=2)


def _lines(values: Iterable[str]) -> str:
    return "\n".join(values)
