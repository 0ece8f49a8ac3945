"""The signed endpoint's sockets. Its connections are bounded: strangers can take neither all of it nor the daemon's
descriptors. With a certificate it speaks TLS and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import botocore.session
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support import front as build
from support.certificates import make_key, write_certificate, write_key

from minicloud import listen
from minicloud.api.operations import load_served_catalog
from minicloud.aws.models import Catalog
from minicloud.config import Config
from minicloud.tls import ServerTls

SECONDS = 60.0
# Long enough for a request that was sent to arrive at a busy machine.
IDLE_SECONDS = 0.5
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answer(request: Request) -> Response:
    if request.url.path == "/slow":
        await asyncio.sleep(4 * listen.IDLE_SECONDS)
    return Response(b"here")


@asynccontextmanager
async def served(tls: ServerTls | None = None) -> AsyncIterator[Callable[[], Awaitable[Link]]]:
    """Serve `answer`; yields what opens a connection, of TCP alone."""
    config = uvicorn.Config(
        Starlette(routes=[Route("/{path:path}", answer)]),
        http=listen.BoundedProtocol,
        lifespan="off",
        log_config=None,
        timeout_keep_alive=60,
    )
    config.load()
    state = uvicorn.server.ServerState()
    listener = listen._tcp_socket("127.0.0.1", 0)
    server = await asyncio.get_running_loop().create_server(
        lambda: listen.BoundedProtocol(config=config, server_state=state, app_state={}),
        sock=listener,
        ssl=tls.context if tls is not None else None,
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
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        server.close()
        # The server's ends, too: what the loop leaves open is a warning in whatever test comes next.
        async with asyncio.timeout(SECONDS):
            while any(connection.fileno() != -1 for connection, _ in listener._accepted):
                await asyncio.sleep(0)


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
    monkeypatch.setattr(listen, "IDLE_SECONDS", IDLE_SECONDS)

    async def story() -> None:
        async with served() as connect:
            link = await connect()
            link[1].write(sent)
            got = await asyncio.wait_for(link[0].read(), SECONDS)
            assert got.endswith(b"here") if sent.startswith(GET) else got == b""

    asyncio.run(story())


def test_a_request_that_takes_long_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "IDLE_SECONDS", IDLE_SECONDS)

    async def story() -> None:
        async with served() as connect:
            link = await connect()
            link[1].write(GET.replace(b"/ ", b"/slow ", 1))
            assert (await asyncio.wait_for(link[0].read(), SECONDS)).endswith(b"here")

    asyncio.run(story())


@pytest.fixture
def tls(tmp_path: Path) -> ServerTls:
    key = make_key("ec")
    write_certificate(tmp_path / "certificate.pem", key)
    write_key(tmp_path / "key.pem", key)
    return ServerTls(str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem"), "minicloud.yaml")


def test_who_greets_for_ever_is_counted(monkeypatch: pytest.MonkeyPatch, tls: ServerTls) -> None:
    monkeypatch.setattr(listen, "MAX_CONNECTIONS", 2)

    async def story() -> None:
        async with served(tls) as connect:
            # Neither of the first two says a word of TLS.
            await connect()
            await connect()
            await ended(await connect())

    asyncio.run(asyncio.wait_for(story(), SECONDS))


class Daemon:
    """`listen` with a front door behind it, in this process; SIGTERM ends it."""

    def __init__(self, folder: Path, catalog: Catalog, tls: ServerTls) -> None:
        # Bound and not listening: nobody else gets the port, and who asks is refused until the daemon listens there.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        front = build.build_front(catalog)
        app = build.endpoint_of(front)
        self._doors = listen.Doors(endpoint=app, door=app)
        self._config = Config(listen_port=self.port, socket_path=str(folder / "minicloud.sock"), tls_certificate="/c")
        self._tls = tls
        root = front.cloud.store.read(lambda tx: tx.access_keys.where())[0]
        self.key = {"aws_access_key_id": root.id, "aws_secret_access_key": root.secret}
        self.url = self._config.endpoint_url

    def close(self) -> None:
        self._held.close()

    def tell(self, story: Callable[[], None]) -> None:
        """Serve while `story` runs in a thread."""

        async def run() -> None:
            serving = asyncio.create_task(listen.listen(self._config, self._doors, self._tls))
            try:
                while not serving.done():
                    with contextlib.suppress(ConnectionRefusedError):
                        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                        writer.close()
                        break
                    await asyncio.sleep(0)
                else:
                    await serving
                await asyncio.to_thread(story)
            finally:
                if not serving.done():
                    os.kill(os.getpid(), signal.SIGTERM)
                await serving

        asyncio.run(asyncio.wait_for(run(), 6 * SECONDS))

    def client(self, verify: str | bool) -> Any:
        return boto3.Session(botocore_session=botocore.session.Session()).client(
            "ec2",
            region_name=build.REGION,
            endpoint_url=self.url,
            verify=verify,
            config=botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=120),
            **self.key,
        )

    def shown(self, **versions: Any) -> str:
        """Shake hands; return the fingerprint of the certificate that is shown."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for name, value in versions.items():
            setattr(context, name, value)
        with (
            socket.create_connection(("127.0.0.1", self.port), SECONDS) as plain,
            context.wrap_socket(plain) as secured,
        ):
            return hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_served_catalog()


@pytest.fixture
def daemon(tmp_path: Path, catalog: Catalog, tls: ServerTls) -> Iterator[Daemon]:
    with contextlib.closing(Daemon(tmp_path, catalog, tls)) as daemon:
        yield daemon


def test_clients_speak_tls_with_the_certificate_as_their_bundle(tmp_path: Path, daemon: Daemon) -> None:
    assert daemon.url == f"https://127.0.0.1:{daemon.port}"

    def story() -> None:
        trusting = daemon.client(str(tmp_path / "certificate.pem"))
        with contextlib.closing(trusting):
            assert trusting.describe_regions()["Regions"][0]["RegionName"] == build.REGION
        other = tmp_path / "other.pem"
        write_certificate(other, make_key())
        doubting = daemon.client(str(other))
        with contextlib.closing(doubting), pytest.raises(botocore.exceptions.SSLError):
            doubting.describe_regions()

    daemon.tell(story)


def test_neither_plain_http_nor_old_tls_is_answered(daemon: Daemon, tls: ServerTls) -> None:
    def story() -> None:
        plain = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=SECONDS)
        with contextlib.closing(plain):
            plain.request("GET", "/")
            with pytest.raises((http.client.HTTPException, OSError)):
                plain.getresponse()
        assert daemon.shown(maximum_version=ssl.TLSVersion.TLSv1_2) == tls.certificate_sha256
        assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2

    daemon.tell(story)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_hangup_signal_brings_the_new_certificate(
    tmp_path: Path, daemon: Daemon, tls: ServerTls, version: ssl.TLSVersion
) -> None:
    old = tls.certificate_sha256

    def story() -> None:
        assert daemon.shown(maximum_version=version) == old
        key = make_key("rsa")  # of another kind: a client could be shown either if the old one were still there
        write_certificate(tmp_path / "certificate.pem", key)
        write_key(tmp_path / "key.pem", key)
        os.kill(os.getpid(), signal.SIGHUP)
        deadline = time.monotonic() + SECONDS
        while tls.certificate_sha256 == old:
            assert time.monotonic() < deadline
            os.sched_yield()
        assert daemon.shown(maximum_version=version) == tls.certificate_sha256
        with contextlib.closing(daemon.client(str(tmp_path / "certificate.pem"))) as client:
            assert client.describe_regions()["Regions"]

    daemon.tell(story)
