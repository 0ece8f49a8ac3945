"""Prefix lists: there is none, of this cloud's services or of customers."""

from __future__ import annotations

from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.matching import ShownFilters
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud.vpc_parts import require_no_prefix_lists

_SERVICE_FILTERS = ShownFilters(
    "PrefixListId", {"prefix-list-id": "PrefixListId", "prefix-list-name": "PrefixListName"}
)
_MANAGED_FILTERS = ShownFilters(
    "PrefixListId",
    {"owner-id": "OwnerId", "prefix-list-id": "PrefixListId", "prefix-list-name": "PrefixListName"},
)


def describe_prefix_lists(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribePrefixLists and DescribeManagedPrefixLists."""
    require_no_prefix_lists(parameters.get("PrefixListIds", ()))
    found = _SERVICE_FILTERS.page([], context.asked)
    return {"PrefixLists": found.items, "NextToken": context.next_token(found)}


ROWS: Rows = {
    "DescribePrefixLists": row(describe_prefix_lists, "PrefixListIds", filters=_SERVICE_FILTERS, pages=Pages()),
    "DescribeManagedPrefixLists": row(
        describe_prefix_lists, "PrefixListIds", filters=_MANAGED_FILTERS, pages=Pages(1, 100)
    ),
}
