"""VPCs as their owners see them. What is described here is what hosts enforce.

Making and changing them comes with the network API; bootstrap.py makes the default one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import VPCS, narrow_to, require_one
from minicloud.errors import ApiError
from minicloud.model.resources import Vpc
from minicloud.store.filters import vpcs as filters
from minicloud.store.search import EVERYTHING, Asked, Found
from minicloud.store.store import Tx


@dataclass(frozen=True, slots=True)
class VpcView:
    """A VPC and its tags."""

    vpc: Vpc
    tags: Mapping[str, str]


def describe_vpcs(cloud: Cloud, caller: Caller, ids: Iterable[str], asked: Asked = EVERYTHING) -> Found[VpcView]:
    """Return a page of the named VPCs, of all of the caller's if none is named. Raises InvalidVpcID.NotFound."""
    wanted = list(ids)

    def look(tx: Tx) -> Found[VpcView]:
        scope = {"account_id": caller.account_id, "region": caller.region, **narrow_to(tx, caller, VPCS, wanted)}
        found = tx.vpcs.search(filters.VPCS, asked, **scope)
        tags = tx.tags.of([row.id for row in found.items])
        return Found([VpcView(row, tags.get(row.id, {})) for row in found.items], found.after)

    return cloud.store.read(look)


def find_vpc(cloud: Cloud, caller: Caller, vpc_id: str) -> Vpc:
    """Return one VPC's row. Raises InvalidVpcID.NotFound."""
    return cloud.store.read(lambda tx: require_one(tx, caller, VPCS, vpc_id))


def default_vpc(tx: Tx, caller: Caller) -> Vpc:
    """Return the caller's default VPC. Raises VPCIdNotSpecified where there is none."""
    found = tx.vpcs.where(account_id=caller.account_id, region=caller.region, is_default=True)
    if not found:
        raise ApiError("VPCIdNotSpecified", "No default VPC for this user")
    return found[0]
