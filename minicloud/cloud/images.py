"""AMIs: registered from snapshots, copied, shared, described, deregistered. An AMI is snapshots and launch metadata.

Who may see an image: its owner, everybody when it is public, and the accounts it is shared with. Only the owner changes
it. imports.py makes the snapshots (and images) of disk files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from minicloud import ids
from minicloud.cloud import tokens
from minicloud.cloud.block_devices import (
    DeviceRequest,
    choose_volume,
    device_letter,
    invalid_mapping,
    merge_mappings,
)
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import IMAGES, SNAPSHOTS, check_ids, is_visible, missing, require, require_one
from minicloud.cloud.tags import MAX_TAGS, TagSpecifications, check_tag_specifications, too_many_tags
from minicloud.errors import ApiError
from minicloud.model.resources import BlockDevice, Image, Snapshot
from minicloud.model.states import ImageState, SnapshotState
from minicloud.store.filters import images as filters
from minicloud.store.search import EVERYTHING, Asked, Found
from minicloud.store.store import Tx

ARCHITECTURE = "x86_64"
DEFAULT_BOOT_MODE = "legacy-bios"
MAX_DESCRIPTION = 255
SELF = "self"
ALL = "all"
# EC2 API reference, CopyImage and RegisterImage, "Name".
_NAME = re.compile(r"[a-zA-Z0-9()\[\] ./\-'@_]{3,128}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_LIVE = frozenset({ImageState.PENDING, ImageState.AVAILABLE, ImageState.FAILED})


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image, the sizes of its volumes (GiB, by snapshot; absent while an import is under way) and its tags."""

    image: Image
    snapshot_sizes_gib: Mapping[str, int]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RegisterRequest:
    """The parameters of RegisterImage that minicloud honours."""

    name: str
    root_device_name: str | None
    block_devices: tuple[DeviceRequest, ...]
    description: str | None = None
    architecture: str = ARCHITECTURE
    boot_mode: str = DEFAULT_BOOT_MODE
    imds_support: str | None = None
    ena_support: bool = False
    tags: TagSpecifications = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """The parameters of CopyImage that minicloud honours."""

    name: str
    source_image_id: str
    source_region: str
    description: str | None = None
    client_token: str | None = None
    copy_tags: bool = False
    tags: TagSpecifications = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchPermissions:
    """Who may launch an image besides its owner."""

    public: bool
    account_ids: tuple[str, ...]


def may_launch(image: Image, caller: Caller) -> bool:
    """Say whether a caller may see an image."""
    if image.region != caller.region:
        return False
    return is_visible(image, caller) or image.public or caller.account_id in image.allowed_account_ids


def register_image(cloud: Cloud, caller: Caller, request: RegisterRequest) -> Image:
    """Make an image of completed snapshots. Raises InvalidAMIName.*, InvalidBlockDeviceMapping, InvalidSnapshot.*."""
    check_image_name(request.name)
    check_architecture(request.architecture)
    _check_description(request.description)
    check_tag_specifications(request.tags, [IMAGES.tag_type])
    if request.root_device_name is None:
        raise ApiError("MissingParameter", "The request must contain the parameter RootDeviceName")
    device_letter(request.root_device_name)
    root_device_name = request.root_device_name
    mappings = merge_mappings(root_device_name, (), request.block_devices)

    def decide(tx: Tx) -> Image:
        _check_name_is_free(tx, caller, request.name)
        image = Image(
            id=cloud.make_id(ids.IMAGE),
            account_id=caller.account_id,
            region=caller.region,
            name=request.name,
            description=request.description,
            state=ImageState.AVAILABLE,
            state_reason=None,
            architecture=request.architecture,
            boot_mode=request.boot_mode,
            root_device_name=root_device_name,
            block_devices=_image_devices(tx, caller, root_device_name, mappings),
            public=False,
            allowed_account_ids=(),
            source_image_id=None,
            source_region=None,
            imds_support=request.imds_support,
            ena_support=request.ena_support,
            created_us=tx.now_us,
        )
        tx.images.insert(image)
        tx.tags.set(image.id, request.tags.get(IMAGES.tag_type, {}))
        return image

    return cloud.store.write(decide)


