"""How fast a launch is, against libvirt and virt-install doing the same by hand on the same host in the same run.

Prints ratios and asserts none: machines differ. Run: `scripts/test tests/bench` or `pytest -s tests/bench`.
`BENCH_ROUNDS` sets how often each side runs (in turns); the table shows medians.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import libvirt
import pytest

from minicloud.cli.client import Door

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
SIZES = (1, 10)
INSTANCE_TYPE = "t3.nano"
SSH_SECONDS = 120.0


class Table:
    """What was measured, as lines of the table in tests/bench/README.md."""

    def __init__(self) -> None:
        self.lines = ["| what | minicloud | by hand | ratio |", "| --- | --- | --- | --- |"]

    def add(self, what: str, ours: list[float], theirs: list[float], unit: str = "ms") -> None:
        a, b = statistics.median(ours) * 1000, statistics.median(theirs) * 1000
        self.lines.append(f"| {what} | {a:.0f} {unit} | {b:.0f} {unit} | {a / b:.2f} |")

    def say(self, what: str, value: str) -> None:
        self.lines.append(f"| {what} | {value} | | |")


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    one = Table()
    yield one
    print("\n" + "\n".join(one.lines))


@pytest.fixture(scope="module")
def door(cloud: Any) -> Door:
    """The daemon's unix socket, reached through the controller's own file system."""
    return Door(f"/proc/{cloud.pid('controller')}/root/run/minicloud/minicloud.sock")


@pytest.fixture(scope="module")
def image_id(cloud: Any) -> str:
    (image,) = cloud.client().describe_images(Owners=["self"])["Images"]
    return str(image["ImageId"])


@pytest.fixture(scope="module")
def connection(cloud: Any) -> Iterator[libvirt.virConnect]:
    """host1's libvirt, as the daemon reaches it: over ssh, and kept open."""
    program = Path(f"/run/minicloud-bench-{os.getpid()}.sh")
    program.write_text(
        f'#!/bin/sh\nexec ssh -i {cloud.ssh_key} -o UserKnownHostsFile={cloud.known_hosts} -o BatchMode=yes "$@"\n'
    )
    program.chmod(0o700)
    one = libvirt.open(f"{cloud.libvirt_uri('host1')}?command={program}")
    yield one
    one.close()
    program.unlink()


def wait(door: Door, ids: list[str], state: str) -> None:
    """Return as soon as all instances are in the state."""
    token = None
    while True:
        answer = door.minicloud("WaitForChange", Ids=ids, Since=token, TimeoutSeconds=30)
        if all(one["State"] == state for one in answer["Resources"]):
            return
        token = answer["Token"]


def launch(cloud: Any, door: Door, client: Any, image_id: str, count: int) -> tuple[float, list[str]]:
    """Return how long `count` instances took from the call to all running, and their ids."""
    began = time.perf_counter()
    answer = client.run_instances(
        ImageId=image_id,
        InstanceType=INSTANCE_TYPE,
        MinCount=count,
        MaxCount=count,
        Placement={"AvailabilityZone": "lab-1a"},
    )
    ids = [one["InstanceId"] for one in answer["Instances"]]
    wait(door, ids, "running")
    return time.perf_counter() - began, ids


def terminate(door: Door, client: Any, ids: list[str]) -> None:
    client.terminate_instances(InstanceIds=ids)
    wait(door, ids, "terminated")


