"""A cloud of many instances under a seed: random callers, random faults at every call to a host, crashes, lost events,
hosts that go and come. The seed decides everything, so what it shows once it shows again.

The scheduler is one thread that chooses what happens next: a step of any task that is leased, an event, a caller's
call, a blow of fate, or that time passes. Callers also come in the middle of a step, while it is calling a host. In the
end everything calms down, and the cloud must come to rest as its owners want it, with nothing left over.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.debris import assert_no_debris, live_twice
from support.world import World

from minicloud.cloud.block_devices import DeviceRequest
from minicloud.config import Deadlines
from minicloud.errors import StoreBusyError
from minicloud.hosts.fake import FakeHost, Guest
from minicloud.hosts.fake_faults import ControllerCrash, Fault, Odds, SeededFaults
from minicloud.model.resources import Instance, Task
from minicloud.model.states import InstanceState

DEADLINES = Deadlines(guest_shutdown_seconds=30, guest_reboot_seconds=60, launch_seconds=200)
TYPES = ("t3.nano", "t3.nano", "t3.micro", "t3.small", "m5d.large")
LOOK_EVERY = 25


@dataclass(frozen=True, slots=True)
class Size:
    """How much happens: actions in all, the most instances alive at a time, hosts, vCPUs of each."""

    actions: int
    instances: int
    hosts: int
    vcpus: int


SMALL = Size(150, 12, 2, 4)
MEDIUM = Size(600, 60, 3, 16)
LARGE = Size(2500, 300, 5, 64)


def choose_size(seed: int) -> Size:
    """Return how much happens under a seed: mostly little, for small clouds meet as many troubles in less time."""
    if seed % 50 == 49:
        return LARGE
    return MEDIUM if seed % 10 == 9 else SMALL


class Simulation:
    """One run. `spool` is a folder for uploads."""

    def __init__(self, seed: int, spool: Path, size: Size | None = None) -> None:
        self.source = random.Random(seed)
        self.size = size or choose_size(seed)
        self._guests: dict[str, Guest] = {}
        self.faults = _Faults(self.source, _draw_odds(self.source), self)
        self.world = World(
            host_count=self.size.hosts,
            host_vcpus=self.size.vcpus,
            faults=self.faults,
            guest_of=self._guest_of,
            source=self.source,
            spool_folder=spool,
            deadlines=DEADLINES,
        )
        self._spool = spool
        self._crash_odds = self.source.choice((0.0, 0.01, 0.05))
        self._inside_call = False
        self.world.before_step = self._before_step

    def run(self) -> None:
        """Run to the end. Raises AssertionError for whatever must not be."""
        actions: tuple[tuple[Callable[[], object], int], ...] = (
            (self._work, 60),
            (self._call, 20),
            (self._let_time_pass, 14),
            (self._befall_host, 2),
            (self._befall_guest, 3),
            (self.world.crash, 1),
            (self._jump_wall_clock, 1),
            (self.world.pause_controller, 1),
            (self.world.step_zombie, 2),
        )
        try:
            for number in range(self.size.actions):
                (act,) = self.source.choices([act for act, _ in actions], [weight for _, weight in actions])
                act()
                if number % LOOK_EVERY == 0:
                    self._look()
            self._calm()
            self.world.rest()
            self._look()
            assert_no_debris(self.world)
            self._end()
        finally:
            self.world.close()

    # What happens

    def _work(self) -> None:
        world = self.world
        world.settle_hosts()
        if world.events and self.source.random() < 0.5:
            world.handle_event()
            return
        if not world.running or self.source.random() < 0.2:
            world.lease(self.source.randint(1, 8))
        if world.running:
            world.step(self.source.choice(list(world.running)))

    def _call(self) -> None:
        world, source = self.world, self.source
        rows = self._alive()
        if not rows or source.random() < 0.2:
            if len(rows) < self.size.instances:
                self._launch()
            return
        ids = [row.id for row in source.sample(rows, min(len(rows), source.choice((1, 1, 1, 2, 5))))]
        kind = source.choice(("stop", "stop", "force", "start", "start", "reboot", "terminate"))
        if kind == "force":
            self._ask(world.stop, *ids, force=True)
        else:
            self._ask(getattr(world, kind), *ids)

    def _launch(self) -> None:
        source = self.source
        if source.random() < 0.05:
            self.world.import_disk(self._spool)
            return
        if source.random() < 0.05:
            self._ask(self.world.copy_image)
            return
        devices = []
        if source.random() < 0.3:
            keep = source.random() < 0.5
            devices.append(DeviceRequest(device_name="/dev/sdf", size_gib=1, delete_on_termination=not keep))
        self._ask(
            self.world.launch,
            count=source.choice((1, 1, 1, 2, 5, self.size.instances // 10 + 1)),
            instance_type=source.choice(TYPES),
            shutdown_behavior=source.choice(("stop", "stop", "terminate")),
            block_devices=tuple(devices),
        )

    def _ask(self, call: Callable[..., object], *arguments: object, **keywords: object) -> None:
        self.world.note(f"call {getattr(call, '__name__', call)} {arguments} {keywords}")
        refused = self.world.try_call(call, *arguments, **keywords)
        if refused:
            self.world.note(f"refused: {refused}")

    def call_inside(self) -> None:
        """A caller comes while a step is calling a host."""
        if not self._inside_call:
            self._inside_call = True
            try:
                self._call()
            finally:
                self._inside_call = False

    def _jump_wall_clock(self) -> None:
        seconds = self.source.choice((-3600.0, 3600.0))
        self.world.note(f"wall clock jumps by {seconds}")
        self.world.clock.jump_wall(seconds)

    def _let_time_pass(self) -> None:
        self.world.clock.advance(self.source.choice((0.01, 0.1, 1.0, 5.0, 30.0, 130.0)))
        self.world.settle_hosts()

    def _befall_host(self) -> None:
        host: FakeHost = self.source.choice(self.world.hosts)
        if not host.is_reachable:
            self.world.note(f"{host.host_id} is back")
            host.reconnect()
            return
        what = self.source.choice((host.disconnect, host.restart_libvirtd, host.power_cycle, self.world.survey))
        self.world.note(f"{host.host_id} {what.__name__}")
        what()

    def _befall_guest(self) -> None:
        rows = [row for row in self._alive() if row.state is InstanceState.RUNNING]
        if not rows:
            return
        id = self.source.choice(rows).id
        host = self.world.host_of(id)
        what = self.source.choice((host.guest_powers_off, host.guest_powers_off, host.qemu_crashes))
        self.world.note(f"{id} {what.__name__}")
        what(id)

    def _before_step(self, task: Task) -> None:
        """Let a controller die, or its database refuse, around this step's commit."""
        if self.faults.is_calm or self.source.random() >= self._crash_odds:
            return
        store = self.world.store
        error = self.source.choice((ControllerCrash("around a commit"), StoreBusyError("injected")))

        def once() -> None:
            store.before_write = store.after_write = lambda: None
            raise error

        if isinstance(error, ControllerCrash) and self.source.random() < 0.5:
            store.after_write = once
        else:
            store.before_write = once

    def _calm(self) -> None:
        """From here on nothing goes wrong any more."""
        self.world.note("calm")
        self.faults.calm()
        self.world.store.before_write = self.world.store.after_write = lambda: None
        for host in self.world.hosts:
            host.reconnect()

    def _end(self) -> None:
        """Terminate everything; in the end nobody remembers it."""
        for row in self._alive():
            self._ask(self.world.terminate, row.id)
        self.world.rest()
        assert_no_debris(self.world)
        # As long as terminated instances are shown, however far back wall time has jumped.
        self.world.clock.advance(2 * DEADLINES.terminated_visible_seconds)
        self.world.clock.jump_wall(100 * 3600.0)
        tasks_left = self.world.store.read
        self.world.run_until(lambda: tasks_left(lambda tx: tx.tasks.count()) == 0)
        assert tasks_left(lambda tx: (tx.tasks.count(), tx.instances.count())) == (0, 0), self.world.story()
        assert_no_debris(self.world)

    # What must hold meanwhile

    def _look(self) -> None:
        wrong = [*self.world.violations(), *live_twice(self.world), *self._overcommitted()]
        assert not wrong, "\n".join([*wrong, self.world.story()])

    def _overcommitted(self) -> list[str]:
        """Return the hosts on which more lives than they were said to hold."""
        config = self.world.config
        found = []
        for row in self.world.store.read(lambda tx: tx.hosts.where()):
            live = self.world.directory.hosts[row.id].live_specs()
            vcpus, memory_mib = sum(spec.vcpus for spec in live), sum(spec.memory_mib for spec in live)
            if vcpus > row.vcpus * config.vcpu_overcommit_ratio:
                found.append(f"{row.id}: {vcpus} vCPUs live")
            if memory_mib > row.memory_mib * config.memory_overcommit_ratio:
                found.append(f"{row.id}: {memory_mib} MiB live")
        return found

    def _alive(self) -> list[Instance]:
        rows = self.world.store.read(lambda tx: tx.instances.where())
        return [row for row in rows if row.state is not InstanceState.TERMINATED]

    def _guest_of(self, instance_id: str) -> Guest:
        if instance_id not in self._guests:
            self._guests[instance_id] = Guest(
                boot_seconds=self.source.choice((0.1, 2.0, 20.0)),
                obeys_acpi=self.source.random() < 0.8,
                shutdown_seconds=self.source.choice((0.0, 1.0, 10.0, 50.0)),
                death_seconds=self.source.choice((0.0, 0.0, 0.5, 20.0)),
            )
        return self._guests[instance_id]


class _Faults(SeededFaults):
    """Seeded faults, and callers who come while a call is on its way."""

    def __init__(self, source: random.Random, odds: Odds, simulation: Simulation) -> None:
        super().__init__(source, odds)
        self._simulation = simulation

    def choose(self, host_id: str, verb: str, resource_id: str) -> Fault | None:
        if not self.is_calm and self._source.random() < 0.05:
            self._simulation.call_inside()
        return super().choose(host_id, verb, resource_id)


def _draw_odds(source: random.Random) -> Odds:
    """Return how likely each fault is: in some runs a kind of fault never happens, in others often."""
    faults = {fault: source.choice((0.0, 0.0, 0.01, 0.03)) for fault in Fault}
    faults[Fault.PERMANENT] = source.choice((0.0, 0.0, 0.002, 0.01))
    return Odds(
        faults=faults,
        lost_event=source.choice((0.0, 0.1, 0.5)),
        late_event=source.choice((0.0, 0.1, 0.3)),
        double_event=source.choice((0.0, 0.1)),
        failed_job=source.choice((0.0, 0.1, 0.3)),
    )
