"""The libvirt connections to one host: opened in the background, watched, opened again when they die.

Owns when a connection is opened and closed, and the announcement that a host came or went. One connection carries
events and nothing else, so that no slow call holds them back; a few others carry calls. Knows no verb.
Called by libvirt_host.py. Nothing here waits for the network but the host's own background thread.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import libvirt

from minicloud.errors import HostError, TransientError
from minicloud.hosts.bounded_calls import BoundedCalls, Call
from minicloud.hosts.events import DomainListener, ensure_event_loop, subscribe
from minicloud.hosts.libvirt_errors import translate

MIN_CONNECTIONS = 2
MAX_CONNECTIONS = 4
# libvirtd serves five requests of a client at a time (libvirtd.conf, max_client_requests); more wait for hung ones.
MAX_IN_FLIGHT = 5
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_COUNT = 3
OPEN_SECONDS = 20.0
# While other connections live, one that takes longer is a sign that they do not, either.
REOPEN_SECONDS = 5.0
CLOSE_SECONDS = 2.0
BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# A connection that never came back from opening (libvirtd is stopped, not dead) is left behind, this many at most.
MAX_OPENING = 4

log = logging.getLogger(__name__)

StateListener = Callable[[str, str], None]
"""Called with "connected" or "disconnected" and why."""

Open = Callable[[str], libvirt.virConnect]


class _Connection:
    def __init__(self, raw: libvirt.virConnect) -> None:
        self.raw = raw
        self.in_flight = 0
        self.is_closed = False
        self.callback_ids: tuple[int, ...] = ()

    @property
    def is_dead(self) -> bool:
        return self.is_closed or not self.raw.isAlive()

    def let_go(self) -> None:
        """Undo what ties the connection to the event loop. It closes with its last user, which may be a hung call."""
        self.is_closed = True
        for callback_id in self.callback_ids:
            with contextlib.suppress(libvirt.libvirtError):
                self.raw.domainEventDeregisterAny(callback_id)
        with contextlib.suppress(libvirt.libvirtError):
            self.raw.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self.raw.close()


class Connections:
    """The connections to one libvirt; `start` begins to open them, `lease` lends one.

    `check` raises HostError while something else that the host needs is missing: it stays down until that is there.
    """

    def __init__(
        self,
        host_id: str,
        uri: str,
        on_domain: DomainListener,
        on_state: StateListener,
        check: Callable[[], object] = lambda: None,
        open_connection: Open = libvirt.open,
    ) -> None:
        self._host_id = host_id
        self._uri = uri
        self._on_domain = on_domain
        self._on_state = on_state
        self._check = check
        self._open_connection = open_connection
        self._opening = BoundedCalls(f"libvirt-open-{host_id}", MAX_OPENING)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._up = threading.Event()
        self._events: _Connection | None = None
        self._control: list[_Connection] = []
        self._wanted = MIN_CONNECTIONS
        self._why_down = "not connected yet"
        self._closing = False
        self._thread = threading.Thread(target=self._keep, name=f"libvirt-keep-{host_id}", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        ensure_event_loop()
        self._thread.start()

    @property
    def is_up(self) -> bool:
        """Whether calls can be made and events come in."""
        return self._up.is_set()

    def wait_up(self, timeout_seconds: float) -> bool:
        """Wait until the host is connected; False if it takes longer."""
        return self._up.wait(timeout_seconds)

    @property
    def why_down(self) -> str:
        """What the last attempt to connect said, for people."""
        return self._why_down

    @contextlib.contextmanager
    def lease(self) -> Iterator[libvirt.virConnect]:
        """Lend the connection with the fewest calls on it. Raises TransientError at once where there is none."""
        connection = self._choose()
        try:
            yield connection.raw
        finally:
            with self._lock:
                connection.in_flight -= 1
            if connection.is_dead:
                self._wake.set()

    def close(self) -> None:
        """Let every connection go; calls on them may still end. An attempt to connect is left to end by itself."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _choose(self) -> _Connection:
        with self._lock:
            if not self._up.is_set():
                raise TransientError(f"{self._host_id}: not connected: {self._why_down}")
            usable = [each for each in self._control if not each.is_dead and each.in_flight < MAX_IN_FLIGHT]
            least = min(usable, key=lambda each: each.in_flight, default=None)
            if (least is None or least.in_flight) and self._wanted < MAX_CONNECTIONS:
                self._wanted += 1
                self._wake.set()
            if least is None:
                raise TransientError(f"{self._host_id}: every connection is busy")
            least.in_flight += 1
            return least

    def _keep(self) -> None:
        failures = 0
        while not self._closing:
            pause: float | None = None
            try:
                self._repair()
                failures = 0
            except HostError as error:
                pause = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)]
                log.log(
                    logging.WARNING if failures == 0 else logging.DEBUG,
                    "%s: cannot connect, next attempt in %g s: %s",
                    self._host_id,
                    pause,
                    error,
                )
                failures += 1
                self._go_down(error.detail)
            except Exception:
                log.exception("%s: keeping the connections failed", self._host_id)
                pause = BACK_OFF_SECONDS[-1]
                self._go_down("a bug, see the log")
            self._wake.wait(pause)
            self._wake.clear()
        self._go_down("closed")
        self._opening.close()

    def _repair(self) -> None:
        """Replace connections that died and add those that are wanted. Raises HostError when one cannot be opened."""
        with self._lock:
            calls_lost = bool(self._control) and all(each.is_dead for each in self._control)
        if calls_lost or (self._events is not None and self._events.is_dead):
            # Events may be lost: whoever listens must look at everything again, so the host goes down and comes back.
            self._go_down("the connection was lost")
        if self._events is None:
            self._events = self._open("events", with_events=True)
        with self._lock:
            self._control = [each for each in self._control if not each.is_dead]
            missing = self._wanted - len(self._control)
        for _ in range(missing):
            if self._closing:
                return
            opened = self._open("calls", with_events=False)
            with self._lock:
                self._control.append(opened)
            self._come_up()
        self._come_up()

    def _come_up(self) -> None:
        if not self._up.is_set() and not self._closing:
            self._check()
            with self._lock:
                self._up.set()
            self._on_state("connected", self._uri)

    def _go_down(self, why: str) -> None:
        with self._lock:
            self._why_down = why
            was_up = self._up.is_set()
            self._up.clear()
            dropped, self._control = self._control, []
            self._wanted = MIN_CONNECTIONS
        if self._events is not None:
            dropped.append(self._events)
            self._events = None
        for each in dropped:
            self._discard(each)
        if was_up:
            self._on_state("disconnected", why)

    def _open(self, purpose: str, with_events: bool) -> _Connection:
        timeout_seconds = REOPEN_SECONDS if self._up.is_set() else OPEN_SECONDS
        return self._opening.run(
            f"opening {self._uri} for {purpose}", lambda call: self._open_now(call, with_events), timeout_seconds
        )

    def _open_now(self, call: Call, with_events: bool) -> _Connection:
        try:
            raw = self._open_connection(self._uri)
            connection = _Connection(raw)
            raw.setKeepAlive(KEEPALIVE_INTERVAL_SECONDS, KEEPALIVE_COUNT)
            raw.registerCloseCallback(self._on_close, connection)
            if with_events:
                connection.callback_ids = subscribe(raw, self._on_domain)
        except libvirt.libvirtError as error:
            # Whatever the code says, a host that cannot be reached now may be later: an operator may be mending it.
            raise TransientError(translate(error, f"{self._host_id}: {self._uri}").detail) from error
        if call.is_abandoned:
            connection.let_go()
        return connection

    def _on_close(self, raw: libvirt.virConnect, reason: int, connection: Any) -> None:
        connection.is_closed = True
        self._wake.set()

    def _discard(self, connection: _Connection) -> None:
        connection.is_closed = True
        try:
            self._opening.run("closing a connection", lambda call: connection.let_go(), CLOSE_SECONDS)
        except TransientError as error:
            log.debug("%s: %s", self._host_id, error)
