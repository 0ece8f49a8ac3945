"""Instances: shown, and changed in their state."""

from __future__ import annotations

from typing import Any

from minicloud.api.ec2.common import render_tags
from minicloud.api.ec2.interface_parts import NO_PUBLIC_NAME, render_groups, render_interface
from minicloud.api.listing import Pages
from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud import instances, views
from minicloud.cloud.metadata import private_dns_name
from minicloud.cloud.metadata_options import shown_options_state
from minicloud.model.resources import Instance, NetworkInterface, Zone
from minicloud.model.states import INSTANCE_STATE_CODES, InstanceState
from minicloud.store.filters.instances import INSTANCE_STATUSES
from minicloud.store.filters.instances import INSTANCES as INSTANCE_FILTERS


def describe_instances(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeInstances."""
    found = views.describe_instances(context.cloud, context.caller, parameters.get("InstanceIds", ()), context.asked)
    return {
        "Reservations": [render_reservation(one) for one in found.items],
        "NextToken": context.next_token(found),
    }


def describe_instance_status(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeInstanceStatus."""
    found = views.describe_instance_status(
        context.cloud,
        context.caller,
        parameters.get("InstanceIds", ()),
        parameters.get("IncludeAllInstances", False),
        context.asked,
    )
    return {
        "InstanceStatuses": [_render_status(instance, zone) for instance, zone in found.items],
        "NextToken": context.next_token(found),
    }


def start_instances(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """StartInstances."""
    return {
        "StartingInstances": _render_changes(instances.start(context.cloud, context.caller, parameters["InstanceIds"]))
    }


def stop_instances(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """StopInstances."""
    changes = instances.stop(
        context.cloud,
        context.caller,
        parameters["InstanceIds"],
        force=parameters.get("Force", False) or parameters.get("SkipOsShutdown", False),
        hibernate=parameters.get("Hibernate", False),
    )
    return {"StoppingInstances": _render_changes(changes)}


def reboot_instances(context: Context, parameters: dict[str, Any]) -> None:
    """RebootInstances."""
    instances.reboot(context.cloud, context.caller, parameters["InstanceIds"])


def terminate_instances(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """TerminateInstances."""
    changes = instances.terminate(context.cloud, context.caller, parameters["InstanceIds"])
    return {"TerminatingInstances": _render_changes(changes)}


def render_reservation(reservation: views.Reservation) -> dict[str, Any]:
    """Return a reservation as RunInstances and DescribeInstances show it. Groups are of EC2-Classic: none."""
    return {
        "ReservationId": reservation.id,
        "OwnerId": reservation.account_id,
        "Groups": [],
        "Instances": [_render_instance(view) for view in reservation.instances],
    }


def _render_instance(view: views.InstanceView) -> dict[str, Any]:
    instance = view.instance
    port = view.ports[0] if view.ports else None
    return {
        "InstanceId": instance.id,
        "ImageId": instance.image_id,
        "State": _render_state(instance.shown_state),
        "StateReason": _render_reason(instance),
        "StateTransitionReason": instance.transition_reason,
        "InstanceType": instance.instance_type,
        "AmiLaunchIndex": instance.launch_index,
        "LaunchTime": to_datetime(instance.launched_us),
        "ClientToken": instance.client_token or "",
        "KeyName": instance.key_name,
        "Architecture": instance.architecture,
        "Hypervisor": "xen",
        "VirtualizationType": "hvm",
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "UsageOperationUpdateTime": to_datetime(instance.created_us),
        "ProductCodes": [],
        "RootDeviceName": instance.root_device_name,
        "RootDeviceType": "ebs",
        "BlockDeviceMappings": render_block_devices(view),
        "EbsOptimized": instance.ebs_optimized,
        "EnaSupport": view.image.ena_support if view.image else None,
        "Placement": {
            "AvailabilityZone": view.zone.id,
            "AvailabilityZoneId": view.zone.zone_id,
            "GroupName": "",
            "Tenancy": "default",
        },
        "Monitoring": {"State": "enabled" if instance.monitoring else "disabled"},
        "CpuOptions": _render_cpu(view),
        "BootMode": instance.boot_mode,
        "CurrentInstanceBootMode": instance.boot_mode,
        "MetadataOptions": render_metadata_options(instance),
        "CapacityReservationSpecification": {"CapacityReservationPreference": "open"},
        "HibernationOptions": {"Configured": False},
        "EnclaveOptions": {"Enabled": False},
        "MaintenanceOptions": {"AutoRecovery": "default"},
        "NetworkPerformanceOptions": {"BandwidthWeighting": "default"},
        "Operator": {"Managed": False},
        "Tags": render_tags(view.tags),
        **(_render_network(view, port) if port is not None else _NO_NETWORK),
    }


def render_block_devices(view: views.InstanceView) -> list[dict[str, Any]]:
    """Return the volumes of an instance as EC2 shows them."""
    return [
        {
            "DeviceName": attachment.device_name,
            "Ebs": {
                "VolumeId": volume.id,
                "Status": attachment.state.value,
                "AttachTime": to_datetime(attachment.attached_us),
                "DeleteOnTermination": attachment.delete_on_termination,
            },
        }
        for attachment, volume in view.attachments
    ]


def render_metadata_options(instance: Instance) -> dict[str, Any]:
    """Return metadata options as EC2 shows them."""
    options = instance.metadata_options
    return {
        "State": shown_options_state(instance),
        "HttpEndpoint": options.http_endpoint,
        "HttpTokens": options.http_tokens,
        "HttpPutResponseHopLimit": options.http_put_response_hop_limit,
        "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": options.instance_metadata_tags,
    }


_NO_NETWORK: dict[str, Any] = {
    "PrivateDnsName": "",
    "PublicDnsName": "",
    "NetworkInterfaces": [],
    "SecurityGroups": [],
}


def _render_network(view: views.InstanceView, port: NetworkInterface) -> dict[str, Any]:
    instance = view.instance
    return {
        "VpcId": instance.vpc_id,
        "SubnetId": instance.subnet_id,
        "PrivateIpAddress": port.private_ip,
        "PrivateDnsName": private_dns_name(port.private_ip, instance.region),
        "PublicIpAddress": port.public_ip,
        "PublicDnsName": NO_PUBLIC_NAME,
        "PrivateDnsNameOptions": {
            "HostnameType": "ip-name",
            "EnableResourceNameDnsARecord": False,
            "EnableResourceNameDnsAAAARecord": False,
        },
        "SourceDestCheck": True,
        "SecurityGroups": render_groups(port, view.groups),
        "NetworkInterfaces": [render_interface(one, view.instance, view.groups) for one in view.ports],
    }


def _render_cpu(view: views.InstanceView) -> dict[str, int]:
    if view.type is None:  # the operator took the type out of the catalogue
        return {"CoreCount": view.instance.vcpus, "ThreadsPerCore": 1}
    return {"CoreCount": view.type.cores, "ThreadsPerCore": view.type.threads_per_core}


def _render_state(state: InstanceState) -> dict[str, Any]:
    return {"Code": INSTANCE_STATE_CODES[state], "Name": state.value}


def _render_reason(instance: Instance) -> dict[str, str] | None:
    if instance.shown_state is InstanceState.PENDING:
        return {"Code": "pending", "Message": "pending"}
    if instance.state_reason is None:
        return None
    return {"Code": instance.state_reason.code, "Message": instance.state_reason.message}


def _render_changes(changes: list[instances.StateChange]) -> list[dict[str, Any]]:
    return [
        {
            "InstanceId": one.instance_id,
            "PreviousState": _render_state(one.previous),
            "CurrentState": _render_state(one.current),
        }
        for one in changes
    ]


def _render_status(instance: Instance, zone: Zone) -> dict[str, Any]:
    status, detail = "not-applicable", None
    if instance.shown_state is InstanceState.RUNNING:
        status, detail = ("impaired", "failed") if instance.impaired else ("ok", "passed")
    check = {
        "Status": status,
        "Details": [{"Name": "reachability", "Status": detail}] if detail else [],
    }
    return {
        "InstanceId": instance.id,
        "AvailabilityZone": zone.id,
        "AvailabilityZoneId": zone.zone_id,
        "InstanceState": _render_state(instance.shown_state),
        "Operator": {"Managed": False},
        "InstanceStatus": check,
        "SystemStatus": check,
        "AttachedEbsStatus": check,
        "Events": [],
    }


ROWS: Rows = {
    "DescribeInstances": row(
        describe_instances,
        "InstanceIds",
        tolerates={"IncludeManagedResources": ANYTHING},
        filters=INSTANCE_FILTERS,
        pages=Pages(5, 1000, not_with=("InstanceIds",)),
    ),
    "DescribeInstanceStatus": row(
        describe_instance_status,
        "InstanceIds",
        "IncludeAllInstances",
        tolerates={"IncludeManagedResources": ANYTHING},
        filters=INSTANCE_STATUSES,
        pages=Pages(5, 1000, not_with=("InstanceIds",)),
    ),
    "StartInstances": row(start_instances, "InstanceIds"),
    "StopInstances": row(stop_instances, "InstanceIds", "Force", "Hibernate", "SkipOsShutdown"),
    "RebootInstances": row(reboot_instances, "InstanceIds"),
    # Termination never waits for the guest, so Force and SkipOsShutdown ask for what happens anyway.
    "TerminateInstances": row(
        terminate_instances, "InstanceIds", tolerates={"Force": ANYTHING, "SkipOsShutdown": ANYTHING}
    ),
}
