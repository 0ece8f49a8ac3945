"""Images (AMIs)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minicloud.api.ec2.common import (
    block_device_honours,
    parse_block_devices,
    parse_tag_specifications,
    render_tags,
)
from minicloud.api.listing import Pages
from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.aws.render import render_timestamp
from minicloud.clock import to_datetime
from minicloud.cloud import images
from minicloud.errors import ApiError
from minicloud.model.resources import BlockDevice, Image
from minicloud.store.filters.images import IMAGES as IMAGE_FILTERS

PLATFORM = "Linux/UNIX"
USAGE_OPERATION = "RunInstances"

REGISTER_HONOURS = (
    "Name",
    "Description",
    "Architecture",
    "RootDeviceName",
    *block_device_honours(),
    "BootMode",
    "ImdsSupport",
    "EnaSupport",
    "TagSpecifications",
)
# EC2's own default is paravirtual, which nobody has meant for ten years; here it is hvm.
REGISTER_TOLERATES = {"VirtualizationType": ("hvm",), "SriovNetSupport": ("simple",)}
COPY_HONOURS = (
    "Name",
    "Description",
    "SourceImageId",
    "SourceRegion",
    "ClientToken",
    "CopyImageTags",
    "TagSpecifications",
)
MODIFY_HONOURS = (
    "ImageId",
    "Attribute",
    "OperationType",
    "UserIds",
    "UserGroups",
    "Value",
    "Description",
    "LaunchPermission.Add.UserId",
    "LaunchPermission.Add.Group",
    "LaunchPermission.Remove.UserId",
    "LaunchPermission.Remove.Group",
)


def register_image(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """RegisterImage."""
    image = images.register_image(
        context.cloud,
        context.caller,
        images.RegisterRequest(
            name=parameters["Name"],
            root_device_name=parameters.get("RootDeviceName"),
            block_devices=parse_block_devices(parameters.get("BlockDeviceMappings", ())),
            description=parameters.get("Description"),
            architecture=parameters.get("Architecture", images.ARCHITECTURE),
            boot_mode=parameters.get("BootMode", images.DEFAULT_BOOT_MODE),
            imds_support=parameters.get("ImdsSupport"),
            ena_support=parameters.get("EnaSupport", False),
            tags=parse_tag_specifications(parameters.get("TagSpecifications", ())),
        ),
    )
    return {"ImageId": image.id}


def copy_image(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """CopyImage."""
    image = images.copy_image(
        context.cloud,
        context.caller,
        images.CopyRequest(
            name=parameters["Name"],
            source_image_id=parameters["SourceImageId"],
            source_region=parameters["SourceRegion"],
            description=parameters.get("Description"),
            client_token=parameters.get("ClientToken"),
            copy_tags=parameters.get("CopyImageTags", False),
            tags=parse_tag_specifications(parameters.get("TagSpecifications", ())),
        ),
    )
    return {"ImageId": image.id}


def describe_images(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeImages."""
    found = images.describe_images(
        context.cloud,
        context.caller,
        parameters.get("ImageIds", ()),
        parameters.get("Owners", ()),
        parameters.get("ExecutableUsers", ()),
        context.asked,
    )
    return {"Images": [_render(view) for view in found.items], "NextToken": context.next_token(found)}


