"""Filters of network interfaces."""

from __future__ import annotations

from sqlalchemy import and_, case, select

from minicloud.model.states import InstanceState
from minicloud.store import schema
from minicloud.store.filters.derived import private_dns_name
from minicloud.store.filters.instances import PUBLIC_IP_OWNER, SHOWN_STATE
from minicloud.store.filters.vpcs import in_vpcs_of
from minicloud.store.search import (
    ABSENT,
    Condition,
    FilterSet,
    boolean,
    constant,
    listed,
    number,
    text,
    through,
    time,
    when,
)

_interfaces = schema.network_interfaces.c
_instances = schema.instances.c
_zones = schema.zones.c

_region = select(_zones.region).where(_zones.id == _interfaces.zone).correlate(schema.network_interfaces)
_private_ip = text(_interfaces.private_ip)
_has_public = _interfaces.public_ip.is_not(None)
_attachment_status = case((SHOWN_STATE.in_([InstanceState.PENDING.value]), "attaching"), else_="attached")

NETWORK_INTERFACES = FilterSet(
    {
        "addresses.association.owner-id": when(_has_public, constant(PUBLIC_IP_OWNER)),
        "addresses.association.public-ip": text(_interfaces.public_ip),
        "addresses.primary": constant("true"),
        "addresses.private-ip-address": _private_ip,
        "association.allocation-id": ABSENT,
        "association.association-id": ABSENT,
        "association.ip-owner-id": when(_has_public, constant(PUBLIC_IP_OWNER)),
        "association.public-dns-name": when(_has_public, constant("")),
        "association.public-ip": text(_interfaces.public_ip),
        "attachment.attach-time": time(_interfaces.attached_us),
        "attachment.attachment-id": text(_interfaces.attachment_id),
        "attachment.delete-on-termination": boolean(_interfaces.delete_on_termination),
        "attachment.device-index": number(_interfaces.device_index),
        "attachment.instance-id": text(_interfaces.instance_id),
        "attachment.instance-owner-id": text(_interfaces.account_id),
        "attachment.status": through(_interfaces.instance_id, _instances.id, text(_attachment_status)),
        "availability-zone": text(_interfaces.zone),
        "availability-zone-id": through(_interfaces.zone, _zones.id, text(_zones.zone_id)),
        "description": constant(""),
        "group-id": listed(_interfaces.group_ids),
        "interface-type": constant("interface"),
        "ipv6-addresses.ipv6-address": ABSENT,
        "mac-address": text(_interfaces.mac),
        "network-interface-id": text(_interfaces.id),
        "operator.managed": constant("false"),
        "operator.principal": ABSENT,
        "owner-id": text(_interfaces.account_id),
        "private-dns-name": text(private_dns_name(_interfaces.private_ip, _region.scalar_subquery())),
        "private-ip-address": _private_ip,
        "requester-id": ABSENT,
        "requester-managed": constant("false"),
        "source-dest-check": constant("true"),
        "status": constant("in-use"),
        "subnet-id": text(_interfaces.subnet_id),
        "vpc-id": text(_interfaces.vpc_id),
    },
    _interfaces.id,
)


def network_interfaces_of(account_id: str, region: str) -> Condition:
    """The network interfaces in an account's VPCs of a region."""
    # The account is the VPC's, too; said here, it leads to the index that pages are read from.
    return and_(_interfaces.account_id == account_id, in_vpcs_of(_interfaces.vpc_id, account_id, region))
