"""Attributes of instances: DescribeInstanceAttribute, ModifyInstanceAttribute, ResetInstanceAttribute; monitoring.

Owns the two ways to say what should change: a structure per attribute, and the older Attribute with Value.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from minicloud.api.ec2.instances import render_block_devices
from minicloud.api.ec2.interface_parts import render_groups
from minicloud.api.ec2.launches import parse_user_data
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import instance_attributes
from minicloud.cloud.instance_attributes import AttributeChange, DeviceChange
from minicloud.cloud.views import InstanceView
from minicloud.errors import ApiError


def describe_instance_attribute(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeInstanceAttribute. What an instance has not (a kernel of its own, say) is an empty structure."""
    view = instance_attributes.describe_attributes(context.cloud, context.caller, parameters["InstanceId"])
    return {"InstanceId": view.instance.id, **_SHOWN[parameters["Attribute"]](view)}


def modify_instance_attribute(context: Context, parameters: dict[str, Any]) -> None:
    """ModifyInstanceAttribute."""
    change = parse_change(parameters)
    instance_attributes.modify_attribute(context.cloud, context.caller, parameters["InstanceId"], change)


def reset_instance_attribute(context: Context, parameters: dict[str, Any]) -> None:
    """ResetInstanceAttribute: of what can be reset, an instance here has only the source/destination check."""
    attribute = parameters["Attribute"]
    if attribute in ("kernel", "ramdisk"):
        raise ApiError("UnsupportedOperation", f"An instance of type hvm has no {attribute} of its own to reset.")
    if attribute != "sourceDestCheck":
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({attribute}) for parameter attribute is invalid. Expecting kernel, ramdisk or sourceDestCheck.",
        )
    instance_attributes.reset_source_dest_check(context.cloud, context.caller, parameters["InstanceId"])


