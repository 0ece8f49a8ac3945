"""The host in memory, held to the contract of every host; and its faults, which nothing else can show."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from contract.host_contract import HostContract, Machine, about, is_state, make_machine, next_epoch, start

from minicloud.clock import ManualClock
from minicloud.errors import PermanentError, TransientError
from minicloud.hosts.fake import FakeHost, FakeHostDirectory, Guest
from minicloud.hosts.fake_faults import ChosenFault, ControllerCrash, EventFate, Fault, Faults, Odds, SeededFaults
from minicloud.model.plans import REBOOTED, DomainStatus, HostEvent

STEP_SECONDS = 0.25


class FakeWorld:
    """A fake host on a clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        # The contract's guest is a firmware, which knows no power button.
        self.guest = Guest(obeys_acpi=False, death_seconds=1.0)
        self.host = FakeHost("h-1", self.clock, guest_of=lambda _id: self.guest, sleep=self.clock.advance)
        self.directory = FakeHostDirectory([self.host])
        self.events: deque[HostEvent] = deque()
        self.directory.subscribe(self.events.append)

    def await_event(self, matches: Callable[[HostEvent], bool], timeout_seconds: float) -> HostEvent:
        seen = []
        end = self.clock.monotonic_seconds() + timeout_seconds
        while True:
            while self.events:
                event = self.events.popleft()
                if matches(event):
                    return event
                seen.append(event)
            if self.clock.monotonic_seconds() >= end:
                raise AssertionError(f"no such event within {timeout_seconds} s, only {seen}")
            self.pass_time(STEP_SECONDS)

    def forget_events(self) -> None:
        self.events.clear()

    def until(self, condition: Callable[[], bool], timeout_seconds: float) -> None:
        end = self.clock.monotonic_seconds() + timeout_seconds
        while not condition():
            assert self.clock.monotonic_seconds() < end
            self.pass_time(STEP_SECONDS)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.host.settle()

    def crash_qemu(self, instance_id: str) -> None:
        self.host.qemu_crashes(instance_id)

    def pause(self, instance_id: str) -> None:
        self.host.pause(instance_id)

    def restart_libvirtd(self) -> None:
        self.host.restart_libvirtd()

    def disconnect(self) -> None:
        self.host.disconnect()

    def reconnect(self) -> None:
        self.host.reconnect()


@pytest.fixture
def world() -> Iterator[FakeWorld]:
    world = FakeWorld()
    yield world
    assert world.host.violations == []


class TestFakeHost(HostContract):
    """All that the contract says."""


@pytest.fixture
def machine(world: FakeWorld) -> Machine:
    made = make_machine(world)
    world.host.ensure_instance(made.plan, next_epoch())
    return made


@pytest.fixture
def running(world: FakeWorld, machine: Machine) -> Machine:
    return start(world, machine)


# Guests and time


def test_a_guest_obeys_its_power_button_once_it_has_booted(world: FakeWorld, running: Machine) -> None:
    world.guest = Guest(boot_seconds=5, shutdown_seconds=3)
    other = make_machine(world)
    world.host.ensure_instance(other.plan, next_epoch())
    start(world, other)
    world.host.press_power_button(other.id, next_epoch())
    world.pass_time(4)
    assert world.host.domain_status(other.id).state == "running"
    world.pass_time(1)
    world.host.press_power_button(other.id, next_epoch())
    world.pass_time(2.9)
    assert world.host.domain_status(other.id).state == "running"
    world.pass_time(0.2)
    assert world.host.domain_status(other.id) == DomainStatus("shutoff", "shutdown")
    world.await_event(about(other.id, "stopped"), 0)


def test_a_reboot_keeps_the_process_and_is_reported(world: FakeWorld, running: Machine) -> None:
    world.guest = Guest(shutdown_seconds=1)
    world.pass_time(world.guest.boot_seconds)
    before = world.host.domain_status(running.id)
    world.host.reboot_domain(running.id, next_epoch())
    world.await_event(about(running.id, REBOOTED), 2)
    assert world.host.domain_status(running.id) == before


def test_a_press_that_waits_does_not_end_a_later_life(world: FakeWorld, running: Machine) -> None:
    world.guest = Guest(shutdown_seconds=10)
    world.pass_time(world.guest.boot_seconds)
    world.host.press_power_button(running.id, next_epoch())
    world.host.ensure_no_domain(running.id, next_epoch())
    world.host.ensure_domain(running.spec, next_epoch())
    world.pass_time(20)
    assert world.host.domain_status(running.id).state == "running"


def test_qemu_outlives_its_domain_and_keeps_it_from_starting(world: FakeWorld, running: Machine) -> None:
    world.guest = Guest(death_seconds=5)
    status = world.host.ensure_no_domain(running.id, next_epoch())
    assert status.state == "stopping"
    assert status.pid is not None
    assert world.host.domain_statuses()[running.id] == status
    with pytest.raises(TransientError, match="still holds its disks"):
        world.host.ensure_domain(running.spec, next_epoch())
    world.pass_time(5)
    assert world.host.ensure_no_domain(running.id, next_epoch()) == DomainStatus("absent")


