"""RunInstances: EC2's widest parameter list, and which of it minicloud honours."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from minicloud.api.ec2.common import block_device_honours, parse_block_devices, parse_tag_specifications
from minicloud.api.ec2.instances import render_reservation
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import instances
from minicloud.cloud.instance_types import DEFAULT_TYPE
from minicloud.cloud.launch import RunRequest
from minicloud.cloud.metadata_options import MetadataRequest
from minicloud.errors import ApiError

HONOURS = (
    "ImageId",
    "MinCount",
    "MaxCount",
    "InstanceType",
    "KeyName",
    "SecurityGroupIds",
    "SecurityGroups",
    "SubnetId",
    "PrivateIpAddress",
    "Placement.AvailabilityZone",
    "Placement.AvailabilityZoneId",
    "UserData",
    "ClientToken",
    *block_device_honours(),
    "TagSpecifications",
    "MetadataOptions.HttpEndpoint",
    "MetadataOptions.HttpTokens",
    "MetadataOptions.HttpPutResponseHopLimit",
    "MetadataOptions.InstanceMetadataTags",
    "InstanceInitiatedShutdownBehavior",
    "DisableApiTermination",
    "DisableApiStop",
    "Monitoring.Enabled",
    "EbsOptimized",
    # One interface, the first: its settings are those of the instance itself.
    "NetworkInterfaces.SubnetId",
    "NetworkInterfaces.Groups",
    "NetworkInterfaces.PrivateIpAddress",
    "NetworkInterfaces.AssociatePublicIpAddress",
)
TOLERATES: dict[str, tuple[object, ...]] = {
    "Placement.Tenancy": ("default",),
    "MetadataOptions.HttpProtocolIpv6": ("disabled",),
    "HibernationOptions.Configured": (False,),
    "EnclaveOptions.Enabled": (False,),
    "CapacityReservationSpecification.CapacityReservationPreference": ("open", "none"),
    "InstanceMarketOptions.MarketType": ("on-demand",),
    "MaintenanceOptions.AutoRecovery": ("default",),
    # Nothing throttles a burstable instance.
    "CreditSpecification.CpuCredits": ("unlimited",),
    "PrivateDnsNameOptions.HostnameType": ("ip-name",),
    "PrivateDnsNameOptions.EnableResourceNameDnsARecord": (False,),
    "PrivateDnsNameOptions.EnableResourceNameDnsAAAARecord": (False,),
    "NetworkPerformanceOptions.BandwidthWeighting": ("default",),
    "EnablePrimaryIpv6": (False,),
    "Ipv6AddressCount": (0,),
    "NetworkInterfaces.DeviceIndex": (0,),
    "NetworkInterfaces.NetworkCardIndex": (0,),
    "NetworkInterfaces.DeleteOnTermination": (True,),
    "NetworkInterfaces.InterfaceType": ("interface",),
    "NetworkInterfaces.Ipv6AddressCount": (0,),
    "NetworkInterfaces.AssociateCarrierIpAddress": (False,),
}


def run_instances(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """RunInstances."""
    reservation = instances.run(context.cloud, context.caller, parse_run_request(parameters))
    return render_reservation(reservation)


def parse_run_request(parameters: dict[str, Any]) -> RunRequest:
    """Read RunInstances' parameters. Raises ApiError: MissingParameter, InvalidUserData.Malformed, ..."""
    if "ImageId" not in parameters:
        raise ApiError("MissingParameter", "The request must contain the parameter ImageId")
    interface = _parse_interface(parameters)
    placement = parameters.get("Placement", {})
    metadata = parameters.get("MetadataOptions", {})
    return RunRequest(
        image_id=parameters["ImageId"],
        min_count=parameters["MinCount"],
        max_count=parameters["MaxCount"],
        instance_type=parameters.get("InstanceType", DEFAULT_TYPE),
        key_name=parameters.get("KeyName"),
        group_ids=tuple(interface.get("Groups", parameters.get("SecurityGroupIds", ()))),
        group_names=tuple(parameters.get("SecurityGroups", ())),
        subnet_id=interface.get("SubnetId", parameters.get("SubnetId")),
        zone=placement.get("AvailabilityZone"),
        zone_id=placement.get("AvailabilityZoneId"),
        private_ip=interface.get("PrivateIpAddress", parameters.get("PrivateIpAddress")),
        associate_public_ip=interface.get("AssociatePublicIpAddress"),
        user_data=parse_user_data(parameters.get("UserData")),
        client_token=parameters.get("ClientToken"),
        block_devices=parse_block_devices(parameters.get("BlockDeviceMappings", ())),
        tags=parse_tag_specifications(parameters.get("TagSpecifications", ())),
        metadata=MetadataRequest(
            http_endpoint=metadata.get("HttpEndpoint"),
            http_tokens=metadata.get("HttpTokens"),
            http_put_response_hop_limit=metadata.get("HttpPutResponseHopLimit"),
            instance_metadata_tags=metadata.get("InstanceMetadataTags"),
        ),
        shutdown_behavior=parameters.get("InstanceInitiatedShutdownBehavior", "stop"),
        disable_api_termination=parameters.get("DisableApiTermination", False),
        disable_api_stop=parameters.get("DisableApiStop", False),
        monitoring=parameters.get("Monitoring", {}).get("Enabled", False),
        ebs_optimized=parameters.get("EbsOptimized", False),
    )


def _parse_interface(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the one network interface of a launch, {} where none is given. Raises as EC2 does for a mixture."""
    interfaces: list[dict[str, Any]] = parameters.get("NetworkInterfaces", [])
    if not interfaces:
        return {}
    if len(interfaces) > 1:
        raise ApiError("UnsupportedOperation", "An instance has one network interface: only one can be given.")
    for name in ("SubnetId", "SecurityGroupIds", "SecurityGroups", "PrivateIpAddress"):
        if name in parameters:
            raise ApiError(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level "
                f"{'subnet ID' if name == 'SubnetId' else name} may not be specified on the same request",
            )
    return interfaces[0]


def parse_user_data(encoded: str | None) -> bytes | None:
    """Read user data as base64 text. Raises InvalidUserData.Malformed."""
    if encoded is None:
        return None
    malformed = ApiError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
    compact = "".join(encoded.split())
    if len(compact) % 4:  # superfluous padding, which b64decode lets pass
        raise malformed
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        raise malformed from None


ROWS: Rows = {
    "RunInstances": row(run_instances, *HONOURS, tolerates=TOLERATES),
}
