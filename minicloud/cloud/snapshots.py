"""Snapshots as their owners see them: what imports and copies of images made. Each is its owner's alone.

Making, copying and sharing them comes with the snapshot API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import SNAPSHOTS, narrow_to, require_one
from minicloud.errors import ApiError
from minicloud.model.resources import Snapshot
from minicloud.store.filters import snapshots as filters
from minicloud.store.search import EVERYTHING, Asked, Found
from minicloud.store.store import Tx

SELF = "self"
ALL = "all"
# The alias of a company that owns nothing here.
AMAZON = "amazon"
_ACCOUNT = re.compile(r"[0-9]{12}")


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """A snapshot and its tags."""

    snapshot: Snapshot
    tags: Mapping[str, str]


def describe_snapshots(
    cloud: Cloud,
    caller: Caller,
    ids: Iterable[str],
    owners: Iterable[str],
    restorable_by: Iterable[str],
    asked: Asked = EVERYTHING,
) -> Found[SnapshotView]:
    """Return a page of the caller's snapshots: those named, owned by one of `owners`, restorable by `restorable_by`.

    `owners` are account ids, "self" or "amazon"; `restorable_by` are account ids, "self" or "all". Since nobody shares
    a snapshot, only its owner is any of those. Raises InvalidSnapshotID.Malformed, InvalidSnapshot.NotFound,
    InvalidUserID.Malformed.
    """
    wanted = list(ids)
    asked_for = [_parse_users(caller, owners, AMAZON), _parse_users(caller, restorable_by, ALL)]

    def look(tx: Tx) -> Found[SnapshotView]:
        scope = {"account_id": caller.account_id, "region": caller.region, **narrow_to(tx, caller, SNAPSHOTS, wanted)}
        if any(users and caller.account_id not in users for users in asked_for):
            return Found([])
        found = tx.snapshots.search(filters.SNAPSHOTS, asked, **scope)
        tags = tx.tags.of([row.id for row in found.items])
        return Found([SnapshotView(row, tags.get(row.id, {})) for row in found.items], found.after)

    return cloud.store.read(look)


def find_snapshot(cloud: Cloud, caller: Caller, snapshot_id: str) -> Snapshot:
    """Return one snapshot's row. Raises InvalidSnapshotID.Malformed, InvalidSnapshot.NotFound."""
    return cloud.store.read(lambda tx: require_one(tx, caller, SNAPSHOTS, snapshot_id))


def _parse_users(caller: Caller, users: Iterable[str], group: str) -> set[str]:
    """Return account ids (or `group`). Raises InvalidUserID.Malformed (EC2 API reference, "Error codes")."""
    parsed = set()
    for user in users:
        if user not in (SELF, group) and not _ACCOUNT.fullmatch(user):
            raise ApiError("InvalidUserID.Malformed", f'Invalid user id: "{user[:100]}"')
        parsed.add(caller.account_id if user == SELF else user)
    return parsed
