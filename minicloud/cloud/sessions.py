"""Sessions: temporary credentials that STS gives out, and who speaks through them.

A session has no row. Its token is a seal that carries the access key id, the secret, whom it speaks for and when that
ends, so it works until then whatever happens to the daemon, and nothing piles up; it cannot be revoked before, as on
AWS. There is no IAM: every role name of the own account may be assumed, also by its root (to whom AWS denies it, having
users), and may do what the account may. Refuses session policies, tags and MFA with everything else that a row of the
operation table does not declare (api/sts.py).

Source: AWS STS API Reference, GetSessionToken and AssumeRole; IAM User Guide, "Unique identifiers".
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from minicloud.clock import MICROSECONDS
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.seals import SealError
from minicloud.errors import ApiError

TEMPORARY_PREFIX = "ASIA"
SESSION_TOKEN_SECONDS = 43_200
ASSUMED_ROLE_SECONDS = 3_600
# A role assumed with temporary credentials (role chaining) lasts no longer, whatever was asked for.
CHAINED_SECONDS = 3_600

_PURPOSE = "session"
_ROLE_ARN = re.compile(r"arn:aws:iam::([0-9]{12}):role/(?:[\x21-\x7e]+/)?([\w+=,.@-]{1,64})\Z", re.ASCII)
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client signs with; the token goes with every request."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_us: int


@dataclass(frozen=True, slots=True)
class AssumedRole:
    """AssumeRole's result: `id` is ROLE-ID:SESSION, `arn` the session's."""

    credentials: Credentials
    id: str
    arn: str


@dataclass(frozen=True, slots=True)
class Session:
    """What a session token says, believed because this cloud sealed it."""

    access_key_id: str
    secret_access_key: str
    account_id: str
    user_id: str
    arn: str
    expires_us: int


def get_session_token(cloud: Cloud, caller: Caller, duration_seconds: int | None) -> Credentials:
    """Return credentials that speak for the caller itself, for 900 to 129,600 seconds (checked by the model's bounds).

    AWS gives an account's root one hour at most; here the root is who works, and gets what a user would.
    Raises ApiError: AccessDenied to a caller that has temporary credentials itself.
    """
    if caller.is_temporary:
        raise ApiError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
    return _issue(cloud, caller.account_id, caller.user_id, caller.arn, duration_seconds or SESSION_TOKEN_SECONDS)


def assume_role(
    cloud: Cloud, caller: Caller, role_arn: str, session_name: str, duration_seconds: int | None
) -> AssumedRole:
    """Return credentials of a role of the caller's account, for 900 to 43,200 seconds (checked by the model's bounds).

    Raises ApiError: ValidationError for an ARN that is no role's, a bad session name and more than an hour asked for
    with temporary credentials; AccessDenied for a role of another account.
    """
    role = _ROLE_ARN.match(role_arn)
    if role is None:
        raise ApiError("ValidationError", f"{role_arn[:200]} is invalid")
    if not _SESSION_NAME.match(session_name):
        raise ApiError(
            "ValidationError",
            f"1 validation error detected: Value '{session_name[:200]}' at 'roleSessionName' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*",
        )
    account_id, role_name = role.groups()
    if account_id != caller.account_id:
        raise ApiError(
            "AccessDenied",
            f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
            403,
        )
    seconds = duration_seconds or ASSUMED_ROLE_SECONDS
    if caller.is_temporary and seconds > CHAINED_SECONDS:
        raise ApiError(
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
        )
    user_id = f"{role_id(account_id, role_arn)}:{session_name}"
    # The role's path is no part of the session's ARN.
    arn = f"arn:aws:sts::{account_id}:assumed-role/{role_name}/{session_name}"
    return AssumedRole(_issue(cloud, account_id, user_id, arn, seconds), user_id, arn)


def role_id(account_id: str, role_arn: str) -> str:
    """Return a role's unique id, always the same: AROA and 17 capitals or digits. Pure."""
    digest = hashlib.sha256(f"{account_id} {role_arn}".encode()).digest()
    return "AROA" + base64.b32encode(digest).decode()[:17]


def open_session(cloud: Cloud, access_key_id: str, session_token: str) -> Session | None:
    """Return what a token says if this cloud sealed it for that access key, also when its time has passed."""
    try:
        # The payload says when a session ends. The seal's own date must never be what ends it (nor that a clock was set
        # back), for then it could not be told apart from one that nobody sealed.
        payload = cloud.seals.open(_PURPOSE, session_token, None)
    except SealError:
        return None
    if payload["key"] != access_key_id:
        return None
    return Session(
        access_key_id=payload["key"],
        secret_access_key=payload["secret"],
        account_id=payload["account"],
        user_id=payload["user"],
        arn=payload["arn"],
        expires_us=payload["expires_us"],
    )


def _issue(cloud: Cloud, account_id: str, user_id: str, arn: str, seconds: int) -> Credentials:
    # AWS's forms: ASIA and 16 capitals or digits; 40 characters of base64.
    key = TEMPORARY_PREFIX + base64.b32encode(cloud.random_bytes(10)).decode()
    secret = base64.b64encode(cloud.random_bytes(30)).decode()
    # Whole seconds, as they are told: a client must not learn of a later end than the one we keep to.
    expires_us = cloud.store.now_us() // MICROSECONDS * MICROSECONDS + seconds * MICROSECONDS
    payload = {
        "key": key, "secret": secret, "account": account_id, "user": user_id, "arn": arn, "expires_us": expires_us,
    }  # fmt: skip
    return Credentials(key, secret, cloud.seals.seal(_PURPOSE, payload), expires_us)
