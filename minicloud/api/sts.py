"""STS operations."""

from __future__ import annotations

from typing import Any

from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.cloud import accounts


def get_caller_identity(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetCallerIdentity."""
    del parameters
    identity = accounts.get_caller_identity(context.cloud, context.caller)
    return {"UserId": identity.user_id, "Account": identity.account_id, "Arn": identity.arn}


ROWS: Rows = {
    "GetCallerIdentity": row(get_caller_identity),
}
