"""What the daemon listens on: the signed endpoint over TCP and the command line's door over a unix socket.

Owns sockets and signals; knows nothing of what is answered. Called by daemon.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from minicloud.config import Config
from minicloud.errors import ConfigError
from minicloud.tls import ServerTls

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 10
# Anybody may connect. One address alone can take neither every place of a request (api/app.py has 128) nor, together
# with others, the descriptors that the daemon needs for its hosts.
MAX_CONNECTIONS = 512
MAX_CONNECTIONS_PER_ADDRESS = 100
# uvicorn's own bound begins with the first answer; who never asks anything would stay for ever.
IDLE_SECONDS = 75


@dataclass(frozen=True, slots=True)
class Doors:
    """The two ASGI applications of the daemon."""

    endpoint: Starlette
    door: Starlette


async def listen(config: Config, doors: Doors, tls: ServerTls | None) -> None:
    """Serve both doors until a signal ends the daemon; with `tls` the endpoint speaks nothing else.

    Raises ConfigError when an address cannot be used.
    """
    signed = uvicorn.Config(
        doors.endpoint,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        date_header=True,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    door = uvicorn.Config(
        doors.door,
        http=PeerCredentialsProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    with contextlib.ExitStack() as sockets:
        try:
            tcp = sockets.enter_context(_tcp_socket(config.listen_address, config.listen_port))
            unix = sockets.enter_context(_unix_socket(config.socket_path))
        except OSError as error:
            raise ConfigError(f"{config.path}: cannot listen: {error}") from error
        if tls is not None:
            signed.load()
            signed.ssl = tls.context
        servers = [_Server(signed), _Server(door)]
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        if tls is not None:
            loop.add_signal_handler(signal.SIGHUP, tls.reload)
        running = [
            asyncio.create_task(server.serve(sockets=[one])) for server, one in zip(servers, (tcp, unix), strict=True)
        ]
        log.info("serving EC2 at %s, `minicloud` at %s", config.endpoint_url, config.socket_path)
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*running)
        waiting.cancel()
        Path(config.socket_path).unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """A server that leaves signals to the daemon: two of them run in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class BoundedListener(socket.socket):
    """A socket for strangers: so many connections and no more, counted before a TLS handshake asks for patience."""

    def __init__(self, family: int) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._accepted: list[tuple[socket.socket, str]] = []

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection as any socket does. Raises ConnectionAbortedError, which asyncio takes in its stride."""
        connection, peer = super().accept()
        still_open = [one for one in self._accepted if one[0].fileno() != -1]
        same = sum(address == peer[0] for _, address in still_open)
        if len(still_open) >= MAX_CONNECTIONS or same >= MAX_CONNECTIONS_PER_ADDRESS:
            connection.close()
            raise ConnectionAbortedError
        self._accepted = [*still_open, (connection, peer[0])]
        return connection, peer


class BoundedProtocol(H11Protocol):
    """HTTP for strangers: no connection that has no whole request for long."""

    _idle_at: object | None = None
    _look_again: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_if_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
        super().connection_lost(exc)

    def _end_if_idle(self) -> None:
        """End the connection if it is idle, and was so after the same request when this looked the last time."""
        idle_at = (self.cycle,) if self.cycle is None or self.cycle.response_complete else None
        if idle_at is not None and idle_at == self._idle_at:
            self.transport.close()
            return
        self._idle_at = idle_at
        self._look_again = self.loop.call_later(IDLE_SECONDS, self._end_if_idle)


class PeerCredentialsProtocol(H11Protocol):
    """HTTP over the unix socket; `scope["client"]` names the peer as the kernel knows it: ("uid:0", its pid)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer: socket.socket = transport.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _gid = struct.unpack("3i", credentials)
        self.client = (f"uid:{uid}", pid)


def _tcp_socket(address: str, port: int) -> socket.socket:
    listener = BoundedListener(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


def _unix_socket(path: str) -> socket.socket:
    """Listen at `path`, for root and our own user; the lock on the database tells that no other daemon does."""
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
