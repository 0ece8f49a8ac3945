"""Client tokens: the same call made twice has one effect (EC2 API guide, "Ensuring idempotency")."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from minicloud.clock import MICROSECONDS
from minicloud.cloud.context import Caller
from minicloud.errors import ApiError
from minicloud.model.resources import ClientToken
from minicloud.store import queries
from minicloud.store.store import Tx

MAX_TOKEN = 64
KEPT_SECONDS = 24 * 3600


def parameters_digest(request: Any) -> str:
    """Return the digest of a request dataclass, its client token aside."""
    parameters = {key: value for key, value in asdict(request).items() if key != "client_token"}
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    raise TypeError(f"{type(value).__name__} cannot be part of a request")


def find_earlier(tx: Tx, caller: Caller, operation: str, token: str | None, digest: str) -> str | None:
    """Return the resource that an earlier call with this token made. Raises IdempotentParameterMismatch."""
    if token is None:
        return None
    check_token(token)
    found = tx.client_tokens.where(account_id=caller.account_id, region=caller.region, operation=operation, token=token)
    if not found or found[0].created_us < _oldest_us(tx):
        return None
    if found[0].parameters_digest != digest:
        raise ApiError(
            "IdempotentParameterMismatch",
            "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
        )
    return found[0].resource_id


def remember(tx: Tx, caller: Caller, operation: str, token: str | None, digest: str, resource_id: str) -> None:
    """Keep a token with what it made, and forget those older than a day."""
    if token is None:
        return
    queries.delete_client_tokens_before(tx, _oldest_us(tx))
    tx.client_tokens.insert(
        ClientToken(
            account_id=caller.account_id,
            region=caller.region,
            token=token,
            operation=operation,
            parameters_digest=digest,
            resource_id=resource_id,
            created_us=tx.now_us,
        )
    )


def _oldest_us(tx: Tx) -> int:
    return tx.now_us - KEPT_SECONDS * MICROSECONDS


def check_token(token: str) -> None:
    """Raise InvalidParameterValue for a token that is too long or not ASCII."""
    if len(token) > MAX_TOKEN or not token.isascii():
        raise ApiError(
            "InvalidParameterValue", f"Invalid client token: at most {MAX_TOKEN} ASCII characters are allowed."
        )
