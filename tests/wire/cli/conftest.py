"""The command line against a real door on a real unix socket, over a cloud in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result
from support import front as build

from minicloud.api.door import create_door
from minicloud.api.operations import load_served_catalog
from minicloud.cli.main import cli
from minicloud.listen import PeerCredentialsProtocol


@pytest.fixture(scope="session")
def catalog() -> Any:
    return load_served_catalog()


@pytest.fixture
def front(catalog: Any, tmp_path: Path) -> build.Front:
    return build.build_front(catalog, tmp_path)


@pytest.fixture
def socket_path(front: build.Front, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "door.sock"
    config = uvicorn.Config(
        create_door(front.services),
        uds=str(path),
        http=PeerCredentialsProtocol,
        lifespan="off",
        ws="none",
        log_config=None,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    startup: Callable[..., Any] = server.startup

    async def announce(sockets: Any = None) -> None:
        await startup(sockets=sockets)
        started.set()

    server.startup = announce  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    assert started.wait(60)
    yield path
    server.should_exit = True
    thread.join(60)


@pytest.fixture
def run(socket_path: Path) -> Callable[..., Result]:
    """Run `minicloud ARGUMENTS…`."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["--socket", str(socket_path), *arguments], input=stdin, catch_exceptions=False)

    return invoke
