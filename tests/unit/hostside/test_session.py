"""The host's end of a session: whatever arrives, it answers what can be answered and ends when it should."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicloud.hostside import frames
from minicloud.hostside.session import Session

Handle = Callable[[str, dict[str, Any], float], Any]
# What only a failing test waits for.
LONG = 60.0


class Peer:
    """Talks to a session in a thread, over two pipes."""

    def __init__(self, handle: Handle, **options: Any) -> None:
        session_in, self._to = os.pipe()
        self._from, session_out = os.pipe()
        self._fds = [session_in, self._from, session_out]
        self._decoder = frames.Decoder()
        self._received: list[dict[str, Any]] = []
        self.error: Exception | None = None
        session = Session(session_in, session_out, handle, **options)

        def run() -> None:
            try:
                session.run({"pid": 1})
            except Exception as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def send(self, data: bytes) -> None:
        os.write(self._to, data)

    def receive(self) -> dict[str, Any]:
        while not self._received:
            self._received += self._decoder.feed(os.read(self._from, 65536))
        return self._received.pop(0)

    def end_input(self) -> None:
        if self._to >= 0:
            os.close(self._to)
            self._to = -1

    def close(self) -> None:
        self.end_input()
        self.thread.join(LONG)
        assert not self.thread.is_alive()
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Peer]]:
    # A verb that hangs ends the process that serves it: here that is the tests' own.
    monkeypatch.setattr("minicloud.hostside.session.GRACE_SECONDS", 10 * LONG)
    made: list[Peer] = []

    def make(handle: Handle, **options: Any) -> Peer:
        made.append(Peer(handle, **options))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


def request(call_id: int, verb: str = "echo", **arguments: Any) -> bytes:
    return frames.encode({"id": call_id, "verb": verb, "arguments": arguments, "deadline_seconds": 10})


def echo(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
    return {"verb": verb, **arguments}


def test_it_greets_answers_and_ends(peers: Callable[..., Peer]) -> None:
    peer = peers(echo)
    assert peer.receive() == {"hello": {"protocol": frames.PROTOCOL, "pid": 1}}
    peer.send(request(7, x=1))
    assert peer.receive() == {"id": 7, "result": {"verb": "echo", "x": 1}}
    peer.send(frames.encode({"ping": 3}))
    assert peer.receive() == {"pong": 3}
    peer.end_input()
    peer.thread.join(LONG)
    assert not peer.thread.is_alive()
    assert peer.error is None


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"id": 1},
        {"id": [1], "verb": 5, "arguments": [], "deadline_seconds": "x"},
        {"id": 1, "verb": "echo", "arguments": 3, "deadline_seconds": 1},
        {"id": 1, "verb": "echo", "arguments": {}, "deadline_seconds": None},
        {"id": 1, "verb": "echo", "arguments": {}, "deadline_seconds": -1},
        {"id": 1, "verb": "echo", "arguments": {}, "deadline_seconds": 0},
        {"hello": 1},
    ],
)
def test_requests_that_are_none_are_answered_and_hurt_nobody(
    peers: Callable[..., Peer], message: dict[str, Any]
) -> None:
    peer = peers(echo)
    peer.receive()
    peer.send(frames.encode(message))
    answer = peer.receive()
    assert "bug" in answer or answer["failure"]["transient"]
    peer.send(request(2))
    assert peer.receive()["id"] == 2


def test_noise_ends_it(peers: Callable[..., Peer]) -> None:
    peer = peers(echo)
    peer.send(b"GET / HTTP/1.1\r\n\r\n")
    peer.thread.join(LONG)
    assert isinstance(peer.error, frames.FrameError)


def test_what_has_begun_is_finished_when_the_controller_goes(peers: Callable[..., Peer]) -> None:
    begun, finish, finished = threading.Event(), threading.Event(), threading.Event()

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        begun.set()
        finish.wait(LONG)
        finished.set()

    peer = peers(handle)
    peer.send(request(1))
    begun.wait(LONG)
    peer.end_input()
    finish.set()
    peer.thread.join(LONG)
    assert finished.is_set()


def test_it_ends_when_nothing_is_heard(peers: Callable[..., Peer]) -> None:
    peer = peers(echo, silence_seconds=0.05)
    peer.thread.join(LONG)
    assert not peer.thread.is_alive()


def test_a_result_above_the_limit_is_a_bug_not_an_end(
    peers: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = peers(lambda verb, arguments, deadline: "x" * arguments["size"])
    peer.receive()
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 20_000)
    peer.send(request(1, size=20_000))
    assert "limit" in peer.receive()["bug"]
    peer.send(request(2, size=2))
    assert peer.receive()["result"] == "xx"


def test_a_verb_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    script = (
        "import sys, threading\n"
        "from minicloud.hostside import session\n"
        "session.GRACE_SECONDS = 0.2\n"
        "session.Session(0, 1, lambda *a: threading.Event().wait()).run({})\n"
    )
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.communicate(request(1), timeout=LONG)
        assert process.returncode == 1


def test_the_deadline_is_counted_from_arrival(peers: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    # It arrives, waits for a thread, is begun.
    readings = iter([100.0, 103.0])
    monkeypatch.setattr("minicloud.hostside.session.time", types.SimpleNamespace(monotonic=lambda: next(readings)))
    peer = peers(lambda verb, arguments, deadline: deadline)
    peer.receive()
    peer.send(request(1))
    assert peer.receive()["result"] == 110.0