def _image_devices(
    tx: Tx, caller: Caller, root_device_name: str, mappings: Sequence[DeviceRequest]
) -> tuple[BlockDevice, ...]:
    wanted = [one.snapshot_id for one in mappings if one.snapshot_id is not None]
    snapshots = {row.id: row for row in require(tx, caller, SNAPSHOTS, wanted)}
    root = next((one for one in mappings if one.device_name == root_device_name), None)
    if root is None or root.snapshot_id is None:
        raise invalid_mapping(f"The root device '{root_device_name}' must be mapped to a snapshot")
    for snapshot in snapshots.values():
        if snapshot.state is not SnapshotState.COMPLETED:
            raise ApiError("IncorrectState", f"Snapshot '{snapshot.id}' is not completed: it is {snapshot.state}.")
    return tuple(_image_device(one, snapshots) for one in mappings)


def _image_device(one: DeviceRequest, snapshots: Mapping[str, Snapshot]) -> BlockDevice:
    if one.virtual_name is not None:
        if not re.fullmatch(r"ephemeral[0-9]{1,2}", one.virtual_name):
            raise invalid_mapping(f"'{one.virtual_name[:100]}' is not a virtual device name such as ephemeral0")
        return BlockDevice(device_name=str(one.device_name), virtual_name=one.virtual_name)
    volume = choose_volume(one, 0, snapshots)
    return BlockDevice(
        device_name=volume.device_name,
        snapshot_id=volume.snapshot_id,
        size_gib=volume.size_gib,
        volume_type=volume.volume_type,
        delete_on_termination=volume.delete_on_termination,
        iops=volume.iops,
        throughput_mibps=volume.throughput_mibps,
    )


def copy_image(cloud: Cloud, caller: Caller, request: CopyRequest) -> Image:
    """Make an image of the same content under a second name; its snapshots share the source's blocks.

    Permissions are not copied. Raises InvalidAMIID.*, InvalidAMIName.*, InvalidRegion for another region than ours.
    """
    check_image_name(request.name)
    _check_description(request.description)
    check_tag_specifications(request.tags, [IMAGES.tag_type, SNAPSHOTS.tag_type])
    if request.source_region != caller.region:
        raise ApiError("InvalidParameterValue", f"Invalid source region: {request.source_region[:100]}")
    digest = tokens.parameters_digest(request)

    def decide(tx: Tx) -> Image:
        earlier = tokens.find_earlier(tx, caller, "CopyImage", request.client_token, digest)
        if earlier is not None:
            return require_one(tx, caller, IMAGES, earlier)
        source = find_launchable_image(tx, caller, request.source_image_id)
        _check_name_is_free(tx, caller, request.name)
        copy = replace(
            source,
            id=cloud.make_id(ids.IMAGE),
            account_id=caller.account_id,
            name=request.name,
            description=request.description if request.description is not None else source.description,
            state=ImageState.PENDING,
            public=False,
            allowed_account_ids=(),
            source_image_id=source.id,
            source_region=request.source_region,
            created_us=tx.now_us,
        )
        made = _copy_snapshots(cloud, tx, caller, source, copy, request)
        copy = replace(
            copy,
            block_devices=tuple(
                replace(one, snapshot_id=made[one.snapshot_id]) if one.snapshot_id else one
                for one in source.block_devices
            ),
        )
        tx.images.insert(copy)
        tx.add_task(copy.id, "image_copy", "copy", {"sources": {new: original for original, new in made.items()}})
        # Tags that another account gave its image are that account's alone (EC2 API reference, CopyImageTags).
        copies_tags = request.copy_tags and source.account_id == caller.account_id
        copied = tx.tags.of([source.id]).get(source.id, {}) if copies_tags else {}
        tags = {**copied, **request.tags.get(IMAGES.tag_type, {})}
        if len(tags) > MAX_TAGS:
            raise too_many_tags()
        tx.tags.set(copy.id, tags)
        tokens.remember(tx, caller, "CopyImage", request.client_token, digest, copy.id)
        return copy

    return cloud.store.write(decide)


