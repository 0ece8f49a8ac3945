"""SQLite: one file of mode 0600 in WAL mode with synchronous=FULL, owned by one daemon.

Owns the file, its lock and the meaning of its errors. Refuses to go on writing to a file that was deleted or replaced
under it: what it would write there, nobody would ever read.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool, StaticPool

from minicloud.errors import (
    StoreBusyError,
    StoreConflictError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreUnavailableError,
)
from minicloud.ids import derived_id
from minicloud.model.patterns import matches
from minicloud.store.backend import Isolation, WakeListener

# How long a transaction waits for another process's; inside one process store.py's lock keeps writers apart.
BUSY_SECONDS = 10.0
READ = "BEGIN"
WRITE = "BEGIN IMMEDIATE"
# What one read transaction may take: a filter can be made to match long patterns against every text there is.
READ_SECONDS = 30.0
# Between two looks at the clock; a virtual instruction takes some tens of nanoseconds.
INSTRUCTIONS_BETWEEN_LOOKS = 20_000
IDLE_CONNECTIONS = 8
MAX_CONNECTIONS = 64
_UNAVAILABLE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
}


class SqliteBackend:
    """A SQLite file, or a database in memory (for tests), which has one connection that transactions take in turns."""

    def __init__(self, url: URL) -> None:
        self._path = Path(url.database).absolute() if url.database and url.database != ":memory:" else None
        self._identity: tuple[int, int] | None = None
        self.generation = 0
        self._guard = threading.Lock()
        self._lock_file: int | None = None
        if self._path is None:
            self._engine: Engine = create_engine("sqlite://", creator=self._open, poolclass=StaticPool)
        else:
            # Last in, first out: what one thread used is used again, and each idle connection costs its page cache.
            self._engine = create_engine(
                "sqlite://",
                creator=self._open,
                poolclass=QueuePool,
                pool_size=IDLE_CONNECTIONS,
                max_overflow=MAX_CONNECTIONS - IDLE_CONNECTIONS,
                pool_use_lifo=True,
            )
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "begin", _begin)
        self._readers = self._engine.execution_options(minicloud_begin=READ)
        self._writers = self._engine.execution_options(minicloud_begin=WRITE)

    def connect(self, isolation: Isolation) -> Connection:
        self._check_file()
        return (self._writers if isolation is Isolation.WRITE else self._readers).connect()

    def create(self) -> None:
        if self._path is None or self._path.exists():
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreUnavailableError(f"{self._path}: cannot be created: {error.strerror}") from error

    def lock_for_migration(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE did it already."""

    def is_conflict(self, error: DBAPIError, runs: int) -> bool:
        return False

    def translate(self, error: DBAPIError) -> StoreError | None:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is None:
            return None
        primary = code & 0xFF
        what = (
            f"{self._path or 'the database in memory'}: {error.orig} ({getattr(error.orig, 'sqlite_errorname', code)})"
        )
        if primary == sqlite3.SQLITE_FULL:
            return StoreFullError(f"{what}; make room on its file system, and it goes on")
        if primary == sqlite3.SQLITE_INTERRUPT:
            return StoreBusyError(f"{what}; a read took longer than {READ_SECONDS:g} s")
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreBusyError(f"{what}; another process held it for {BUSY_SECONDS:g} s")
        if primary == sqlite3.SQLITE_CONSTRAINT:
            return StoreConflictError(what)
        if primary in _UNAVAILABLE:
            return StoreUnavailableError(what)
        return None

    def lock_exclusively(self) -> None:
        if self._path is None or self._lock_file is not None:
            return
        path = self._path.with_name(self._path.name + ".lock")
        try:
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            raise StoreLockedError(
                f"another minicloud daemon (process {holder}) owns {self._path}; stop it before starting this one"
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._lock_file = file

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        held_before = self._lock_file is not None
        self.lock_exclusively()
        try:
            yield
        finally:
            if not held_before:
                self._unlock()

    def announce(self, connection: Connection, woken: Iterable[str]) -> None:
        """There is nobody else to tell: the daemon is the only one that runs tasks."""

    def listen(self, listener: WakeListener) -> None:
        """Nobody else wakes tasks of this daemon's."""

    def close(self) -> None:
        self._engine.dispose()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _check_file(self) -> None:
        """Reopen a file that was replaced, as a restored backup is; refuse one that is gone."""
        if self._path is None:
            return
        try:
            status = self._path.stat()
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._path}: {error.strerror}; restore it, or run `minicloud init` to begin a new one"
            ) from error
        identity = (status.st_dev, status.st_ino)
        with self._guard:
            if self._identity not in (None, identity):
                self._engine.dispose()
                # SQLite cannot tell whose log it is, and would write the old database's last pages into the new one.
                log = self._path.with_name(self._path.name + "-wal")
                if log.exists():
                    raise StoreUnavailableError(
                        f"{self._path} was replaced, and {log} is still its predecessor's: remove that and "
                        f"{self._path.name}-shm, or put the old file back"
                    )
                self.generation += 1
            self._identity = identity

    def _open(self) -> sqlite3.Connection:
        # mode=rw: only create() makes a database, so a missing one is an error and not an empty cloud.
        name = ":memory:" if self._path is None else f"{self._path.as_uri()}?mode=rw"
        return sqlite3.connect(
            name,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            uri=self._path is not None,
            cached_statements=256,
        )


def _set_up(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.create_function("minicloud_matches", 2, matches, deterministic=True)
    connection.create_function("minicloud_derived_id", -1, derived_id, deterministic=True)


def _begin(connection: Connection) -> None:
    begin = connection.get_execution_options()["minicloud_begin"]
    driver: Any = connection.connection.driver_connection
    if begin == READ:
        end = time.monotonic() + READ_SECONDS
        driver.set_progress_handler(lambda: time.monotonic() > end, INSTRUCTIONS_BETWEEN_LOOKS)
    else:
        driver.set_progress_handler(None, 0)
    connection.exec_driver_sql(begin)
