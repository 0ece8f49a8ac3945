"""A whole cloud in memory: a store, fake hosts, use cases as a caller would call them, and a controller that can die.

Single-threaded and deterministic: tests step the engine themselves on a manual clock. A crash drops the controller and
all it knew; rows and hosts stay. Invariants that must hold after every commit are triggers in the database, so that
no path around the use cases or the engine escapes them.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from support import rows as make

from minicloud.clock import Clock, ManualClock
from minicloud.cloud import bootstrap, hosts, images, instances, zones
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.instance_attributes import AttributeChange, modify_attribute
from minicloud.cloud.instance_types import load_instance_types
from minicloud.cloud.metadata_options import MetadataRequest, modify_metadata_options
from minicloud.cloud.tags import create_tags, delete_tags
from minicloud.config import Config, Deadlines
from minicloud.controller.context import Context
from minicloud.controller.engine import Engine
from minicloud.controller.events import SURVEY_SECONDS, EventPump
from minicloud.controller.programs.image_copy import ImageCopyProgram
from minicloud.controller.programs.image_import import ImportProgram
from minicloud.controller.programs.instance import InstanceProgram
from minicloud.controller.signals import EventSignals
from minicloud.errors import ApiError, HostError, PermanentError, StoreError, TransientError
from minicloud.hosts.fake import FakeHost, FakeHostDirectory, Guest
from minicloud.hosts.fake_faults import NO_FAULTS, ControllerCrash, Fault, Faults
from minicloud.model import names
from minicloud.model.plans import HostEvent
from minicloud.model.resources import BlockDevice, ImportTask, Instance, Task
from minicloud.model.states import LEGAL_TRANSITIONS, ImageState, InstanceState, SnapshotState
from minicloud.store import queries
from minicloud.store.store import Store, Tx

REGION = "lab-1"
IMAGE_ID = make.number("ami", 1)
SNAPSHOT_ID = make.number("snap", 1)
# Nothing in a healthy cloud takes longer than this to come to rest: every deadline and back-off fits.
# Less than a parked task naps: nothing may depend on a nap that a lost wake-up left to run out.
REST_SECONDS = 1500.0

T = TypeVar("T")

PROGRAMS = (InstanceProgram, ImportProgram, ImageCopyProgram)


class World:
    """One cloud. `faults` befall every host, `guest_of` says how machines behave."""

    def __init__(
        self,
        *,
        host_count: int = 1,
        faults: Faults = NO_FAULTS,
        guest_of: Callable[[str], Guest] = lambda _instance_id: Guest(),
        source: random.Random | None = None,
        spool_folder: Path | None = None,
        host_vcpus: int = 64,
        deadlines: Deadlines | None = None,
        clock: Any = None,
        store: CheckedStore | None = None,
    ) -> None:
        # A ManualClock unless given: only then do run_until and rest work.
        self.clock = clock or ManualClock()
        self.source = source or random.Random(0)
        # All that the run did, for a failure to show.
        self.log: deque[str] = deque(maxlen=400)
        self.store = store or open_store(self.clock)
        state_folder = str(spool_folder.parent) if spool_folder else "/nonexistent"
        self.config = Config(
            region=REGION, state_folder=state_folder, reserved_memory_mib=0, deadlines=deadlines or Deadlines()
        )
        self.cloud = Cloud(
            store=self.store,
            config=self.config,
            types=_types(),
            make_id=self._make_id,
            random_bytes=self.source.randbytes,
        )
        self._ids = itertools.count(1000)
        self.caller = Caller(bootstrap.ROOT_ACCOUNT_ID, REGION)
        # How the next detached jobs end; afterwards they succeed.
        self.job_failures: list[str] = []
        self.faults = _WithJobFailures(faults, self.job_failures)
        self.hosts: list[FakeHost] = []
        if store is not None:
            self._populate(host_count, host_vcpus)
        else:
            shape = (host_count, host_vcpus)
            if shape not in _templates:
                self._populate(host_count, host_vcpus)
                _templates[shape] = self.store.contents()
            self.store.restore(_templates[shape])
        self._ids = itertools.count(100_000)
        for row in self.store.read(lambda tx: tx.hosts.where()):
            self.hosts.append(
                FakeHost(
                    row.id,
                    self.clock,
                    vcpus=host_vcpus,
                    guest_of=guest_of,
                    faults=self.faults,
                    sleep=getattr(self.clock, "advance", time.sleep),
                )
            )
        self.jobs = FakeHost(
            "controller", self.clock, faults=self.faults, sleep=getattr(self.clock, "advance", time.sleep)
        )
        # Volumes that their owners keep when the instance ends.
        self.kept_volumes: set[str] = set()
        # Snapshots that copies made in the object store.
        self.manifests: set[str] = set()
        self.directory = FakeHostDirectory(self.hosts)
        self.events: deque[HostEvent] = deque()
        self.directory.subscribe(self.events.append)
        # Called before every step; may change the world under it, or raise what the step would.
        self.before_step: Callable[[Task], None] = lambda _task: None
        # The kind and step of everything that was run.
        self.trace: list[tuple[str, str]] = []
        self.running: dict[str, Task] = {}
        # Steps that controllers still had before them when their leases were voided: dead ones that do not know it.
        self.zombies: list[tuple[Engine, Task]] = []
        self._incarnations = itertools.count(1)
        self.start_controller()

    # What a caller does

    def launch(self, count: int = 1, **changes: Any) -> list[str]:
        """RunInstances of the image; returns the ids."""
        request = replace(
            instances.RunRequest(IMAGE_ID, 1, count, instance_type="t3.nano"),
            **changes,
        )
        reservation = instances.run(self.cloud, self.caller, request)
        ids = [view.instance.id for view in reservation.instances]
        kept = self.store.read(lambda tx: tx.attachments.where(instance_id=ids, delete_on_termination=False))
        self.kept_volumes.update(row.volume_id for row in kept)
        return ids

    def start(self, *ids: str) -> None:
        instances.start(self.cloud, self.caller, ids)

    def stop(self, *ids: str, force: bool = False) -> None:
        instances.stop(self.cloud, self.caller, ids, force, False)

    def reboot(self, *ids: str) -> None:
        instances.reboot(self.cloud, self.caller, ids)

    def terminate(self, *ids: str) -> None:
        instances.terminate(self.cloud, self.caller, ids)

    def tag(self, id: str, **tags: str) -> None:
        create_tags(self.cloud, self.caller, [id], tags)

    def untag(self, id: str, *keys: str) -> None:
        delete_tags(self.cloud, self.caller, [id], [(key, None) for key in keys])

    def change_options(self, id: str, **options: Any) -> None:
        modify_metadata_options(self.cloud, self.caller, id, MetadataRequest(**options))

    def change_attribute(self, id: str, **change: Any) -> None:
        modify_attribute(self.cloud, self.caller, id, AttributeChange(**change))

    def try_call(self, call: Callable[..., object], *arguments: Any, **keywords: Any) -> str | None:
        """Make a call that EC2 may refuse; return the refusal's code."""
        try:
            call(*arguments, **keywords)
        except ApiError as error:
            return error.code
        return None

    def import_disk(self, spool: Path, remove_source: bool = True) -> str:
        """What ImportImage of an uploaded file leaves in the store; returns the task's id."""
        n = next(self._ids)
        source = spool / f"upload-{n}"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(b"disk")
        task = make.import_task(
            n, kind="image", path=str(source), image_id=make.number("ami", n), remove_source=remove_source
        )

        def decide(tx: Tx) -> None:
            tx.snapshots.insert(make.snapshot(n, state=SnapshotState.PENDING, progress_percent=0, manifest_digest=None))
            tx.images.insert(make.image(n, state=ImageState.PENDING, name=f"imported{n}"))
            tx.import_tasks.insert(task)
            tx.add_task(task.id, "import", "start")

        self.store.write(decide)
        return task.id

    def copy_image(self) -> str:
        """CopyImage of the image under a new name; returns the copy's id."""
        name = f"copy{next(self._ids)}"
        return images.copy_image(self.cloud, self.caller, images.CopyRequest(name, IMAGE_ID, REGION)).id

    # What befalls it

    def fail_jobs(self, *codes: str) -> None:
        """Let the next detached jobs, on whatever machine, fail with these codes."""
        self.job_failures[:] = codes

    def shrink_pools(self, pool_bytes: int) -> None:
        """Leave the hosts' pools with so little room."""
        for host in self.hosts:
            host.pool_bytes = pool_bytes

    # Reading

    def instance(self, id: str) -> Instance:
        row = self.store.read(lambda tx: tx.instances.get(id))
        assert row is not None, f"{id} has no row"
        return row

    def import_task(self, id: str) -> ImportTask:
        row = self.store.read(lambda tx: tx.import_tasks.get(id))
        assert row is not None
        return row

    def host_of(self, id: str) -> FakeHost:
        return self.directory.hosts[self.instance(id).host_id]

    def violations(self) -> list[str]:
        """Return everything that must never happen and did."""
        lost = [path for host in self.hosts for path in host.lost if names.owner_of(path) in self.kept_volumes]
        return [
            *self.store.violations(),
            *(each for host in self.hosts for each in host.violations),
            *(f"{path} was used, was to be kept, and is gone" for path in lost),
        ]

    # The controller

    def start_controller(self) -> None:
        """Start a controller as the daemon does: its predecessor's leases are void, and it looks at every host."""
        self.incarnation = f"controller-{next(self._incarnations)}"
        self.signals = EventSignals()
        self.pump = EventPump(self.store, self.directory, self.signals, self.clock)
        context = Context(
            store=self.store,
            hosts=self.directory,
            jobs=self.jobs,
            signals=self.signals,
            config=self.config,
            clock=self.clock,
            incarnation=self.incarnation,
            fill_arguments=lambda snapshot, path: {
                "path": path,
                "size_bytes": snapshot.virtual_size_bytes,
                "blocks": [],
                "certificate_sha256": None,
            },
            copy_snapshot=self._copy_snapshot,
        )
        self.engine = Engine(context, [program() for program in PROGRAMS])
        self.running = {}
        self.events.clear()
        self.store.write(queries.void_leases)
        for host in self.hosts:
            if host.is_reachable:
                self.events.append(HostEvent(host.host_id, "connected"))

    def crash(self) -> None:
        """Drop the controller with everything in its memory, and start another."""
        self.note(f"crash of {self.incarnation}")
        self.start_controller()

    def pause_controller(self) -> None:
        """Start another controller while this one, paused, still believes in its leases."""
        self.zombies += [(self.engine, task) for task in self.running.values()]
        self.note(f"{self.incarnation} is paused")
        self.start_controller()

    def step_zombie(self) -> bool:
        """Let a paused controller do the step it had before it, if there is one."""
        if not self.zombies:
            return False
        engine, task = self.zombies.pop(0)
        self.note(f"zombie: {task.id} {task.step} of lease {task.lease_epoch}")
        try:
            following = engine.step(task)
        except (ControllerCrash, StoreError):
            return True
        if following is not None:
            raise AssertionError(f"{task.id}: a lost lease was committed\n{self.story()}")
        return True

    def settle_hosts(self) -> None:
        for host in (*self.hosts, self.jobs):
            host.settle()

    def handle_event(self) -> bool:
        """Handle one event that hosts have sent, if there is one."""
        if not self.events:
            return False
        event = self.events.popleft()
        self.note(f"event {event}")
        try:
            self.pump.handle(event)
        except ControllerCrash:
            self.crash()
        except (StoreError, HostError) as error:
            # The pump's own loop logs it and goes on: the survey finds what the event meant.
            self.note(f"event lost: {error}")
        return True

    def lease(self, limit: int = 16) -> None:
        """Lease what is due, as the worker does."""
        for task in self.engine.lease(limit):
            self.running[task.id] = task

    def step(self, task_id: str) -> None:
        """Run one step of a leased task, as a worker's thread would."""
        task = self.running.pop(task_id)
        self.trace.append((task.kind, task.step))
        incarnation = self.incarnation
        try:
            try:
                self.before_step(task)
                following = self.engine.step(task)
            finally:
                # What befalls a step's commit befalls no other.
                self.store.before_write = self.store.after_write = lambda: None
        except ControllerCrash as crash:
            self.note(f"{task_id} {task.step}: {crash}")
            self.crash()
            return
        except StoreError as error:
            self.note(f"{task_id} {task.step}: {error}")
            if incarnation == self.incarnation:
                due_us = self.clock.steady_us() + 1_000_000
                self.store.write(lambda tx: queries.release_lease(tx, task.id, task.lease_epoch, due_us))
            return
        self.note(f"{task_id} {task.step} -> {following.step if following else 'nap'}")
        if following is not None and incarnation == self.incarnation:
            self.running[task_id] = following

    def work(self) -> bool:
        """Do one thing that is to be done now: an event, a step, or taking leases. False if there is nothing."""
        self.settle_hosts()
        if self.handle_event():
            return True
        if not self.running:
            self.lease()
        if self.running:
            self.step(next(iter(self.running)))
            return True
        return False

    def next_due_seconds(self) -> float | None:
        """Return in how many seconds something is due: a task, or something on a host."""
        waits = []
        due_us = self.store.read(queries.next_due_us)
        if due_us is not None:
            waits.append(max(0.0, (due_us - self.clock.steady_us()) / 1e6))
        for host in (*self.hosts, self.jobs):
            at = host.next_at()
            if at is not None:
                waits.append(max(0.0, at - self.clock.monotonic_seconds()))
        return min(waits) if waits else None

    def run_until(self, is_done: Callable[[], bool], seconds: float = REST_SECONDS) -> bool:
        """Work, and let time pass where there is nothing to do, until something holds; False if time ran out."""
        end = self.clock.monotonic_seconds() + seconds
        while not is_done():
            if self.work():
                continue
            wait = self.next_due_seconds()
            left = end - self.clock.monotonic_seconds()
            if wait is None or wait > left:
                self.clock.advance(max(left, 0.0))
                self.settle_hosts()
                return is_done()
            # A microsecond more: due times are whole microseconds, and clocks are floats.
            self.clock.advance(wait + 1e-6)
        return True

    def is_at_rest(self) -> bool:
        """Whether every instance is as its owner wants it, nothing is on its way and nothing failed last."""
        if self.events or self.running:
            return False
        return self.store.read(_is_at_rest)

    def rest(self) -> None:
        """Run until the cloud is at rest and stays so after surveys. Fails the test if it never does.

        Two surveys, for a fault may befall one of them.
        """
        quiet_surveys = 0
        for _ in range(20):
            if not self.run_until(self.is_at_rest):
                break
            before = self._alive()
            self.survey()
            if not self.run_until(self.is_at_rest):
                break
            quiet_surveys = quiet_surveys + 1 if self._alive() == before else 0
            if quiet_surveys == 2:
                return
        raise AssertionError("the cloud never came to rest\n" + self.story())

    def _alive(self) -> list[Instance]:
        rows = self.store.read(lambda tx: tx.instances.where())
        return [row for row in rows if row.state is not InstanceState.TERMINATED]

    def survey(self) -> None:
        """Survey every host, as the pump does from time to time."""
        self.clock.advance(SURVEY_SECONDS)
        self.settle_hosts()
        self.note("survey")
        try:
            self.pump.survey_all()
        except ControllerCrash:
            self.crash()
        except StoreError as error:
            self.note(f"no survey: {error}")

    def note(self, what: str) -> None:
        self.log.append(f"{self.clock.monotonic_seconds():10.3f} {what}")

    def story(self) -> str:
        """Return what happened last, the tasks and the hosts, for a failure to show."""
        tasks = self.store.read(lambda tx: tx.tasks.where())
        kept = self.store.read(lambda tx: [(row.id, row.state, row.intent) for row in tx.instances.where()])
        return "\n".join([*self.log, *map(str, tasks), *map(str, kept), *self.violations()])

    def close(self) -> None:
        """Give the store back; the world is over."""
        _idle_stores.append(self.store)

    def _copy_snapshot(self, source_id: str, snapshot_id: str) -> None:
        """Give content a second name, in an object store that is only names and suffers what calls suffer."""
        fault = self.faults.choose("objects", "copy_snapshot", snapshot_id)
        if fault in (Fault.CRASH_BEFORE, Fault.CRASH_HALFWAY):
            raise ControllerCrash(f"before copy_snapshot {snapshot_id}")
        if fault in (Fault.TRANSIENT, Fault.HALFWAY, Fault.HANG):
            raise TransientError(f"copy_snapshot {snapshot_id}: injected")
        if fault is Fault.PERMANENT:
            raise PermanentError("Server.InternalError", f"copy_snapshot {snapshot_id}: injected")
        self.manifests.add(snapshot_id)
        if fault is Fault.CRASH_AFTER:
            raise ControllerCrash(f"after copy_snapshot {snapshot_id}")
        if fault is Fault.LOST_REPLY:
            raise TransientError(f"copy_snapshot {snapshot_id}: the reply was lost")

    def _make_id(self, prefix: str) -> str:
        return make.number(prefix, next(self._ids))

    def _populate(self, host_count: int, host_vcpus: int) -> None:
        bootstrap.ensure_root(self.cloud)
        bootstrap.ensure_region(self.cloud, self.caller.account_id, REGION)
        zones.add_zone(self.cloud, self.caller, f"{REGION}a")
        measured = FakeHost("measure", self.clock, vcpus=host_vcpus).facts()
        for n in range(host_count):
            hosts.register_host(
                self.cloud,
                self.caller,
                hosts.NewHost(
                    name=f"host{n}",
                    zone=f"{REGION}a",
                    address=f"10.0.0.{n}",
                    ssh_user="root",
                    ssh_port=22,
                    host_key=None,
                    uplink=None,
                    facts=measured,
                    pool_capacity_bytes=2**50,
                ),
            )
        self.store.write(
            lambda tx: (
                tx.snapshots.insert(make.snapshot(1)),
                tx.images.insert(make.image(1, block_devices=(BlockDevice("/dev/xvda", SNAPSHOT_ID, 1),), public=True)),
            )
        )


