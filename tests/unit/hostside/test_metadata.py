"""The metadata server over loopback sockets: HTTP as guests speak it, well or badly; bounds; nobody held up."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.port_plans import port

from minicloud.hostside import metadata
from minicloud.hostside.metadata import BadRequest, Server, link_plans, take_request
from minicloud.hostside.metadata_answers import Tokens
from minicloud.hostside.ports import Cache

PLAN = port(10)
ID = PLAN["instance_id"].encode()
REQUEST = b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"


class Running:
    """A server in a thread, which is stepped by whatever arrives; `now` is its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.plans: dict[str, dict[str, Any]] = {"127.0.0.1": PLAN}
        self.listener = metadata.listen("127.0.0.1", 0)
        self.server = Server(self.listener, self.plans.get, Tokens(b"s", "boot"), lambda: self.now)
        self._stop = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop:
            self.server.serve_once(0.02)

    def connect(self) -> socket.socket:
        link = socket.create_connection(self.listener.getsockname(), 60)
        link.settimeout(60)
        return link

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        self.server.close()
        self.listener.close()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    running = Running()
    try:
        yield running
    finally:
        running.close()


def read_reply(link: socket.socket, body: bool = True) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = link.recv(65536)
        assert part, f"closed after {data!r}"
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    length = int(headers["content-length"]) if body else 0
    while len(rest) < length:
        part = link.recv(65536)
        assert part
        rest += part
    assert len(rest) == length
    return int(lines[0].split()[1]), headers, rest


def ask(running: Running, data: bytes) -> tuple[int, dict[str, str], bytes]:
    with running.connect() as link:
        link.sendall(data)
        return read_reply(link)


def test_a_request_gets_a_whole_reply(running: Running) -> None:
    status, headers, body = ask(running, REQUEST)
    assert (status, body) == (200, ID)
    assert headers["content-type"] == "text/plain"
    assert headers["server"] == "EC2ws"
    assert headers["connection"] == "keep-alive"


def test_a_connection_serves_many_requests_also_at_once(running: Running) -> None:
    with running.connect() as link:
        for _ in range(3):
            link.sendall(REQUEST)
            assert read_reply(link)[2] == ID
        link.sendall(REQUEST * 20)
        data = b""
        while data.count(ID) < 20:
            data += link.recv(65536)
        assert data.count(b"HTTP/1.1 200 OK") == 20


def test_a_request_may_come_byte_by_byte(running: Running) -> None:
    with running.connect() as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"\r\n" + REQUEST:
            link.sendall(bytes([byte]))
        assert read_reply(link)[2] == ID


def test_head_says_the_length_without_the_body(running: Running) -> None:
    with running.connect() as link:
        link.sendall(REQUEST.replace(b"GET", b"HEAD") + REQUEST)
        data = b""
        while ID not in data:
            data += link.recv(65536)
    first, _, rest = data.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(ID)}".encode() in first
    assert rest.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "request_bytes",
    [REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), REQUEST.replace(b"Host:", b"Connection: close\r\nHost:")],
)
def test_a_connection_closes_where_that_is_asked(running: Running, request_bytes: bytes) -> None:
    with running.connect() as link:
        link.sendall(request_bytes)
        _, headers, body = read_reply(link)
        assert (headers["connection"], body) == ("close", ID)
        assert link.recv(1) == b""


def test_a_body_is_read_over(running: Running) -> None:
    put = (
        b"PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 5\r\n\r\nhello"
    )
    with running.connect() as link:
        link.sendall(put + REQUEST)
        data = b""
        while ID not in data:
            data += link.recv(65536)
        assert data.startswith(b"HTTP/1.1 200 OK")


def test_a_token_works_and_its_reply_travels_only_so_far(running: Running) -> None:
    put = b"PUT /latest/api/token HTTP/1.1\r\nX-AWS-EC2-Metadata-Token-TTL-Seconds: 60\r\n\r\n"
    _, headers, token = ask(running, put)
    assert headers["x-aws-ec2-metadata-token-ttl-seconds"] == "60"
    with_token = REQUEST.replace(b"\r\n\r\n", b"\r\nX-aws-ec2-metadata-token: " + token + b"\r\n\r\n")
    assert ask(running, with_token)[2] == ID
    assert ask(running, with_token.replace(token, b"x" + token))[0] == 401


def test_large_user_data_arrives_whole(running: Running) -> None:
    data = os.urandom(16384)
    running.plans["127.0.0.1"] = port(10, user_data_base64=base64.b64encode(data).decode())
    try:
        assert ask(running, b"GET /latest/user-data HTTP/1.1\r\n\r\n")[2] == data
    finally:
        running.plans["127.0.0.1"] = PLAN


def test_an_unknown_address_gets_404(running: Running) -> None:
    plan = running.plans.pop("127.0.0.1")
    try:
        assert ask(running, REQUEST)[0] == 404
    finally:
        running.plans["127.0.0.1"] = plan


