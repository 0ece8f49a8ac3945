"""What protocol.Host promises, as tests that every implementation inherits.

An implementation's test module subclasses HostContract and gives it a `world`: the host, and the hands of fate around
it (a QEMU that dies, a libvirtd that restarts, a cable that is pulled). Names of instances are fresh for every test,
so that worlds may live longer than one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import pytest
from support import port_plans

from minicloud.errors import PermanentError, TransientError
from minicloud.hosts.protocol import Host
from minicloud.model import names
from minicloud.model.plans import (
    REBOOTED,
    DiskPlan,
    DomainDisk,
    DomainNic,
    DomainSpec,
    DomainStatus,
    GroupPlan,
    HostEvent,
    InstancePlan,
    InstanceRemoval,
    JobStatus,
    MetadataPlan,
    PortPlan,
    RouterPlan,
    RulePlan,
    SubnetPlan,
)

POOL = names.DEFAULT_POOL_FOLDER
MIB = 1024**2
# Only a failing test takes so long.
LONG = 240.0

_numbers = itertools.count(1)
_epochs = itertools.count(time.time_ns() // 1_000_000)


class World(Protocol):
    """A host and what may befall it."""

    host: Host

    def await_event(self, matches: Callable[[HostEvent], bool], timeout_seconds: float) -> HostEvent:
        """Return the first event that matches, of those since `forget_events`; AssertionError if none comes in time."""

    def forget_events(self) -> None:
        """Drop what has come so far."""

    def until(self, condition: Callable[[], bool], timeout_seconds: float) -> None:
        """Let time pass until a condition holds; AssertionError if it does not in time."""

    def crash_qemu(self, instance_id: str) -> None:
        """Kill the machine's QEMU."""

    def pause(self, instance_id: str) -> None:
        """Pause the machine behind the host's back."""

    def restart_libvirtd(self) -> None:
        """End libvirtd with SIGKILL and start it again."""

    def disconnect(self) -> None:
        """Make the host unreachable, and return when it is known to be."""

    def reconnect(self) -> None:
        """Make the host reachable again, and return when it is known to be."""


@dataclass(frozen=True)
class Machine:
    """An instance of the contract's own: a blank disk, a port, hardly any memory. Its guest is the firmware."""

    plan: InstancePlan
    spec: DomainSpec

    @property
    def id(self) -> str:
        return self.plan.instance_id

    @property
    def removal(self) -> InstanceRemoval:
        return InstanceRemoval(
            self.id,
            tuple(port.id for port in self.plan.ports),
            tuple(disk.path for disk in self.plan.disks),
            self.plan.console_path,
        )


def make_machine(world: World) -> Machine:
    """Return a new machine for the host; nothing of it is there yet."""
    number = next(_numbers)
    port = port_plan(number)
    volume_id = f"vol-{number:017x}"
    disks = (
        DiskPlan(volume_id, names.volume_path(POOL, volume_id), "qcow2", 64 * MIB, may_create=True),
        DiskPlan(
            "ephemeral0", names.ephemeral_path(POOL, port.instance_id, "ephemeral0"), "raw", 64 * MIB, may_create=True
        ),
    )
    console_path = names.console_path(port.instance_id)
    spec = DomainSpec(
        name=port.instance_id,
        uuid=f"ec2a1b2c-3d4e-4f50-8162-{number:012x}",
        account_id="123456789012",
        virt_type="qemu",
        machine_type=world.host.facts().machine_type,
        boot_mode="legacy-bios",
        vcpus=1,
        memory_mib=64,
        disks=tuple(
            DomainDisk(disk.path, disk.format, f"vd{'ab'[at]}", f"serial{at}", disk.id, at, boot_order=at + 1)
            for at, disk in enumerate(disks)
        ),
        nics=(DomainNic(port.tap, port.subnet.bridge, port.mac, port.id, 2, port.router.mtu),),
        console_path=console_path,
        root_ports=4,
    )
    return Machine(InstancePlan(port.instance_id, disks, (port,), console_path), spec)


