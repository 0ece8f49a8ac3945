"""Finding the resources that a caller named: EC2's rules for malformed, unknown and foreign ids, in one table.

Called by every use case that takes ids. Refuses to say whether a resource of another account exists: it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from minicloud import ids
from minicloud.cloud.context import Caller
from minicloud.errors import ApiError
from minicloud.model.resources import (
    Image,
    ImportTask,
    Instance,
    KeyPair,
    NetworkInterface,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
    Subnet,
    Volume,
    Vpc,
)
from minicloud.store.store import Tx

MAX_IDS = 1000

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Kind(Generic[Row]):
    """One kind of resource: its id's prefix, EC2's name for it in tags, its rows and EC2's errors about its ids.

    Sentences are formatted with `ids` ("a, b") and chosen by their number. Source: EC2 API reference, "Error codes".
    """

    prefix: str
    tag_type: str
    rows: Callable[[Tx, list[str]], list[Row]]
    malformed_code: str
    not_found_code: str
    one_missing: str
    many_missing: str


INSTANCES: Kind[Instance] = Kind(
    ids.INSTANCE,
    "instance",
    lambda tx, wanted: tx.instances.where(id=wanted),
    "InvalidInstanceID.Malformed",
    "InvalidInstanceID.NotFound",
    "The instance ID '{ids}' does not exist",
    "The instance IDs '{ids}' do not exist",
)
IMAGES: Kind[Image] = Kind(
    ids.IMAGE,
    "image",
    lambda tx, wanted: tx.images.where(id=wanted),
    "InvalidAMIID.Malformed",
    "InvalidAMIID.NotFound",
    "The image id '[{ids}]' does not exist",
    "The image ids '[{ids}]' do not exist",
)
SNAPSHOTS: Kind[Snapshot] = Kind(
    ids.SNAPSHOT,
    "snapshot",
    lambda tx, wanted: tx.snapshots.where(id=wanted),
    "InvalidSnapshotID.Malformed",
    "InvalidSnapshot.NotFound",
    "The snapshot '{ids}' does not exist.",
    "The snapshots '{ids}' do not exist.",
)
VOLUMES: Kind[Volume] = Kind(
    ids.VOLUME,
    "volume",
    lambda tx, wanted: tx.volumes.where(id=wanted),
    "InvalidVolumeID.Malformed",
    "InvalidVolume.NotFound",
    "The volume '{ids}' does not exist.",
    "The volumes '{ids}' do not exist.",
)
KEY_PAIRS: Kind[KeyPair] = Kind(
    ids.KEY_PAIR,
    "key-pair",
    lambda tx, wanted: tx.key_pairs.where(id=wanted),
    "InvalidKeyPair.NotFound",
    "InvalidKeyPair.NotFound",
    "The key pair '{ids}' does not exist",
    "The key pairs '{ids}' do not exist",
)
VPCS: Kind[Vpc] = Kind(
    ids.VPC,
    "vpc",
    lambda tx, wanted: tx.vpcs.where(id=wanted),
    "InvalidVpcID.NotFound",
    "InvalidVpcID.NotFound",
    "The vpc ID '{ids}' does not exist",
    "The vpc IDs '{ids}' do not exist",
)
SUBNETS: Kind[Subnet] = Kind(
    ids.SUBNET,
    "subnet",
    lambda tx, wanted: tx.subnets.where(id=wanted),
    "InvalidSubnetID.NotFound",
    "InvalidSubnetID.NotFound",
    "The subnet ID '{ids}' does not exist",
    "The subnet IDs '{ids}' do not exist",
)
SECURITY_GROUPS: Kind[SecurityGroup] = Kind(
    ids.SECURITY_GROUP,
    "security-group",
    lambda tx, wanted: tx.security_groups.where(id=wanted),
    "InvalidGroupId.Malformed",
    "InvalidGroup.NotFound",
    "The security group '{ids}' does not exist",
    "The security groups '{ids}' do not exist",
)
SECURITY_GROUP_RULES: Kind[SecurityGroupRule] = Kind(
    ids.SECURITY_GROUP_RULE,
    "security-group-rule",
    lambda tx, wanted: tx.security_group_rules.where(id=wanted),
    "InvalidSecurityGroupRuleId.Malformed",
    "InvalidSecurityGroupRuleId.NotFound",
    "The security group rule ID '{ids}' does not exist",
    "The security group rule IDs '{ids}' do not exist",
)
NETWORK_INTERFACES: Kind[NetworkInterface] = Kind(
    ids.NETWORK_INTERFACE,
    "network-interface",
    lambda tx, wanted: tx.network_interfaces.where(id=wanted),
    "InvalidNetworkInterfaceId.Malformed",
    "InvalidNetworkInterfaceID.NotFound",
    "The networkInterface ID '{ids}' does not exist",
    "The networkInterface IDs '{ids}' do not exist",
)
IMPORT_SNAPSHOT_TASKS: Kind[ImportTask] = Kind(
    ids.IMPORT_SNAPSHOT_TASK,
    "import-snapshot-task",
    lambda tx, wanted: tx.import_tasks.where(id=wanted, kind="snapshot"),
    "InvalidConversionTaskId.Malformed",
    "InvalidConversionTaskId",
    "The import task ID '{ids}' does not exist",
    "The import task IDs '{ids}' do not exist",
)
IMPORT_IMAGE_TASKS: Kind[ImportTask] = Kind(
    ids.IMPORT_IMAGE_TASK,
    "import-image-task",
    lambda tx, wanted: tx.import_tasks.where(id=wanted, kind="image"),
    "InvalidConversionTaskId.Malformed",
    "InvalidConversionTaskId",
    "The import task ID '{ids}' does not exist",
    "The import task IDs '{ids}' do not exist",
)

TAGGABLE: tuple[Kind[Any], ...] = (
    INSTANCES,
    IMAGES,
    SNAPSHOTS,
    VOLUMES,
    KEY_PAIRS,
    VPCS,
    SUBNETS,
    SECURITY_GROUPS,
    SECURITY_GROUP_RULES,
    NETWORK_INTERFACES,
    IMPORT_SNAPSHOT_TASKS,
    IMPORT_IMAGE_TASKS,
)


def kind_of(resource_id: str) -> Kind[Any] | None:
    """Return the kind that an id's prefix names, None for a prefix that nothing bears."""
    prefix = resource_id.rpartition("-")[0]
    return next((kind for kind in TAGGABLE if kind.prefix == prefix), None)


