"""ImportSnapshot and ImportImage: a disk file on the controller becomes a snapshot, and perhaps an image.

Refuses to touch the file: the front door has found it to be one that may be read (`DiskSource`), and the controller's
job inspects and reads it. The rows come first, so that the task, its snapshot and its image have ids at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from minicloud import ids
from minicloud.cloud import tokens
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.images import DEFAULT_BOOT_MODE, check_architecture
from minicloud.cloud.lookups import IMPORT_IMAGE_TASKS, IMPORT_SNAPSHOT_TASKS, narrow_to, require
from minicloud.cloud.tags import TagSpecifications, check_tag_specifications
from minicloud.errors import ApiError
from minicloud.model.resources import BlockDevice, Image, ImportTask, Snapshot
from minicloud.model.states import ImageState, ImportTaskState, SnapshotState
from minicloud.store.filters.import_tasks import IMPORT_TASKS
from minicloud.store.search import EVERYTHING, Asked, Found
from minicloud.store.store import Tx

TASK_KIND = "import"
FIRST_STEP = "start"
FORMATS = ("qcow2", "raw")
# What ImportImage gives its image in EC2.
ROOT_DEVICE_NAME = "/dev/sda1"


@dataclass(frozen=True, slots=True)
class DiskSource:
    """A local disk file that may be imported: `url` as the caller gave it, `path` with no link left in it."""

    url: str
    path: str
    size_bytes: int
    remove_when_done: bool


# Finds the file of a URL. Raises ApiError for one that may not be imported.
FindSource = Callable[[str], DiskSource]


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is common to ImportSnapshot and ImportImage. `format` is as declared, any case."""

    url: str
    format: str
    description: str | None = None
    client_token: str | None = None
    tags: TagSpecifications = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportView:
    """An import task and its tags."""

    task: ImportTask
    tags: Mapping[str, str]


def import_snapshot(cloud: Cloud, caller: Caller, request: ImportRequest, find_source: FindSource) -> ImportView:
    """Start to make a snapshot of a disk file. Raises InvalidParameterValue for a format that is not accepted."""
    check_tag_specifications(request.tags, [IMPORT_SNAPSHOT_TASKS.tag_type])
    return _start(cloud, caller, request, find_source, "snapshot", "x86_64", None)


def import_image(
    cloud: Cloud,
    caller: Caller,
    request: ImportRequest,
    find_source: FindSource,
    architecture: str,
    boot_mode: str | None,
) -> ImportView:
    """Start to make an image of a disk file; as in EC2 it bears its task's id as name. Errors as import_snapshot."""
    check_architecture(architecture)
    check_tag_specifications(request.tags, [IMPORT_IMAGE_TASKS.tag_type])
    return _start(cloud, caller, request, find_source, "image", architecture, boot_mode)