def port_plan(number: int) -> PortPlan:
    """Return the plan of a port with addresses and ids of its own."""
    made = port_plans.port(2 + number % 250, subnet=1 + number // 250)
    return PortPlan(
        **{
            **made,
            "router": RouterPlan(**made["router"]),
            "subnet": SubnetPlan(**made["subnet"]),
            "groups": tuple(
                GroupPlan(each["id"], tuple(RulePlan(**rule) for rule in each["rules"]), tuple(each["members"]))
                for each in made["groups"]
            ),
            "metadata": MetadataPlan(**made["metadata"]),
        }
    )


def about(instance_id: str, detail: str | None = None) -> Callable[[HostEvent], bool]:
    """Return a condition: the event is about that instance, and of that detail unless it is None."""
    return lambda event: event.kind == "domain" and event.instance_id == instance_id and detail in (None, event.detail)


def is_state(kind: str) -> Callable[[HostEvent], bool]:
    """Return a condition: the host came ("connected") or went ("disconnected")."""
    return lambda event: event.kind == kind


def next_epoch() -> int:
    """Return an epoch newer than any that a host has seen: they remember those of earlier runs."""
    return next(_epochs)


def end(world: World, machine: Machine) -> None:
    """Take a machine away with all it had."""

    def is_gone() -> bool:
        return world.host.ensure_no_domain(machine.id, next_epoch()).pid is None

    world.until(is_gone, LONG)
    world.host.ensure_no_instance(machine.removal, next_epoch())


def start(world: World, machine: Machine) -> Machine:
    """Start a machine, and wait for what its start is reported by: the next event is about something else."""
    assert world.host.ensure_domain(machine.spec, next_epoch()).state == "running"
    world.await_event(about(machine.id, "started"), LONG)
    world.forget_events()
    return machine


def made_machine(world: World) -> Iterator[Machine]:
    """A machine whose disks and port are there and whose domain is not; taken away when the test ends."""
    made = make_machine(world)
    world.host.ensure_instance(made.plan, next_epoch())
    world.forget_events()
    yield made
    end(world, made)


class HostContract:
    """Inherit, and provide the fixture `world`."""

    @pytest.fixture
    def machine(self, world: World) -> Iterator[Machine]:
        yield from made_machine(world)

    @pytest.fixture
    def running(self, world: World, machine: Machine) -> Machine:
        return start(world, machine)

    # Instances: what surrounds a domain

    def test_an_instance_is_made_once_and_taken_away_once(self, world: World) -> None:
        machine = make_machine(world)
        for _ in range(2):
            world.host.ensure_instance(machine.plan, next_epoch())
        held = world.host.inventory()
        assert {disk.path for disk in machine.plan.disks} <= set(held.disk_paths)
        assert machine.plan.ports[0].id in held.ports
        assert machine.plan.ports[0].router.netns in held.routers
        for _ in range(2):
            world.host.ensure_no_instance(machine.removal, next_epoch())
        held = world.host.inventory()
        assert not {disk.path for disk in machine.plan.disks} & set(held.disk_paths)
        assert machine.plan.ports[0].id not in held.ports

    def test_a_disk_that_stands_on_a_missing_base_is_refused_for_good(self, world: World) -> None:
        machine = make_machine(world)
        disk = replace(machine.plan.disks[0], base_path=f"{POOL}/bases/snap-0123456789abcdef0.raw")
        with pytest.raises(PermanentError) as refusal:
            world.host.ensure_instance(replace(machine.plan, disks=(disk,), ports=()), next_epoch())
        assert refusal.value.code == "missing-base"
        world.host.ensure_no_instance(machine.removal, next_epoch())

    # Domains: start and end

    def test_a_domain_that_was_never_there_is_absent(self, world: World) -> None:
        unknown = make_machine(world).id
        assert world.host.domain_status(unknown) == DomainStatus("absent")
        assert world.host.ensure_no_domain(unknown, next_epoch()) == DomainStatus("absent")
        assert unknown not in world.host.domain_statuses()
        world.host.press_power_button(unknown, next_epoch())
        world.host.reboot_domain(unknown, next_epoch())
        world.host.reset_domain(unknown, next_epoch())

    def test_a_domain_starts_once(self, world: World, machine: Machine) -> None:
        first = world.host.ensure_domain(machine.spec, next_epoch())
        assert first.state == "running"
        assert first.pid is not None
        assert world.host.ensure_domain(machine.spec, next_epoch()) == first
        assert world.host.domain_status(machine.id) == first
        assert world.host.domain_statuses()[machine.id] == first
        assert world.host.inventory().domains[machine.id] == first
        world.await_event(about(machine.id), LONG)

    def test_a_domain_ends_and_starts_again_as_another_process(self, world: World, running: Machine) -> None:
        before = world.host.domain_status(running.id)
        world.until(lambda: world.host.ensure_no_domain(running.id, next_epoch()).pid is None, LONG)
        world.await_event(about(running.id), LONG)
        assert world.host.ensure_no_domain(running.id, next_epoch()) == DomainStatus("absent")
        assert running.id not in world.host.domain_statuses()
        after = world.host.ensure_domain(running.spec, next_epoch())
        assert after.state == "running"
        assert after.pid != before.pid

    def test_a_domain_that_is_off_takes_the_spec_it_is_given(self, world: World, running: Machine) -> None:
        world.crash_qemu(running.id)
        world.until(lambda: world.host.domain_status(running.id).state == "shutoff", LONG)
        without_second_disk = replace(running.spec, disks=running.spec.disks[:1])
        assert world.host.ensure_domain(without_second_disk, next_epoch()).state == "running"

    def test_a_domain_whose_disk_is_missing_is_refused_for_good(self, world: World, machine: Machine) -> None:
        disk = replace(machine.spec.disks[0], path=f"{POOL}/volumes/vol-0123456789abcdef0.qcow2")
        with pytest.raises(PermanentError) as refusal:
            world.host.ensure_domain(replace(machine.spec, disks=(disk,)), next_epoch())
        assert refusal.value.code.startswith("Server.")
        # The way out is the one every instance goes.
        assert world.host.ensure_no_domain(machine.id, next_epoch()) == DomainStatus("absent")

    def test_a_paused_domain_is_made_to_run(self, world: World, running: Machine) -> None:
        before = world.host.domain_status(running.id)
        world.pause(running.id)
        assert world.host.domain_status(running.id) == DomainStatus("paused", "unknown", before.pid)
        assert world.host.ensure_domain(running.spec, next_epoch()) == before

    def test_a_guest_that_ignores_its_power_button_runs_on(self, world: World, running: Machine) -> None:
        world.host.press_power_button(running.id, next_epoch())
        world.host.reboot_domain(running.id, next_epoch())
        assert world.host.domain_status(running.id).state == "running"

    def test_a_reset_is_reported_and_keeps_the_process(self, world: World, running: Machine) -> None:
        before = world.host.domain_status(running.id)
        world.host.reset_domain(running.id, next_epoch())
        world.await_event(about(running.id, REBOOTED), LONG)
        assert world.host.domain_status(running.id) == before

    def test_a_qemu_that_dies_is_reported_and_can_be_started_again(self, world: World, running: Machine) -> None:
        world.crash_qemu(running.id)
        world.await_event(about(running.id), LONG)
        assert world.host.domain_status(running.id) == DomainStatus("shutoff", "crashed")
        assert world.host.domain_statuses()[running.id] == DomainStatus("shutoff", "crashed")
        world.host.press_power_button(running.id, next_epoch())
        world.host.reset_domain(running.id, next_epoch())
        assert world.host.ensure_domain(running.spec, next_epoch()).state == "running"

    # Epochs

    @pytest.mark.parametrize(
        "act",
        [
            lambda host, machine, epoch: host.ensure_instance(machine.plan, epoch),
            lambda host, machine, epoch: host.ensure_no_instance(machine.removal, epoch),
            lambda host, machine, epoch: host.ensure_domain(machine.spec, epoch),
            lambda host, machine, epoch: host.ensure_no_domain(machine.id, epoch),
            lambda host, machine, epoch: host.press_power_button(machine.id, epoch),
            lambda host, machine, epoch: host.reboot_domain(machine.id, epoch),
            lambda host, machine, epoch: host.reset_domain(machine.id, epoch),
        ],
        ids=["ensure_instance", "ensure_no_instance", "ensure_domain", "ensure_no_domain", "press", "reboot", "reset"],
    )
    def test_an_older_epoch_changes_nothing(
        self, world: World, running: Machine, act: Callable[[Host, Machine, int], object]
    ) -> None:
        older, newer = next_epoch(), next_epoch()
        before = world.host.ensure_domain(running.spec, newer)
        with pytest.raises(TransientError):
            act(world.host, running, older)
        assert world.host.domain_status(running.id) == before
        assert {disk.path for disk in running.plan.disks} <= set(world.host.inventory().disk_paths)
        # The same epoch is the same lease: its calls may come again.
        assert world.host.ensure_domain(running.spec, newer) == before

    # The host itself

    def test_facts_say_what_a_host_can_hold(self, world: World) -> None:
        facts = world.host.facts()
        assert facts.vcpus > 0
        assert facts.memory_mib > 0
        assert facts.virt_type in ("kvm", "qemu")
        assert facts.machine_type.startswith("pc-q35-")
        assert all((facts.hostname, facts.virt_type_reason, facts.qemu_version, facts.libvirt_version, facts.boot_id))

    def test_a_pool_has_room(self, world: World) -> None:
        capacity, free = world.host.pool_usage(POOL)
        assert 0 < free <= capacity

    def test_a_console_that_nobody_wrote_to_is_empty(self, world: World) -> None:
        assert world.host.read_console(make_machine(world).id, 1000) == b""

    def test_a_job_that_was_never_started_is_absent(self, world: World) -> None:
        name = f"fill-{make_machine(world).id}"
        assert world.host.job_status(name) == JobStatus("absent")
        world.host.clean_job(name, next_epoch())
        assert name not in world.host.inventory().jobs

    # Losing and finding the host

    def test_guests_outlive_libvirtd(self, world: World, running: Machine) -> None:
        before = world.host.domain_status(running.id)
        world.restart_libvirtd()
        world.await_event(is_state("disconnected"), LONG)
        world.await_event(is_state("connected"), LONG)
        assert world.host.domain_status(running.id) == before
        assert world.host.ensure_domain(running.spec, next_epoch()) == before
        # Events come again, too.
        world.forget_events()
        world.crash_qemu(running.id)
        world.await_event(about(running.id), LONG)

    def test_an_unreachable_host_refuses_every_call_and_comes_back_as_it_was(
        self, world: World, running: Machine
    ) -> None:
        before = world.host.domain_status(running.id)
        world.disconnect()
        try:
            for call in (
                lambda: world.host.domain_status(running.id),
                lambda: world.host.domain_statuses(),
                lambda: world.host.ensure_domain(running.spec, next_epoch()),
                lambda: world.host.ensure_no_domain(running.id, next_epoch()),
                lambda: world.host.press_power_button(running.id, next_epoch()),
            ):
                with pytest.raises(TransientError):
                    call()
        finally:
            world.reconnect()
        assert world.host.domain_status(running.id) == before
