"""The real worker, its threads and a database file, over hosts in memory: everybody is served at once, a database that
is away for a moment costs that moment only, and what one controller leaves the next one takes up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.live_world import LiveWorld

from minicloud.controller import worker as worker_module
from minicloud.controller.worker import Worker
from minicloud.errors import StoreFullError
from minicloud.model.resources import Task
from minicloud.model.states import InstanceState
from minicloud.store import queries


class Running(LiveWorld):
    """A world with a worker that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"sqlite:///{folder}/minicloud.db")
        self.worker = self._start_worker()

    def _start_worker(self) -> Worker:
        worker = Worker(self.world.engine, 4)
        worker.start()
        return worker

    def replace_controller(self) -> None:
        """End this controller and start another, as a restart of the daemon does."""
        self.worker.stop()
        self.start_controller()
        self.worker = self._start_worker()

    def close(self) -> None:
        self.worker.stop()
        super().close()


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
    running.assert_comes_to_rest()


def test_no_wish_waits_for_a_timer(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A parked task wakes by its owner's commit: here the worker's own look-around never comes."""
    monkeypatch.setattr(worker_module, "IDLE_SECONDS", threading.TIMEOUT_MAX)
    running: Running = request.getfixturevalue("running")
    (id,) = running.world.launch()
    running.until_all([id], InstanceState.RUNNING)
    running.world.stop(id, force=True)
    running.until_all([id], InstanceState.STOPPED)


def test_the_end_of_a_worker_is_the_end_of_its_steps(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step calls, the sessions and the store, is closed right after the worker has stopped."""
    advance = running.world.engine.advance
    begun, ended = threading.Event(), threading.Event()

    def slow(task: Task) -> None:
        begun.set()
        running.wait_turns(10)
        advance(task)
        ended.set()

    monkeypatch.setattr(running.world.engine, "advance", slow)
    running.world.launch()
    running.until(begun.is_set)
    running.worker.stop()
    assert ended.is_set()


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
    running.until(lambda: len(refused) >= 10)
    running.world.store.before_write = lambda: None
    running.until_all([first, *ids], InstanceState.RUNNING)
    running.assert_comes_to_rest()


def test_another_controller_takes_up_what_the_first_left(running: Running) -> None:
    ids = running.world.launch(count=10)
    running.replace_controller()
    running.world.terminate(*ids[:5])
    running.replace_controller()
    running.until_all(ids[:5], InstanceState.TERMINATED)
    running.until_all(ids[5:], InstanceState.RUNNING)
    running.assert_comes_to_rest()


def test_a_worker_shows_that_it_lives(running: Running) -> None:
    (id,) = running.world.launch()
    running.until_all([id], InstanceState.RUNNING)
    assert running.world.store.write(lambda tx: queries.heartbeat(tx, "other"))[running.world.incarnation] >= 1
