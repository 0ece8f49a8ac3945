"""A real libvirt host of the lab, over SSH, held to the contract of every host; and what only a real one can suffer."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest
from contract.host_contract import (
    LONG,
    POOL,
    HostContract,
    Machine,
    about,
    end,
    is_state,
    made_machine,
    make_machine,
    next_epoch,
    start,
)

from minicloud.clock import SystemClock
from minicloud.errors import PermanentError, TransientError
from minicloud.hosts.directory import Destination, LibvirtHostDirectory, probe_host
from minicloud.hosts.domain_xml import render_domain
from minicloud.hosts.events import ensure_event_loop
from minicloud.hosts.libvirt_host import CALL_SECONDS, MONITOR_SECONDS, LibvirtHost
from minicloud.hosts.ssh import read_host_key
from minicloud.hosts.ssh_files import render_remote_uri, write_ssh_program
from minicloud.model.plans import REBOOTED, DomainStatus, HostEvent
from minicloud.model.resources import Host
from minicloud.model.states import HostState

PROJECT = Path(__file__).resolve().parents[2]
HOST_ID = "h-0123456789abcdef0"
BOOT_SECONDS = 300.0
PRESS_SECONDS = 20.0


class LabWorld:
    """Host `name` of a lab through a directory, as the daemon has it."""

    def __init__(self, lab: Any, name: str, folder: Path) -> None:
        self.lab = lab
        self.name = name
        self.events: queue.Queue[HostEvent] = queue.Queue()
        self.directory = LibvirtHostDirectory(str(folder), str(lab.ssh_key), "qemu", SystemClock())
        self.directory.subscribe(self.events.put)
        self.directory.put(make_row(lab.address(name), read_host_key(lab.address(name))))
        self.await_event(is_state("connected"), LONG)
        self.host: LibvirtHost = self.directory.get(HOST_ID)

    def await_event(self, matches: Callable[[HostEvent], bool], timeout_seconds: float) -> HostEvent:
        deadline = time.monotonic() + timeout_seconds
        seen = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self.events.get(timeout=left)
            except queue.Empty:
                break
            if matches(event):
                return event
            seen.append(event)
        raise AssertionError(f"no such event within {timeout_seconds} s, only {seen}")

    def forget_events(self) -> None:
        while not self.events.empty():
            self.events.get()

    def until(self, condition: Callable[[], bool], timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def crash_qemu(self, instance_id: str) -> None:
        self.signal_qemu(instance_id, signal.SIGKILL)

    def pause(self, instance_id: str) -> None:
        self.virsh("suspend", instance_id)

    def restart_libvirtd(self) -> None:
        self.kill_libvirtd()
        self.start_libvirtd()

    def disconnect(self) -> None:
        self.kill_libvirtd()
        self.await_event(is_state("disconnected"), LONG)

    def reconnect(self) -> None:
        self.start_libvirtd()
        self.await_event(is_state("connected"), LONG)

    # Hands that only the real world needs

    def virsh(self, *arguments: str) -> str:
        return str(self.lab.exec(self.name, ["virsh", "-q", *arguments]).stdout)

    def signal_qemu(self, instance_id: str, number: int) -> None:
        pid = self.host.domain_status(instance_id).pid
        assert pid is not None
        self.lab.exec(self.name, ["kill", f"-{number}", str(pid)])

    def libvirtd_pid(self) -> int:
        return int(self.lab.libvirtd_pid(self.name))

    def kill_libvirtd(self) -> None:
        self.lab.kill_libvirtd(self.name)

    def start_libvirtd(self) -> None:
        self.lab.exec(self.name, ["/usr/sbin/libvirtd", "-d"])

    def qemu_processes(self) -> list[str]:
        """Return the guests of the living QEMUs of the host's PID namespace, once for each process."""
        found = self.lab.exec(self.name, ["ps", "-eo", "args"]).stdout.splitlines()
        return [
            line.split("guest=")[1].split(",")[0] for line in found if "guest=" in line and "qemu" in line.split()[0]
        ]


def make_row(address: str, host_key: str | None) -> Host:
    return Host(
        id=HOST_ID,
        name="host1",
        zone="lab-1a",
        address=address,
        ssh_user="root",
        ssh_port=22,
        host_key=host_key,
        state=HostState.UP,
        vcpus=2,
        memory_mib=1024,
        virt_type="qemu",
        machine_type="pc-q35-7.2",
        uplink=None,
        facts={},
        state_reason=None,
        created_us=0,
    )


@pytest.fixture(scope="module")
def lab_world(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabWorld]:
    made = LabWorld(lab, "host1", tmp_path_factory.mktemp("controller"))
    yield made
    made.directory.close()


@pytest.fixture
def world(lab_world: LabWorld) -> LabWorld:
    lab_world.forget_events()
    return lab_world


