"""DescribeTags: which tags are an account's, of which type a resource is, and the filters (EC2 API reference)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, case, literal, or_, select

from minicloud.model.resources import Tag
from minicloud.store import schema
from minicloud.store.search import Asked, Condition, FilterSet, Found, read_page, text, when
from minicloud.store.transaction import Tx

# By EC2's name of the type: the prefix of its ids, and its table.
TAGGED: Mapping[str, tuple[str, Table]] = {
    "image": ("ami", schema.images),
    "import-image-task": ("import-ami", schema.import_tasks),
    "import-snapshot-task": ("import-snap", schema.import_tasks),
    "instance": ("i", schema.instances),
    "key-pair": ("key", schema.key_pairs),
    "network-interface": ("eni", schema.network_interfaces),
    "security-group": ("sg", schema.security_groups),
    "security-group-rule": ("sgr", schema.security_group_rules),
    "snapshot": ("snap", schema.snapshots),
    "subnet": ("subnet", schema.subnets),
    "volume": ("vol", schema.volumes),
    "vpc": ("vpc", schema.vpcs),
}
_tags = schema.tags.c
_ORDER = [_tags.resource_id, _tags.key]


def _has_prefix(prefix: str) -> Condition:
    return _tags.resource_id.startswith(f"{prefix}-", autoescape=True)


_TYPE: ColumnElement[str] = case(
    *((_has_prefix(prefix), literal(tag_type)) for tag_type, (prefix, _) in TAGGED.items()), else_=literal("")
)

TAGS = FilterSet(
    {
        "key": text(_tags.key),
        "resource-id": text(_tags.resource_id),
        "resource-type": text(_TYPE),
        "value": text(_tags.value),
    },
    tag_field=lambda key: when(_tags.key == key, text(_tags.value)),
)


def find_tags(tx: Tx, account_id: str, region: str, asked: Asked) -> Found[tuple[Tag, str]]:
    """Return a page of the tags of an account's resources, each with its resource's type, by resource id and key."""
    statement = select(_tags.resource_id, _tags.key, _tags.value, _TYPE).where(
        or_(*(_owned(prefix, table, account_id, region) for prefix, table in TAGGED.values())),
        *TAGS.conditions(asked.filters),
    )
    found = read_page(tx.connection, statement, _ORDER, asked)
    return Found([(Tag(*row[:3]), row[3]) for row in found.items], found.after)


def _owned(prefix: str, table: Table, account_id: str, region: str) -> Condition:
    """A tag whose resource stands in a table and belongs to the account, in the region where it has one."""
    columns: Any = table.c
    owned = [columns.id == _tags.resource_id, columns.account_id == account_id]
    if "region" in columns:
        owned.append(columns.region == region)
    return and_(_has_prefix(prefix), select(literal(1)).where(*owned).correlate(schema.tags).exists())
