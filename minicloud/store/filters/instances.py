"""Filters of DescribeInstances and DescribeInstanceStatus (EC2 API reference, both pages, "Filter.N").

Values are compared with what the reply shows: a state is the state seen through the owner's intent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, literal, not_

from minicloud.model.states import INSTANCE_STATE_CODES, AttachmentState, InstanceState, Intent
from minicloud.store import schema
from minicloud.store.filters.derived import private_dns_name
from minicloud.store.search import (
    ABSENT,
    Condition,
    Field,
    FilterSet,
    JsonMember,
    any_of,
    boolean,
    constant,
    json_text,
    listed,
    number,
    tag_keys,
    tag_values,
    text,
    through,
    time,
    when,
)

# Who lends public addresses that are not elastic, by EC2's name.
PUBLIC_IP_OWNER = "amazon"

_instances = schema.instances.c
_attachments = schema.attachments.c
_ports = schema.network_interfaces.c
_groups = schema.security_groups.c
_images = schema.images.c
_zones = schema.zones.c

# model/states.shown_instance_state, said in SQL; a test holds the two together.
SHOWN_STATE: ColumnElement[str] = case(
    (_instances.state == InstanceState.TERMINATED.value, literal(InstanceState.TERMINATED.value)),
    (_instances.intent == Intent.TERMINATED.value, literal(InstanceState.SHUTTING_DOWN.value)),
    (
        and_(
            _instances.intent == Intent.STOPPED.value,
            _instances.state.in_([InstanceState.PENDING.value, InstanceState.RUNNING.value]),
        ),
        literal(InstanceState.STOPPING.value),
    ),
    (
        and_(_instances.intent == Intent.RUNNING.value, _instances.state == InstanceState.STOPPED.value),
        literal(InstanceState.PENDING.value),
    ),
    else_=_instances.state,
)
_SHOWN_CODE = case({state.value: code for state, code in INSTANCE_STATE_CODES.items()}, value=SHOWN_STATE)
_IS_PENDING: Condition = SHOWN_STATE.in_([InstanceState.PENDING.value])
IS_RUNNING: Condition = SHOWN_STATE.in_([InstanceState.RUNNING.value])
_HAS_PORT = exists().where(_ports.instance_id == _instances.id)


def _port(field: Field) -> Field:
    return through(_instances.id, _ports.instance_id, field)


def _device(field: Field) -> Field:
    return through(_instances.id, _attachments.instance_id, field, _attachments.state != AttachmentState.DETACHED.value)


def _with_port(field: Field) -> Field:
    """What every instance that has an interface shows alike."""
    return when(_HAS_PORT, field)


def _association(field: Field) -> Field:
    return through(_instances.id, _ports.instance_id, field, _ports.public_ip.is_not(None))


def _reason(member: str) -> Field:
    return text(case((_IS_PENDING, literal("pending")), else_=JsonMember(_instances.state_reason, literal(member))))


def _group_name(group_id: ColumnElement[Any]) -> Field:
    return through(group_id, _groups.id, text(_groups.name))


def _option(member: str) -> Field:
    return json_text(_instances.metadata_options, member)


_PRIVATE_NAME = _port(text(private_dns_name(_ports.private_ip, _instances.region)))
# An instance without an interface shows empty names.
_NO_NAME = when(not_(_HAS_PORT), constant(""))
_PORT_STATUS = _with_port(text(case((_IS_PENDING, literal("attaching")), else_=literal("attached"))))
_ZONE_ID = through(_instances.zone, _zones.id, text(_zones.zone_id))

_PORTS: Mapping[str, Field] = {
    "addresses.association.allocation-id": ABSENT,
    "addresses.association.association-id": ABSENT,
    "addresses.association.carrier-ip": ABSENT,
    "addresses.association.customer-owned-ip": ABSENT,
    "addresses.association.ip-owner-id": _association(constant(PUBLIC_IP_OWNER)),
    "addresses.association.public-dns-name": _association(constant("")),
    "addresses.association.public-ip": _port(text(_ports.public_ip)),
    "addresses.primary": _with_port(constant("true")),
    "addresses.private-dns-name": _PRIVATE_NAME,
    "addresses.private-ip-address": _port(text(_ports.private_ip)),
    "association.allocation-id": ABSENT,
    "association.association-id": ABSENT,
    "association.carrier-ip": ABSENT,
    "association.customer-owned-ip": ABSENT,
    "association.ip-owner-id": _association(constant(PUBLIC_IP_OWNER)),
    "association.public-dns-name": _association(constant("")),
    "association.public-ip": _port(text(_ports.public_ip)),
    "attachment.attach-time": _port(time(_ports.attached_us)),
    "attachment.attachment-id": _port(text(_ports.attachment_id)),
    "attachment.delete-on-termination": _port(boolean(_ports.delete_on_termination)),
    "attachment.device-index": _port(number(_ports.device_index)),
    "attachment.instance-id": _with_port(text(_instances.id)),
    "attachment.instance-owner-id": _with_port(text(_instances.account_id)),
    "attachment.network-card-index": _with_port(constant("0")),
    "attachment.status": _PORT_STATUS,
    "availability-zone": _port(text(_ports.zone)),
    "deny-all-igw-traffic": ABSENT,
    "description": _with_port(constant("")),
    "group-id": _port(listed(_ports.group_ids)),
    "group-name": _port(listed(_ports.group_ids, _group_name)),
    "ipv4-prefixes.ipv4-prefix": ABSENT,
    "ipv6-address": ABSENT,
    "ipv6-addresses.ipv6-address": ABSENT,
    "ipv6-addresses.is-primary-ipv6": ABSENT,
    "ipv6-native": ABSENT,
    "ipv6-prefixes.ipv6-prefix": ABSENT,
    "mac-address": _port(text(_ports.mac)),
    "network-interface-id": _port(text(_ports.id)),
    "operator.managed": _with_port(constant("false")),
    "operator.principal": ABSENT,
    "outpost-arn": ABSENT,
    "owner-id": _port(text(_ports.account_id)),
    "private-dns-name": _PRIVATE_NAME,
    "private-ip-address": _port(text(_ports.private_ip)),
    "public-dns-name": _association(constant("")),
    "requester-id": ABSENT,
    "requester-managed": _with_port(constant("false")),
    "source-dest-check": _with_port(constant("true")),
    "status": _with_port(constant("in-use")),
    "subnet-id": _port(text(_ports.subnet_id)),
    "tag-key": _port(tag_keys(_ports.id)),
    "tag-value": _port(tag_values(_ports.id)),
    "vpc-id": _port(text(_ports.vpc_id)),
}

INSTANCES = FilterSet(
    {
        "affinity": ABSENT,
        "architecture": text(_instances.architecture),
        "availability-zone": text(_instances.zone),
        "availability-zone-id": _ZONE_ID,
        "block-device-mapping.attach-time": _device(time(_attachments.attached_us)),
        "block-device-mapping.delete-on-termination": _device(boolean(_attachments.delete_on_termination)),
        "block-device-mapping.device-name": _device(text(_attachments.device_name)),
        "block-device-mapping.status": _device(text(_attachments.state)),
        "block-device-mapping.volume-id": _device(text(_attachments.volume_id)),
        "boot-mode": text(_instances.boot_mode),
        "capacity-reservation-id": ABSENT,
        "capacity-reservation-specification.capacity-reservation-preference": constant("open"),
        "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-id": ABSENT,
        "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-resource-group-arn": (
            ABSENT
        ),
        "client-token": text(func.coalesce(_instances.client_token, "")),
        "current-instance-boot-mode": text(_instances.boot_mode),
        # No DNS publishes public names.
        "dns-name": constant(""),
        "ebs-optimized": boolean(_instances.ebs_optimized),
        "ena-support": through(_instances.image_id, _images.id, boolean(_images.ena_support)),
        "enclave-options.enabled": constant("false"),
        "hibernation-options.configured": constant("false"),
        "host-id": ABSENT,
        "hypervisor": constant("xen"),
        "iam-instance-profile.arn": ABSENT,
        "iam-instance-profile.id": ABSENT,
        "image-id": text(_instances.image_id),
        "instance-id": text(_instances.id),
        "instance-lifecycle": ABSENT,
        "instance-state-code": number(_SHOWN_CODE),
        "instance-state-name": text(SHOWN_STATE),
        "instance-type": text(_instances.instance_type),
        "instance.group-id": _port(listed(_ports.group_ids)),
        "instance.group-name": _port(listed(_ports.group_ids, _group_name)),
        "ip-address": _port(text(_ports.public_ip)),
        "ipv6-address": ABSENT,
        "kernel-id": ABSENT,
        "key-name": text(_instances.key_name),
        "launch-index": number(_instances.launch_index),
        "launch-time": time(_instances.launched_us),
        "maintenance-options.auto-recovery": constant("default"),
        "metadata-options.http-endpoint": _option("http_endpoint"),
        "metadata-options.http-protocol-ipv4": _option("http_endpoint"),
        "metadata-options.http-protocol-ipv6": constant("disabled"),
        "metadata-options.http-put-response-hop-limit": _option("http_put_response_hop_limit"),
        "metadata-options.http-tokens": _option("http_tokens"),
        "metadata-options.instance-metadata-tags": _option("instance_metadata_tags"),
        "metadata-options.state": text(
            case(
                (_IS_PENDING, literal("pending")),
                # An older minicloud wrote none.
                else_=func.coalesce(JsonMember(_instances.metadata_options, literal("state")), literal("applied")),
            )
        ),
        "monitoring-state": text(
            case((_instances.monitoring.is_(True), literal("enabled")), else_=literal("disabled"))
        ),
        **{f"network-interface.{name}": field for name, field in _PORTS.items()},
        "network-performance-options.bandwidth-weighting": constant("default"),
        "operator.managed": constant("false"),
        "operator.principal": ABSENT,
        "outpost-arn": ABSENT,
        "owner-id": text(_instances.account_id),
        "placement-group-name": ABSENT,
        "placement-partition-number": ABSENT,
        "platform": ABSENT,
        "platform-details": constant("Linux/UNIX"),
        "private-dns-name": any_of(_PRIVATE_NAME, _NO_NAME),
        "private-dns-name-options.enable-resource-name-dns-a-record": _with_port(constant("false")),
        "private-dns-name-options.enable-resource-name-dns-aaaa-record": _with_port(constant("false")),
        "private-dns-name-options.hostname-type": _with_port(constant("ip-name")),
        "private-ip-address": _port(text(_ports.private_ip)),
        "product-code": ABSENT,
        "product-code.type": ABSENT,
        "ramdisk-id": ABSENT,
        "reason": text(_instances.transition_reason),
        "requester-id": ABSENT,
        "reservation-id": text(_instances.reservation_id),
        "root-device-name": text(_instances.root_device_name),
        "root-device-type": constant("ebs"),
        "source-dest-check": _with_port(constant("true")),
        "spot-instance-request-id": ABSENT,
        "state-reason-code": _reason("code"),
        "state-reason-message": _reason("message"),
        "subnet-id": _port(text(_ports.subnet_id)),
        "tenancy": constant("default"),
        "tpm-support": ABSENT,
        "usage-operation": constant("RunInstances"),
        "usage-operation-update-time": time(_instances.created_us),
        "virtualization-type": constant("hvm"),
        "vpc-id": _port(text(_ports.vpc_id)),
    },
    tagged=_instances.id,
)

_STATUS = text(
    case(
        (not_(IS_RUNNING), literal("not-applicable")),
        (_instances.impaired.is_(True), literal("impaired")),
        else_=literal("ok"),
    )
)
_REACHABILITY = when(
    IS_RUNNING, text(case((_instances.impaired.is_(True), literal("failed")), else_=literal("passed")))
)

INSTANCE_STATUSES = FilterSet(
    {
        "availability-zone": text(_instances.zone),
        "availability-zone-id": _ZONE_ID,
        # Nothing is ever scheduled.
        "event.code": ABSENT,
        "event.description": ABSENT,
        "event.instance-event-id": ABSENT,
        "event.not-after": ABSENT,
        "event.not-before": ABSENT,
        "event.not-before-deadline": ABSENT,
        "instance-state-code": number(_SHOWN_CODE),
        "instance-state-name": text(SHOWN_STATE),
        "instance-status.reachability": _REACHABILITY,
        "instance-status.status": _STATUS,
        "operator.managed": constant("false"),
        "operator.principal": ABSENT,
        "system-status.reachability": _REACHABILITY,
        "system-status.status": _STATUS,
        "attached-ebs-status.status": _STATUS,
        "application-status.status": ABSENT,
    },
    tagged=_instances.id,
)
