"""Two daemons on one PostgreSQL database, over the same hosts: leases keep them from acting twice, what one commits
wakes the other, and what one leaves behind when it dies the other takes up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest
from support.debris import live_twice
from support.live_world import LiveWorld
from support.postgresql import Cluster
from support.world import PROGRAMS

from minicloud.controller import worker as worker_module
from minicloud.controller.engine import Engine
from minicloud.controller.worker import Worker
from minicloud.model.states import InstanceState
from minicloud.store import queries
from minicloud.store.store import Store, Tx


class TwoControllers(LiveWorld):
    """A world on PostgreSQL whose own controller has a second one beside it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, host_count=2)
        self.other_store = Store(url, self.world.clock)
        first = self.world.engine.context
        second = replace(first, store=self.other_store, incarnation="the other one")
        self.engines = [self.world.engine, Engine(second, [program() for program in PROGRAMS])]
        self.workers = [Worker(engine, 4) for engine in self.engines]

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.other_store.close()
        super().close()


@pytest.fixture
def both(cluster: Cluster) -> Iterator[TwoControllers]:
    cluster.execute("CREATE DATABASE two TEMPLATE template_minicloud")
    both = TwoControllers(cluster.url("two"))
    yield both
    both.close()
    cluster.execute("DROP DATABASE two WITH (FORCE)")


def test_they_share_the_work_and_do_none_of_it_twice(both: TwoControllers) -> None:
    both.start()
    ids = both.world.launch(count=24)
    both.until_all(ids, InstanceState.RUNNING)
    starts = [id for host in both.world.hosts for verb, id in host.calls if verb == "ensure_domain"]
    assert sorted(starts) == sorted(ids)
    assert live_twice(both.world) == []
    both.world.stop(*ids[:8])
    both.world.terminate(*ids[8:])
    both.until_all(ids[:8], InstanceState.STOPPED)
    both.until_all(ids[8:], InstanceState.TERMINATED)
    both.assert_comes_to_rest()


def test_what_one_decides_wakes_the_other(both: TwoControllers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the second runs tasks; the calls come to the first. Its own look-around never comes."""
    monkeypatch.setattr(worker_module, "IDLE_SECONDS", threading.TIMEOUT_MAX)
    both.workers = both.workers[1:]
    both.start()
    (id,) = both.world.launch()
    both.until_all([id], InstanceState.RUNNING)
    both.world.stop(id, force=True)
    both.until_all([id], InstanceState.STOPPED)


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(worker_module, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(worker_module, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(worker_module, "IDLE_SECONDS", 0.2)
    return worker_module


def test_the_leases_of_a_dead_one_are_taken_over(both: TwoControllers, short_leases: ModuleType) -> None:
    (id,) = both.world.launch()
    dead, alive = both.engines
    both.world.store.write(lambda tx: queries.heartbeat(tx, dead.context.incarnation))
    (task,) = dead.lease(1)
    assert task.id == id
    both.workers = [Worker(alive, 4)]
    both.start()
    both.until_all([id], InstanceState.RUNNING)
    assert dead.step(task) is None
    assert both.world.store.write(lambda tx: queries.heartbeat(tx, "x")).keys() == {alive.context.incarnation, "x"}


def test_the_leases_of_one_that_lives_are_left_alone(
    both: TwoControllers, short_leases: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id,) = both.world.launch()
    slow, other = both.engines
    (task,) = slow.lease(1)
    heartbeat, seen = queries.heartbeat, []

    def beat_both(tx: Tx, incarnation: str) -> dict[str, int]:
        # In step: however slow this machine is, the first one's heart never stands still for a lease.
        heartbeat(tx, slow.context.incarnation)
        seen.append(time.monotonic())
        return heartbeat(tx, incarnation)

    monkeypatch.setattr(queries, "heartbeat", beat_both)
    both.workers = [Worker(other, 4)]
    both.start()
    both.until(lambda: len(seen) > 5 and seen[-1] - seen[0] > 2 * short_leases.LEASE_SECONDS)
    row = both.world.store.read(lambda tx: tx.tasks.get(id))
    assert row is not None
    assert (row.lease_holder, row.lease_epoch) == (slow.context.incarnation, task.lease_epoch)
    slow.advance(task)
    both.until_all([id], InstanceState.RUNNING)
