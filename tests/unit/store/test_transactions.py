"""What a transaction promises on both databases: all or nothing, consistent reads, wake-ups after the commit only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import rows

from minicloud.clock import ManualClock
from minicloud.errors import StoreUnavailableError
from minicloud.store.store import Store, Tx


def test_a_function_that_fails_leaves_nothing(store: Store) -> None:
    def fail(tx: Tx) -> None:
        tx.accounts.insert(rows.account(1))
        tx.add_task("i-1", "instance", "prepare")
        tx.tags.set("i-1", {"Name": "x"})
        raise ZeroDivisionError

    woken: list[frozenset[str]] = []
    store.on_wake(lambda ids: woken.append(ids) if ids else None)
    with pytest.raises(ZeroDivisionError):
        store.write(fail)
    assert store.read(lambda tx: (tx.accounts.count(), tx.tasks.count(), tx.tags.all())) == (0, 0, {})
    assert woken == []


def test_write_returns_what_the_function_returns(store: Store) -> None:
    assert store.write(lambda tx: 5) == 5
    assert store.read(lambda tx: 6) == 6


def test_a_transaction_has_one_time(store: Store, clock: ManualClock) -> None:
    def look(tx: Tx) -> tuple[int, int]:
        first = tx.now_us
        clock.advance(5)
        return first, tx.now_us

    before = clock.now_us()
    assert store.read(look) == (before, before)
    assert store.write(look) == (before + 5_000_000, before + 5_000_000)


@pytest.mark.parametrize(
    "change",
    [
        lambda tx: tx.accounts.insert(rows.account()),
        lambda tx: tx.accounts.insert_many([]),
        lambda tx: tx.accounts.update("x", name="y"),
        lambda tx: tx.accounts.delete("x"),
        lambda tx: tx.tags.set("x", {"a": "b"}),
        lambda tx: tx.tags.delete("x"),
        lambda tx: tx.add_task("x", "instance", "prepare"),
        lambda tx: tx.wake("x"),
    ],
)
def test_a_read_may_not_write(store: Store, change: Callable[[Tx], Any]) -> None:
    with pytest.raises(RuntimeError, match="read transaction"):
        store.read(change)


def test_a_read_sees_one_moment(store: Store) -> None:
    """What another transaction commits meanwhile is not seen, and does not disturb."""
    store.write(lambda tx: tx.accounts.insert(rows.account(1)))

    def look(tx: Tx) -> tuple[int, int]:
        before = tx.accounts.count()
        thread = threading.Thread(target=lambda: store.write(lambda other: other.accounts.insert(rows.account(2))))
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        return before, tx.accounts.count()

    assert store.read(look) == (1, 1)
    assert store.read(lambda tx: tx.accounts.count()) == 2


def test_writers_take_turns_and_lose_nothing(store: Store) -> None:
    store.write(lambda tx: tx.pools.insert(rows.pool(1, host_id=_host(tx), capacity_bytes=0)))

    def add_one(tx: Tx) -> None:
        pool = tx.pools.get(rows.number("pool", 1))
        assert pool is not None
        tx.pools.update(pool.id, capacity_bytes=pool.capacity_bytes + 1)

    def work() -> None:
        for _ in range(20):
            store.write(add_one)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pool = store.read(lambda tx: tx.pools.get(rows.number("pool", 1)))
    assert pool is not None
    assert pool.capacity_bytes == 160


def _host(tx: Tx) -> str:
    tx.zones.insert(rows.zone())
    tx.hosts.insert(rows.host())
    return rows.number("h", 1)


def test_two_processes_on_one_database_lose_nothing(url: str, clock: ManualClock) -> None:
    """Two stores share no lock, as two processes do not: the database keeps them apart, or they run again."""
    first, second = Store(url, clock), Store(url, clock)
    first.migrate()
    first.write(lambda tx: tx.pools.insert(rows.pool(1, host_id=_host(tx), capacity_bytes=0)))
    runs: list[int] = []

    def add_one(tx: Tx) -> None:
        runs.append(1)
        pool = tx.pools.get(rows.number("pool", 1))
        assert pool is not None
        tx.pools.update(pool.id, capacity_bytes=pool.capacity_bytes + 1)

    def work(store: Store) -> None:
        for _ in range(30):
            store.write(add_one)

    threads = [threading.Thread(target=work, args=(store,)) for store in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pool = first.read(lambda tx: tx.pools.get(rows.number("pool", 1)))
    assert pool is not None
    assert pool.capacity_bytes == 60
    assert len(runs) >= 60
    first.close()
    second.close()


def test_a_conflict_runs_the_whole_function_again(postgresql_url: str, clock: ManualClock) -> None:
    """PostgreSQL's SERIALIZABLE: two decisions from the same facts cannot both stand."""
    first, second = Store(postgresql_url, clock), Store(postgresql_url, clock)
    seen: list[int] = []

    def take_next(tx: Tx) -> None:
        count = tx.accounts.count()
        seen.append(count)
        if len(seen) == 1:
            second.write(lambda other: other.accounts.insert(rows.account(other.accounts.count() + 1)))
        tx.accounts.insert(rows.account(count + 1))

    first.write(take_next)
    assert seen == [0, 1]
    assert first.read(lambda tx: [row.id for row in tx.accounts.where()]) == [rows.account(1).id, rows.account(2).id]
    first.close()
    second.close()


