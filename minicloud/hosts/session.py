"""The controller's end of a host-side session: many verbs in flight over one link, replies matched by id.

Owns the link to one host: opens it when it is needed, notices when it is dead, opens it again at the next call. Knows
no verb's meaning (hostside/verbs.py has the table) and nothing of libvirt. Called by hosts/libvirt_host.py and by
whoever runs jobs on the controller's own machine.

A link that is silent while calls wait is pinged, and closed if that brings nothing: a dead host costs its callers
SILENT_SECONDS, not a deadline each. While a host cannot be reached, one caller tries and the others share its answer.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from minicloud.clock import Clock
from minicloud.errors import MinicloudError, PermanentError, TransientError
from minicloud.hosts.protocol import HOST_CALL_SECONDS
from minicloud.hosts.transports import CONNECT_SECONDS, Link, Transport
from minicloud.hostside import frames

PING_SECONDS = 5.0
SILENT_SECONDS = 15.0
IDLE_PING_SECONDS = 60.0
RECONNECT_SECONDS = 1.0
CLOSED = "the session was closed"

assert CONNECT_SECONDS + SILENT_SECONDS < HOST_CALL_SECONDS

log = logging.getLogger(__name__)


class HostSession:
    """A session with one host. Any thread may call; a slow verb does not hold the others."""

    def __init__(self, host_id: str, transport: Transport, clock: Clock) -> None:
        self._host_id = host_id
        self._transport = transport
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._attempt: Future[_Connection] | None = None
        self._failed_at: tuple[float, TransientError] | None = None
        self._closed = False

    def call(self, verb: str, arguments: dict[str, Any], timeout_seconds: float = HOST_CALL_SECONDS) -> Any:
        """Run a verb on the host and return its result, plain JSON.

        Raises TransientError when the host cannot be reached, the link is lost or the deadline passes (the outcome is
        then unknown) or where the host side says that trying again may help; PermanentError where it says it cannot,
        and for a bug of the host side, with code Server.InternalError.
        """
        deadline = self._clock.monotonic_seconds() + timeout_seconds
        connection = self._connected(timeout_seconds)
        left = max(deadline - self._clock.monotonic_seconds(), 0.0)
        return _result(self._host_id, verb, connection.call(verb, arguments, left))

    def close(self) -> None:
        """End the session for good; calls in flight raise TransientError."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection:
            connection.close(CLOSED)

    def _connected(self, timeout_seconds: float) -> _Connection:
        with self._lock:
            if self._closed:
                raise TransientError(f"{self._host_id}: {CLOSED}")
            if self._connection and self._connection.is_open:
                return self._connection
            if self._failed_at and self._clock.monotonic_seconds() < self._failed_at[0] + RECONNECT_SECONDS:
                raise TransientError(self._failed_at[1].detail)
            attempt = self._attempt
            if mine := attempt is None:
                attempt = self._attempt = Future()
        assert attempt is not None
        if mine:
            self._connect(attempt)
        try:
            return attempt.result(timeout_seconds)
        except FutureTimeoutError:
            raise TransientError(f"{self._host_id}: still connecting after {timeout_seconds:.0f} s") from None

    def _connect(self, attempt: Future[_Connection]) -> None:
        connection: _Connection | None = None
        failure: BaseException | None = None
        try:
            link = self._transport.open(self._log_line)
            connection = _Connection(self._host_id, link, self._clock)
            connection.start()
        except OSError as error:
            failure = TransientError(f"{self._host_id}: cannot start a session: {error}")
        except MinicloudError as error:
            failure = error
        except BaseException as error:
            self._settle(attempt, None, error)
            raise
        self._settle(attempt, connection, failure)

    def _settle(
        self, attempt: Future[_Connection], connection: _Connection | None, failure: BaseException | None
    ) -> None:
        with self._lock:
            self._attempt = None
            if failure is None and connection and self._closed:
                connection.close(CLOSED)
            self._connection = connection if failure is None else None
            self._failed_at = None
            if isinstance(failure, TransientError):
                self._failed_at = (self._clock.monotonic_seconds(), failure)
        if failure is not None:
            attempt.set_exception(failure)
        else:
            assert connection is not None
            attempt.set_result(connection)

    def _log_line(self, line: str) -> None:
        log.info("%s: host side: %s", self._host_id, line)


