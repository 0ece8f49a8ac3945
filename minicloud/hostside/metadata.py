"""The metadata server of one router: HTTP on 169.254.169.254 for the guests of a VPC on this host.

One process per router, started by supervisor.py with the listening socket as its standard input, so that no guest ever
finds the port closed. One thread over non-blocking sockets: a slow guest holds up nobody. Everything a guest can make
it hold is bounded: request size, time, connections in all and per guest.

Who asks is the address that the connection comes from, which the router's and the host's rules make sound. What is
answered (metadata_answers.py) comes from the port's file as it is at that moment, through `<router folder>/metadata/
<address>`, a link to it: what was pushed shows with the next request, and the controller need not be there.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
import traceback
from http import HTTPStatus
from pathlib import Path
from typing import Callable, Dict, List, Optional, Union

from minicloud.hostside import files
from minicloud.hostside.metadata_answers import Plan, Reply, Request, Tokens, answer, error
from minicloud.hostside.ports import Cache

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_CONNECTIONS = 512
MAX_CONNECTIONS_PER_GUEST = 32
REQUEST_SECONDS = 10.0
MAX_LOGGED_ERRORS = 100

Find = Callable[[str], Optional[Plan]]


class BadRequest(Exception):
    """What arrived is no HTTP request that is answered here."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Connection:
    """One guest's connection: bytes in, requests out of them, replies waiting to leave."""

    def __init__(self, link: socket.socket, guest: str, now: float) -> None:
        self.link = link
        self.guest = guest
        self.deadline = now + REQUEST_SECONDS
        self.received = bytearray()
        self.unsent = bytearray()
        self.closing = False


class Server:
    """Serves one listening socket. `find` returns the plan of whoever has an address; clocks are seconds since boot."""

    def __init__(self, listener: socket.socket, find: Find, tokens: Tokens, clock: Callable[[], float]) -> None:
        self._listener = listener
        self._find = find
        self._tokens = tokens
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._connections: Dict[int, Connection] = {}
        self._by_guest: Dict[str, int] = {}
        self._accepting = False
        self._errors = 0
        listener.setblocking(False)
        self._accept_again()

    def serve_forever(self) -> None:
        """Serve until the process ends."""
        while True:
            self.serve_once(1.0 if self._connections else None)

    def serve_once(self, timeout_seconds: Optional[float]) -> None:
        """Wait for something to do, and do it."""
        for key, events in self._selector.select(timeout_seconds):
            if key.data is None:
                self._accept()
            else:
                self._serve(key.data, events)
        now = self._clock()
        for connection in [one for one in self._connections.values() if one.deadline < now]:
            self._close(connection)

    def close(self) -> None:
        """Close every connection and the selector; the listening socket is its owner's."""
        for connection in list(self._connections.values()):
            self._close(connection)
        self._selector.close()

    def _accept(self) -> None:
        try:
            link, (guest, _) = self._listener.accept()
        except OSError:
            return
        if self._by_guest.get(guest, 0) >= MAX_CONNECTIONS_PER_GUEST:
            link.close()
            return
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(link, guest, self._clock())
        self._connections[link.fileno()] = connection
        self._by_guest[guest] = self._by_guest.get(guest, 0) + 1
        self._selector.register(link, selectors.EVENT_READ, connection)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._selector.unregister(self._listener)
            self._accepting = False

    def _accept_again(self) -> None:
        if not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ, None)
            self._accepting = True

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                data = connection.link.recv(65536)
                if not data:
                    self._close(connection)
                    return
                connection.received += data
            self._work(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)
        except Exception:
            # A bug must cost the guest that met it its connection, and nobody else anything.
            self._errors += 1
            if self._errors <= MAX_LOGGED_ERRORS:
                traceback.print_exc()
            self._close(connection)

    def _work(self, connection: Connection) -> None:
        self._send(connection)
        while not connection.unsent and not connection.closing:
            try:
                request = take_request(connection.received)
            except BadRequest as problem:
                self._reply(connection, Request("GET", "", {"connection": "close"}), error(problem.status))
            else:
                if request is None:
                    break
                connection.deadline = self._clock() + REQUEST_SECONDS
                plan = self._find(connection.guest)
                self._reply(connection, request, answer(request, plan, self._tokens, self._clock()))
            self._send(connection)
        if connection.closing and not connection.unsent:
            # Closing with bytes unread would reset the connection, and the guest might lose the reply to that.
            connection.received.clear()
            connection.link.shutdown(socket.SHUT_WR)
        wanted = selectors.EVENT_WRITE if connection.unsent else selectors.EVENT_READ
        self._selector.modify(connection.link, wanted, connection)

    def _reply(self, connection: Connection, request: Request, reply: Reply) -> None:
        if reply.hop_limit is not None:
            # It holds for the rest of the connection: whoever got the token over it is near enough for all of it.
            connection.link.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, reply.hop_limit)
        connection.closing = "close" in request.headers.get("connection", "").lower()
        connection.unsent += render_reply(request, reply, connection.closing)

    def _send(self, connection: Connection) -> None:
        if connection.unsent:
            try:
                sent = connection.link.send(connection.unsent)
            except BlockingIOError:
                return
            del connection.unsent[:sent]

    def _close(self, connection: Connection) -> None:
        number = connection.link.fileno()
        if self._connections.pop(number, None) is None:
            return
        left = self._by_guest[connection.guest] - 1
        if left:
            self._by_guest[connection.guest] = left
        else:
            del self._by_guest[connection.guest]
        self._selector.unregister(connection.link)
        connection.link.close()
        self._accept_again()


