"""STS operations: who the caller is, and temporary credentials."""

from __future__ import annotations

from typing import Any

from minicloud.api.rows import Rows, row
from minicloud.api.services import Context
from minicloud.clock import to_datetime
from minicloud.cloud import accounts, sessions


def get_caller_identity(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetCallerIdentity."""
    del parameters
    identity = accounts.get_caller_identity(context.cloud, context.caller)
    return {"UserId": identity.user_id, "Account": identity.account_id, "Arn": identity.arn}


def get_session_token(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """GetSessionToken. There is no MFA."""
    credentials = sessions.get_session_token(context.cloud, context.caller, parameters.get("DurationSeconds"))
    return {"Credentials": _render_credentials(credentials)}


def assume_role(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """AssumeRole. No policies or tags are packed into the session's token, so they take 0 % of their room."""
    assumed = sessions.assume_role(
        context.cloud,
        context.caller,
        parameters["RoleArn"],
        parameters["RoleSessionName"],
        parameters.get("DurationSeconds"),
    )
    return {
        "Credentials": _render_credentials(assumed.credentials),
        "AssumedRoleUser": {"AssumedRoleId": assumed.id, "Arn": assumed.arn},
        "PackedPolicySize": 0,
    }


def _render_credentials(credentials: sessions.Credentials) -> dict[str, Any]:
    return {
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "SessionToken": credentials.session_token,
        "Expiration": to_datetime(credentials.expires_us),
    }


ROWS: Rows = {
    "AssumeRole": row(assume_role, "RoleArn", "RoleSessionName", "DurationSeconds"),
    "GetCallerIdentity": row(get_caller_identity),
    "GetSessionToken": row(get_session_token, "DurationSeconds"),
}
