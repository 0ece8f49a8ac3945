"""What every use case is handed: the store, the settings, the catalogue of types, and who is asking.

One use case is one function `verb(cloud, caller, ...)` that makes one decision in one transaction of `cloud.store`.
Nothing here does work; the daemon builds one Cloud, the front door builds a Caller per request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from minicloud.cloud.seals import Seals
from minicloud.config import Config
from minicloud.ids import MakeId
from minicloud.model.resources import InstanceType
from minicloud.store.store import Store


@dataclass(frozen=True, slots=True)
class Caller:
    """The account that asks, the region it asks in, and as whom: by default as the account's root.

    `user_id` and `arn` are what GetCallerIdentity says; `is_temporary` tells credentials that STS gave out.
    """

    account_id: str
    region: str
    user_id: str = ""
    arn: str = ""
    is_temporary: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_id", self.user_id or self.account_id)
        object.__setattr__(self, "arn", self.arn or f"arn:aws:iam::{self.account_id}:root")


@dataclass(frozen=True, slots=True)
class Cloud:
    """The world as use cases may see it. `random_bytes(n)` feeds access keys; ids come from `make_id`."""

    store: Store
    config: Config
    types: Mapping[str, InstanceType]
    make_id: MakeId
    random_bytes: Callable[[int], bytes]
    seals: Seals = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seals", Seals(self.store, self.random_bytes))
