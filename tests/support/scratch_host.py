"""A host made of namespaces for tests of minicloud/hostside: no libvirt, network and processes for real.

Guests are namespaces whose link's other end bears a tap's name and sits, isolated, on the subnet's bridge: where
libvirt would put a tap. "Outside" is a namespace on the host's uplink, with the host as a neighbour. Needs root.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
UPLINK_NETWORK = "192.0.2"
HOST_IP, OUTSIDE_IP = f"{UPLINK_NETWORK}.2", f"{UPLINK_NETWORK}.1"

_INIT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/guest
ip link set lo up
ip netns add outside
ip link add up0 type veth peer name eth0 netns outside
ip addr add {host}/24 dev up0
ip link set up0 up
ip -n outside addr add {outside}/24 dev eth0
ip -n outside link set eth0 up
ip -n outside link set lo up
ip route add default via {outside}
echo nameserver {outside} > /run/resolv.conf
mount --bind /run/resolv.conf "$(realpath /etc/resolv.conf)"
echo ready
exec 0</dev/null 1>/dev/null
while :; do sleep 1000 & wait; done
"""

_DRIVER = """
import importlib, json, sys, time
sys.path.insert(0, sys.argv[1])
from minicloud.hostside.failures import Failure
for line in sys.stdin:
    module, function, arguments = json.loads(line)
    started = time.perf_counter()
    try:
        work = getattr(importlib.import_module("minicloud.hostside." + module), function)
        answer = {"result": work(*arguments)}
    except Failure as failure:
        answer = {"failure": [failure.code, failure.detail, failure.transient]}
    answer["seconds"] = time.perf_counter() - started
    print(json.dumps(answer, default=lambda value: value.hex()), flush=True)
"""


_PROCESSES = """
import os
for entry in os.listdir("/proc"):
    if entry.isdigit():
        try:
            words = open(f"/proc/{entry}/cmdline").read().replace("\\0", " ").replace("\\n", " ").strip()
            parent = open(f"/proc/{entry}/stat").read().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if words:
            print(entry, parent, words)
"""


class HostFailure(Exception):
    """A verb raised a Failure on the scratch host."""

    def __init__(self, code: str, detail: str, transient: bool) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.transient = transient