class _Connection:
    """One link and the calls in flight on it."""

    def __init__(self, host_id: str, link: Link, clock: Clock) -> None:
        self._host_id = host_id
        self._link = link
        self._clock = clock
        self._send_lock = threading.Lock()
        self._lock = threading.Lock()
        self._calls: dict[int, Future[dict[str, Any]]] = {}
        self._next_id = 1
        self._heard_at = clock.monotonic_seconds()
        self._hello: Future[dict[str, Any]] = Future()
        self._ended = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether calls may still be made."""
        return not self._ended.is_set()

    def start(self) -> None:
        """Listen, and wait for the host side's greeting. Raises TransientError or PermanentError."""
        threading.Thread(target=self._read, name=f"session-{self._host_id}", daemon=True).start()
        try:
            hello = self._hello.result(CONNECT_SECONDS)
        except FutureTimeoutError:
            self.close("no greeting")
            raise TransientError(f"{self._host_id}: the host side did not greet in time") from None
        if hello.get("protocol") != frames.PROTOCOL:
            self.close("another protocol")
            raise PermanentError("Server.InternalError", f"{self._host_id}: the host side speaks {hello!r}")
        threading.Thread(target=self._keep, name=f"session-keep-{self._host_id}", daemon=True).start()

    def call(self, verb: str, arguments: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Send one request and return its reply. Raises TransientError."""
        reply: Future[dict[str, Any]] = Future()
        with self._lock:
            call_id = self._next_id
            self._next_id += 1
            self._calls[call_id] = reply
        try:
            frame = frames.encode(
                {"id": call_id, "verb": verb, "arguments": arguments, "deadline_seconds": timeout_seconds}
            )
            self._send(frame)
            if self._ended.is_set():
                # It may have ended between our registration and its last look at the calls.
                raise TransientError(f"{self._host_id}: {verb}: the link was lost")
            return reply.result(timeout_seconds)
        except FutureTimeoutError:
            raise TransientError(
                f"{self._host_id}: {verb} did not answer in {timeout_seconds:.1f} s: outcome unknown"
            ) from None
        except frames.FrameError as error:
            raise PermanentError("Server.InternalError", f"{self._host_id}: {verb}: {error}") from error
        finally:
            with self._lock:
                self._calls.pop(call_id, None)

    def close(self, reason: str) -> None:
        """End the link; every call in flight raises TransientError with `reason`."""
        with self._lock:
            if not self._ended.is_set():
                self._ended.set()
                log.log(
                    logging.INFO if reason == CLOSED else logging.WARNING, "%s: session lost: %s", self._host_id, reason
                )
            waiting, self._calls = list(self._calls.values()), {}
        for reply in [*waiting, self._hello]:
            _fail(reply, TransientError(f"{self._host_id}: the link was lost: {reason}"))
        self._link.close()

    def _send(self, frame: bytes) -> None:
        try:
            with self._send_lock:
                self._link.send(frame)
        except OSError as error:
            self.close(str(error))
            raise TransientError(f"{self._host_id}: the link was lost: {error}") from error

    def _read(self) -> None:
        reason = "the host side ended"
        decoder = frames.Decoder()
        try:
            while data := self._link.receive():
                self._heard_at = self._clock.monotonic_seconds()
                for message in decoder.feed(data):
                    self._take(message)
        except (OSError, frames.FrameError) as error:
            reason = str(error)
        except Exception:
            log.exception("%s: the session's reader failed", self._host_id)
            reason = "the reader failed"
        self.close(reason)

    def _take(self, message: dict[str, Any]) -> None:
        if "hello" in message:
            with contextlib.suppress(InvalidStateError):  # Nobody waits for it any more.
                self._hello.set_result(message["hello"])
            return
        with self._lock:
            reply = self._calls.pop(message.get("id", 0), None)
        if reply:  # Otherwise a pong, or its caller has given up.
            reply.set_result(message)

    def _keep(self) -> None:
        """Ping a link that is silent: soon while calls wait, now and then so that the host side keeps listening."""
        asked_at: float | None = None
        while not self._ended.wait(PING_SECONDS):
            now, heard_at = self._clock.monotonic_seconds(), self._heard_at
            if asked_at is not None and heard_at < asked_at:
                if now - asked_at >= SILENT_SECONDS - PING_SECONDS:
                    self.close(f"nothing was heard for {now - heard_at:.0f} s")
            elif now - heard_at >= (PING_SECONDS if self._calls else IDLE_PING_SECONDS):
                asked_at = now
                # In a thread of its own: a dead link may block it, and only we can end the link then.
                threading.Thread(target=self._ping, name=f"session-ping-{self._host_id}", daemon=True).start()

    def _ping(self) -> None:
        with contextlib.suppress(TransientError):
            self._send(frames.encode({"ping": 1}))


def _result(host_id: str, verb: str, reply: dict[str, Any]) -> Any:
    if failure := reply.get("failure"):
        detail = f"{host_id}: {verb}: {failure['detail']}"
        if failure["transient"]:
            raise TransientError(detail)
        raise PermanentError(failure["code"], detail)
    if "bug" in reply:
        log.error("%s: %s failed on the host side:\n%s", host_id, verb, reply["bug"])
        raise PermanentError("Server.InternalError", f"{host_id}: {verb} failed on the host side:\n{reply['bug']}")
    return reply["result"]


def _fail(reply: Future[dict[str, Any]], failure: TransientError) -> None:
    with contextlib.suppress(InvalidStateError):  # The reader was first.
        reply.set_exception(failure)
