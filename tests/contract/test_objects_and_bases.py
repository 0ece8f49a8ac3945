"""An image file becomes a snapshot, and a snapshot a base on a host, through real jobs, real HTTP and real qemu-img."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import random
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from support.certificates import make_key, write_certificate, write_key

from minicloud.clock import ManualClock
from minicloud.hostside import codes, files, jobs
from minicloud.hostside.blocks import BLOCK_BYTES
from minicloud.hostside.failures import Failure
from minicloud.model import names
from minicloud.objects.fill import render_fill_arguments
from minicloud.objects.folder import URL_PREFIX, FolderStore
from minicloud.objects.protocol import CorruptSnapshot, MissingSnapshot
from minicloud.objects.serve import objects_app
from minicloud.tls import ServerTls

ONE, TWO = "snap-00000001", "snap-00000002"
MIB = 1024**2


class Machine:
    """A controller and a host on one folder: object store, its HTTP door, and jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = str(folder / "state")
        self.pool = str(folder / "pool")
        self.objects = str(folder / "objects")
        self.store = FolderStore(self.objects)
        self.clock = ManualClock()
        self.url = ""

    def import_arguments(self, path: Path, disk_format: str, snapshot_id: str = ONE, **changes: Any) -> dict[str, Any]:
        return {
            "path": str(path),
            "format": disk_format,
            "object_folder": self.objects,
            "snapshot_id": snapshot_id,
            "max_bytes": 64 * 1024**3,
            "remove_source": False,
            **changes,
        }

    def run(self, name: str, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
        jobs.start(self.state, name, kind, arguments)
        return self.await_end(name)

    def await_end(self, name: str) -> dict[str, Any]:
        return await_that(lambda: (status := jobs.status(self.state, name))["state"] != "running" and status)

    def import_file(self, path: Path, disk_format: str, snapshot_id: str = ONE, **changes: Any) -> dict[str, Any]:
        status = self.run("import", "import_disk", self.import_arguments(path, disk_format, snapshot_id, **changes))
        jobs.clean(self.state, "import")
        assert list(Path(self.objects, "incoming").iterdir()) == []
        return status

    def base(self, snapshot_id: str = ONE) -> str:
        return names.base_path(self.pool, snapshot_id)

    def fill_arguments(self, snapshot_id: str = ONE, seconds: int = 3600) -> dict[str, Any]:
        digest = self.store.read_snapshot(snapshot_id).manifest_digest
        expires_at = self.clock.now_us() // 1_000_000 + seconds
        return render_fill_arguments(self.store, snapshot_id, digest, self.base(snapshot_id), self.url, expires_at)

    def fill(self, snapshot_id: str = ONE, name: str = "fill") -> dict[str, Any]:
        status = self.run(name, "fill_base", self.fill_arguments(snapshot_id))
        jobs.clean(self.state, name)
        return status


def await_that(condition: Callable[[], Any]) -> Any:
    """Poll for what another process does."""
    deadline = time.monotonic() + 240
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@contextlib.contextmanager
def served(app: Starlette, tls: ServerTls | None = None) -> Iterator[str]:
    """Serve an app on a free loopback port; yields its URL."""
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none")
    if tls is not None:
        config.load()
        config.ssl = tls.context
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    with served(Starlette(routes=[Mount(URL_PREFIX, objects_app(made.store, made.clock))])) as url:
        made.url = url
        yield made
        for name in jobs.names(made.state):
            jobs.clean(made.state, name)


def disk(seed: int, mib: int) -> bytes:
    """A disk with random data, zeros, repeated blocks and an odd end."""
    rng = random.Random(seed)
    pieces = [rng.choice([rng.randbytes(MIB), bytes(MIB), b"same" * (MIB // 4)]) for _ in range(mib)]
    return b"".join(pieces) + rng.randbytes(512)


def write_qcow2(folder: Path, content: bytes, *options: str) -> Path:
    raw, image = folder / "source.raw", folder / "image.qcow2"
    raw.write_bytes(content)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, image], check=True)
    return image


# Import and fill, there and back.


@pytest.mark.parametrize("options", [[], ["-c"], ["-o", "extended_l2=on,cluster_size=128k"], ["-o", "compat=0.10"]])
def test_a_qcow2_arrives_on_a_host_as_it_was(machine: Machine, tmp_path: Path, options: list[str]) -> None:
    content = disk(1, 12)
    status = machine.import_file(write_qcow2(tmp_path, content, *options), "qcow2")
    assert status["state"] == "succeeded", status
    result = status["result"]
    assert result["virtual_size_bytes"] == len(content)
    assert result["manifest_digest"] == machine.store.read_snapshot(ONE).manifest_digest
    assert result["blocks"] >= result["new_blocks"] > 0
    filled = machine.fill()
    assert filled["state"] == "succeeded", filled
    base = Path(machine.base())
    assert base.read_bytes() == content
    assert base.stat().st_mode & 0o777 == 0o444
    assert [path.name for path in base.parent.iterdir()] == [base.name]


def test_a_raw_disk_arrives_rounded_up_to_a_sector(machine: Machine, tmp_path: Path) -> None:
    content = disk(2, 3) + b"odd"
    (tmp_path / "disk.raw").write_bytes(content)
    status = machine.import_file(tmp_path / "disk.raw", "raw")
    assert status["result"]["virtual_size_bytes"] == -(-len(content) // 512) * 512
    machine.fill()
    assert Path(machine.base()).read_bytes() == content.ljust(status["result"]["virtual_size_bytes"], b"\0")


def test_holes_stay_holes(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with open(path, "wb") as file:
        file.truncate(8 * 1024**3)
        file.seek(5 * 1024**3 + 7)
        file.write(b"data")
    status = machine.import_file(path, "raw")
    assert (status["result"]["blocks"], status["result"]["new_blocks"]) == (1, 1)
    machine.fill()
    found = Path(machine.base()).stat()
    assert found.st_size == 8 * 1024**3
    assert found.st_blocks * 512 <= 2 * BLOCK_BYTES


def test_an_empty_disk_needs_no_blocks(machine: Machine, tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "empty.qcow2", "1G"], check=True)
    assert machine.import_file(tmp_path / "empty.qcow2", "qcow2")["result"]["blocks"] == 0
    assert machine.fill()["result"] == {"fetched_blocks": 0}
    assert Path(machine.base()).stat().st_size == 1024**3


def test_the_same_content_is_stored_once(machine: Machine, tmp_path: Path) -> None:
    image = write_qcow2(tmp_path, disk(3, 6))
    first = machine.import_file(image, "qcow2", ONE)
    second = machine.import_file(image, "qcow2", TWO)
    assert second["result"] == {**first["result"], "new_blocks": 0}
    machine.store.delete_snapshot(ONE)
    machine.store.verify(TWO)
    machine.store.delete_snapshot(TWO)
    assert list(Path(machine.objects, "blocks").glob("*/*")) == []


def test_importing_again_after_a_lost_reply_gives_the_same(machine: Machine, tmp_path: Path) -> None:
    image = write_qcow2(tmp_path, disk(4, 3))
    first, again = machine.import_file(image, "qcow2"), machine.import_file(image, "qcow2")
    assert again["result"]["manifest_digest"] == first["result"]["manifest_digest"]


# Images that are refused.


@pytest.mark.parametrize("private", [True, False])
def test_a_backing_file_is_refused_and_never_read(machine: Machine, tmp_path: Path, private: bool) -> None:
    image = tmp_path / "image"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", image, "1M"]
    subprocess.run(command, check=True)
    status = machine.import_file(image, "qcow2", remove_source=private)
    assert (status["state"], status["error_code"], status["result"]) == (
        "failed",
        codes.INVALID_IMAGE,
        {"transient": False},
    )
    assert status["error"].startswith("The image has a backing file")
    assert machine.store.list_snapshots() == []


def test_a_folder_that_became_a_link_leads_to_nobodys_file(machine: Machine, tmp_path: Path) -> None:
    secrets, allowed = tmp_path / "secrets", tmp_path / "allowed"
    secrets.mkdir()
    (secrets / "image").write_bytes(b"root's" * 1000)
    allowed.symlink_to(secrets)
    status = machine.import_file(allowed / "image", "raw")
    assert (status["state"], status["error_code"]) == ("failed", codes.INVALID_IMAGE)
    assert machine.store.list_snapshots() == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "regular file"),
        (lambda path: os.mkfifo(path), "regular file"),
        (lambda path: path.symlink_to("/etc/passwd"), "does not exist"),
        (lambda path: path.touch(), "empty"),
        (lambda path: path.write_bytes(b"hello" * 1000), "not qcow2"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(
    machine: Machine, tmp_path: Path, make: Callable[[Path], Any], says: str
) -> None:
    make(tmp_path / "image")
    status = machine.import_file(tmp_path / "image", "qcow2")
    assert status["error_code"] == codes.INVALID_IMAGE
    assert says in status["error"]
    assert str(tmp_path) not in status["error"]


def test_a_disk_above_the_limit_is_refused(machine: Machine, tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "big", "2G"], check=True)
    status = machine.import_file(tmp_path / "big", "qcow2", max_bytes=1024**3)
    assert status["error_code"] == codes.INVALID_IMAGE
    assert "2.0 GiB" in status["error"]


def test_damage_that_only_qemu_sees_is_refused(machine: Machine, tmp_path: Path) -> None:
    """A compressed cluster that does not unpack: headers and tables are fine."""
    image = write_qcow2(tmp_path, random.Random(1).randbytes(MIB // 2) + b"text" * MIB, "-c")
    data = bytearray(image.read_bytes())
    data[-20_000:-512] = random.Random(2).randbytes(20_000 - 512)
    image.write_bytes(data)
    status = machine.import_file(image, "qcow2")
    assert status["state"] == "failed"
    assert status["error_code"] == codes.INVALID_IMAGE


def test_an_image_in_use_is_refused(machine: Machine, tmp_path: Path) -> None:
    image = write_qcow2(tmp_path, disk(5, 1))
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin and writer.stdout
        writer.stdin.write(b"write 0 512\n")
        writer.stdin.flush()
        assert b"wrote" in writer.stdout.readline() + writer.stdout.readline()
        status = machine.import_file(image, "qcow2", remove_source=True)
        writer.stdin.close()
    assert status["error_code"] == codes.INVALID_IMAGE
    assert "another program" in status["error"]


# Jobs that die.


def pid_of(machine: Machine, name: str) -> int:
    found = await_that(lambda: files.read_json(Path(machine.state, "jobs", name, "process.json")))
    return int(found["pid"])


@pytest.mark.parametrize("seed", range(6))
def test_an_import_killed_anywhere_can_be_done_again(machine: Machine, tmp_path: Path, seed: int) -> None:
    content = disk(6, 24)
    image = write_qcow2(tmp_path, content)
    jobs.start(machine.state, "import", "import_disk", machine.import_arguments(image, "qcow2"))
    pid = pid_of(machine, "import")
    time.sleep(random.Random(seed).uniform(0, 0.4))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    status = machine.await_end("import")
    assert status["state"] == "succeeded" or status["error_code"] == codes.JOB_LOST
    jobs.clean(machine.state, "import")
    assert list(Path(machine.objects, "incoming").iterdir()) == []
    if machine.store.list_snapshots():
        machine.store.verify(ONE)
    assert machine.import_file(image, "qcow2")["state"] == "succeeded"
    machine.store.verify(ONE)
    machine.store.collect()
    wanted = {sha256 for _, sha256 in machine.store.read_snapshot(ONE).manifest.blocks}
    assert {path.stem for path in Path(machine.objects, "blocks").glob("*/*")} == wanted


@pytest.mark.parametrize("seed", range(6))
def test_a_fill_killed_anywhere_is_resumed(machine: Machine, tmp_path: Path, seed: int) -> None:
    content = random.Random(seed).randbytes(24 * MIB)
    (tmp_path / "disk.raw").write_bytes(content)
    machine.import_file(tmp_path / "disk.raw", "raw")
    jobs.start(machine.state, "fill", "fill_base", machine.fill_arguments())
    pid = pid_of(machine, "fill")
    part = Path(machine.base() + ".part")
    # Gone between two looks: it is whole, and has its name.
    with contextlib.suppress(AssertionError, FileNotFoundError):
        deadline = time.monotonic() + 1
        while not part.exists() or part.stat().st_blocks < seed * 8000:
            assert time.monotonic() < deadline
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    status = machine.await_end("fill")
    if status["state"] == "failed":
        assert status["error_code"] == codes.JOB_LOST
        assert not Path(machine.base()).exists(), "never a base that is not whole"
        # As after a controller's crash: the job is started anew under another name, on what this one left.
        assert machine.fill(name="fill-2")["result"]["fetched_blocks"] <= 48
    assert Path(machine.base()).read_bytes() == content


def test_a_resumed_fill_fetches_only_what_is_missing_and_mends_what_is_wrong(machine: Machine, tmp_path: Path) -> None:
    content = random.Random(7).randbytes(8 * BLOCK_BYTES)
    (tmp_path / "disk.raw").write_bytes(content)
    machine.import_file(tmp_path / "disk.raw", "raw")
    arguments = machine.fill_arguments()
    Path(machine.base()).parent.mkdir(parents=True)
    part = bytearray(content[: 5 * BLOCK_BYTES].ljust(len(content), b"\0"))
    part[2 * BLOCK_BYTES] ^= 1
    Path(machine.base() + ".part").write_bytes(part)
    assert machine.run("fill", "fill_base", arguments)["result"] == {"fetched_blocks": 4}
    assert Path(machine.base()).read_bytes() == content


def test_leftovers_where_the_disk_has_zeros_do_not_survive(machine: Machine, tmp_path: Path) -> None:
    content = b"\1" * BLOCK_BYTES + bytes(3 * BLOCK_BYTES)
    (tmp_path / "disk.raw").write_bytes(content)
    machine.import_file(tmp_path / "disk.raw", "raw")
    Path(machine.base()).parent.mkdir(parents=True)
    Path(machine.base() + ".part").write_bytes(content[: 2 * BLOCK_BYTES] + b"\2" * 2 * BLOCK_BYTES)
    machine.fill()
    assert Path(machine.base()).read_bytes() == content


def test_two_instances_want_one_base(machine: Machine, tmp_path: Path) -> None:
    content = random.Random(8).randbytes(16 * MIB)
    (tmp_path / "disk.raw").write_bytes(content)
    machine.import_file(tmp_path / "disk.raw", "raw")
    for name in ("fill-a", "fill-b", "fill-c"):
        jobs.start(machine.state, name, "fill_base", machine.fill_arguments())
    fetched = [machine.await_end(name)["result"]["fetched_blocks"] for name in ("fill-a", "fill-b", "fill-c")]
    assert sorted(fetched) == [0, 0, 32]
    assert Path(machine.base()).read_bytes() == content


def test_cleaning_one_of_two_spares_the_other_s_work(machine: Machine, tmp_path: Path) -> None:
    content = random.Random(9).randbytes(4 * MIB)
    (tmp_path / "disk.raw").write_bytes(content)
    machine.import_file(tmp_path / "disk.raw", "raw")
    Path(machine.base()).parent.mkdir(parents=True)
    part = Path(machine.base() + ".part")
    with files.locked(Path(machine.base() + ".lock")):  # Another job is at work.
        part.write_bytes(b"its work")
        jobs.start(machine.state, "waiting", "fill_base", machine.fill_arguments())
        jobs.clean(machine.state, "waiting")
        assert part.read_bytes() == b"its work"
    jobs.start(machine.state, "last", "fill_base", machine.fill_arguments())
    machine.await_end("last")
    part.touch()
    jobs.clean(machine.state, "last")
    assert not part.exists()


# Sources that fail, or lie.


class Hostile(http.server.BaseHTTPRequestHandler):
    """Answers GETs by the script of its server: a list of replies, the last one for ever."""

    protocol_version = "HTTP/1.1"
    script: ClassVar[list[tuple[int, bytes] | None]] = []
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if reply is None:
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            return
        self.send_response(reply[0])
        self.send_header("Content-Length", str(len(reply[1])))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(reply[1])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[tuple[type[Hostile], str]]:
    handler = type("Handler", (Hostile,), {"seen": [], "script": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def one_block(machine: Machine, tmp_path: Path) -> tuple[dict[str, Any], bytes]:
    """Import a disk of one block; return how to fill it and how that block is stored."""
    (tmp_path / "disk.raw").write_bytes(random.Random(10).randbytes(BLOCK_BYTES))
    machine.import_file(tmp_path / "disk.raw", "raw")
    (path,) = Path(machine.objects, "blocks").glob("*/*")
    return machine.fill_arguments(), path.read_bytes()


def test_passing_trouble_is_sat_out(machine: Machine, tmp_path: Path, hostile: tuple[type[Hostile], str]) -> None:
    arguments, stored = one_block(machine, tmp_path)
    handler, url = hostile
    handler.script[:] = [(503, b""), None, (200, b"damaged on the way"), (200, stored)]
    arguments["blocks"][0][2] = f"{url}/block"
    assert machine.run("fill", "fill_base", arguments)["state"] == "succeeded"
    assert len(handler.seen) == 4


@pytest.mark.parametrize(
    ("reply", "code", "transient"),
    [
        ((503, b""), codes.UNAVAILABLE, True),
        ((403, b""), codes.UNAVAILABLE, True),
        ((302, b""), codes.UNAVAILABLE, True),
        (None, codes.UNAVAILABLE, True),
        ((404, b""), codes.CORRUPT_BLOCK, False),
        ((200, b"not a block"), codes.CORRUPT_BLOCK, False),
        ((200, b"x" * 3 * MIB), codes.CORRUPT_BLOCK, False),
    ],
)
def test_lasting_trouble_fails_and_writes_nothing(
    machine: Machine,
    tmp_path: Path,
    hostile: tuple[type[Hostile], str],
    reply: tuple[int, bytes] | None,
    code: str,
    transient: bool,
) -> None:
    arguments, _ = one_block(machine, tmp_path)
    handler, url = hostile
    handler.script[:] = [reply]
    arguments["blocks"][0][2] = f"{url}/block"
    status = machine.run("fill", "fill_base", arguments)
    assert (status["state"], status["error_code"], status["result"]) == ("failed", code, {"transient": transient})
    assert not Path(machine.base()).exists()
    assert Path(machine.base() + ".part").stat().st_blocks == 0
    jobs.clean(machine.state, "fill")
    assert list(Path(machine.pool, "bases").iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc/passwd", "http:///x", "nonsense"])
def test_urls_that_are_none_are_refused(machine: Machine, tmp_path: Path, url: str) -> None:
    arguments, _ = one_block(machine, tmp_path)
    arguments["blocks"][0][2] = url
    assert machine.run("fill", "fill_base", arguments)["error_code"] == codes.INTERNAL


def test_nobody_listening_is_transient(machine: Machine, tmp_path: Path) -> None:
    arguments, _ = one_block(machine, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments["blocks"][0][2] = f"http://127.0.0.1:{port}/x"
    status = machine.run("fill", "fill_base", arguments)
    assert (status["error_code"], status["result"]) == (codes.UNAVAILABLE, {"transient": True})


# TLS.


@pytest.fixture
def secured(machine: Machine, tmp_path: Path) -> Iterator[ServerTls]:
    """The machine's endpoint at https, with a certificate that nobody but itself vouches for, and for another name."""
    certificate, key_file, key = tmp_path / "certificate.pem", tmp_path / "key.pem", make_key()
    write_certificate(certificate, key)
    write_key(key_file, key)
    tls = ServerTls(str(certificate), str(key_file), "minicloud.yaml")
    app = Starlette(routes=[Mount(URL_PREFIX, objects_app(machine.store, machine.clock))])
    with served(app, tls) as url:
        machine.url = url.replace("127.0.0.1", "localhost")
        yield tls


def test_blocks_come_from_the_server_that_has_the_certificate(
    machine: Machine, secured: ServerTls, tmp_path: Path
) -> None:
    arguments, _ = one_block(machine, tmp_path)
    arguments["certificate_sha256"] = secured.certificate_sha256
    assert arguments["blocks"][0][2].startswith("https://localhost:")
    assert machine.run("fill", "fill_base", arguments)["state"] == "succeeded"
    assert Path(machine.base()).read_bytes() == (tmp_path / "disk.raw").read_bytes()


@pytest.mark.parametrize("pin", [None, "ab" * 32], ids=["nobody vouches for it", "another"])
def test_blocks_come_from_no_other_server(
    machine: Machine, secured: ServerTls, tmp_path: Path, pin: str | None
) -> None:
    arguments, _ = one_block(machine, tmp_path)
    arguments["certificate_sha256"] = pin
    status = machine.run("fill", "fill_base", arguments)
    assert (status["error_code"], status["result"]) == (codes.UNAVAILABLE, {"transient": True})
    assert "certificate" in status["error"]


@pytest.mark.parametrize("pin", ["", "AB" * 32, 5])
def test_a_pin_is_the_digest_of_a_certificate(machine: Machine, tmp_path: Path, pin: object) -> None:
    arguments, _ = one_block(machine, tmp_path)
    arguments["certificate_sha256"] = pin
    with pytest.raises(Failure, match="not the digest of a certificate"):
        jobs.start(machine.state, "fill", "fill_base", arguments)


# Space.


@contextlib.contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_for_a_base(machine: Machine, tmp_path: Path) -> None:
    arguments, _ = one_block(machine, tmp_path)
    with file_size_limit(100_000):
        status = machine.run("fill", "fill_base", arguments)
    assert (status["error_code"], status["result"]) == (codes.NO_SPACE, {"transient": False})


def test_no_room_for_blocks(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(random.Random(11).randbytes(MIB))
    with file_size_limit(100_000):
        status = machine.import_file(tmp_path / "disk.raw", "raw")
    assert status["error_code"] == codes.NO_SPACE
    assert machine.store.list_snapshots() == []
    machine.store.collect()
    assert list(Path(machine.objects, "blocks").glob("*/*")) == list(Path(machine.objects, "tmp").iterdir()) == []


# The store's own promises, and its door.


def get(url: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def test_the_door_admits_what_was_signed_until_it_expires(machine: Machine, tmp_path: Path) -> None:
    _, stored = one_block(machine, tmp_path)
    (sha256,) = {sha256 for _, sha256 in machine.store.read_snapshot(ONE).manifest.blocks}
    key = f"blocks/{sha256[:2]}/{sha256}.zst"
    now = machine.clock.now_us() // 1_000_000
    path = machine.store.sign_get(key, now + 60)
    assert get(machine.url, path) == (200, stored)
    forged = [
        path.replace(key, f"blocks/{'0' * 2}/{'0' * 64}.zst"),
        path.replace(f"expires={now + 60}", f"expires={now + 6000}"),
        path[:-1] + ("0" if path[-1] != "0" else "1"),
        path.split("&")[0],
        path.split("?")[0],
        path.replace(f"expires={now + 60}", "expires=-1"),
        path.replace(f"expires={now + 60}", "expires=" + "9" * 5000),
        path.replace(f"expires={now + 60}", "expires=%C2%B2"),
        path.replace("signature=", "signature=%FF"),
        f"{URL_PREFIX}/secret?{path.split('?')[1]}",
        f"{URL_PREFIX}/../secret?{path.split('?')[1]}",
        f"{URL_PREFIX}/blocks/../secret?{path.split('?')[1]}",
    ]
    for attempt in forged:
        assert get(machine.url, attempt) == (403, b""), attempt
    assert get(machine.url, path, "DELETE")[0] == 405
    machine.clock.advance(59)
    assert get(machine.url, path)[0] == 200
    machine.clock.advance(1)
    assert get(machine.url, path) == (403, b"")


def test_what_was_signed_and_is_gone_is_not_found(machine: Machine, tmp_path: Path) -> None:
    one_block(machine, tmp_path)
    url = machine.fill_arguments()["blocks"][0][2]
    machine.store.delete_snapshot(ONE)
    assert get(machine.url, url.removeprefix(machine.url)) == (404, b"")


def test_a_manifest_that_was_exchanged_is_not_filled_from(machine: Machine, tmp_path: Path) -> None:
    one_block(machine, tmp_path)
    with pytest.raises(CorruptSnapshot, match="digest"):
        render_fill_arguments(machine.store, ONE, "0" * 64, machine.base(), machine.url, 0)
    with pytest.raises(MissingSnapshot):
        render_fill_arguments(machine.store, TWO, "0" * 64, machine.base(), machine.url, 0)