def _copy_snapshots(
    cloud: Cloud, tx: Tx, caller: Caller, source: Image, copy: Image, request: CopyRequest
) -> dict[str, str]:
    """Give the copy snapshots of its own, so that either image may go without the other. Blocks are not copied.

    Returns new snapshot ids by those of their originals; the controller completes them.
    """
    made: dict[str, str] = {}
    for original in tx.snapshots.where(id={one.snapshot_id for one in source.block_devices if one.snapshot_id}):
        snapshot = replace(
            original,
            id=cloud.make_id(ids.SNAPSHOT),
            account_id=caller.account_id,
            state=SnapshotState.PENDING,
            progress_percent=0,
            completed_us=None,
            description=f"Copied for DestinationAmi {copy.id} from SourceAmi {source.id} for SourceSnapshot "
            f"{original.id}.",
            created_us=tx.now_us,
        )
        tx.snapshots.insert(snapshot)
        tx.tags.set(snapshot.id, request.tags.get(SNAPSHOTS.tag_type, {}))
        made[original.id] = snapshot.id
    return made


def describe_images(
    cloud: Cloud,
    caller: Caller,
    image_ids: Iterable[str],
    owners: Iterable[str],
    executable_by: Iterable[str],
    asked: Asked = EVERYTHING,
) -> Found[ImageView]:
    """Return a page of the images a caller may see: named, owned by one of `owners`, launchable by `executable_by`.

    `owners` are account ids or "self"; aliases such as "amazon" own nothing here. `executable_by` are account ids,
    "self" or "all". Raises InvalidAMIID.* for a named image that the caller cannot see.
    """
    wanted = list(image_ids)
    owned_by = {caller.account_id if one == SELF else one for one in owners}
    users = {caller.account_id if one == SELF else one for one in executable_by}

    def look(tx: Tx) -> Found[ImageView]:
        scope: dict[str, object] = {"region": caller.region, "state": _LIVE}
        if wanted:
            rows = require(tx, caller, IMAGES, wanted, may_launch)
            gone = [row.id for row in rows if row.state not in _LIVE]
            if gone:
                raise missing(IMAGES, gone)
            scope["id"] = [row.id for row in rows]
        conditions = [filters.visible_to(caller.account_id)]
        if owned_by:
            conditions.append(filters.owned_by(owned_by))
        if users:
            conditions.append(filters.launchable_by(caller.account_id, users - {ALL}, ALL in users))
        if any(one.name.startswith("tag") for one in asked.filters):
            # An owner's tags are shown to nobody else, so nobody else finds images by them.
            conditions.append(filters.owned_by([caller.account_id]))
        found = tx.images.search(filters.IMAGES, asked, *conditions, **scope)
        return Found(_view(tx, caller, found.items), found.after)

    return cloud.store.read(look)


def deregister_image(cloud: Cloud, caller: Caller, image_id: str) -> None:
    """Take an image away; its snapshots and its instances stay. Raises InvalidAMIID.*, IncorrectState."""

    def decide(tx: Tx) -> None:
        image = _own_image(tx, caller, image_id)
        if image.state is ImageState.PENDING:
            raise ApiError("IncorrectState", f"The image '{image.id}' is still being imported.")
        tx.images.update(image.id, state=ImageState.DEREGISTERED, deregistered_us=tx.now_us, public=False)
        tx.tags.delete(image.id)

    cloud.store.write(decide)


def describe_image(cloud: Cloud, caller: Caller, image_id: str) -> ImageView:
    """Return one of the caller's own images, for its attributes. Raises InvalidAMIID.*, AuthFailure."""
    return cloud.store.read(lambda tx: _view(tx, caller, [_own_image(tx, caller, image_id)])[0])