class ByHand:
    """The same domains made with libvirt alone: an instance's own XML under other names, overlays made before."""

    def __init__(self, cloud: Any, connection: libvirt.virConnect, template: str) -> None:
        self._cloud = cloud
        self._connection = connection
        self._template = template
        self._base = re.findall(r"<source file=['\"]([^'\"]+\.raw)['\"]", template)[0]
        self._size = "1G"

    def prepare(self, count: int) -> list[tuple[str, str]]:
        """Make `count` overlays and return names and XML."""
        made = []
        for number in range(count):
            name = f"bench-{number}-{uuid.uuid4().hex[:6]}"
            disk = f"/var/lib/minicloud/pool/volumes/{name}.qcow2"
            options = "extended_l2=on,cluster_size=128k"
            self._cloud.exec(
                "host1",
                [
                    "qemu-img",
                    "create",
                    "-q",
                    "-f",
                    "qcow2",
                    "-o",
                    options,
                    "-b",
                    self._base,
                    "-F",
                    "raw",
                    disk,
                    self._size,
                ],
            )
            made.append((name, self._render(name, disk, number)))
        return made

    def _render(self, name: str, disk: str, number: int) -> str:
        root = ElementTree.fromstring(self._template)

        def find(path: str) -> ElementTree.Element:
            element = root.find(path)
            assert element is not None, path
            return element

        find("name").text = name
        identity = str(uuid.uuid4())
        find("uuid").text = identity
        for entry in root.findall("sysinfo/system/entry"):
            if entry.get("name") in ("uuid", "serial"):
                entry.text = identity
        metadata = root.find("metadata")
        if metadata is not None:
            root.remove(metadata)
        find("devices/disk/source").set("file", disk)
        find("devices/interface/mac").set("address", f"52:54:00:be:00:{number:02x}")
        find("devices/interface/target").set("dev", f"bench{number}")
        # A bridge of the bench's own: an instance's bridge goes with its last instance.
        find("devices/interface/source").set("bridge", "benchbr")
        for log in root.findall("devices/*/log"):
            log.set("file", f"/var/lib/minicloud/console/{name}.log")
        return ElementTree.tostring(root, encoding="unicode")

    def run(self, prepared: list[tuple[str, str]]) -> float:
        """Start the domains, up to ten at a time on the one connection, and return how long it took."""
        with ThreadPoolExecutor(len(prepared)) as pool:
            began = time.perf_counter()
            list(pool.map(lambda one: self._connection.createXML(one[1], 0), prepared))
            return time.perf_counter() - began

    def clean(self, prepared: list[tuple[str, str]]) -> None:
        for name, _ in prepared:
            self._connection.lookupByName(name).destroy()
            folder = "/var/lib/minicloud"
            self._cloud.exec(
                "host1", ["rm", "-f", f"{folder}/pool/volumes/{name}.qcow2", f"{folder}/console/{name}.log"]
            )


