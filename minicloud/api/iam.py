"""IAM operations: an account's alias, which tools ask for when they tell people where they are."""

from __future__ import annotations

from typing import Any

from minicloud.api.parameters import ANYTHING
from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import accounts


def list_account_aliases(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """ListAccountAliases. An account has one at most, so there is one page at most, and no marker to go on from."""
    del parameters
    alias = accounts.find_account_alias(context.cloud, context.caller)
    return {"AccountAliases": [alias] if alias is not None else [], "IsTruncated": False}


ROWS: Rows = {
    "ListAccountAliases": row(list_account_aliases, tolerates={"MaxItems": ANYTHING}),
}