def deregister_image(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DeregisterImage."""
    images.deregister_image(context.cloud, context.caller, parameters["ImageId"])
    return {"Return": True}


def describe_image_attribute(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeImageAttribute."""
    view = images.describe_image(context.cloud, context.caller, parameters["ImageId"])
    image, attribute = view.image, parameters["Attribute"]
    shown: dict[str, dict[str, Any]] = {
        "description": {"Description": {"Value": image.description or ""}},
        "launchPermission": {"LaunchPermissions": _render_permissions(image)},
        "blockDeviceMapping": {"BlockDeviceMappings": _render_block_devices(view)},
        "bootMode": {"BootMode": {"Value": image.boot_mode}},
        "imdsSupport": {"ImdsSupport": {"Value": image.imds_support}},
        "productCodes": {"ProductCodes": []},
        "kernel": {"KernelId": {}},
        "ramdisk": {"RamdiskId": {}},
        "sriovNetSupport": {"SriovNetSupport": {}},
    }
    if attribute not in shown:
        raise ApiError("UnsupportedOperation", f"The attribute {attribute} is not supported.")
    return {"ImageId": image.id, **shown[attribute]}


def modify_image_attribute(context: Context, parameters: dict[str, Any]) -> None:
    """ModifyImageAttribute: a launch permission or the description, in the new form or in the old one."""
    attribute = _modified_attribute(parameters)
    image_id = parameters["ImageId"]
    if attribute == "description":
        value = parameters["Description"].get("Value", "") if "Description" in parameters else parameters.get("Value")
        if value is None:
            raise ApiError("MissingParameter", "The request must contain the parameter Value")
        images.set_description(context.cloud, context.caller, image_id, value)
        return
    given = parameters.get("LaunchPermission", {})
    add = _parse_permissions(given.get("Add", ()))
    remove = _parse_permissions(given.get("Remove", ()))
    old_form = [{"UserId": one} for one in parameters.get("UserIds", ())]
    old_form += [{"Group": one} for one in parameters.get("UserGroups", ())]
    if old_form:
        if parameters.get("OperationType") not in ("add", "remove"):
            raise ApiError("MissingParameter", "The request must contain the parameter OperationType")
        if given:
            raise ApiError(
                "InvalidParameterCombination", "LaunchPermission cannot be combined with UserId or UserGroup"
            )
        if parameters["OperationType"] == "add":
            add = _parse_permissions(old_form)
        else:
            remove = _parse_permissions(old_form)
    images.modify_launch_permissions(context.cloud, context.caller, image_id, add, remove)


def _modified_attribute(parameters: Mapping[str, Any]) -> str:
    """Return the one attribute that a ModifyImageAttribute is about. Raises ApiError."""
    meant = set()
    if "LaunchPermission" in parameters or "UserIds" in parameters or "UserGroups" in parameters:
        meant.add("launchPermission")
    if "Description" in parameters:
        meant.add("description")
    if "Attribute" in parameters:
        meant.add(parameters["Attribute"])
    if len(meant) != 1:
        code = "InvalidParameterCombination" if meant else "MissingParameter"
        raise ApiError(code, "The request must name exactly one attribute to modify")
    (attribute,) = meant
    if attribute not in ("description", "launchPermission"):
        raise ApiError("UnsupportedOperation", f"The attribute {attribute[:100]} cannot be modified.")
    if attribute == "launchPermission" and "Value" in parameters:
        raise ApiError("InvalidParameterCombination", "Value cannot be used with launchPermission")
    return str(attribute)


def _parse_permissions(given: Iterable[Mapping[str, Any]]) -> images.LaunchPermissions:
    groups = [one["Group"] for one in given if "Group" in one]
    if any(group != "all" for group in groups):
        raise ApiError("InvalidAMIAttributeItemValue", "The only group of launch permissions is 'all'.")
    return images.LaunchPermissions(bool(groups), tuple(one["UserId"] for one in given if "UserId" in one))


def reset_image_attribute(context: Context, parameters: dict[str, Any]) -> None:
    """ResetImageAttribute: the launch permissions; the model knows no other."""
    images.reset_launch_permissions(context.cloud, context.caller, parameters["ImageId"])


def _render(view: images.ImageView) -> dict[str, Any]:
    image = view.image
    return {
        "ImageId": image.id,
        "ImageLocation": f"{image.account_id}/{image.name}",
        "ImageType": "machine",
        "ImageAllowed": True,
        "FreeTierEligible": False,
        "Name": image.name,
        "Description": image.description,
        "OwnerId": image.account_id,
        "State": image.state.value,
        "StateReason": {"Code": "Server.InternalError", "Message": image.state_reason} if image.state_reason else None,
        "CreationDate": render_timestamp(to_datetime(image.created_us)),
        "Public": image.public,
        "Architecture": image.architecture,
        "PlatformDetails": PLATFORM,
        "UsageOperation": USAGE_OPERATION,
        "BlockDeviceMappings": _render_block_devices(view),
        "EnaSupport": image.ena_support,
        "Hypervisor": "xen",
        "VirtualizationType": "hvm",
        "RootDeviceName": image.root_device_name,
        "RootDeviceType": "ebs",
        "BootMode": image.boot_mode,
        "ImdsSupport": image.imds_support,
        "SourceImageId": image.source_image_id,
        "SourceImageRegion": image.source_region,
        "Tags": render_tags(view.tags),
    }


def _render_block_devices(view: images.ImageView) -> list[dict[str, Any]]:
    return [_render_block_device(one, view.snapshot_sizes_gib) for one in view.image.block_devices]


def _render_block_device(one: BlockDevice, sizes_gib: Mapping[str, int]) -> dict[str, Any]:
    if one.virtual_name is not None:
        return {"DeviceName": one.device_name, "VirtualName": one.virtual_name}
    size_gib = one.size_gib if one.size_gib is not None else sizes_gib.get(one.snapshot_id or "")
    return {
        "DeviceName": one.device_name,
        "Ebs": {
            "DeleteOnTermination": one.delete_on_termination,
            "SnapshotId": one.snapshot_id,
            "VolumeSize": size_gib,
            "VolumeType": one.volume_type,
            "Iops": one.iops,
            "Throughput": one.throughput_mibps,
            "Encrypted": one.encrypted,
        },
    }


def _render_permissions(image: Image) -> list[dict[str, Any]]:
    everybody = [{"Group": "all"}] if image.public else []
    return everybody + [{"UserId": account_id} for account_id in image.allowed_account_ids]


ROWS: Rows = {
    "RegisterImage": row(register_image, *REGISTER_HONOURS, tolerates=REGISTER_TOLERATES),
    "CopyImage": row(copy_image, *COPY_HONOURS, tolerates={"Encrypted": (False,)}),
    "DescribeImages": row(
        describe_images,
        "ImageIds",
        "Owners",
        "ExecutableUsers",
        tolerates={"IncludeDeprecated": ANYTHING, "IncludeDisabled": ANYTHING},
        filters=IMAGE_FILTERS,
        pages=Pages(),
    ),
    "DeregisterImage": row(deregister_image, "ImageId", tolerates={"DeleteAssociatedSnapshots": (False,)}),
    "DescribeImageAttribute": row(describe_image_attribute, "ImageId", "Attribute"),
    "ModifyImageAttribute": row(modify_image_attribute, *MODIFY_HONOURS),
    "ResetImageAttribute": row(reset_image_attribute, "ImageId", tolerates={"Attribute": ANYTHING}),
}
