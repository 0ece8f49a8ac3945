"""A daemon's door made of canned answers, on a real unix socket."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from minicloud.cli.main import cli

Answer = Callable[[dict[str, Any]], Any]


class FakeDoor:
    """Answers operations by name; remembers what was asked, in order."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.uploads: list[bytes] = []

    def on(self, operation: str, answer: Any) -> None:
        """Answer an operation with a document, or with what a function of the parameters returns."""
        self.answers[operation] = answer if callable(answer) else lambda _parameters: answer

    def refuse(self, operation: str, code: str, message: str) -> None:
        """Answer an operation with an error."""
        self.answers[operation] = lambda _parameters: (code, message)

    def parameters(self, operation: str) -> dict[str, Any]:
        """Return the parameters of the last call of an operation."""
        return [asked for name, asked in self.asked if name == operation][-1]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def door(tmp_path: Path) -> Iterator[FakeDoor]:
    fake = FakeDoor(tmp_path / "door.sock")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

        def address_string(self) -> str:
            return "unix"

        def do_PUT(self) -> None:
            fake.uploads.append(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(200, {"Url": "file:///spool/upload"})

        def do_POST(self) -> None:
            parameters = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            operation = self.path.rpartition("/")[2]
            fake.asked.append((operation, parameters))
            answer = fake.answers[operation](parameters) if operation in fake.answers else ("InvalidAction", operation)
            if isinstance(answer, tuple):
                self._answer(400, {"Error": {"Code": answer[0], "Message": answer[1]}, "RequestId": "r-1"})
            else:
                self._answer(200, answer)

        def _answer(self, status: int, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with _Server(str(fake.socket_path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture
def run(door: FakeDoor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run `minicloud ARGUMENTS…` against the fake door, with a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["--socket", str(door.socket_path), *arguments], catch_exceptions=False)

    return invoke