def test_woken_tasks_are_told_after_the_commit(store: Store, clock: ManualClock) -> None:
    told: list[tuple[frozenset[str], int]] = []
    store.on_wake(lambda ids: told.append((ids, store.read(lambda tx: tx.tasks.count()))) if ids else None)
    store.write(lambda tx: tx.add_task("i-1", "instance", "prepare"))
    store.write(lambda tx: (tx.add_task("i-2", "instance", "prepare"), tx.wake("i-1"), tx.wake("i-1")))
    store.write(lambda tx: tx.accounts.insert(rows.account()))
    assert told == [(frozenset({"i-1"}), 1), (frozenset({"i-1", "i-2"}), 2)]


def test_a_listener_that_fails_does_not_make_the_commit_a_failure(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    store.on_wake(fail)
    store.on_commit(fail)
    assert store.write(lambda tx: (tx.add_task("i-1", "instance", "prepare"), 5)) == (None, 5)
    assert store.read(lambda tx: tx.tasks.count()) == 1
    assert caplog.text.count("a listener for commits failed") >= 2


def test_commits_are_told_after_the_fact_and_failures_are_not(store: Store) -> None:
    told: list[int] = []
    store.on_commit(lambda: told.append(store.read(lambda tx: tx.accounts.count())))
    store.write(lambda tx: tx.accounts.insert(rows.account(1)))
    with pytest.raises(ZeroDivisionError):
        store.write(lambda tx: 1 / 0)
    store.write(lambda tx: tx.accounts.insert(rows.account(2)))
    assert told == [1, 2]


def test_a_new_task_is_due_now_and_its_group_is_its_own(store: Store, clock: ManualClock) -> None:
    store.write(
        lambda tx: (tx.add_task("i-1", "instance", "prepare"), tx.add_task("a-1", "attach", "start", {"x": 1}, "i-1"))
    )
    own, grouped = store.read(lambda tx: (tx.tasks.get("i-1"), tx.tasks.get("a-1")))
    assert own == rows.task(
        id="i-1",
        facts={},
        due_us=clock.now_us(),
        lease_group="i-1",
        step_started_us=clock.now_us(),
        created_us=clock.now_us(),
    )
    assert grouped is not None
    assert (grouped.facts, grouped.lease_group, grouped.kind, grouped.step) == ({"x": 1}, "i-1", "attach", "start")


def test_a_wake_up_makes_a_task_due_and_is_counted(store: Store, clock: ManualClock) -> None:
    store.write(lambda tx: tx.tasks.insert(rows.task(1, due_us=clock.now_us() + 10**9)))
    clock.advance(1)
    store.write(lambda tx: (tx.wake(rows.number("i", 1)), tx.wake("i-gone")))
    task = store.read(lambda tx: tx.tasks.get(rows.number("i", 1)))
    assert task == rows.task(1, due_us=clock.now_us(), wake_count=1)
    assert store.read(lambda tx: tx.tasks.count()) == 1


def test_a_task_added_and_woken_in_one_transaction(store: Store) -> None:
    store.write(lambda tx: (tx.add_task("i-1", "instance", "prepare"), tx.wake("i-1")))
    task = store.read(lambda tx: tx.tasks.get("i-1"))
    assert task is not None
    assert task.wake_count == 1


def test_another_daemon_hears_of_wake_ups(postgresql_url: str, clock: ManualClock) -> None:
    """LISTEN/NOTIFY: what one daemon commits wakes the other's worker, and not its own a second time."""
    here, there = Store(postgresql_url, clock), Store(postgresql_url, clock)
    heard: list[frozenset[str]] = []
    arrived = threading.Condition()

    def listen(ids: frozenset[str]) -> None:
        with arrived:
            heard.append(ids)
            arrived.notify_all()

    def wait_for(count: int) -> None:
        with arrived:
            assert arrived.wait_for(lambda: len(heard) >= count, 60), heard

    there.on_wake(listen)
    wait_for(1)
    here.write(lambda tx: tx.add_task("i-1", "instance", "prepare"))
    wait_for(2)
    here.write(lambda tx: [tx.wake(rows.number("i", n)) for n in range(1000)])
    wait_for(3)
    there.write(lambda tx: tx.wake("i-1"))
    here.write(lambda tx: tx.wake("i-1"))
    wait_for(5)
    # At first everything is to be looked at, and so it is when the ids are more than a notice holds.
    assert heard == [frozenset(), frozenset({"i-1"}), frozenset(), frozenset({"i-1"}), frozenset({"i-1"})]
    here.close()
    there.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "not a url", ""])
def test_a_url_that_is_no_database_is_refused_clearly(url: str, clock: ManualClock) -> None:
    with pytest.raises(StoreUnavailableError, match="database_url"):
        Store(url, clock)


def test_a_database_in_memory_is_one_database(clock: ManualClock) -> None:
    store = Store("sqlite://", clock)
    store.migrate()
    results: list[int] = []

    def work(n: int) -> None:
        store.write(lambda tx: tx.accounts.insert(rows.account(n)))
        results.append(store.read(lambda tx: tx.accounts.count()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert max(results) == 10
    store.close()
