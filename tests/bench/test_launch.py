"""How fast a launch is, against libvirt and virt-install doing the same by hand on the same host in the same run.

Prints ratios and asserts none: machines differ. Run: `scripts/test tests/bench` or `pytest -s tests/bench`.
`BENCH_ROUNDS` sets how often each side runs (in turns); the table shows medians.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
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
                ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", self._base, "-F", "raw", disk, self._size],
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
            self._cloud.exec("host1", ["rm", "-f", f"{folder}/pool/volumes/{name}.qcow2", f"{folder}/console/{name}.log"])


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
    binaries = Path(__import__("sys").executable).parent
    ours = timed(lambda: subprocess.run([str(binaries / listing[0]), *listing[1:]], capture_output=True, check=True))
    bare = timed(lambda: subprocess.run([str(binaries / "python"), "-c", "pass"], check=True))
    table.add("cold `minicloud instance ls`, against `python -c pass`", ours, bare)
