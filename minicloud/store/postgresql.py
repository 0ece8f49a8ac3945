"""PostgreSQL through psycopg 3: SERIALIZABLE writes that are run again on conflict, REPEATABLE READ reads, and
LISTEN/NOTIFY for tasks that another daemon woke.

Owns the meaning of SQLSTATEs. Several daemons may share one database; leases keep them apart (see queries.py).
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import psycopg
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from minicloud.errors import (
    StoreBusyError,
    StoreConflictError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from minicloud.store.backend import Isolation, WakeListener

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 30
CONNECTIONS = 16
CHANNEL = "minicloud_wake"
RECONNECT_SECONDS = 2.0
# NOTIFY's payload ends at 8,000 bytes (PostgreSQL manual, NOTIFY); more tasks than fit are announced as "all".
PAYLOAD_BYTES = 7_900
# Any number that nobody else in this database uses.
_MIGRATION_LOCK = 7_264_318_905

_SERIALIZATION = {"40001", "40P01"}
# A unique violation may be how a serialization conflict shows (PostgreSQL manual, 13.5), so it is tried again once.
_UNIQUE_VIOLATION = "23505"
_FULL = {"53100"}
_BUSY = {"55P03", "57014", "53300"}


class PostgresqlBackend:
    """A PostgreSQL database."""

    generation = 0

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql+psycopg")
        self._shown = self._url.render_as_string(hide_password=True)
        options = f"-c statement_timeout={STATEMENT_SECONDS * 1000} -c lock_timeout={STATEMENT_SECONDS * 1000}"
        self._engine = create_engine(
            self._url,
            pool_size=CONNECTIONS,
            max_overflow=CONNECTIONS,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_SECONDS, "options": options, "application_name": "minicloud"},
        )
        self._readers = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._writers = self._engine.execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=False)
        self._sender = secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._listeners: list[WakeListener] = []

    def connect(self, isolation: Isolation) -> Connection:
        return (self._writers if isolation is Isolation.WRITE else self._readers).connect()

    def create(self) -> None:
        """The database itself is made by whoever runs the server."""

    def lock_for_migration(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})

    def is_conflict(self, error: DBAPIError, runs: int) -> bool:
        state = _sqlstate(error)
        return state in _SERIALIZATION or (state == _UNIQUE_VIOLATION and runs == 1)

    def translate(self, error: DBAPIError) -> StoreError | None:
        state = _sqlstate(error)
        what = f"{self._shown}: {str(error.orig).strip()}"
        if state in _SERIALIZATION or state in _BUSY:
            return StoreBusyError(what)
        if state in _FULL:
            return StoreFullError(f"{what}; make room on its file system, and it goes on")
        if state is not None and state.startswith("23"):
            return StoreConflictError(what)
        if (
            error.connection_invalidated
            or (state is None and isinstance(error.orig, psycopg.OperationalError))
            or (state is not None and state[:2] in ("08", "28", "3D", "53", "57", "58"))
            or state == "25006"
        ):
            return StoreUnavailableError(what)
        return None

    def lock_exclusively(self) -> None:
        """Several daemons may run on one PostgreSQL database."""

    def exclusively(self) -> AbstractContextManager[None]:
        return nullcontext()

    def announce(self, connection: Connection, woken: Iterable[str]) -> None:
        payload = f"{self._sender} {' '.join(sorted(woken))}"
        if len(payload) > PAYLOAD_BYTES:
            payload = f"{self._sender} *"
        connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload})

    def listen(self, listener: WakeListener) -> None:
        self._listeners.append(listener)
        if self._thread is None:
            self._thread = threading.Thread(target=self._receive, name="store-listen", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._engine.dispose()

    def _receive(self) -> None:
        dsn = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        while not self._stop.is_set():
            try:
                with psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    # What was announced while nobody listened is lost, so everything is looked at once.
                    self._tell(frozenset())
                    while not self._stop.is_set():
                        for notice in connection.notifies(timeout=0.5):
                            self._heard(notice.payload)
            except psycopg.Error as error:
                log.warning("%s: wake-ups of other daemons are not heard: %s", self._shown, str(error).strip())
                self._stop.wait(RECONNECT_SECONDS)

    def _heard(self, payload: str) -> None:
        sender, _, ids = payload.partition(" ")
        if sender != self._sender:
            self._tell(frozenset() if ids == "*" else frozenset(ids.split()))

    def _tell(self, woken: frozenset[str]) -> None:
        for listener in self._listeners:
            try:
                listener(woken)
            except Exception:
                log.exception("a listener for commits failed")


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