def test_a_console_grows_with_every_life(world: FakeWorld, running: Machine) -> None:
    assert world.host.read_console(running.id, 1000) == b"life 1\n"
    world.host.reset_domain(running.id, next_epoch())
    assert world.host.read_console(running.id, 1000) == b"life 1\nreboot 1\n"
    assert world.host.read_console(running.id, 4) == b"t 1\n"
    assert world.host.read_console(running.id, 0) == b""


def test_a_power_cut_ends_machines_and_jobs_and_keeps_disks(world: FakeWorld, running: Machine) -> None:
    boot_id = world.host.facts().boot_id
    world.host.start_job("fill-1", "fill_base", {"path": "/b", "size_bytes": 5}, 1)
    world.host.power_cycle()
    with pytest.raises(TransientError):
        world.directory.get("h-1")
    world.host.reconnect()
    world.await_event(is_state("connected"), 0)
    assert world.directory.get("h-1").domain_status(running.id) == DomainStatus("shutoff", "unknown")
    assert world.host.job_status("fill-1").error_code == "job-lost"
    assert world.host.facts().boot_id != boot_id
    assert {disk.path for disk in running.plan.disks} == set(world.host.inventory().disk_paths)


# Jobs


def test_a_job_is_started_once_makes_progress_and_ends(world: FakeWorld) -> None:
    arguments: dict[str, object] = {"path": "/pool/bases/snap-1.raw", "size_bytes": 5}
    assert world.host.start_job("fill-1", "fill_base", arguments, 1).state == "running"
    world.pass_time(0.5)
    assert world.host.start_job("fill-1", "fill_base", arguments, 1).progress_percent == 50
    assert world.host.inventory().jobs == ("fill-1",)
    world.pass_time(0.5)
    assert world.host.job_status("fill-1").state == "succeeded"
    assert "/pool/bases/snap-1.raw" in world.host.bases
    world.host.clean_job("fill-1", 1)
    assert world.host.job_status("fill-1").state == "absent"


def test_a_job_that_is_cleaned_while_it_runs_leaves_nothing(world: FakeWorld) -> None:
    world.host.start_job("fill-1", "fill_base", {"path": "/b", "size_bytes": 5}, 1)
    world.host.clean_job("fill-1", 1)
    world.pass_time(10)
    assert world.host.bases == {}
    with pytest.raises(TransientError):
        world.host.start_job("fill-1", "fill_base", {"path": "/b", "size_bytes": 5}, 0)


# Faults: what a call did, and what its caller is told


def fault_at(world: FakeWorld, fault: Fault, verb: str) -> ChosenFault:
    chosen = ChosenFault(fault, lambda called, _resource: called == verb)
    world.host.faults = chosen
    return chosen


@pytest.mark.parametrize(
    ("fault", "raised", "is_done"),
    [
        (Fault.CRASH_BEFORE, ControllerCrash, False),
        (Fault.CRASH_AFTER, ControllerCrash, True),
        (Fault.TRANSIENT, TransientError, False),
        (Fault.LOST_REPLY, TransientError, True),
        (Fault.PERMANENT, PermanentError, False),
    ],
)
def test_a_fault_befalls_one_call(
    world: FakeWorld, machine: Machine, fault: Fault, raised: type[BaseException], is_done: bool
) -> None:
    chosen = fault_at(world, fault, "ensure_domain")
    world.host.domain_status(machine.id)
    with pytest.raises(raised):
        world.host.ensure_domain(machine.spec, next_epoch())
    assert chosen.happened == 1
    assert (world.host.domain_status(machine.id).state == "running") is is_done
    assert world.host.ensure_domain(machine.spec, next_epoch()).state == "running"


@pytest.mark.parametrize("fault", [Fault.HALFWAY, Fault.CRASH_HALFWAY])
def test_a_start_that_ends_halfway_leaves_a_paused_machine(world: FakeWorld, machine: Machine, fault: Fault) -> None:
    fault_at(world, fault, "ensure_domain")
    with pytest.raises(TransientError if fault is Fault.HALFWAY else ControllerCrash):
        world.host.ensure_domain(machine.spec, next_epoch())
    assert world.host.domain_status(machine.id).state == "paused"
    assert world.host.ensure_domain(machine.spec, next_epoch()).state == "running"


def test_what_surrounds_a_domain_can_be_half_made_and_half_removed(world: FakeWorld) -> None:
    machine = make_machine(world)
    fault_at(world, Fault.HALFWAY, "ensure_instance")
    with pytest.raises(TransientError):
        world.host.ensure_instance(machine.plan, next_epoch())
    held = world.host.inventory()
    assert (len(held.disk_paths), len(held.ports)) == (1, 0)
    world.host.ensure_instance(machine.plan, next_epoch())
    fault_at(world, Fault.HALFWAY, "ensure_no_instance")
    with pytest.raises(TransientError):
        world.host.ensure_no_instance(machine.removal, next_epoch())
    held = world.host.inventory()
    assert (len(held.disk_paths), len(held.ports)) == (2, 0)