def set_description(cloud: Cloud, caller: Caller, image_id: str, description: str) -> None:
    """Change an image's description. Raises InvalidAMIID.*, AuthFailure."""
    _check_description(description)
    cloud.store.write(lambda tx: tx.images.update(_own_image(tx, caller, image_id).id, description=description))


def modify_launch_permissions(
    cloud: Cloud, caller: Caller, image_id: str, add: LaunchPermissions, remove: LaunchPermissions
) -> None:
    """Let everybody or some accounts launch an image, or no longer. Raises InvalidAMIAttributeItemValue."""
    for account_id in (*add.account_ids, *remove.account_ids):
        if not _ACCOUNT.fullmatch(account_id):
            raise ApiError(
                "InvalidAMIAttributeItemValue",
                f'Invalid attribute item value "{account_id[:100]}" for userId item type.',
            )

    def decide(tx: Tx) -> None:
        image = _own_image(tx, caller, image_id)
        accounts = dict.fromkeys((*image.allowed_account_ids, *add.account_ids))
        tx.images.update(
            image.id,
            public=(image.public or add.public) and not remove.public,
            allowed_account_ids=tuple(one for one in accounts if one not in remove.account_ids),
        )

    cloud.store.write(decide)


def reset_launch_permissions(cloud: Cloud, caller: Caller, image_id: str) -> None:
    """Make an image private again."""
    cloud.store.write(
        lambda tx: tx.images.update(_own_image(tx, caller, image_id).id, public=False, allowed_account_ids=())
    )


def find_launchable_image(tx: Tx, caller: Caller, image_id: str) -> Image:
    """Return an image that instances can be launched of. Raises InvalidAMIID.NotFound, .Malformed, .Unavailable."""
    check_ids(IMAGES, [image_id])
    image = require_one(tx, caller, IMAGES, image_id, may_launch)
    if image.state is not ImageState.AVAILABLE:
        raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is not available: it is {image.state}.")
    return image


def check_image_name(name: str) -> None:
    """Raise InvalidAMIName.Malformed for a name that EC2 would not take."""
    if not _NAME.fullmatch(name):
        raise ApiError(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '[', "
            "']', ' ', '.', '/', '-', ''', '@' and '_'",
        )


def check_architecture(architecture: str) -> None:
    """Raise UnsupportedOperation for an architecture that no host here has."""
    if architecture != ARCHITECTURE:
        raise ApiError("UnsupportedOperation", f"The architecture '{architecture}' is not supported: only x86_64 is.")


def _check_description(description: str | None) -> None:
    if description is not None and len(description) > MAX_DESCRIPTION:
        raise ApiError("InvalidParameterValue", f"AMI descriptions must be at most {MAX_DESCRIPTION} characters long")


def _check_name_is_free(tx: Tx, caller: Caller, name: str) -> None:
    states = [ImageState.PENDING, ImageState.AVAILABLE]
    same = tx.images.where(account_id=caller.account_id, region=caller.region, name=name, state=states)
    if same:
        raise ApiError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {same[0].id}")


def _own_image(tx: Tx, caller: Caller, image_id: str) -> Image:
    image = require_one(tx, caller, IMAGES, image_id, may_launch)
    if image.account_id != caller.account_id:
        raise ApiError("AuthFailure", f"Not authorized for image:{image_id}", 403)
    if image.state not in _LIVE:
        raise ApiError("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is not available: it is {image.state}.")
    return image


def _view(tx: Tx, caller: Caller, images: Sequence[Image]) -> list[ImageView]:
    wanted = {one.snapshot_id for image in images for one in image.block_devices if one.snapshot_id}
    sizes = {row.id: row.size_gib for row in tx.snapshots.where(id=wanted) if row.size_gib > 0}
    # An image is shared without its tags (EC2 user guide, "Share an AMI").
    tags = tx.tags.of([image.id for image in images if image.account_id == caller.account_id])
    return [ImageView(image, sizes, tags.get(image.id, {})) for image in images]