@pytest.fixture(scope="module")
def template(cloud: Any, door: Door, connection: libvirt.virConnect, image_id: str) -> str:
    """The XML of a real instance; its launch also brings the image's base to the host."""
    client = cloud.client()
    _, ids = launch(cloud, door, client, image_id, 1)
    xml = str(connection.lookupByName(ids[0]).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    terminate(door, client, ids)
    return xml


@pytest.fixture(scope="module")
def bridge(cloud: Any) -> Iterator[str]:
    cloud.exec("host1", ["ip", "link", "add", "benchbr", "type", "bridge"])
    cloud.exec("host1", ["ip", "link", "set", "benchbr", "up"])
    yield "benchbr"
    cloud.exec("host1", ["ip", "link", "del", "benchbr"])


@pytest.mark.slow
@pytest.mark.parametrize("count", SIZES)
def test_run_instances_to_running(
    count: int,
    cloud: Any,
    door: Door,
    image_id: str,
    connection: libvirt.virConnect,
    template: str,
    bridge: str,
    table: Table,
) -> None:
    """RunInstances to `running` of all, against createXML of the same domains with overlays made in advance."""
    client = cloud.client()
    by_hand = ByHand(cloud, connection, template)
    # The by-hand side has its bridge already; so has a host that holds an instance.
    _, resident = launch(cloud, door, client, image_id, 1)
    ours, theirs = [], []
    rounds = ROUNDS if count == 1 else max(3, ROUNDS // 2)
    for round_number in range(rounds + 1):
        seconds, ids = launch(cloud, door, client, image_id, count)
        terminate(door, client, ids)
        prepared = by_hand.prepare(count)
        raw = by_hand.run(prepared)
        by_hand.clean(prepared)
        if round_number > 0:  # the first warms both sides up
            ours.append(seconds)
            theirs.append(raw)
    terminate(door, client, resident)
    table.add(f"RunInstances of {count} to running, against createXML of {count}", ours, theirs)


def seconds_until_ssh(address: str, began: float) -> float:
    """Return when the SSH server's banner came, in seconds since `began`."""
    while time.perf_counter() - began < SSH_SECONDS:
        try:
            with socket.create_connection((address, 22), timeout=0.5) as conversation:
                conversation.settimeout(5)
                if conversation.recv(4) == b"SSH-":
                    return time.perf_counter() - began
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"{address} did not answer ssh within {SSH_SECONDS} s")


class VirtInstall:
    """A bridge with DHCP on host1, and virt-install importing the same image onto it."""

    def __init__(self, cloud: Any, base: str) -> None:
        self._cloud = cloud
        self._base = base
        cloud.exec("host1", ["ip", "address", "add", "10.254.0.1/24", "dev", "benchbr"])
        # Something that answers where the metadata service would be: the guest must not wait for one in vain.
        cloud.exec("host1", ["ip", "address", "add", "169.254.169.254/32", "dev", "benchbr"])
        nothing = ["python3", "-m", "http.server", "80", "--bind", "169.254.169.254", "--directory", "/nothing"]
        self._web = cloud.popen("host1", nothing, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._dnsmasq = cloud.popen(
            "host1",
            [
                *("dnsmasq", "-k", "--conf-file=/dev/null", "--interface=benchbr", "--bind-interfaces", "--port=0"),
                *("--leasefile-ro", "--dhcp-authoritative", "--no-ping", "--dhcp-range=10.254.0.10,10.254.0.250,1h"),
            ],
        )

    def close(self) -> None:
        for process in (self._dnsmasq, self._web):
            inner = self._cloud.inner_pid(process)
            if inner is not None:
                os.kill(inner, signal.SIGKILL)
            process.wait()

    def run(self, number: int) -> float:
        """Return how long it took from the command's start until the guest's ssh server answered on host1."""
        name = f"virt-install-{number}"
        disk = f"/var/lib/minicloud/pool/volumes/{name}.qcow2"
        mac = f"52:54:00:be:01:{number:02x}"
        began = time.perf_counter()
        self._cloud.exec("host1", ["qemu-img", "create", "-q", "-f", "qcow2", "-b", self._base, "-F", "raw", disk])
        self._cloud.exec(
            "host1",
            f"virt-install --name {name} --memory 512 --vcpus 2 --virt-type qemu --import --graphics none"
            f" --disk path={disk},format=qcow2,bus=virtio --network bridge=benchbr,model=virtio,mac={mac}"
            f" --osinfo detect=off,require=off --noautoconsole".split(),
            timeout=120,
        )
        # The address that the guest got is where its MAC says; the host's own neighbour table knows it first.
        script = (
            f"while :; do ip=$(ip neigh show dev benchbr | awk '/{mac}/ && /10.254/ {{print $1; exit}}');"
            ' if [ -n "$ip" ] && timeout 2 bash -c "exec 3<>/dev/tcp/$ip/22 && head -c 4 <&3" 2>/dev/null'
            " | grep -q SSH-; then exit 0; fi; sleep 0.02; done"
        )
        self._cloud.exec("host1", ["timeout", str(SSH_SECONDS), "bash", "-c", script], timeout=SSH_SECONDS + 10)
        seconds = time.perf_counter() - began
        self._cloud.exec("host1", ["virsh", "destroy", name])
        self._cloud.exec("host1", ["virsh", "undefine", name])
        self._cloud.exec("host1", ["rm", "-f", disk])
        return seconds


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("virt-install") is None, reason="virt-install is not installed (apt: virtinst)")
def test_run_instances_to_ssh(cloud: Any, door: Door, image_id: str, template: str, bridge: str, table: Table) -> None:
    """RunInstances to the first answer of ssh at the public address, against virt-install --import on a bridge."""
    client = cloud.client()
    by_hand = VirtInstall(cloud, re.findall(r"<source file=['\"]([^'\"]+\.raw)['\"]", template)[0])
    ours, theirs = [], []
    try:
        for number in range(max(3, ROUNDS // 2)):
            began = time.perf_counter()
            _, ids = launch(cloud, door, client, image_id, 1)
            (reservation,) = client.describe_instances(InstanceIds=ids)["Reservations"]
            ours.append(seconds_until_ssh(reservation["Instances"][0]["PublicIpAddress"], began))
            terminate(door, client, ids)
            theirs.append(by_hand.run(number))
    finally:
        by_hand.close()
    table.add("RunInstances to ssh, against virt-install --import", ours, theirs)


@pytest.mark.slow
def test_idle_daemon_memory(cloud: Any, table: Table) -> None:
    """Resident memory of the idle daemon's main process."""
    status = Path(f"/proc/{cloud.daemon_pid()}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident is not None
    table.say("idle daemon, resident memory", f"{int(resident.group(1)) / 1024:.0f} MB")


@pytest.mark.slow
def test_cold_instance_ls(cloud: Any, table: Table) -> None:
    """A cold `minicloud instance ls` against a bare python start."""

    def timed(run: Callable[[], object]) -> list[float]:
        seconds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        return seconds

    sock = f"/proc/{cloud.pid('controller')}/root/run/minicloud/minicloud.sock"
    listing = ["minicloud", "--socket", sock, "instance", "ls", "--all"]
    binaries = Path(sys.executable).parent
    ours = timed(lambda: subprocess.run([str(binaries / listing[0]), *listing[1:]], capture_output=True, check=True))
    bare = timed(lambda: subprocess.run([str(binaries / "python"), "-c", "pass"], check=True))
    table.add("cold `minicloud instance ls`, against `python -c pass`", ours, bare)
