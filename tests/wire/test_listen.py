"""The signed endpoint's connections are bounded: strangers can take neither all of it nor the daemon's descriptors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from minicloud import listen

SECONDS = 10.0
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answer(request: Request) -> Response:
    if request.url.path == "/slow":
        await asyncio.sleep(20 * listen.IDLE_SECONDS)
    return Response(b"here")


@asynccontextmanager
async def served() -> AsyncIterator[Callable[[], Awaitable[Link]]]:
    config = uvicorn.Config(
        Starlette(routes=[Route("/{path:path}", answer)]),
        http=listen.BoundedProtocol,
        lifespan="off",
        log_config=None,
        timeout_keep_alive=60,
    )
    config.load()
    state = uvicorn.server.ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: listen.BoundedProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    links: list[Link] = []

    async def connect() -> Link:
        link = await asyncio.open_connection(*server.sockets[0].getsockname())
        links.append(link)
        return link

    try:
        yield connect
    finally:
        for _, writer in links:
            writer.close()
        server.close()


async def ended(link: Link) -> None:
    try:
        assert await asyncio.wait_for(link[0].read(), SECONDS) == b""
    except ConnectionError:
        pass


async def asked(link: Link) -> bytes:
    link[1].write(GET)
    head = await asyncio.wait_for(link[0].readuntil(b"\r\n\r\n"), SECONDS)
    return head + await asyncio.wait_for(link[0].readexactly(4), SECONDS)


@pytest.mark.parametrize("bound", ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS"])
def test_connections_beyond_the_bound_are_ended(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(listen, bound, 2)

    async def story() -> None:
        async with served() as connect:
            first, second = await connect(), await connect()
            assert (await asked(first)).endswith(b"here")
            await ended(await connect())
            assert (await asked(second)).endswith(b"here")
            first[1].close()
            await first[1].wait_closed()
            while True:
                try:
                    assert (await asked(await connect())).endswith(b"here")
                    return
                except (ConnectionError, asyncio.IncompleteReadError):
                    await asyncio.sleep(0)  # the server has not noticed yet that the first one went

    asyncio.run(asyncio.wait_for(story(), SECONDS))


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:", GET + b"GET / HT"])
def test_who_never_finishes_a_request_is_sent_away(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(listen, "IDLE_SECONDS", 0.1)

    async def story() -> None:
        async with served() as connect:
            link = await connect()
            link[1].write(sent)
            got = await asyncio.wait_for(link[0].read(), SECONDS)
            assert got.endswith(b"here") if sent.startswith(GET) else got == b""

    asyncio.run(story())


def test_a_request_that_takes_long_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "IDLE_SECONDS", 0.01)

    async def story() -> None:
        async with served() as connect:
            link = await connect()
            link[1].write(GET.replace(b"/ ", b"/slow ", 1))
            assert (await asyncio.wait_for(link[0].read(), SECONDS)).endswith(b"here")

    asyncio.run(story())
