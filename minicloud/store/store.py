"""The store: the state of the cloud, reached by functions that run inside one transaction.

Owns transactions, their retry, and what a failing database means to the rest (StoreError and its kinds). Refuses to
know what rows mean. Called by everyone that decides (cloud/, controller/, metrics/); synchronous and thread-safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from minicloud.clock import Clock
from minicloud.errors import StoreBusyError, StoreUnavailableError
from minicloud.store import revisions
from minicloud.store.backend import Backend, Isolation, WakeListener
from minicloud.store.transaction import Tx

__all__ = ["Store", "Tx"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# How often a transaction that meets conflicts is run in all, and how long it waits before the second run; doubling.
MAX_RUNS = 10
FIRST_PAUSE_SECONDS = 0.002
# How long a writer waits for its turn in this process. Transactions take milliseconds: this is a broken machine.
TURN_SECONDS = 30.0


class Store:
    """The database at `url`: `sqlite:////absolute/path.db`, `postgresql://…`, or `sqlite://` (in memory, for tests).

    Opening is lazy: a database that is away makes transactions raise StoreUnavailableError until it is back.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self._backend = _backend(url)
        # One writer at a time in this process: waiting here costs nothing, meeting in the database costs a retry.
        self._turn = threading.Lock()
        self._listeners: list[WakeListener] = []
        self._commit_listeners: list[Callable[[], None]] = []
        # Which of the backend's databases was found to be of this version's revision.
        self._checked: int | None = None
        self._single = url in ("sqlite://", "sqlite:///:memory:")

    def read(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in one consistent read transaction and return what it returns. Raises StoreError."""
        with self._turn if self._single else nullcontext():
            try:
                with self._backend.connect(Isolation.READ) as connection, connection.begin():
                    self._check_revision(connection)
                    return fn(Tx(connection, self._clock, writable=False))
            except DBAPIError as error:
                raise self._translated(error) from error
            except PoolTimeoutError as error:
                raise StoreBusyError("too many transactions at a time") from error

    def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in one transaction, commit, and return what it returned. Raises StoreError.

        `fn` may run again after a conflict, so it must do nothing but read and write rows.
        """
        runs = 0
        while True:
            runs += 1
            try:
                return self._write_once(fn)
            except DBAPIError as error:
                if runs == MAX_RUNS or not self._backend.is_conflict(error, runs):
                    raise self._translated(error) from error
                log.debug("a transaction met a conflict and runs again: %s", error.orig)
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (runs - 1))

    def now_us(self) -> int:
        """Return the time that a transaction beginning now would have, in UTC microseconds."""
        return self._clock.now_us()

    def on_wake(self, listener: WakeListener) -> None:
        """Call `listener` after every commit that added or woke tasks, with their ids.

        It runs in the committing thread and must only enqueue. With another daemon on the same PostgreSQL database it
        also hears of that one's wake-ups, from a thread of its own; an empty set then means: look at all tasks.
        """
        self._listeners.append(listener)
        self._backend.listen(listener)

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every commit of this process, in the committing thread: it must only mark and wake."""
        self._commit_listeners.append(listener)

    def migrate(self) -> None:
        """Bring the database to this version's tables, made new if absent.

        Raises StoreVersionError if it is newer, StoreLockedError if it is older and another daemon works with it.
        """
        self._backend.create()
        with self._turn:
            try:
                if self._revision() != revisions.HEAD:
                    with self._backend.exclusively():
                        self._upgrade()
            except DBAPIError as error:
                raise self._translated(error) from error
        self._checked = self._backend.generation

    def lock_exclusively(self) -> None:
        """Claim a SQLite database for this daemon until close(). Raises StoreLockedError naming who has it."""
        self._backend.lock_exclusively()

    def close(self) -> None:
        """Let connections and the lock go."""
        self._backend.close()

    def _revision(self) -> str | None:
        with self._backend.connect(Isolation.READ) as connection, connection.begin():
            return revisions.current(connection)

    def _upgrade(self) -> None:
        with self._backend.connect(Isolation.WRITE) as connection, connection.begin():
            self._backend.lock_for_migration(connection)
            revisions.upgrade(connection)

    def _write_once(self, fn: Callable[[Tx], T]) -> T:
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise StoreBusyError(f"no turn to write came within {TURN_SECONDS:g} s")
        try:
            with self._backend.connect(Isolation.WRITE) as connection, connection.begin():
                self._check_revision(connection)
                tx = Tx(connection, self._clock, writable=True)
                result = fn(tx)
                tx.flush()
                woken = tx.woken
                if woken:
                    self._backend.announce(connection, woken)
        except PoolTimeoutError as error:
            raise StoreBusyError("too many transactions at a time") from error
        finally:
            self._turn.release()
        if woken:
            for wake_listener in self._listeners:
                _tell(wake_listener, woken)
        for listener in self._commit_listeners:
            _tell(listener)
        return result

    def _check_revision(self, connection: revisions.Connection) -> None:
        generation = self._backend.generation
        if self._checked != generation:
            revisions.require_current(connection)
            self._checked = generation

    def _translated(self, error: DBAPIError) -> Exception:
        return self._backend.translate(error) or error


def _tell(listener: Callable[..., None], *arguments: object) -> None:
    """Call a listener after a commit. The commit stands whatever it does: nobody may take it for a failed one."""
    try:
        listener(*arguments)
    except Exception:
        log.exception("a listener for commits failed")


def _backend(url: str) -> Backend:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreUnavailableError(f"database_url: {error}") from error
    name = parsed.get_backend_name()
    if name == "sqlite":
        from minicloud.store.sqlite import SqliteBackend

        return SqliteBackend(parsed)
    if name == "postgresql":
        try:
            from minicloud.store.postgresql import PostgresqlBackend
        except ImportError as error:
            raise StoreUnavailableError(
                "database_url: PostgreSQL needs psycopg: install minicloud with its `postgresql` extra"
            ) from error
        return PostgresqlBackend(parsed)
    raise StoreUnavailableError(f"database_url: must begin with sqlite: or postgresql:, not {name}:")