@pytest.fixture
def machine(world: LabWorld) -> Iterator[Machine]:
    yield from made_machine(world)


@pytest.fixture
def running(world: LabWorld, machine: Machine) -> Machine:
    return start(world, machine)


class TestLibvirtHost(HostContract):
    """The contract, over qemu+ssh and paramiko."""


# What libvirt makes of our XML


def test_libvirt_moves_nothing_and_adds_no_device(world: LabWorld, running: Machine) -> None:
    ours = ET.fromstring(render_domain(running.spec)).find("devices")
    theirs = ET.fromstring(world.virsh("dumpxml", running.id)).find("devices")
    assert ours is not None
    assert theirs is not None
    # The chipset's own: q35 always has its SATA controller, PS/2 ports and (later versions) its watchdog.
    built_in = Counter({"controller sata": 1, "input mouse": 1, "input keyboard": 1, "audio none": 1, "emulator": 1})
    extra = Counter(map(kind_of, theirs)) - Counter(map(kind_of, ours))
    assert extra - built_in - Counter({"watchdog": 1}) == Counter()
    addresses = {address for device in theirs for address in [pci_address(device)] if address}
    assert {address for device in ours for address in [pci_address(device)] if address} <= addresses
    assert len(addresses) == sum(1 for device in theirs if pci_address(device))


def kind_of(device: ET.Element) -> str:
    kind = device.get("type") if device.tag in ("controller", "input", "audio") else None
    return f"{device.tag} {kind}" if kind else device.tag


def pci_address(device: ET.Element) -> tuple[str | None, ...] | None:
    found = device.find("address[@type='pci']")
    return None if found is None else tuple(found.get(key) for key in ("bus", "slot", "function"))


def test_the_tap_is_an_isolated_port_of_the_bridge_with_the_mtu_of_the_network(
    world: LabWorld, running: Machine
) -> None:
    port = running.plan.ports[0]
    (shown,) = json.loads(world.lab.exec(world.name, ["ip", "-d", "-j", "link", "show", port.tap]).stdout)
    assert shown["master"] == port.subnet.bridge
    assert shown["mtu"] == port.router.mtu
    assert shown["linkinfo"]["info_slave_data"]["isolated"] is True


def test_a_domain_that_is_not_ours_is_neither_listed_nor_ended(world: LabWorld) -> None:
    name = make_machine(world).id
    xml = f"<domain type='qemu'><name>{name}</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    connection = libvirt.open(world.directory.get(HOST_ID)._connections._uri)
    try:
        foreign = connection.defineXML(xml)
        try:
            assert name not in world.host.domain_statuses()
            with pytest.raises(PermanentError, match="not minicloud's"):
                world.host.ensure_no_domain(name, next_epoch())
            assert foreign.isPersistent()
        finally:
            foreign.undefine()
    finally:
        connection.close()


def test_a_name_that_another_domain_has_is_refused_for_good(world: LabWorld, machine: Machine) -> None:
    world.host.ensure_domain(machine.spec, next_epoch())
    with pytest.raises(PermanentError):
        world.host.ensure_domain(replace(machine.spec, uuid="ec2a1b2c-3d4e-4f50-8162-00000000ffff"), next_epoch())
    assert world.host.domain_status(machine.id).state == "running"


def test_an_instance_that_ended_leaves_nothing_of_its_name_but_its_fence(world: LabWorld) -> None:
    machine = make_machine(world)
    world.host.ensure_instance(machine.plan, next_epoch())
    start(world, machine)
    end(world, machine)
    folders = ["/etc", "/run", "/var/lib", "/var/log"]
    found = world.lab.exec(world.name, ["find", *folders, "-xdev", "-name", f"*{machine.id}*"], check=False).stdout
    assert found.split() == [f"/var/lib/minicloud/fences/{machine.id}"]


# libvirtd and QEMU at their worst