def monitor_instances(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """MonitorInstances."""
    return _set_monitoring(context, parameters, True)


def unmonitor_instances(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """UnmonitorInstances."""
    return _set_monitoring(context, parameters, False)


def _set_monitoring(context: Context, parameters: dict[str, Any], enabled: bool) -> dict[str, Any]:
    rows = instance_attributes.set_monitoring(context.cloud, context.caller, parameters["InstanceIds"], enabled)
    return {
        "InstanceMonitorings": [
            {"InstanceId": one.id, "Monitoring": {"State": "enabled" if one.monitoring else "disabled"}} for one in rows
        ]
    }


def _user_data(view: InstanceView) -> dict[str, Any]:
    user_data = view.instance.user_data
    return {} if user_data is None else {"Value": base64.b64encode(user_data).decode()}


_SHOWN: Mapping[str, Callable[[InstanceView], dict[str, Any]]] = {
    "instanceType": lambda view: {"InstanceType": {"Value": view.instance.instance_type}},
    "kernel": lambda view: {"KernelId": {}},
    "ramdisk": lambda view: {"RamdiskId": {}},
    "userData": lambda view: {"UserData": _user_data(view)},
    "disableApiTermination": lambda view: {"DisableApiTermination": {"Value": view.instance.disable_api_termination}},
    "disableApiStop": lambda view: {"DisableApiStop": {"Value": view.instance.disable_api_stop}},
    "instanceInitiatedShutdownBehavior": lambda view: {
        "InstanceInitiatedShutdownBehavior": {"Value": view.instance.shutdown_behavior}
    },
    "rootDeviceName": lambda view: {"RootDeviceName": {"Value": view.instance.root_device_name}},
    "blockDeviceMapping": lambda view: {"BlockDeviceMappings": render_block_devices(view)},
    "productCodes": lambda view: {"ProductCodes": []},
    "sourceDestCheck": lambda view: {"SourceDestCheck": {"Value": True}},
    "groupSet": lambda view: {"Groups": [one for port in view.ports for one in render_groups(port, view.groups)]},
    "ebsOptimized": lambda view: {"EbsOptimized": {"Value": view.instance.ebs_optimized}},
    "sriovNetSupport": lambda view: {"SriovNetSupport": {}},
    "enaSupport": lambda view: {"EnaSupport": {} if view.image is None else {"Value": view.image.ena_support}},
    "enclaveOptions": lambda view: {"EnclaveOptions": {"Enabled": False}},
}


def parse_change(parameters: Mapping[str, Any]) -> AttributeChange:
    """Read what should change. Raises ApiError: InvalidParameterCombination for Attribute beside something else."""
    found = {name: parse(parameters[member]) for member, name, parse in _STRUCTURES if member in parameters}
    attribute = parameters.get("Attribute")
    if attribute is not None:
        name, parse = _by_attribute(attribute)
        if "Value" in parameters:
            if found:
                raise ApiError(
                    "InvalidParameterCombination", "Attribute with Value cannot be used beside another attribute."
                )
            return AttributeChange(**{name: parse(parameters["Value"])})
        if name not in found:
            raise ApiError("MissingParameter", "The request must contain the parameter Value")
    elif "Value" in parameters:
        raise ApiError("MissingParameter", "The request must contain the parameter Attribute")
    return AttributeChange(**found)


def _by_attribute(attribute: str) -> tuple[str, Callable[[str], Any]]:
    known = _ATTRIBUTES.get(attribute)
    if known is None:
        raise ApiError("UnsupportedOperation", f"The attribute {attribute} cannot be modified.")
    return known


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ApiError(
            "InvalidParameterValue", f"Value ({text[:100]}) for parameter value is invalid. Expecting true or false."
        )
    return text.lower() == "true"


def _no_text(_text: str) -> Any:
    raise ApiError("InvalidParameterCombination", "A block device mapping cannot be given as Value.")


def _value(structure: Mapping[str, Any]) -> Any:
    if "Value" not in structure:
        raise ApiError("MissingParameter", "The request must contain the parameter Value")
    return structure["Value"]


def _parse_devices(mappings: list[dict[str, Any]]) -> tuple[DeviceChange, ...]:
    changes = []
    for mapping in mappings:
        if "DeviceName" not in mapping:
            raise ApiError("MissingParameter", "The request must contain the parameter deviceName")
        ebs = mapping.get("Ebs", {})
        # EC2 API reference, ModifyInstanceAttribute: "If no value is specified …, the default is true".
        changes.append(DeviceChange(mapping["DeviceName"], ebs.get("DeleteOnTermination", True), ebs.get("VolumeId")))
    return tuple(changes)


# Member of the request, field of AttributeChange, how the member is read.
_STRUCTURES: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("InstanceType", "instance_type", _value),
    ("UserData", "user_data", _value),
    ("DisableApiTermination", "disable_api_termination", _value),
    ("DisableApiStop", "disable_api_stop", _value),
    ("InstanceInitiatedShutdownBehavior", "shutdown_behavior", _value),
    ("EbsOptimized", "ebs_optimized", _value),
    ("SourceDestCheck", "source_dest_check", _value),
    ("BlockDeviceMappings", "block_devices", _parse_devices),
)
# Attribute to field of AttributeChange, and how Value is read.
_ATTRIBUTES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "instanceType": ("instance_type", str),
    "userData": ("user_data", parse_user_data),
    "disableApiTermination": ("disable_api_termination", _boolean),
    "disableApiStop": ("disable_api_stop", _boolean),
    "instanceInitiatedShutdownBehavior": ("shutdown_behavior", str),
    "ebsOptimized": ("ebs_optimized", _boolean),
    "sourceDestCheck": ("source_dest_check", _boolean),
    "blockDeviceMapping": ("block_devices", _no_text),
}

ROWS: Rows = {
    "DescribeInstanceAttribute": row(describe_instance_attribute, "InstanceId", "Attribute"),
    "ModifyInstanceAttribute": row(
        modify_instance_attribute,
        "InstanceId",
        "Attribute",
        "Value",
        *(member for member, _, _ in _STRUCTURES if member != "BlockDeviceMappings"),
        "BlockDeviceMappings.DeviceName",
        "BlockDeviceMappings.Ebs",
        tolerates={"EnclaveOptions.Enabled": (False,)},
    ),
    "ResetInstanceAttribute": row(reset_instance_attribute, "InstanceId", "Attribute"),
    "MonitorInstances": row(monitor_instances, "InstanceIds"),
    "UnmonitorInstances": row(unmonitor_instances, "InstanceIds"),
}
