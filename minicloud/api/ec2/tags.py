"""Tags."""

from __future__ import annotations

from typing import Any

from minicloud.api.listing import Pages
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import tags
from minicloud.errors import ApiError
from minicloud.store.filters.tags import TAGS


def create_tags(context: Context, parameters: dict[str, Any]) -> None:
    """CreateTags."""
    wanted = tags.check_tags((tag.get("Key"), tag.get("Value")) for tag in parameters["Tags"])
    tags.create_tags(context.cloud, context.caller, parameters["Resources"], wanted)


def delete_tags(context: Context, parameters: dict[str, Any]) -> None:
    """DeleteTags. Without Tags, all of the resources' tags go."""
    wanted: list[tuple[str, str | None]] | None = None
    if "Tags" in parameters:
        wanted = []
        for tag in parameters["Tags"]:
            if not tag.get("Key"):
                raise ApiError("InvalidParameterValue", "Tag key cannot be empty.")
            tags.check_not_reserved(tag["Key"])
            wanted.append((tag["Key"], tag.get("Value")))
    tags.delete_tags(context.cloud, context.caller, parameters["Resources"], wanted)


def describe_tags(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeTags."""
    del parameters
    found = tags.describe_tags(context.cloud, context.caller, context.asked)
    return {
        "Tags": [
            {
                "ResourceId": one.tag.resource_id,
                "ResourceType": one.resource_type,
                "Key": one.tag.key,
                "Value": one.tag.value,
            }
            for one in found.items
        ],
        "NextToken": context.next_token(found),
    }


ROWS: Rows = {
    "CreateTags": row(create_tags, "Resources", "Tags"),
    "DeleteTags": row(delete_tags, "Resources", "Tags"),
    "DescribeTags": row(describe_tags, filters=TAGS, pages=Pages(5, 1000)),
}
