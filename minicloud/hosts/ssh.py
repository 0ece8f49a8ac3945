"""How bytes reach the host side of a session on another machine: an SSH channel, the host's key pinned.

Owns the SSH connection. Accepts exactly the host key it was given and asks the server for no other kind; offers
exactly the key file it was given, no agent and no passwords. Used through transports.Transport by session.py.
Raises OSError and nothing else.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko

from minicloud.hosts.bundle import build_bundle
from minicloud.hosts.transports import (
    CONNECT_SECONDS,
    PYTHON,
    STATE_FOLDER,
    Link,
    Log,
    closed_after,
    install,
    pump_lines,
    session_argv,
)

KEEPALIVE_SECONDS = 15

# An RSA key signs under several algorithm names; ssh-rsa itself means SHA-1 and is left out.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


@dataclass(frozen=True)
class SshTarget:
    """Where and as whom to log in; `host_key` is the server's key as known_hosts spells it ("ssh-ed25519 AAAA...")."""

    address: str
    host_key: str
    key_path: str
    user: str = "root"
    port: int = 22


class SshTransport:
    """A machine reached by SSH. A user other than root needs password-less sudo there."""

    def __init__(self, target: SshTarget, state_folder: str = STATE_FOLDER, python: str = PYTHON) -> None:
        self._target = target
        self._state_folder = state_folder
        self._python = python

    def open(self, log: Log) -> Link:
        bundle = build_bundle()
        argv = session_argv(bundle, self._state_folder, self._python)
        if self._target.user != "root":
            argv = ["sudo", "-n", *argv]
        with _as_os_error(self._target):
            link = _connect(self._target, shlex.join(argv), log)
            with closed_after(CONNECT_SECONDS, link):
                install(link, bundle)
        return link


class SshLink:
    """A session behind one channel of an SSH connection of its own."""

    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel, log: Log) -> None:
        self._transport = transport
        self._channel = channel
        stderr = channel.makefile_stderr("rb")
        threading.Thread(target=pump_lines, args=(stderr, log), name="session-log", daemon=True).start()

    def send(self, data: bytes) -> None:
        try:
            self._channel.sendall(data)
        except (paramiko.SSHException, EOFError) as error:
            # What paramiko raises for a connection that died and has not been noticed yet.
            raise ConnectionError(f"the connection is gone: {error}") from error

    def receive(self) -> bytes:
        return self._channel.recv(1 << 18)

    def close(self) -> None:
        self._transport.close()


def read_host_key(address: str, port: int = 22) -> str:
    """Return the key a server shows, as known_hosts spells it, for an operator to confirm and pin. Raises OSError."""
    with _as_os_error(SshTarget(address, "", "", port=port)), _transport(address, port) as transport:
        transport.start_client(timeout=CONNECT_SECONDS)
        text = _spelled(transport.get_remote_server_key())
        transport.close()
        return text


def _connect(target: SshTarget, command: str, log: Log) -> SshLink:
    pinned_kind = target.host_key.split()[0] if target.host_key.split() else ""
    with _transport(target.address, target.port) as transport:
        transport.get_security_options().key_types = _ALGORITHMS.get(pinned_kind, (pinned_kind,))
        transport.start_client(timeout=CONNECT_SECONDS)
        shown = _spelled(transport.get_remote_server_key())
        if shown.split() != target.host_key.split()[:2]:
            raise ConnectionError(f"the server shows another host key than the pinned one: {shown}")
        transport.auth_publickey(target.user, paramiko.PKey.from_path(target.key_path))
        transport.set_keepalive(KEEPALIVE_SECONDS)
        channel = transport.open_session(timeout=CONNECT_SECONDS)
        channel.exec_command(command)
        return SshLink(transport, channel, log)


@contextlib.contextmanager
def _transport(address: str, port: int) -> Iterator[paramiko.Transport]:
    """Connect; close again if the body raises or does not end in time (some of paramiko's waits are unbounded)."""
    sock = socket.create_connection((address, port), timeout=CONNECT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock)
    try:
        with closed_after(CONNECT_SECONDS, transport):
            yield transport
    except BaseException:
        sock.close()  # A transport that has not started does not close it.
        raise


@contextlib.contextmanager
def _as_os_error(target: SshTarget) -> Iterator[None]:
    try:
        yield
    except (paramiko.SSHException, EOFError, ValueError, TypeError) as error:
        raise ConnectionError(f"{target.user}@{target.address}:{target.port}: {error}") from error


def _spelled(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"