class _WithJobFailures(Faults):
    """Other faults, and jobs that fail as told."""

    def __init__(self, faults: Faults, job_failures: list[str]) -> None:
        self.choose = faults.choose  # type: ignore[method-assign]
        self.event_fates = faults.event_fates  # type: ignore[method-assign]
        self.late_seconds = faults.late_seconds  # type: ignore[method-assign]
        self._inner = faults
        self._job_failures = job_failures

    def job_failure(self, name: str) -> str | None:
        return self._job_failures.pop(0) if self._job_failures else self._inner.job_failure(name)


def _is_at_rest(tx: Tx) -> bool:
    for row in tx.instances.where():
        if row.state.value != {"running": "running", "stopped": "stopped", "terminated": "terminated"}[row.intent]:
            return False
        if row.state is InstanceState.RUNNING and row.reboot_requested != row.reboot_done:
            return False
    resting = {("instance", "watch"), ("instance", "rest"), ("instance", "forget")}
    return all(
        (task.kind, task.step) in resting and task.last_error is None and task.due_us > tx.steady_us
        for task in tx.tasks.where()
    )


def open_store_at(url: str, clock: Clock) -> CheckedStore:
    """Return a migrated store with the watching triggers and no rows; the caller closes it."""
    store = CheckedStore(url, clock)
    store.migrate()
    store.write(_watch)
    return store