def take_request(received: bytearray) -> Optional[Request]:
    """Take the first whole request off what was received; None: more must come. Raises BadRequest.

    A body is read over, as none means anything here. HTTP/1.0 requests get the header `connection: close`.
    """
    while received[:2] == b"\r\n":  # RFC 9112, 2.2: empty lines before a request
        del received[:2]
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if len(received) > MAX_HEAD_BYTES:
            raise BadRequest(431)
        return None
    if end > MAX_HEAD_BYTES:
        raise BadRequest(431)
    lines = received[:end].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[0].isalpha():
        raise BadRequest(400)
    headers = _headers(lines[1:])
    if words[2] == "HTTP/1.0":
        headers["connection"] = "close"
    if "transfer-encoding" in headers:
        raise BadRequest(501)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(400)
    if len(length) > 9 or int(length) > MAX_BODY_BYTES:
        raise BadRequest(413)
    whole = end + 4 + int(length)
    if len(received) < whole:
        return None
    del received[:whole]
    return Request(words[0].upper(), words[1], headers)


def _headers(lines: List[str]) -> Dict[str, str]:
    headers: Dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(400)
        name = name.lower()
        # Two lengths or two tokens: whoever sends that wants one reader to see the one and the next the other.
        if name in headers and name in ("content-length", "x-aws-ec2-metadata-token"):
            raise BadRequest(400)
        headers[name] = value.strip()
    return headers


def render_reply(request: Request, reply: Reply, closing: bool) -> bytes:
    """Return the bytes of a reply; to HEAD, without its body."""
    head = [
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body)}",
        "Date: " + time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        "Server: EC2ws",
        f"Connection: {'close' if closing else 'keep-alive'}",
        *(f"{name}: {value}" for name, value in reply.headers),
    ]
    body = b"" if request.method == "HEAD" else reply.body
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket in the calling thread's network namespace, whether the address is up yet or not."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND, which this Python may not name
        listener.bind((address, port))
        listener.listen(256)
    except BaseException:
        listener.close()
        raise
    return listener


def router_folder(state_folder: Union[str, Path], router: str) -> Path:
    """Return the folder of a router's derived files."""
    return Path(state_folder) / "routers" / router


def link_plans(folder: Path, port_ids: Dict[str, str]) -> None:
    """Have `<folder>/metadata/<address>` lead to the plan of the port that has the address, and no other link."""
    below = files.ensure_folder(folder / "metadata", 0o700)
    present = set(os.listdir(below))
    for address, port_id in port_ids.items():
        link, target = below / address, f"../../../ports/{port_id}.json"
        if address not in present or os.readlink(link) != target:
            fresh = below / f".{address}"
            files.remove_file(fresh)
            os.symlink(target, fresh)
            os.replace(fresh, link)
    for gone in present - set(port_ids):
        files.remove_file(below / gone)


def secret(folder: Path) -> bytes:
    """Return the secret that signs a router's tokens; made once, kept across restarts, readable by root only."""
    path = folder / "secret"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        fresh = os.urandom(32)
        files.atomic_write(path, fresh, 0o600, durable=False)
        return fresh


def boot_id() -> str:
    """Return what names this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def main(argv: List[str]) -> int:
    """`metadata STATE_FOLDER ROUTER`: serve the listening socket that is standard input."""
    folder = router_folder(*argv)
    cache = Cache()
    links = os.path.join(str(folder), "metadata", "")
    listener = socket.socket(fileno=0)
    tokens = Tokens(secret(folder), boot_id())
    server = Server(
        listener,
        lambda guest: cache.get(links + guest),
        tokens,
        lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 130
    return 0
