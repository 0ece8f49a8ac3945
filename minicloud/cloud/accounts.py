"""Who is asking: access keys, and what GetCallerIdentity says."""

from __future__ import annotations

from dataclasses import dataclass

from minicloud.cloud.context import Caller, Cloud
from minicloud.model.resources import AccessKey


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller as STS names it. There are no users yet, only accounts' roots."""

    account_id: str
    user_id: str
    arn: str


def find_access_key(cloud: Cloud, access_key_id: str) -> AccessKey | None:
    """Return a key by its id, for the verification of signatures."""
    return cloud.store.read(lambda tx: tx.access_keys.get(access_key_id))


def get_caller_identity(cloud: Cloud, caller: Caller) -> Identity:
    """Return the caller's identity: the root of its account."""
    del cloud
    return Identity(caller.account_id, caller.account_id, f"arn:aws:iam::{caller.account_id}:root")