class ScratchHost:
    """One host. `folder` is its state folder; `seconds` how long the last call took on the host itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 0.0
        self._started: list[subprocess.Popen[str]] = []
        script = _INIT.format(host=HOST_IP, outside=OUTSIDE_IP)
        flags = ["-n", "-m", "-p", "-u", "--fork", "--kill-child", "--mount-proc"]
        self._unshare = subprocess.Popen(["unshare", *flags, "sh", "-c", script], stdout=subprocess.PIPE)
        assert self._unshare.stdout is not None
        assert self._unshare.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        self._enter = ["nsenter", "-t", children[0], "-n", "-m", "-p", "-u"]
        self._driver = self._start_driver()

    def _start_driver(self) -> subprocess.Popen[str]:
        argv = [*self._enter, "--", sys.executable, "-c", _DRIVER, str(ROOT)]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def call(self, module: str, function: str, *arguments: Any) -> Any:
        """Call a function of minicloud.hostside in one lasting process on the host, as a session does."""
        assert self._driver.stdin is not None and self._driver.stdout is not None
        self._driver.stdin.write(json.dumps([module, function, arguments]) + "\n")
        self._driver.stdin.flush()
        line = self._driver.stdout.readline()
        assert line, "the driver died"
        answer = json.loads(line)
        self.seconds = answer["seconds"]
        if "failure" in answer:
            raise HostFailure(*answer["failure"])
        return answer["result"]

    def ensure(self, *plans: dict[str, Any]) -> None:
        """network.ensure_ports."""
        self.call("network", "ensure_ports", list(plans), str(self.folder))

    def remove(self, *plans: dict[str, Any]) -> None:
        """network.ensure_no_ports."""
        self.call("network", "ensure_no_ports", [plan["id"] for plan in plans], str(self.folder))

    def restore(self) -> None:
        """supervisor.restore."""
        self.call("supervisor", "restore", str(self.folder))

    def run(
        self, *argv: str, netns: str | None = None, check: bool = True, timeout: float = 180, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host, or in one of its network namespaces."""
        inside = ["ip", "netns", "exec", netns] if netns else []
        result = subprocess.run(
            [*self._enter, "--", *inside, *argv], capture_output=True, text=True, timeout=timeout, input=stdin
        )
        if check and result.returncode:
            raise AssertionError(f"{argv} ended with {result.returncode}: {result.stdout}{result.stderr}")
        return result

    def popen(self, *argv: str, netns: str | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a program on the host, or in one of its network namespaces; it ends with the host at the latest."""
        inside = ["ip", "netns", "exec", netns] if netns else []
        process = subprocess.Popen([*self._enter, "--", *inside, *argv], text=True, **options)
        self._started.append(process)
        return process

    def processes(self) -> dict[int, tuple[int, str]]:
        """Return parent and command line of every process, numbered as the host numbers them; the dead have none."""
        found = {}
        for line in self.run(sys.executable, "-I", "-S", "-c", _PROCESSES).stdout.splitlines():
            pid, parent, words = line.split(" ", 2)
            found[int(pid)] = (int(parent), words)
        return found

    def pids(self, netns: str) -> dict[int, str]:
        """Return the processes in a namespace, with their command lines."""
        inside = {int(pid) for pid in self.run("ip", "netns", "pids", netns).stdout.split()}
        return {pid: words for pid, (_, words) in self.processes().items() if pid in inside}

    def kill(self, *pids: int) -> None:
        """SIGKILL processes, numbered as the host numbers them."""
        self.run("sh", "-c", f"kill -9 {' '.join(map(str, pids))}")

    def reboot(self) -> ScratchHost:
        """Kill everything and come back with the same state folder, as a host does after a power cut."""
        self.close()
        return ScratchHost(self.folder)

    def close(self) -> None:
        """End the host and everything on it."""
        assert self._unshare.stdout is not None
        self._unshare.stdout.close()
        self._unshare.send_signal(signal.SIGKILL)
        self._unshare.wait()
        for process in [self._driver, *self._started]:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


class Guest:
    """A guest of a port: a namespace with an Ethernet link, an address by DHCP and nothing else."""

    def __init__(self, host: ScratchHost, plan: dict[str, Any]) -> None:
        self.host = host
        self.plan = plan
        self.name = "guest-" + plan["tap"]
        self.ip = plan["private_ip"]
        commands = [
            f"link add {plan['tap']} type veth peer name eth0 netns {self.name}",
            f"link set {plan['tap']} master {plan['subnet']['bridge']} up",
            f"link set {plan['tap']} type bridge_slave isolated on",
        ]
        host.run("ip", "netns", "add", self.name)
        host.run("ip", "-batch", "-", stdin="\n".join(commands) + "\n")
        inside = [f"link set eth0 address {plan['mac']}", "link set lo up", "link set eth0 up"]
        host.run("ip", "-n", self.name, "-batch", "-", stdin="\n".join(inside) + "\n")

    def run(self, *argv: str, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a program in the guest."""
        return self.host.run(*argv, netns=self.name, check=check, timeout=timeout)

    def dhcp(self) -> dict[str, str]:
        """Ask for an address, configure it, and return what DHCP said."""
        script = (
            '#!/bin/sh\n[ "$1" = bound ] || exit 0\nenv > /run/guest/$GUEST\n'
            "ip addr replace $ip/$mask dev $interface\nip link set $interface mtu $mtu\n"
            "ip route replace default via $router\n"
        )
        self.host.run("sh", "-c", "cat > /run/guest/script && chmod +x /run/guest/script", stdin=script)
        argv = ["busybox", "udhcpc", "-i", "eth0", "-s", "/run/guest/script", "-q", "-n", "-f", "-t", "60", "-T", "1"]
        argv += ["-O", "mtu", "-x", "hostname:chosen-by-guest"]
        self.run("env", f"GUEST={self.name}", *argv)
        text = self.host.run("cat", f"/run/guest/{self.name}").stdout
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def configure(self) -> None:
        """Take the address without asking."""
        gateway = self.plan["subnet"]["gateway_ip"]
        prefix = self.plan["subnet"]["cidr"].split("/")[1]
        self.run("ip", "addr", "replace", f"{self.ip}/{prefix}", "dev", "eth0")
        self.run("ip", "route", "replace", "default", "via", gateway)

    def get(self, path: str, *headers: str, method: str = "GET") -> tuple[int, str]:
        """Ask the metadata service; return status and body, (0, "") where it does not answer."""
        argv = [sys.executable, "-I", "-S", "-c", _GET, method, path, *headers]
        output = self.run(*argv, check=False).stdout
        status, _, body = output.partition("\n")
        return int(status or 0), body

    def listen(self, port: int, text: str) -> None:
        """Answer every TCP connection to `port` with `text` and who asked; returns once it listens."""
        listen(self.host, self.name, port, text)

    def reaches(self, address: str, port: int) -> str | None:
        """Connect by TCP and return what the other side says; None if it does not answer."""
        return reach(self.host, self.name, address, port)

    def is_shut_out(self, address: str, port: int) -> bool:
        """Say whether a connection gets no answer; what passes takes a thousandth of the time this waits."""
        return is_shut_out(self.host, self.name, address, port)

    def pings(self, address: str, seconds: int = 60) -> bool:
        """Say whether an address answers a ping, waiting so long for it."""
        return self.run("busybox", "ping", "-c", "1", "-W", str(seconds), address, check=False).returncode == 0


_GET = """
import socket, sys
s = socket.create_connection(("169.254.169.254", 80), 60)
lines = ["%s %s HTTP/1.0" % tuple(sys.argv[1:3]), *sys.argv[3:], "", ""]
s.sendall("\\r\\n".join(lines).encode())
data = b""
while part := s.recv(65536):
    data += part
head, _, body = data.partition(b"\\r\\n\\r\\n")
sys.stdout.write(head.split()[1].decode() + "\\n" + body.decode())
"""

_LISTEN = """
import socket, sys
s = socket.create_server(("", int(sys.argv[1])))
print("listening", flush=True)
while True:
    c, (ip, port) = s.accept()
    c.sendall((sys.argv[2] + " " + ip).encode())
    c.close()
"""


def listen(host: ScratchHost, netns: str | None, port: int, text: str) -> None:
    """Answer every TCP connection to `port` in a namespace with `text` and who asked."""
    process = host.popen(sys.executable, "-c", _LISTEN, str(port), text, netns=netns, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"


_REACH = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])) as s:
        print(s.recv(100).decode())
except OSError as e:
    print("error", e, file=sys.stderr); sys.exit(1)
"""


def reach(host: ScratchHost, netns: str | None, address: str, port: int, seconds: float = 60.0) -> str | None:
    """Connect by TCP from a namespace (None: the host) and return what the other side says; None without an answer."""
    argv = [sys.executable, "-I", "-S", "-c", _REACH, address, str(port), str(seconds)]
    result = host.run(*argv, netns=netns, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def is_shut_out(host: ScratchHost, netns: str | None, address: str, port: int) -> bool:
    """Say whether a connection from a namespace gets no answer."""
    return reach(host, netns, address, port, 0.4) is None


def eventually(holds: Callable[[], bool], seconds: float = 180.0) -> float:
    """Wait for what no event tells of; return how long it took. Raises AssertionError."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"still not so after {seconds} s")
        time.sleep(0.01)
    return time.monotonic() - started


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a state folder that dnsmasq, which drops root, can reach; pytest's own folders are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="minicloud-host-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
