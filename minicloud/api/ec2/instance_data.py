"""What can be read of one instance beside its description: credits, password, UEFI variables, and the data of a launch
template that launches another like it.
"""

from __future__ import annotations

import base64
from typing import Any

from minicloud.api.ec2.common import render_tags
from minicloud.api.listing import Pages
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud.credit_specifications import describe_credit_specifications
from minicloud.cloud.instance_attributes import describe_attributes
from minicloud.cloud.views import InstanceView, find_instance
from minicloud.errors import ApiError
from minicloud.store.filters.credit_specifications import CREDIT_SPECIFICATIONS


def describe_instance_credit_specifications(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeInstanceCreditSpecifications."""
    found = describe_credit_specifications(
        context.cloud, context.caller, parameters.get("InstanceIds", ()), context.asked
    )
    return {
        "InstanceCreditSpecifications": [
            {"InstanceId": instance.id, "CpuCredits": credits} for instance, credits in found.items
        ],
        "NextToken": context.next_token(found),
    }


def get_password_data(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetPasswordData: empty, as EC2 answers for an instance that generates no password, which only Windows does."""
    instance = find_instance(context.cloud, context.caller, parameters["InstanceId"])
    return {
        "InstanceId": instance.id,
        "Timestamp": to_datetime(context.services.clock.now_us()),
        "PasswordData": "",
    }


def get_instance_uefi_data(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetInstanceUefiData: no instance has a variable store that could be read."""
    instance = find_instance(context.cloud, context.caller, parameters["InstanceId"])
    raise ApiError("UnsupportedOperation", f"UEFI data cannot be retrieved for the instance '{instance.id}'.")


def get_launch_template_data(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetLaunchTemplateData: given to RunInstances, it launches another instance like this one.

    So it leaves out what only one instance can have: the interface's id and its private address.
    """
    view = describe_attributes(context.cloud, context.caller, parameters["InstanceId"])
    return {"LaunchTemplateData": _render_template(view)}


def _render_template(view: InstanceView) -> dict[str, Any]:
    instance, options = view.instance, view.instance.metadata_options
    template: dict[str, Any] = {
        "ImageId": instance.image_id,
        "InstanceType": instance.instance_type,
        "KeyName": instance.key_name,
        "Monitoring": {"Enabled": instance.monitoring},
        "EbsOptimized": instance.ebs_optimized,
        "Placement": {"AvailabilityZone": view.zone.id, "GroupName": "", "Tenancy": "default"},
        "DisableApiTermination": instance.disable_api_termination,
        "DisableApiStop": instance.disable_api_stop,
        "InstanceInitiatedShutdownBehavior": instance.shutdown_behavior,
        "UserData": None if instance.user_data is None else base64.b64encode(instance.user_data).decode(),
        "BlockDeviceMappings": _render_devices(view),
        "NetworkInterfaces": [
            {
                "DeviceIndex": port.device_index,
                "NetworkCardIndex": 0,
                "InterfaceType": "interface",
                "DeleteOnTermination": port.delete_on_termination,
                "SubnetId": port.subnet_id,
                "Groups": list(port.group_ids),
            }
            for port in view.ports
        ],
        "MetadataOptions": {
            "HttpEndpoint": options.http_endpoint,
            "HttpTokens": options.http_tokens,
            "HttpPutResponseHopLimit": options.http_put_response_hop_limit,
            "HttpProtocolIpv6": "disabled",
            "InstanceMetadataTags": options.instance_metadata_tags,
        },
        "CapacityReservationSpecification": {"CapacityReservationPreference": "open"},
        "HibernationOptions": {"Configured": False},
        "EnclaveOptions": {"Enabled": False},
        "MaintenanceOptions": {"AutoRecovery": "default"},
    }
    if view.tags:
        template["TagSpecifications"] = [{"ResourceType": "instance", "Tags": render_tags(view.tags)}]
    return template


def _render_devices(view: InstanceView) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {
            "DeviceName": attachment.device_name,
            "Ebs": {
                "DeleteOnTermination": attachment.delete_on_termination,
                "Encrypted": volume.encrypted,
                "SnapshotId": volume.snapshot_id,
                "VolumeSize": volume.size_gib,
                "VolumeType": volume.volume_type,
                "Iops": volume.iops,
                "Throughput": volume.throughput_mibps,
            },
        }
        for attachment, volume in view.attachments
    ]
    ephemeral: list[dict[str, Any]] = [
        {"DeviceName": disk.device_name, "VirtualName": disk.virtual_name} for disk in view.instance.ephemeral_disks
    ]
    present = {one["DeviceName"] for one in volumes + ephemeral}
    # What the image would bring and this instance has not; one that has ended has nothing to compare.
    absent = [
        {"DeviceName": device.device_name, "NoDevice": ""}
        for device in (view.image.block_devices if view.image and volumes else ())
        if device.device_name not in present
    ]
    return volumes + ephemeral + absent


ROWS: Rows = {
    "DescribeInstanceCreditSpecifications": row(
        describe_instance_credit_specifications,
        "InstanceIds",
        filters=CREDIT_SPECIFICATIONS,
        pages=Pages(5, 1000, not_with=("InstanceIds",)),
    ),
    "GetPasswordData": row(get_password_data, "InstanceId"),
    "GetInstanceUefiData": row(get_instance_uefi_data, "InstanceId"),
    "GetLaunchTemplateData": row(get_launch_template_data, "InstanceId"),
}