def _start(
    cloud: Cloud,
    caller: Caller,
    request: ImportRequest,
    find_source: FindSource,
    kind: str,
    architecture: str,
    boot_mode: str | None,
) -> ImportView:
    declared = request.format.lower()
    if declared not in FORMATS:
        raise ApiError(
            "InvalidParameterValue",
            f"The disk image format '{request.format[:100]}' is not supported: only {' and '.join(FORMATS)} are.",
        )
    digest = f"{tokens.parameters_digest(request)} {architecture} {boot_mode}"
    operation = f"Import{kind.capitalize()}"
    task_kind = IMPORT_IMAGE_TASKS if kind == "image" else IMPORT_SNAPSHOT_TASKS

    def find_repeated(tx: Tx) -> ImportView | None:
        earlier = tokens.find_earlier(tx, caller, operation, request.client_token, digest)
        return None if earlier is None else _view(tx, require(tx, caller, task_kind, [earlier]))[0]

    # Before the file is looked for: an upload that was imported is gone, and the import is still to be told of.
    repeated = cloud.store.read(find_repeated) if request.client_token is not None else None
    if repeated is not None:
        return repeated
    source = find_source(request.url)

    def decide(tx: Tx) -> ImportView:
        repeated = find_repeated(tx)
        if repeated is not None:
            return repeated
        task_id = cloud.make_id(task_kind.prefix)
        snapshot = Snapshot(
            id=cloud.make_id(ids.SNAPSHOT),
            account_id=caller.account_id,
            region=caller.region,
            description=request.description or f"Created by AWS-VMImport service for {task_id}",
            state=SnapshotState.PENDING,
            state_reason=None,
            volume_id=None,
            size_gib=0,
            virtual_size_bytes=0,
            manifest_digest=None,
            progress_percent=0,
            encrypted=False,
            created_us=tx.now_us,
        )
        tx.snapshots.insert(snapshot)
        image_id = None
        if kind == "image":
            image_id = cloud.make_id(ids.IMAGE)
            tx.images.insert(_image(caller, request, task_id, image_id, snapshot, architecture, boot_mode, tx.now_us))
        task = ImportTask(
            id=task_id,
            account_id=caller.account_id,
            region=caller.region,
            kind=kind,
            description=request.description,
            url=source.url,
            path=source.path,
            format=declared,
            remove_source=source.remove_when_done,
            state=ImportTaskState.ACTIVE,
            status_message="pending",
            progress_percent=0,
            snapshot_id=snapshot.id,
            image_id=image_id,
            architecture=architecture,
            boot_mode=boot_mode,
            disk_image_size_bytes=source.size_bytes,
            created_us=tx.now_us,
        )
        tx.import_tasks.insert(task)
        tx.tags.set(task.id, request.tags.get(task_kind.tag_type, {}))
        tx.add_task(task.id, TASK_KIND, FIRST_STEP)
        tokens.remember(tx, caller, operation, request.client_token, digest, task.id)
        return _view(tx, [task])[0]

    return cloud.store.write(decide)


def _image(
    caller: Caller,
    request: ImportRequest,
    task_id: str,
    image_id: str,
    snapshot: Snapshot,
    architecture: str,
    boot_mode: str | None,
    now_us: int,
) -> Image:
    return Image(
        id=image_id,
        account_id=caller.account_id,
        region=caller.region,
        name=task_id,
        description=request.description,
        state=ImageState.PENDING,
        state_reason=None,
        architecture=architecture,
        boot_mode=boot_mode or DEFAULT_BOOT_MODE,
        root_device_name=ROOT_DEVICE_NAME,
        block_devices=(BlockDevice(device_name=ROOT_DEVICE_NAME, snapshot_id=snapshot.id),),
        public=False,
        allowed_account_ids=(),
        source_image_id=None,
        source_region=None,
        imds_support=None,
        ena_support=True,
        created_us=now_us,
    )


def describe_import_snapshot_tasks(
    cloud: Cloud, caller: Caller, task_ids: Iterable[str], asked: Asked = EVERYTHING
) -> Found[ImportView]:
    """Return a page of the named ImportSnapshot tasks, of all if none is named. Raises InvalidConversionTaskId."""
    return _describe(cloud, caller, list(task_ids), "snapshot", asked)


def describe_import_image_tasks(
    cloud: Cloud, caller: Caller, task_ids: Iterable[str], asked: Asked = EVERYTHING
) -> Found[ImportView]:
    """Return a page of the named ImportImage tasks, of all if none is named. Raises InvalidConversionTaskId."""
    return _describe(cloud, caller, list(task_ids), "image", asked)


def _describe(cloud: Cloud, caller: Caller, wanted: list[str], kind: str, asked: Asked) -> Found[ImportView]:
    task_kind = IMPORT_IMAGE_TASKS if kind == "image" else IMPORT_SNAPSHOT_TASKS

    def look(tx: Tx) -> Found[ImportView]:
        owned = {
            "account_id": caller.account_id,
            "region": caller.region,
            "kind": kind,
            **narrow_to(tx, caller, task_kind, wanted),
        }
        found = tx.import_tasks.search(IMPORT_TASKS, asked, **owned)
        return Found(_view(tx, found.items), found.after)

    return cloud.store.read(look)


def _view(tx: Tx, tasks: list[ImportTask]) -> list[ImportView]:
    tags = tx.tags.of([task.id for task in tasks])
    return [ImportView(task, tags.get(task.id, {})) for task in tasks]


def spool_paths_in_use(cloud: Cloud) -> set[str]:
    """Return the files that imports still need, for the clearing of the spool when the daemon starts."""
    return cloud.store.read(
        lambda tx: {row.path for row in tx.import_tasks.where(state=ImportTaskState.ACTIVE, remove_source=True)}
    )
