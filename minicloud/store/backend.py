"""What differs between databases, as one small interface: opening, beginning, and what an error means.

sqlite.py and postgresql.py implement it; store.py is the only caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from minicloud.errors import StoreError

WakeListener = Callable[[frozenset[str]], None]


class Isolation(Enum):
    """How a transaction runs."""

    READ = "read"
    WRITE = "write"


class Backend(Protocol):
    """One kind of database."""

    @property
    def generation(self) -> int:
        """Changes when another database has taken this one's place, as a restored backup does."""

    def connect(self, isolation: Isolation) -> Connection:
        """Return a connection whose next transaction has this isolation. Raises StoreError."""

    def create(self) -> None:
        """Make the empty database where that is ours to do."""

    def lock_for_migration(self, connection: Connection) -> None:
        """Keep others from migrating until the transaction ends."""

    def is_conflict(self, error: DBAPIError, runs: int) -> bool:
        """Say whether running the whole transaction once more, after `runs` runs, may succeed at once."""

    def translate(self, error: DBAPIError) -> StoreError | None:
        """Return what the error means, or None if it is a bug."""

    def lock_exclusively(self) -> None:
        """Become the only daemon of this database where it can have but one. Raises StoreLockedError."""

    def exclusively(self) -> AbstractContextManager[None]:
        """Be the only daemon of this database for a while, where it can have but one. Raises StoreLockedError."""

    def announce(self, connection: Connection, woken: Iterable[str]) -> None:
        """Tell other processes of woken tasks when the transaction commits."""

    def listen(self, listener: WakeListener) -> None:
        """Call the listener with tasks that other processes woke. An empty set means: look at all of them."""

    def close(self) -> None:
        """Let every connection and lock go."""
