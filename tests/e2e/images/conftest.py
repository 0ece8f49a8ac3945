"""Boots a guest image under plain QEMU, with a metadata service of the test's own. No libvirt, no lab, no root.

Owns the QEMU process, its QMP socket and the metadata server; a test gets them as the `raw_guest` fixture. QEMU's user
network is laid over 169.254.0.0/16, so that 169.254.169.254 is an address it can forward to the test's server.
"""

import contextlib
import http.server
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# Only a failing test takes so long: an emulated guest on a busy machine takes its time.
SAFETY_SECONDS = 300.0
PRESS_SECONDS = 20.0
MetadataTree = dict[str, "str | bytes | MetadataTree"]


class MetadataServer:
    """What the guest finds at 169.254.169.254: the tree below /latest, version 2 with tokens only."""

    def __init__(self, tree: MetadataTree) -> None:
        self.tree = tree
        self.requests: list[str] = []
        # Token requests to answer 503 before the service is there.
        self.unready_answers = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self) -> None:
                outer.requests.append(f"PUT {self.path}")
                if outer.unready_answers > 0:
                    outer.unready_answers -= 1
                    return self._answer(503, b"")
                ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                if self.path != "/latest/api/token" or not ttl:
                    return self._answer(400, b"")
                return self._answer(200, b"token-of-this-test")

            def do_GET(self) -> None:
                outer.requests.append(f"GET {self.path}")
                if self.headers.get("X-aws-ec2-metadata-token") != "token-of-this-test":
                    return self._answer(401, b"")
                found = outer.find(self.path)
                return self._answer(404, b"") if found is None else self._answer(200, found)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def find(self, path: str) -> bytes | None:
        """The body at /VERSION/PATH: a leaf, or a folder's listing; None when there is nothing."""
        node: str | bytes | MetadataTree = self.tree
        for part in path.strip("/").split("/")[1:]:
            if not isinstance(node, dict) or part not in node:
                return None
            node = node[part]
        if isinstance(node, dict):
            if "" in node:
                listing = node[""]
                assert isinstance(listing, str)
                return listing.encode()
            return "\n".join(name + "/" * isinstance(child, dict) for name, child in node.items()).encode()
        return node.encode() if isinstance(node, str) else node

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def build_image(name: str) -> Path:
    """The image's path, built now if no build of this recipe is cached."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "images" / "build"), name],
        stdout=subprocess.PIPE, check=True, timeout=1800,
    )  # fmt: skip
    return Path(done.stdout.decode().splitlines()[-1])


class Qmp:
    """QEMU's control socket; events that arrive meanwhile are kept for `wait_event`."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SAFETY_SECONDS)
        deadline = time.monotonic() + SAFETY_SECONDS
        while True:
            try:
                self._socket.connect(str(path))
                break
            except ConnectionRefusedError:
                # Its file is there a moment before anybody listens.
                assert time.monotonic() < deadline
        self._stream = self._socket.makefile("rw")
        self.events: list[dict[str, Any]] = []
        self._read()
        self("qmp_capabilities")

    def _read(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise ConnectionError("QEMU closed its control socket")
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message

    def __call__(self, command: str, **arguments: Any) -> Any:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            message = self._read()
            if "error" in message:
                raise RuntimeError(f"{command}: {message['error']}")
            if "return" in message:
                return message["return"]

    def wait_event(self, name: str) -> dict[str, Any]:
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            self._read()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class RawGuest:
    """One QEMU process on an overlay of an image, and the means to look into it."""

    folder: Path
    image: Path
    metadata: MetadataServer
    user: str = "root"
    memory_mib: int = 256
    disk_gib: int = 1
    uuid: str = "ec2a0b1c-1111-4222-8333-444455556666"
    ssh_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    qmp: Qmp | None = None
    started: float = 0.0

    def __post_init__(self) -> None:
        self.disk = self.folder / "root.qcow2"
        self.console_file = self.folder / "console.log"
        self.key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(self.key)], check=True)
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(self.image), str(self.disk),
             f"{self.disk_gib}G"],
            check=True,
        )  # fmt: skip

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()

    def argv(self) -> list[str]:
        relay = f"{shutil.which('busybox')} nc 127.0.0.1 {self.metadata.port}"
        smbios = f"type=1,manufacturer=Amazon EC2,product=t3.nano,uuid={self.uuid},serial={self.uuid}"
        return [
            "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,tb-size=64", "-cpu", "max",
            "-m", str(self.memory_mib), "-nodefaults", "-display", "none", "-smbios", smbios,
            "-serial", f"file:{self.console_file}",
            "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
            "-device", "pcie-root-port,id=port0,bus=pcie.0,chassis=1",
            "-device", "pcie-root-port,id=port1,bus=pcie.0,chassis=2",
            "-device", "pcie-root-port,id=port2,bus=pcie.0,chassis=3",
            "-device", "pcie-root-port,id=port3,bus=pcie.0,chassis=4",
            "-drive", f"file={self.disk},format=qcow2,if=none,id=root,cache=unsafe",
            "-device", "virtio-blk-pci,bus=port0,drive=root,serial=vol00000000000000001,bootindex=1",
            "-netdev",
            "user,id=net0,net=169.254.0.0/16,dhcpstart=169.254.10.15"
            f",hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22,guestfwd=tcp:169.254.169.254:80-cmd:{relay}",
            "-device", "virtio-net-pci,bus=port1,netdev=net0,mac=06:00:00:00:00:01,romfile=",
            "-device", "virtio-rng-pci,bus=port2",
        ]  # fmt: skip

    def start(self, *extra: str) -> None:
        assert self.process is None
        self.started = time.monotonic()
        self.process = subprocess.Popen([*self.argv(), *extra])
        path = self.folder / "qmp"
        self.wait(lambda: path.exists(), "QEMU's control socket", SAFETY_SECONDS)
        self.qmp = Qmp(path)

    def wait(self, condition: Callable[[], object], what: str, timeout_seconds: float) -> Any:
        """Poll a condition nothing announces; fails with the console's end, so the reason is in the report."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if result := condition():
                return result
            if self.process and self.process.poll() is not None:
                break
            select.select([], [], [], 0.02)
        raise AssertionError(f"no {what} within {timeout_seconds} s; console:\n{self.console()[-3000:]}")

    def console(self) -> str:
        return self.console_file.read_bytes().decode(errors="replace") if self.console_file.exists() else ""

    def wait_console(self, text: str, timeout_seconds: float = SAFETY_SECONDS) -> None:
        self.wait(lambda: text in self.console(), f"{text!r} on the console", timeout_seconds)

    def wait_ssh(self, timeout_seconds: float = SAFETY_SECONDS) -> float:
        """Wait for the SSH server's greeting; returns seconds since QEMU was started."""

        def greeted() -> bool:
            # QEMU accepts at once and tries towards the guest once a second: while a guest boots, a new try is sooner.
            # A large guest needs time to answer, and its sshd turns away who asks too often: patience grows.
            patience_seconds = min(5.0, max(0.1, 0.1 * (time.monotonic() - self.started)))
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ssh_port), 1) as probe:
                probe.settimeout(patience_seconds)
                if probe.recv(4) == b"SSH-":
                    return True
            select.select([], [], [], patience_seconds / 10)
            return False

        self.wait(greeted, "SSH greeting", timeout_seconds)
        return time.monotonic() - self.started

    def ssh(self, command: str, *, user: str | None = None, timeout_seconds: float = SAFETY_SECONDS) -> str:
        """Run a command in the guest; returns what it printed, fails if it failed."""
        done = subprocess.run(
            ["ssh", "-q", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
             "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", str(self.key), "-p", str(self.ssh_port),
             f"{user or self.user}@127.0.0.1", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_seconds,
            check=False,
        )  # fmt: skip
        text = done.stdout.decode(errors="replace").strip()
        assert done.returncode == 0, f"{command!r} gave {done.returncode}: {text}\n{self.console()[-2000:]}"
        return text

    def plug_disk(self, port: str, name: str, serial: str, size_mib: int = 16) -> None:
        """Attach a new raw disk to a root port of the running machine."""
        assert self.qmp
        path = self.folder / f"{name}.raw"
        if not path.exists():
            with path.open("wb") as stream:
                stream.truncate(size_mib * 1024 * 1024)
        self.qmp("blockdev-add", driver="raw", **{"node-name": name}, file={"driver": "file", "filename": str(path)})
        self.qmp("device_add", driver="virtio-blk-pci", id=f"dev-{name}", drive=name, bus=port, serial=serial)

    def unplug_disk(self, name: str) -> None:
        """Detach a disk and wait until the guest has let go of it."""
        assert self.qmp
        self.qmp("device_del", id=f"dev-{name}")
        while self.qmp.wait_event("DEVICE_DELETED").get("data", {}).get("device") != f"dev-{name}":
            pass
        self.qmp("blockdev-del", **{"node-name": name})

    def power_down(self) -> int:
        """Press the power button until the guest has ended: it may only just have begun to listen."""
        assert self.qmp
        deadline = time.monotonic() + SAFETY_SECONDS
        while True:
            with contextlib.suppress(ConnectionError):
                self.qmp("system_powerdown")
            try:
                return self.wait_exit(PRESS_SECONDS)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, self.console()[-2000:]

    def wait_exit(self, timeout_seconds: float = SAFETY_SECONDS) -> int:
        assert self.process and self.qmp
        status = self.process.wait(timeout_seconds)
        self.qmp.close()
        (self.folder / "qmp").unlink(missing_ok=True)
        self.process = self.qmp = None
        return status

    def close(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.wait_exit()


def render_metadata(public_key: str, user_data: bytes | None) -> MetadataTree:
    """A small but complete tree: what cloud-init crawls must answer at every leaf."""
    mac = "06:00:00:00:00:01"
    interface: MetadataTree = {
        "device-number": "0", "interface-id": "eni-0123456789abcdef0", "local-hostname": "ip-169-254-10-15",
        "local-ipv4s": "169.254.10.15", "mac": mac, "owner-id": "000000000000", "subnet-id": "subnet-1",
        "subnet-ipv4-cidr-block": "169.254.0.0/16", "vpc-id": "vpc-1", "vpc-ipv4-cidr-block": "169.254.0.0/16",
        "vpc-ipv4-cidr-blocks": "169.254.0.0/16",
    }  # fmt: skip
    document = {"instanceId": "i-0123456789abcdef0", "region": "lab-1", "availabilityZone": "lab-1a"}
    tree: MetadataTree = {
        "meta-data": {
            "ami-id": "ami-1", "hostname": "ip-169-254-10-15", "instance-id": "i-0123456789abcdef0",
            "instance-type": "t3.nano", "local-hostname": "ip-169-254-10-15", "local-ipv4": "169.254.10.15",
            "mac": mac, "placement": {"availability-zone": "lab-1a", "region": "lab-1"},
            "network": {"interfaces": {"macs": {mac: interface}}},
            "public-keys": {"": "0=test", "0": {"openssh-key": public_key}},
        },
        "dynamic": {"instance-identity": {"document": json.dumps(document)}},
        "api": {},
    }  # fmt: skip
    if user_data is not None:
        tree["user-data"] = user_data
    return tree


@pytest.fixture(scope="session")
def image_builder() -> Callable[[str], Path]:
    return build_image


@pytest.fixture
def make_guest(tmp_path: Path) -> Iterator[Callable[..., RawGuest]]:
    """make_guest(image, user_data=..., **RawGuest fields): a guest not yet started, ended after the test."""
    with contextlib.ExitStack() as stack:

        def make(image: Path, user_data: bytes | None = None, **fields: Any) -> RawGuest:
            server = MetadataServer({})
            stack.callback(server.close)
            guest = RawGuest(tmp_path, image, server, **fields)
            server.tree = render_metadata(guest.public_key, user_data)
            stack.callback(guest.close)
            return guest

        yield make


__all__ = ["MetadataServer", "RawGuest", "build_image", "render_metadata"]