def check_ids(kind: Kind[Row], wanted: Iterable[str]) -> list[str]:
    """Return the ids without repetition, in order. Raises EC2's error for a malformed one, or for too many."""
    unique = list(dict.fromkeys(wanted))
    if len(unique) > MAX_IDS:
        raise too_many()
    for one in unique:
        if ids.is_well_formed(one, kind.prefix):
            continue
        if kind.malformed_code == kind.not_found_code:
            raise missing(kind, [one])
        raise ApiError(kind.malformed_code, f'Invalid id: "{one[:100]}" (expecting "{kind.prefix}-...")')
    return unique


def too_many() -> ApiError:
    """Return the error for more resources than one request may name."""
    return ApiError("InvalidParameterValue", f"At most {MAX_IDS} ids may be named in one request.")


def missing(kind: Kind[Row], absent: list[str]) -> ApiError:
    """Return EC2's error for ids that do not exist."""
    sentence = kind.one_missing if len(absent) == 1 else kind.many_missing
    return ApiError(kind.not_found_code, sentence.format(ids=", ".join(one[:255] for one in absent)))


def is_visible(row: Any, caller: Caller) -> bool:
    """Say whether a row belongs to the caller in the caller's region. (Images have wider rules: see images.py.)"""
    return bool(row.account_id == caller.account_id and getattr(row, "region", caller.region) == caller.region)


def require(
    tx: Tx,
    caller: Caller,
    kind: Kind[Row],
    wanted: Iterable[str],
    visible: Callable[[Row, Caller], bool] = is_visible,
) -> list[Row]:
    """Return the rows of the ids in the order asked. Raises EC2's error when one is malformed, unknown or foreign."""
    unique = check_ids(kind, wanted)
    found: dict[str, Row] = {row.id: row for row in kind.rows(tx, unique) if visible(row, caller)}  # type: ignore[attr-defined]
    absent = [one for one in unique if one not in found]
    if absent:
        raise missing(kind, absent)
    return [found[one] for one in unique]


def narrow_to(tx: Tx, caller: Caller, kind: Kind[Row], wanted: Iterable[str]) -> dict[str, object]:
    """Return the condition of a listing that names ids: none if it names none. Errors as `require`."""
    ids_found = [row.id for row in require(tx, caller, kind, wanted)]  # type: ignore[attr-defined]
    return {"id": ids_found} if ids_found else {}


def require_one(
    tx: Tx,
    caller: Caller,
    kind: Kind[Row],
    wanted: str,
    visible: Callable[[Row, Caller], bool] = is_visible,
) -> Row:
    """Return the row of one id; errors as `require`."""
    return require(tx, caller, kind, [wanted], visible)[0]
