"""The real worker, its threads and a database file, over hosts in memory: everybody is served at once, a database that
is away for a moment costs that moment only, and what one controller leaves the next one takes up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.debris import assert_no_debris
from support.world import World, open_store_at

from minicloud.clock import SystemClock
from minicloud.controller.worker import Worker
from minicloud.errors import StoreFullError
from minicloud.hosts.fake import Guest
from minicloud.model.states import InstanceState
from minicloud.store import queries

PATIENCE_SECONDS = 30.0
QUICK = Guest(boot_seconds=0.0, shutdown_seconds=0.05)


class Running:
    """A world on the machine's own clock, with a worker that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        clock = SystemClock()
        self.changed = threading.Condition()
        self.world = World(
            clock=clock, store=open_store_at(f"sqlite:///{folder}/minicloud.db", clock), guest_of=lambda _id: QUICK
        )
        for host in self.world.hosts:
            host.job_seconds = 0.05
        self.world.store.on_commit(self._tell)
        self.worker = self._start_worker()
        self._stop = threading.Event()
        # Time in a fake host passes when somebody looks.
        self._fate = threading.Thread(target=self._settle)
        self._fate.start()

    def _settle(self) -> None:
        while not self._stop.wait(0.02):
            self.world.settle_hosts()
            while self.world.events:
                self.world.handle_event()

    def _start_worker(self) -> Worker:
        worker = Worker(self.world.engine, 4)
        worker.start()
        return worker

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def replace_controller(self) -> None:
        """End this controller and start another, as a restart of the daemon does."""
        self.worker.stop()
        self.world.start_controller()
        self.worker = self._start_worker()

    def until(self, holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        end = time.monotonic() + seconds
        with self.changed:
            while not holds():
                assert self.changed.wait(max(0.0, end - time.monotonic())) or holds(), self.world.story()

    def until_all(self, ids: list[str], state: InstanceState) -> None:
        self.until(lambda: all(self.world.instance(id).state is state for id in ids))

    def close(self) -> None:
        self.worker.stop()
        self._stop.set()
        self._fate.join()
        self.world.store.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


def test_many_instances_live_and_die_at_once(running: Running) -> None:
    ids = running.world.launch(count=30)
    running.until_all(ids, InstanceState.RUNNING)
    running.world.stop(*ids[:10])
    running.until_all(ids[:10], InstanceState.STOPPED)
    running.world.terminate(*ids)
    running.until_all(ids, InstanceState.TERMINATED)
    running.until(lambda: running.worker.running() == 0)
    assert_no_debris(running.world)


def test_no_wish_waits_for_a_timer(running: Running) -> None:
    """A parked task wakes by its owner's commit: within a fraction of the worker's idle look-around."""
    (id,) = running.world.launch()
    running.until_all([id], InstanceState.RUNNING)
    asked = time.monotonic()
    running.world.stop(id, force=True)
    running.until_all([id], InstanceState.STOPPED)
    assert time.monotonic() - asked < 2.5


def test_a_database_that_is_away_for_a_moment_costs_a_moment(running: Running) -> None:
    """Commits fail under running steps and so does giving their leases back: both are made up for."""
    (first,) = running.world.launch()
    running.until_all([first], InstanceState.RUNNING)

    refused: list[str] = []

    def refuse() -> None:
        # Leasing works, commits do not: each refused one leaves a lease behind.
        if threading.current_thread().name.startswith("task"):
            refused.append(threading.current_thread().name)
            raise StoreFullError("injected: no space left")

    running.world.store.before_write = refuse
    ids = running.world.launch(count=5)
    end = time.monotonic() + PATIENCE_SECONDS
    while len(refused) < 10 and time.monotonic() < end:
        time.sleep(0.02)
    running.world.store.before_write = lambda: None
    assert len(refused) >= 10
    running.until_all([first, *ids], InstanceState.RUNNING)
    running.until(lambda: running.worker.running() == 0)
    assert_no_debris(running.world)


def test_another_controller_takes_up_what_the_first_left(running: Running) -> None:
    ids = running.world.launch(count=10)
    running.replace_controller()
    running.world.terminate(*ids[:5])
    running.replace_controller()
    running.until_all(ids[:5], InstanceState.TERMINATED)
    running.until_all(ids[5:], InstanceState.RUNNING)
    running.until(lambda: running.worker.running() == 0)
    assert_no_debris(running.world)


def test_a_worker_shows_that_it_lives(running: Running) -> None:
    (id,) = running.world.launch()
    running.until_all([id], InstanceState.RUNNING)
    assert running.world.store.write(lambda tx: queries.heartbeat(tx, "other"))[running.world.incarnation] >= 1
