"""What the front door is handed by the daemon, and what it cannot reach by itself: consoles and hosts to be added.

Built once per daemon; tests build it with functions of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minicloud.api.changes import ChangeHub
from minicloud.api.listing import Listing, seal_token
from minicloud.api.request_log import RequestLog
from minicloud.api.throttle import FailureThrottle
from minicloud.aws.models import Catalog
from minicloud.clock import Clock
from minicloud.cloud.context import Caller, Cloud
from minicloud.model.plans import HostFacts
from minicloud.model.resources import Instance
from minicloud.store.search import EVERYTHING, Asked, Found


@dataclass(frozen=True, slots=True)
class HostAddress:
    """A host that somebody wants to add. `host_key` None: take the key it shows now, and pin it."""

    name: str
    address: str
    ssh_user: str
    ssh_port: int
    host_key: str | None
    pool_path: str


@dataclass(frozen=True, slots=True)
class HostProbe:
    """What a host to be added said of itself; `host_key` is the SSH key it was reached by, None for `local`."""

    facts: HostFacts
    pool_capacity_bytes: int
    host_key: str | None


# Returns the last 64 KB of an instance's serial console. Raises HostError.
ConsoleReader = Callable[[Instance], bytes]
# Connects to a host and measures it. Raises HostError.
HostProber = Callable[[HostAddress], HostProbe]


ALL = Listing(EVERYTHING, "")
# Requests that may wait for a host at a time: a host that hangs must not hold every thread there is.
MAX_HOST_READS = 4


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that handlers use. `hosts_changed` is called after a host was added or removed.

    `trusted_uids` are the users who may speak at the unix socket: there they act as the root account. `host_reads` is
    held by a request while it waits for a host's answer.
    """

    cloud: Cloud
    catalog: Catalog
    clock: Clock
    changes: ChangeHub
    make_request_id: Callable[[], str]
    read_console: ConsoleReader
    probe_host: HostProber
    hosts_changed: Callable[[], None]
    trusted_uids: frozenset[int]
    requests: RequestLog
    host_reads: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_HOST_READS))
    failed_signatures: FailureThrottle = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "failed_signatures", FailureThrottle(self.clock))


@dataclass(frozen=True, slots=True)
class Context:
    """One request: what may be used, and who asks."""

    services: Services
    caller: Caller
    listing: Listing = ALL

    @property
    def cloud(self) -> Cloud:
        """The use cases' world."""
        return self.services.cloud

    @property
    def asked(self) -> Asked:
        """What a listing is asked for."""
        return self.listing.asked

    def next_token(self, found: Found[Any]) -> str | None:
        """Return the token of the page after this one, None if it was the last."""
        return None if found.after is None else seal_token(self.cloud.seals, self.listing, found.after)