@pytest.mark.parametrize("after_ms", [0, 10, 40, 80, 120, 160, 200])
def test_libvirtd_killed_while_it_starts_a_domain_never_starts_two(
    world: LabWorld, machine: Machine, after_ms: int
) -> None:
    pid = world.libvirtd_pid()
    killer = world.lab.popen(
        world.name,
        [sys.executable, "-Sc", KILL_LATER, str(pid), str(after_ms / 1000)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert killer.stdout.readline() == "ready\n"
    killer.stdin.write("\n")
    killer.stdin.flush()
    try:
        with contextlib.suppress(TransientError):
            world.host.ensure_domain(machine.spec, next_epoch())
    finally:
        killer.communicate(timeout=LONG)
        world.await_event(is_state("disconnected"), LONG)
        world.start_libvirtd()
        world.await_event(is_state("connected"), LONG)
    status = world.host.ensure_domain(machine.spec, next_epoch())
    assert status.state == "running"
    assert world.qemu_processes().count(machine.id) == 1
    assert world.host.domain_status(machine.id) == status


KILL_LATER = """
import os, sys, time
print("ready", flush=True)
sys.stdin.readline()
time.sleep(float(sys.argv[2]))
os.kill(int(sys.argv[1]), 9)
"""


@pytest.mark.parametrize("way_out", ["start", "end"])
def test_a_qemu_that_libvirt_has_forgotten_is_ended_before_anything_else(
    world: LabWorld, running: Machine, way_out: str
) -> None:
    before = world.host.domain_status(running.id)
    world.kill_libvirtd()
    world.lab.exec(world.name, ["rm", f"/run/libvirt/qemu/{running.id}.xml"])
    world.await_event(is_state("disconnected"), LONG)
    world.start_libvirtd()
    world.await_event(is_state("connected"), LONG)
    assert world.host.domain_status(running.id) == DomainStatus("stopping", "unknown", before.pid)
    assert world.host.domain_statuses()[running.id].state == "stopping"
    if way_out == "start":
        after = world.host.ensure_domain(running.spec, next_epoch())
        assert after.state == "running"
        assert after.pid != before.pid
        assert world.qemu_processes().count(running.id) == 1
    else:
        assert world.host.ensure_no_domain(running.id, next_epoch()) == DomainStatus("absent")
        assert running.id not in world.qemu_processes()


@pytest.mark.slow
def test_a_hung_qemu_holds_up_nobody_else_and_can_be_ended(world: LabWorld, running: Machine) -> None:
    other = make_machine(world)
    world.host.ensure_instance(other.plan, next_epoch())
    world.host.ensure_domain(other.spec, next_epoch())
    hung = Timed(lambda: world.host.press_power_button(running.id, next_epoch()))
    world.signal_qemu(running.id, signal.SIGSTOP)
    try:
        hung.start()
        time.sleep(0.5)
        # None may wait for the hung one's monitor.
        for call in (
            lambda: world.host.domain_status(running.id),
            lambda: world.host.domain_status(other.id),
            lambda: world.host.domain_statuses(),
            lambda: world.host.reset_domain(other.id, next_epoch()),
            lambda: world.host.ensure_domain(other.spec, next_epoch()),
        ):
            assert Timed(call).run() < MONITOR_SECONDS
        hung.join()
        assert isinstance(hung.error, TransientError)
        assert MONITOR_SECONDS <= hung.seconds < CALL_SECONDS
        # In quarantine: what the first call will still do is not known, so nothing more is asked, and nobody waits.
        refused = Timed(lambda: world.host.reset_domain(running.id, next_epoch()))
        assert refused.run() < MONITOR_SECONDS
        assert isinstance(refused.error, TransientError)
        # libvirt gives a QEMU ten seconds to end before it kills it.
        assert world.host.ensure_no_domain(running.id, next_epoch()) == DomainStatus("absent")
        assert world.host.ensure_domain(running.spec, next_epoch()).state == "running"
    finally:
        end(world, other)


@pytest.mark.slow
def test_a_hung_libvirtd_is_noticed_and_its_return_is_too(world: LabWorld, running: Machine) -> None:
    pid = world.libvirtd_pid()
    world.lab.exec(world.name, ["kill", "-STOP", str(pid)])
    try:
        world.await_event(is_state("disconnected"), LONG)
        with pytest.raises(TransientError):
            world.directory.get(HOST_ID)
        refused = Timed(lambda: world.host.domain_status(running.id))
        assert refused.run() < MONITOR_SECONDS
        assert isinstance(refused.error, TransientError)
    finally:
        world.lab.exec(world.name, ["kill", "-CONT", str(pid)])
    world.await_event(is_state("connected"), LONG)
    assert world.host.domain_status(running.id).state == "running"


@pytest.mark.slow
def test_a_cable_pulled_out_is_noticed_and_put_back_heals(world: LabWorld, running: Machine) -> None:
    before = world.host.domain_status(running.id)
    set_cable(world, "down")
    try:
        world.await_event(is_state("disconnected"), LONG)
    finally:
        set_cable(world, "up")
    world.await_event(is_state("connected"), LONG)
    world.until(lambda: succeeds(lambda: world.host.domain_status(running.id)), LONG)
    assert world.host.domain_status(running.id) == before
    world.forget_events()
    world.crash_qemu(running.id)
    world.await_event(about(running.id), LONG)


def test_ssh_programs_that_die_are_replaced(world: LabWorld, running: Machine) -> None:
    before = world.host.domain_status(running.id)
    for pid in ssh_programs():
        os.kill(pid, signal.SIGKILL)
    world.await_event(is_state("disconnected"), LONG)
    world.await_event(is_state("connected"), LONG)
    # The others that died with it may be found out one after the other.
    world.until(lambda: succeeds(lambda: world.host.domain_status(running.id)), LONG)
    assert world.host.domain_status(running.id) == before


# A guest with an operating system


@pytest.mark.slow
def test_a_booted_guest_reboots_and_powers_off_by_its_button(world: LabWorld, tiny: Path) -> None:
    machine = make_machine(world)
    world.host.ensure_instance(machine.plan, next_epoch())
    try:
        root = machine.spec.disks[0]
        shutil.copyfile(tiny, world.lab.private(world.name, root.path))
        spec = replace(machine.spec, memory_mib=256)
        before = world.host.ensure_domain(spec, next_epoch())
        world.until(lambda: has_booted(world, machine, 1), BOOT_SECONDS)
        world.forget_events()

        ask_until(world, lambda: world.host.reboot_domain(machine.id, next_epoch()), about(machine.id, REBOOTED))
        assert world.host.domain_status(machine.id) == before
        world.until(lambda: has_booted(world, machine, 2), BOOT_SECONDS)
        assert len(world.host.read_console(machine.id, 100)) == 100

        ask_until(
            world,
            lambda: world.host.press_power_button(machine.id, next_epoch()),
            about(machine.id, "stopped/shutdown"),
        )
        assert world.host.domain_status(machine.id) == DomainStatus("shutoff", "shutdown")
    finally:
        end(world, machine)
    assert world.host.read_console(machine.id, 100) == b""


def ask_until(world: LabWorld, ask: Callable[[], None], has_happened: Callable[[HostEvent], bool]) -> None:
    """Press a guest's button until it heard: it listens a moment after it says that it is ready."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        ask()
        try:
            world.await_event(has_happened, PRESS_SECONDS)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def has_booted(world: LabWorld, machine: Machine, times: int) -> bool:
    """Say whether the console shows that the image was ready that many times."""
    return world.host.read_console(machine.id, 1 << 20).count(b"tiny: ready in") >= times


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The tiny image, built unless it is in the cache."""
    built = subprocess.run(
        [str(PROJECT / "images" / "build"), "tiny"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Path(built.stdout.splitlines()[-1])


# Before a machine is a host


def test_a_probe_pins_what_it_saw_and_accepts_nothing_else(lab: Any) -> None:
    destination = Destination(lab.address("host2"))
    probed = probe_host(destination, str(lab.ssh_key), "qemu", SystemClock(), POOL)
    assert probed.facts.hostname == "host2"
    assert probed.facts.virt_type == "qemu"
    assert probed.host_key == read_host_key(lab.address("host2"))
    assert probed.pool_capacity_bytes > 0
    again = probe_host(replace(destination, host_key=probed.host_key), str(lab.ssh_key), "qemu", SystemClock(), POOL)
    assert again.host_key == probed.host_key
    other = read_host_key(lab.address("host1"))
    with pytest.raises(TransientError, match="another host key"):
        probe_host(replace(destination, host_key=other), str(lab.ssh_key), "qemu", SystemClock(), POOL)


def test_a_probe_says_why_a_machine_cannot_be_reached(lab: Any) -> None:
    for destination in (Destination(lab.address("host2"), port=23), Destination(lab.address("host2"), user="nobody")):
        with pytest.raises(TransientError, match=lab.address("host2")):
            probe_host(destination, str(lab.ssh_key), "qemu", SystemClock(), POOL)


def test_libvirts_ssh_accepts_the_pinned_key_and_no_other(lab: Any, tmp_path: Path) -> None:
    # Sessions check the key as well; this is about the other way in.
    ensure_event_loop()
    address = lab.address("host2")
    for pinned, is_accepted in ((read_host_key(lab.address("host1")), False), (read_host_key(address), True)):
        program = write_ssh_program(str(tmp_path), HOST_ID, pinned, str(lab.ssh_key))
        with contextlib.nullcontext() if is_accepted else pytest.raises(libvirt.libvirtError):
            libvirt.open(render_remote_uri("root", address, 22, program)).close()


# Helpers


class Timed:
    """A call with how long it took and what it raised, in a thread of its own when it is started."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._thread = threading.Thread(target=self.run)
        self.seconds = 0.0
        self.error: Exception | None = None

    def run(self) -> float:
        began = time.monotonic()
        try:
            self._call()
        except Exception as error:
            self.error = error
        self.seconds = time.monotonic() - began
        return self.seconds

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(LONG)


def set_cable(world: LabWorld, state: str) -> None:
    """Pull out or put back the host's end at the lab's bridge, which the controller's machine holds."""
    world.lab.exec("controller", ["ip", "link", "set", world.name, state])


def succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except TransientError:
        return False
    return True


def ssh_programs() -> list[int]:
    """Return the ssh processes that libvirt started for the host under test."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_child = entry.name.isdigit() and (entry / "stat").read_text().split()[3] == str(os.getpid())
            if is_child and f"HostKeyAlias={HOST_ID}".encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