BAD = {
    b"nonsense\r\n\r\n": 400,
    b"GET /\r\n\r\n": 400,
    b"GET / HTTP/2.0\r\n\r\n": 400,
    b"GET / x HTTP/1.1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nA : b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\n folded: b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nX-aws-ec2-metadata-token: a\r\nX-aws-ec2-metadata-token: b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n": 413,
    b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n": 413,
    b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 501,
    b"GET / HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n": 431,
    b"G" * 20000: 431,
}


@pytest.mark.parametrize(("data", "status"), BAD.items())
def test_bad_requests_are_refused_and_the_connection_ends(running: Running, data: bytes, status: int) -> None:
    with running.connect() as link:
        link.sendall(data)
        found, headers, _ = read_reply(link)
        assert (found, headers["connection"]) == (status, "close")
        assert link.recv(1) == b""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_no_bytes_bring_the_server_down(running: Running, parts: list[bytes]) -> None:
    with running.connect() as link:
        try:
            for part in parts:
                link.sendall(part)
            link.shutdown(socket.SHUT_WR)
            while link.recv(65536):
                pass
        except ConnectionError:
            pass
    assert ask(running, REQUEST)[2] == ID


@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_a_refusal_or_too_few(data: bytes) -> None:
    received = bytearray(data)
    try:
        request = take_request(received)
    except BadRequest as problem:
        assert problem.status in (400, 413, 431, 501)
    else:
        assert request is None or len(received) < len(data)


def test_a_slow_guest_holds_up_nobody_and_is_dropped_in_the_end(running: Running) -> None:
    with running.connect() as slow:
        slow.sendall(b"GET / HT")
        for _ in range(3):
            assert ask(running, REQUEST)[2] == ID
        running.now += metadata.REQUEST_SECONDS + 1
        assert slow.recv(1) == b""


def test_a_guest_that_does_not_read_holds_up_nobody(running: Running) -> None:
    with running.connect() as greedy:
        greedy.setblocking(False)
        try:
            for _ in range(10000):
                greedy.send(REQUEST * 100)
        except BlockingIOError:
            pass
        assert ask(running, REQUEST)[2] == ID


def test_one_guest_may_hold_so_many_connections_and_no_more() -> None:
    # A server of its own: one that others used may not have noticed yet that they went.
    running = Running()
    held = [running.connect() for _ in range(metadata.MAX_CONNECTIONS_PER_GUEST)]
    try:
        for link in held:
            link.sendall(REQUEST)
            assert read_reply(link)[2] == ID
        with running.connect() as surplus:
            assert surplus.recv(1) == b""
    finally:
        for link in held:
            link.close()
    # Room again, as soon as the server has noticed.
    try:
        while True:
            with running.connect() as link:
                try:
                    link.sendall(REQUEST)
                    assert read_reply(link)[2] == ID
                    break
                except (AssertionError, ConnectionError):
                    continue
    finally:
        running.close()


def test_when_all_connections_are_taken_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "MAX_CONNECTIONS", 2)
    running = Running()
    try:
        held = [running.connect(), running.connect()]
        for link in held:
            link.sendall(REQUEST)
            assert read_reply(link)[2] == ID
        with running.connect() as waiting:
            waiting.sendall(REQUEST)
            waiting.settimeout(0.2)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            waiting.settimeout(60)
            held[0].close()
            assert read_reply(waiting)[2] == ID
        held[1].close()
    finally:
        running.close()


def test_a_bug_costs_one_connection(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    running.plans["127.0.0.1"] = {"metadata": {}}
    try:
        with running.connect() as link:
            link.sendall(REQUEST)
            assert link.recv(1) == b""
    finally:
        running.plans["127.0.0.1"] = PLAN
    assert ask(running, REQUEST)[2] == ID
    assert "KeyError" in capfd.readouterr().err


def test_link_plans_follows_what_is_pushed(tmp_path: Path) -> None:
    router = tmp_path / "routers" / "mcr-1"
    router.mkdir(parents=True)
    (tmp_path / "ports").mkdir()
    first, second = port(10), {**port(11), "private_ip": "10.0.1.10"}
    for plan in (first, second):
        (tmp_path / "ports" / f"{plan['id']}.json").write_text(json.dumps(plan))
    cache = Cache()
    link = str(router / "metadata" / "10.0.1.10")
    link_plans(router, {"10.0.1.10": first["id"]})
    assert cache.get(link) == first
    link_plans(router, {"10.0.1.10": second["id"]})
    assert cache.get(link) == second
    (tmp_path / "ports" / f"{second['id']}.json").unlink()
    assert cache.get(link) is None
    link_plans(router, {})
    assert list((router / "metadata").iterdir()) == []


def test_the_secret_is_made_once_and_is_roots_alone(tmp_path: Path) -> None:
    first = metadata.secret(tmp_path)
    assert len(first) == 32
    assert metadata.secret(tmp_path) == first
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
