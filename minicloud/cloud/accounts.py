"""Who is asking: access keys, lasting and temporary, and what STS tells of them."""

from __future__ import annotations

from dataclasses import dataclass

from minicloud.cloud import sessions
from minicloud.cloud.bootstrap import ROOT_ACCOUNT_ID
from minicloud.cloud.context import Caller, Cloud


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller as STS names it: an account's root (there are no users) or a session of one of its roles."""

    account_id: str
    user_id: str
    arn: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that requests may be signed with, and as whom that is; `expires_us` None: it lasts."""

    access_key_id: str
    secret_access_key: str
    caller: Caller
    expires_us: int | None


def find_signing_key(cloud: Cloud, access_key_id: str, session_token: str | None) -> SigningKey | None:
    """Return the key of a request by its id and the token that came with it, for the verification of signatures.

    None for a key that nobody has, a temporary one without its own token, and a lasting one with any token.
    """
    region = cloud.config.region
    if session_token is not None:
        session = sessions.open_session(cloud, access_key_id, session_token)
        if session is None:
            return None
        caller = Caller(session.account_id, region, session.user_id, session.arn, is_temporary=True)
        return SigningKey(session.access_key_id, session.secret_access_key, caller, session.expires_us)
    key = cloud.store.read(lambda tx: tx.access_keys.get(access_key_id))
    return None if key is None else SigningKey(key.id, key.secret, Caller(key.account_id, region), None)


def get_caller_identity(cloud: Cloud, caller: Caller) -> Identity:
    """Return the caller's identity."""
    del cloud
    return Identity(caller.account_id, caller.user_id, caller.arn)


def find_account_alias(cloud: Cloud, caller: Caller) -> str | None:
    """Return the alias of the caller's account, None if it has none. The operator gives the root account one."""
    return cloud.config.account_alias if caller.account_id == ROOT_ACCOUNT_ID else None