class CheckedStore(Store):
    """A store whose database watches itself: what must never be written is recorded, and tests look at it."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, clock)
        # Called before a transaction begins and after it is committed; what they raise goes to whoever wrote.
        self.before_write: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None

    def reset(self, clock: Clock) -> None:
        """Become a new store."""
        self._clock = clock
        self._listeners.clear()
        self.before_write = self.after_write = lambda: None

    def contents(self) -> bytes:
        """Return the whole database."""
        return self.read(lambda tx: self._connection(tx).serialize())

    def restore(self, contents: bytes) -> None:
        """Replace the whole database."""
        engine = self._backend._engine  # type: ignore[attr-defined]
        # No statement may be kept over a database that is replaced.
        engine.dispose()
        with engine.connect() as connection:
            connection.connection.driver_connection.deserialize(contents)

    @staticmethod
    def _connection(tx: Tx) -> sqlite3.Connection:
        connection = tx.connection.connection.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        return connection

    def write(self, fn: Callable[[Tx], T]) -> T:
        self.before_write()
        result = super().write(fn)
        self.after_write()
        return result

    def violations(self) -> list[str]:
        """Return what was written and must never be."""
        return self.read(lambda tx: [row[0] for row in tx.connection.exec_driver_sql("SELECT what FROM violations")])


# Making tables and compiling statements costs more than most tests do with them: stores are used again, and what a new
# one holds is copied from the first.
_idle_stores: list[CheckedStore] = []
_templates: dict[tuple[object, ...], bytes] = {}


def open_store(clock: ManualClock) -> CheckedStore:
    """Return a migrated store in memory with the watching triggers and no rows."""
    store = _idle_stores.pop() if _idle_stores else CheckedStore("sqlite://", clock)
    store.reset(clock)
    if not _templates:
        store.migrate()
        store.write(_watch)
        _templates[()] = store.contents()
    store.restore(_templates[()])
    return store


def _watch(tx: Tx) -> None:
    """Let the database record what must never be written. PostgreSQL's only holds the list: its triggers differ."""
    legal = " OR ".join(
        f"(OLD.state = '{before}' AND NEW.state IN ({', '.join(repr(str(each)) for each in sorted(after))}))"
        for before, after in LEGAL_TRANSITIONS.items()
        if after
    )
    tx.connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS violations (what TEXT NOT NULL)")
    if tx.connection.dialect.name != "sqlite":
        return
    statements = [
        f"""CREATE TRIGGER legal_transitions AFTER UPDATE OF state ON instances
            WHEN OLD.state <> NEW.state AND NOT ({legal})
            BEGIN INSERT INTO violations VALUES (NEW.id || ': ' || OLD.state || ' -> ' || NEW.state); END""",
        """CREATE TRIGGER no_way_back AFTER UPDATE OF intent ON instances
            WHEN OLD.intent = 'terminated' AND NEW.intent <> 'terminated'
            BEGIN INSERT INTO violations VALUES (NEW.id || ': terminated, then wanted ' || NEW.intent); END""",
        """CREATE TRIGGER pending_first AFTER INSERT ON instances WHEN NEW.state <> 'pending'
            BEGIN INSERT INTO violations VALUES (NEW.id || ': born ' || NEW.state); END""",
        """CREATE TRIGGER epochs_grow AFTER UPDATE OF lease_epoch ON tasks WHEN NEW.lease_epoch < OLD.lease_epoch
            BEGIN INSERT INTO violations VALUES (NEW.id || ': its epoch fell'); END""",
        """CREATE TRIGGER one_lease_per_group AFTER UPDATE OF lease_holder ON tasks
            WHEN NEW.lease_holder IS NOT NULL AND EXISTS (SELECT 1 FROM tasks AS other
                WHERE other.lease_group = NEW.lease_group AND other.id <> NEW.id AND other.lease_holder IS NOT NULL)
            BEGIN INSERT INTO violations VALUES (NEW.lease_group || ': leased twice'); END""",
        """CREATE TRIGGER no_orphan_instance AFTER DELETE ON tasks
            WHEN EXISTS (SELECT 1 FROM instances WHERE id = OLD.id AND state <> 'terminated')
            BEGIN INSERT INTO violations VALUES (OLD.id || ': its task ended before it did'); END""",
    ]
    for statement in statements:
        tx.connection.exec_driver_sql(statement)


_loaded_types: dict[str, Any] = {}


def _types() -> dict[str, Any]:
    if not _loaded_types:
        _loaded_types.update(load_instance_types([]))
    return _loaded_types


@dataclass(frozen=True, slots=True)
class Rows:
    """Every row that says what hosts should hold."""

    instances: tuple[Any, ...]
    volumes: tuple[Any, ...]
    attachments: tuple[Any, ...]
    network_interfaces: tuple[Any, ...]
    pools: tuple[Any, ...]
    tasks: tuple[Task, ...]
    import_tasks: tuple[Any, ...]
    images: tuple[Any, ...]
    snapshots: tuple[Any, ...]
    tags: dict[str, dict[str, str]]


def read_rows(store: Store) -> Rows:
    return store.read(
        lambda tx: Rows(
            tuple(tx.instances.where()),
            tuple(tx.volumes.where()),
            tuple(tx.attachments.where()),
            tuple(tx.network_interfaces.where()),
            tuple(tx.pools.where()),
            tuple(tx.tasks.where()),
            tuple(tx.import_tasks.where()),
            tuple(tx.images.where()),
            tuple(tx.snapshots.where()),
            tx.tags.all(),
        )
    )
