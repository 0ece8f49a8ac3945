"""Tags of any resource: EC2's limits, and the calls that set, remove and list them.

Source: EC2 user guide, "Tag your Amazon EC2 resources" (restrictions). Called by the front door, and by every use case
that makes a resource with tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import INSTANCES, MAX_IDS, Kind, check_ids, is_visible, kind_of, missing
from minicloud.errors import ApiError
from minicloud.model.resources import Image, Instance, Tag
from minicloud.model.states import ImageState
from minicloud.store.filters.tags import find_tags
from minicloud.store.search import EVERYTHING, Asked, Found
from minicloud.store.store import Tx

MAX_TAGS = 50
MAX_KEY = 128
MAX_VALUE = 256
RESERVED = "aws:"
_METADATA_KEY = re.compile(r"[0-9a-zA-Z\-_+=,.@:]{1,255}")

# From resource type ("instance") to tags: what a TagSpecifications parameter says.
TagSpecifications = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class TagView:
    """One tag and the type of the resource that bears it."""

    tag: Tag
    resource_type: str


def check_tags(tags: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
    """Return tags to set, by key. Raises EC2's error for one that breaks a rule."""
    checked: dict[str, str] = {}
    for key, value in tags:
        if not key:
            raise ApiError("InvalidParameterValue", "Tag key cannot be empty.")
        if len(key) > MAX_KEY:
            raise ApiError("InvalidParameterValue", f"Tag key exceeds the maximum length of {MAX_KEY} characters")
        if value is not None and len(value) > MAX_VALUE:
            raise ApiError("InvalidParameterValue", f"Tag value exceeds the maximum length of {MAX_VALUE} characters")
        check_not_reserved(key)
        if key in checked:
            raise ApiError("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        checked[key] = value or ""
    if len(checked) > MAX_TAGS:
        raise too_many_tags()
    return checked


def check_not_reserved(key: str) -> None:
    """Refuse to set or remove what only AWS may. Raises InvalidParameterValue."""
    if key.lower().startswith(RESERVED):
        raise ApiError(
            "InvalidParameterValue",
            f"Tag keys starting with '{RESERVED}' are reserved for internal use",
        )


def too_many_tags() -> ApiError:
    """Return EC2's error for the 51st tag of a resource."""
    return ApiError("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")


def check_tag_specifications(specifications: TagSpecifications, allowed: Sequence[str]) -> None:
    """Refuse tags for resources that the call does not make. Raises InvalidParameterValue."""
    for resource_type in specifications:
        if resource_type not in allowed:
            raise ApiError(
                "InvalidParameterValue",
                f"'{resource_type}' is not a valid taggable resource type for this operation.",
            )


def check_metadata_tags(tags: Mapping[str, str]) -> None:
    """Refuse instance tags that cannot be metadata paths (EC2 user guide, "Instance tags in instance metadata")."""
    for key in tags:
        if not _METADATA_KEY.fullmatch(key) or key in (".", "..", "_index"):
            raise ApiError(
                "InvalidParameterValue",
                f"'{key}' is not a valid tag key. Tag keys must match pattern "
                "([0-9a-zA-Z\\-_+=,.@:]{1,255}), and must not be a reserved name ('.', '..', '_index')",
            )


def create_tags(cloud: Cloud, caller: Caller, resource_ids: Sequence[str], tags: Mapping[str, str]) -> None:
    """Set checked tags on every resource, or on none. Raises the kind's NotFound, InvalidID, TagLimitExceeded."""
    wanted = _unique(resource_ids)
    if not tags:
        raise ApiError("MissingParameter", "The request must contain the parameter Tags")

    def decide(tx: Tx) -> None:
        _require_all(tx, caller, wanted)
        existing = tx.tags.of(wanted)
        for resource_id in wanted:
            if len({*existing.get(resource_id, {}), *tags}) > MAX_TAGS:
                raise too_many_tags()
        telling = _instances_with_metadata_tags(tx, wanted)
        if telling:
            check_metadata_tags(tags)
        tx.tags.set_many(dict.fromkeys(wanted, tags))
        for instance in telling:
            tx.wake(instance.id)

    cloud.store.write(decide)


def delete_tags(
    cloud: Cloud, caller: Caller, resource_ids: Sequence[str], tags: Sequence[tuple[str, str | None]] | None
) -> None:
    """Remove tags by key, and only where the value matches if one is given; None removes all of the caller's own.

    Tags that are not there are fine; resources must exist.
    """
    wanted = _unique(resource_ids)

    def decide(tx: Tx) -> None:
        _require_all(tx, caller, wanted)
        existing = tx.tags.of(wanted)
        for resource_id in wanted:
            present = existing.get(resource_id, {})
            if tags is None:
                keys = set(present)
            else:
                keys = {key for key, value in tags if key in present and value in (None, present[key])}
            if keys:
                tx.tags.delete(resource_id, keys)
        for instance in _instances_with_metadata_tags(tx, wanted):
            tx.wake(instance.id)

    cloud.store.write(decide)


def describe_tags(cloud: Cloud, caller: Caller, asked: Asked = EVERYTHING) -> Found[TagView]:
    """Return a page of the tags of the caller's resources, by resource and key."""

    def look(tx: Tx) -> Found[TagView]:
        found = find_tags(tx, caller.account_id, caller.region, asked)
        return Found([TagView(tag, resource_type) for tag, resource_type in found.items], found.after)

    return cloud.store.read(look)


def _unique(resource_ids: Sequence[str]) -> list[str]:
    unique = list(dict.fromkeys(resource_ids))
    if len(unique) > MAX_IDS:
        raise ApiError("InvalidParameterValue", f"At most {MAX_IDS} resources may be tagged in one request.")
    return unique


def _by_kind(resource_ids: Iterable[str]) -> dict[Kind[Any], list[str]]:
    kinds: dict[Kind[Any], list[str]] = {}
    for resource_id in resource_ids:
        kind = kind_of(resource_id)
        if kind is not None:
            kinds.setdefault(kind, []).append(resource_id)
    return kinds


def _require_all(tx: Tx, caller: Caller, resource_ids: list[str]) -> None:
    for resource_id in resource_ids:
        if kind_of(resource_id) is None:
            raise ApiError("InvalidID", f"The ID '{resource_id[:255]}' is not valid")
    for kind, ids in _by_kind(resource_ids).items():
        check_ids(kind, ids)
        found = {row.id for row in kind.rows(tx, ids) if is_visible(row, caller) and not _is_gone(row)}
        absent = [one for one in ids if one not in found]
        if absent:
            raise missing(kind, absent)


def _is_gone(row: Any) -> bool:
    """Say whether only the cloud itself still has use for a row: of an image, that instances were launched of it."""
    return isinstance(row, Image) and row.state is ImageState.DEREGISTERED


def _instances_with_metadata_tags(tx: Tx, resource_ids: list[str]) -> list[Instance]:
    """Return the instances among the resources whose guests see their tags: their controller tells their hosts."""
    instances = tx.instances.where(id=[one for one in resource_ids if kind_of(one) is INSTANCES])
    return [one for one in instances if one.metadata_options.instance_metadata_tags == "enabled"]
