"""Imports of disk files as snapshots and images."""

from __future__ import annotations

from typing import Any

from minicloud.api.ec2.common import parse_tag_specifications, render_tags
from minicloud.api.import_files import resolve_source
from minicloud.api.listing import Pages
from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import imports
from minicloud.errors import ApiError
from minicloud.model.resources import ImportTask
from minicloud.model.states import ImportTaskState
from minicloud.store.filters.import_tasks import IMPORT_TASKS

# ClientData only says what its sender did. RoleName is who reads S3, and a local file needs nobody for that.
_TOLERATES: dict[str, tuple[object, ...]] = {
    "RoleName": ("vmimport",),
    "Encrypted": (False,),
    **{f"ClientData.{name}": ANYTHING for name in ("Comment", "UploadEnd", "UploadSize", "UploadStart")},
}
SNAPSHOT_HONOURS = (
    "ClientToken",
    "Description",
    "DiskContainer.Description",
    "DiskContainer.Format",
    "DiskContainer.Url",
    "TagSpecifications",
)
SNAPSHOT_TOLERATES = _TOLERATES
IMAGE_HONOURS = (
    "Architecture",
    "BootMode",
    "ClientToken",
    "Description",
    "DiskContainers.Description",
    "DiskContainers.Format",
    "DiskContainers.Url",
    "TagSpecifications",
)
IMAGE_TOLERATES = {**_TOLERATES, "Platform": ("Linux",), "LicenseType": ("BYOL",), "Hypervisor": ("xen",)}


def import_snapshot(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """ImportSnapshot of a file:// URL."""
    container = parameters.get("DiskContainer", {})
    view = imports.import_snapshot(context.cloud, context.caller, _request(parameters, container), _finder(context))
    return _render_snapshot_task(view)


def import_image(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """ImportImage of one file:// URL."""
    containers = parameters.get("DiskContainers", [])
    if len(containers) != 1:
        raise ApiError("InvalidParameterValue", "Exactly one disk container must be given.")
    view = imports.import_image(
        context.cloud,
        context.caller,
        _request(parameters, containers[0]),
        _finder(context),
        parameters.get("Architecture", "x86_64"),
        parameters.get("BootMode"),
    )
    return _render_image_task(view)


def _finder(context: Context) -> imports.FindSource:
    return lambda url: resolve_source(context.cloud.config, url)


def _request(parameters: dict[str, Any], container: dict[str, Any]) -> imports.ImportRequest:
    for name in ("Format", "Url"):
        if name not in container:
            raise ApiError("MissingParameter", f"The request must contain the parameter DiskContainer.{name}")
    return imports.ImportRequest(
        url=container["Url"],
        format=container["Format"],
        description=parameters.get("Description", container.get("Description")),
        client_token=parameters.get("ClientToken"),
        tags=parse_tag_specifications(parameters.get("TagSpecifications", ())),
    )


def describe_import_snapshot_tasks(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeImportSnapshotTasks."""
    found = imports.describe_import_snapshot_tasks(
        context.cloud, context.caller, parameters.get("ImportTaskIds", ()), context.asked
    )
    return {
        "ImportSnapshotTasks": [_render_snapshot_task(view) for view in found.items],
        "NextToken": context.next_token(found),
    }


def describe_import_image_tasks(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeImportImageTasks."""
    found = imports.describe_import_image_tasks(
        context.cloud, context.caller, parameters.get("ImportTaskIds", ()), context.asked
    )
    return {
        "ImportImageTasks": [_render_image_task(view) for view in found.items],
        "NextToken": context.next_token(found),
    }


def _render_snapshot_task(view: imports.ImportView) -> dict[str, Any]:
    task = view.task
    return {
        "ImportTaskId": task.id,
        "Description": task.description,
        "SnapshotTaskDetail": {
            **_render_detail(task),
            "Description": task.description,
            "Encrypted": False,
            "Progress": _progress(task),
            "Status": task.state.value,
            "StatusMessage": task.status_message,
        },
        "Tags": render_tags(view.tags),
    }


def _render_image_task(view: imports.ImportView) -> dict[str, Any]:
    task = view.task
    return {
        "ImportTaskId": task.id,
        "Description": task.description,
        "Architecture": task.architecture,
        "Platform": "Linux",
        "LicenseType": "BYOL",
        "Encrypted": False,
        # EC2 names the image only once there is one.
        "ImageId": task.image_id if task.state is ImportTaskState.COMPLETED else None,
        "Progress": _progress(task),
        "Status": task.state.value,
        "StatusMessage": task.status_message,
        "SnapshotDetails": [{**_render_detail(task), "Status": task.state.value}],
        "Tags": render_tags(view.tags),
    }


def _render_detail(task: ImportTask) -> dict[str, Any]:
    return {
        "DiskImageSize": float(task.disk_image_size_bytes),
        "Format": task.format.upper(),
        "SnapshotId": task.snapshot_id if task.state is ImportTaskState.COMPLETED else None,
        "Url": task.url,
    }


def _progress(task: ImportTask) -> str | None:
    """EC2 shows progress only while there is something left to do."""
    return str(task.progress_percent) if task.state is ImportTaskState.ACTIVE else None


ROWS: Rows = {
    "ImportSnapshot": row(import_snapshot, *SNAPSHOT_HONOURS, tolerates=SNAPSHOT_TOLERATES),
    "ImportImage": row(import_image, *IMAGE_HONOURS, tolerates=IMAGE_TOLERATES),
    "DescribeImportSnapshotTasks": row(
        describe_import_snapshot_tasks, "ImportTaskIds", filters=IMPORT_TASKS, pages=Pages()
    ),
    "DescribeImportImageTasks": row(describe_import_image_tasks, "ImportTaskIds", filters=IMPORT_TASKS, pages=Pages()),
}