def test_a_call_that_hangs_costs_its_deadline_and_arrives_late(world: FakeWorld, machine: Machine) -> None:
    fault_at(world, Fault.HANG, "ensure_domain")
    with pytest.raises(TransientError):
        world.host.ensure_domain(machine.spec, next_epoch())
    assert world.clock.monotonic_seconds() == Faults.deadline_seconds
    assert world.host.domain_status(machine.id).state == "absent"
    world.pass_time(Faults.deadline_seconds)
    assert world.host.domain_status(machine.id).state == "running"


def test_a_late_call_is_refused_once_a_newer_lease_was_here(world: FakeWorld, machine: Machine) -> None:
    fault_at(world, Fault.HANG, "ensure_domain")
    with pytest.raises(TransientError):
        world.host.ensure_domain(machine.spec, next_epoch())
    world.host.ensure_no_domain(machine.id, next_epoch())
    world.pass_time(10 * Faults.deadline_seconds)
    assert world.host.domain_status(machine.id).state == "absent"


def test_a_disk_that_a_guest_used_is_never_made_anew(world: FakeWorld) -> None:
    machine = make_machine(world)
    used = replace(machine.plan.disks[0], may_create=False)
    with pytest.raises(PermanentError, match="was used by a guest and is gone"):
        world.host.ensure_instance(replace(machine.plan, disks=(used,)), next_epoch())


def test_a_full_pool_refuses_disks(world: FakeWorld) -> None:
    machine = make_machine(world)
    world.host.pool_bytes = machine.plan.disks[0].size_bytes
    with pytest.raises(PermanentError) as refusal:
        world.host.ensure_instance(machine.plan, next_epoch())
    assert refusal.value.code == "Server.InsufficientInstanceCapacity"


# What no correct controller does is remembered


def test_taking_a_disk_from_under_a_machine_is_a_violation(world: FakeWorld, running: Machine) -> None:
    world.host.ensure_no_instance(running.removal, next_epoch())
    assert len(world.host.violations) == 3
    world.host.violations.clear()


def test_two_machines_on_one_disk_are_a_violation(world: FakeWorld, running: Machine) -> None:
    other = make_machine(world)
    world.host.ensure_instance(other.plan, next_epoch())
    world.host.ensure_domain(replace(other.spec, disks=running.spec.disks), next_epoch())
    assert len(world.host.violations) == 2
    world.host.violations.clear()


def test_two_ports_of_one_address_are_a_violation(world: FakeWorld, machine: Machine) -> None:
    other = make_machine(world)
    port = replace(other.plan.ports[0], mac=machine.plan.ports[0].mac)
    world.host.ensure_instance(replace(other.plan, ports=(port,)), next_epoch())
    assert len(world.host.violations) == 1
    world.host.violations.clear()


# Events and seeds


class Fates(Faults):
    def __init__(self, *fates: EventFate) -> None:
        self._fates = fates

    def event_fates(self, event: HostEvent) -> tuple[EventFate, ...]:
        return self._fates


@pytest.mark.parametrize(
    ("fates", "now", "later"), [((), 0, 0), ((EventFate.LATE,), 0, 1), ((EventFate.NOW, EventFate.LATE), 1, 2)]
)
def test_events_are_lost_late_and_doubled(
    world: FakeWorld, machine: Machine, fates: tuple[EventFate, ...], now: int, later: int
) -> None:
    world.forget_events()
    world.host.faults = Fates(*fates)
    world.host.ensure_domain(machine.spec, next_epoch())
    assert len(world.events) == now
    world.pass_time(1000)
    assert len(world.events) == later


def test_a_seed_gives_the_same_faults_again_and_calm_ends_them() -> None:
    odds = Odds(
        {Fault.TRANSIENT: 0.3, Fault.HANG: 0.2}, lost_event=0.2, late_event=0.2, double_event=0.2, failed_job=0.5
    )
    event = HostEvent("h-1", "domain", "i-1")

    def draw(faults: SeededFaults) -> list[object]:
        return [
            (
                faults.choose("h-1", "facts", ""),
                faults.event_fates(event),
                faults.late_seconds(),
                faults.job_failure("j"),
            )
            for _ in range(200)
        ]

    first, second = (SeededFaults(random.Random(7), odds) for _ in range(2))
    drawn = draw(first)
    assert draw(second) == drawn
    assert {each[0] for each in drawn} == {None, Fault.TRANSIENT, Fault.HANG}  # type: ignore[index]
    assert {len(each[1]) for each in drawn} == {0, 1, 2}  # type: ignore[index]
    first.calm()
    assert {each[:2] for each in draw(first)} == {(None, (EventFate.NOW,))}  # type: ignore[index]


def test_a_host_nobody_knows_cannot_be_reached() -> None:
    with pytest.raises(TransientError):
        FakeHostDirectory([]).get("h-9")
