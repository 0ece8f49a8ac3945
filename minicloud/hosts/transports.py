"""How bytes reach the host side of a session on this machine: a child process. SSH is in ssh.py.

Owns the process from its start to its end. A transport opens links; a link carries bytes both ways and the host
side's standard error, and dies when it is closed. Called by session.py; raises OSError (ConnectionError included) and
nothing else.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import IO, Protocol

from minicloud.hosts.bundle import Bundle, build_bundle

PYTHON = "/usr/bin/python3"
STATE_FOLDER = "/var/lib/minicloud"
CONNECT_SECONDS = 10.0
REAP_SECONDS = 30.0
MAX_LOG_LINE_BYTES = 4096

Log = Callable[[str], None]


class Closable(Protocol):
    """Something that can be ended from another thread."""

    def close(self) -> None: ...


class Link(Protocol):
    """An open connection to the host side."""

    def send(self, data: bytes) -> None:
        """Write all of `data`; raises OSError when the link is or gets closed."""

    def receive(self) -> bytes:
        """Return the next bytes as they come; empty at the end of the link."""

    def close(self) -> None:
        """End the link and the session behind it; unblocks `send` and `receive` in other threads."""


class Transport(Protocol):
    """Opens links to one host."""

    def open(self, log: Log) -> Link:
        """Start a session on the host and return a link to it; lines of its standard error go to `log`.

        Bounded by CONNECT_SECONDS. Raises OSError if the host cannot be reached or refuses.
        """


def session_argv(bundle: Bundle, state_folder: str, python: str) -> list[str]:
    """Return the command that brings the host side to a host and runs a session there (see hostside/bootstrap.py)."""
    archive = [state_folder, bundle.digest, str(len(bundle.data))]
    return [python, "-I", "-S", "-c", bundle.bootstrap, *archive, "session", "--state-folder", state_folder]


def install(link: Link, bundle: Bundle) -> None:
    """Answer the bootstrap's question: send the archive if the host does not hold it. Raises OSError."""
    answer = link.receive()
    if answer[:1] == b"-":
        link.send(bundle.data)
    elif answer[:1] != b"+":
        raise ConnectionError(f"the host side did not start: {answer[:200]!r}")


def pump_lines(stream: IO[bytes], log: Log) -> None:
    """Hand lines of `stream` to `log` until it ends; longer ones come in pieces."""
    with stream:
        for line in iter(lambda: stream.readline(MAX_LOG_LINE_BYTES), b""):
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                log(text)


class LocalTransport:
    """This machine: the session is a child process."""

    def __init__(self, state_folder: str = STATE_FOLDER, python: str = PYTHON) -> None:
        self._state_folder = state_folder
        self._python = python

    def open(self, log: Log) -> LocalLink:
        bundle = build_bundle()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(
                    session_argv(bundle, self._state_folder, self._python),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        link = LocalLink(process, ours, log)
        with closed_after(CONNECT_SECONDS, link):
            install(link, bundle)
        return link


class LocalLink:
    """A session in a child process, over a socket pair: shutting a socket down wakes whoever waits on it."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, log: Log) -> None:
        assert process.stderr
        self._process = process
        self._sock = sock
        self._close_lock = threading.Lock()
        self._closed = False
        threading.Thread(target=pump_lines, args=(process.stderr, log), name="session-log", daemon=True).start()

    @property
    def pid(self) -> int:
        """The session's process id."""
        return self._process.pid

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def receive(self) -> bytes:
        return self._sock.recv(1 << 18)

    def close(self) -> None:
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The child was first.
        threading.Thread(target=self._reap, name="session-reap", daemon=True).start()

    def _reap(self) -> None:
        try:
            self._process.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._sock.close()


@contextlib.contextmanager
def closed_after(seconds: float, link: Closable) -> Iterator[None]:
    """Close `link` if the body raises or takes longer than `seconds`."""
    timer = threading.Timer(seconds, link.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    except BaseException:
        link.close()
        raise
    finally:
        timer.cancel()
