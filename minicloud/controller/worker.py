"""The worker: leases due tasks and runs them on a bounded pool of threads. Owns the queue, its wake-ups and this
controller's heartbeat; refuses to know what a task does.

A committed intent wakes it at once (Store.on_wake); looking at the clock is only the safety net. Called by daemon.py.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from minicloud.clock import MICROSECONDS
from minicloud.controller.engine import LEASE_SECONDS, WATCHDOG_SECONDS, Engine
from minicloud.errors import MinicloudError
from minicloud.model.resources import Task
from minicloud.store import queries

log = logging.getLogger(__name__)

IDLE_SECONDS = 5.0
BROKEN_STORE_SECONDS = 1.0
HEARTBEAT_SECONDS = LEASE_SECONDS / 10


class Worker:
    """Runs tasks until it is stopped. `threads` steps run at once, each at most one per lease group."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._engine = engine
        self._clock = engine.context.clock
        self._store = engine.context.store
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="task")
        self._changed = threading.Condition()
        self._wanted = True
        self._stopping = False
        self._running: dict[str, float] = {}
        self._reported: set[str] = set()
        self._unreleased: dict[str, Task] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._beat_at = float("-inf")
        self._main = threading.Thread(target=self._loop, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to lease tasks."""
        self._store.on_wake(lambda _ids: self.wake())
        self._main.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Lease nothing more and wait, at most so long, for the tasks that are being advanced."""
        end = time.monotonic() + timeout_seconds
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._main.join(timeout_seconds)
        # Nothing waits in the pool: no more is leased than it has threads.
        self._pool.shutdown(wait=False)
        with self._changed:
            self._changed.wait_for(lambda: not self._running, max(0.0, end - time.monotonic()))

    def wake(self) -> None:
        """Look at the queue now."""
        with self._changed:
            self._wanted = True
            self._changed.notify_all()

    def _loop(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                self._wanted = False
                free = self._threads - len(self._running)
            wait_seconds = IDLE_SECONDS
            try:
                self._beat()
                self._release_failed()
                if free > 0:
                    tasks = self._engine.lease(free)
                    for task in tasks:
                        with self._changed:
                            self._running[task.id] = self._clock.monotonic_seconds()
                        self._pool.submit(self._advance, task)
                    if len(tasks) < free:
                        wait_seconds = self._seconds_until_due()
            except MinicloudError:
                log.exception("the store cannot be used; trying again")
                wait_seconds = BROKEN_STORE_SECONDS
            except Exception:
                log.exception("bug in the worker's loop")
                wait_seconds = BROKEN_STORE_SECONDS
            self._report_stuck()
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._stopping, wait_seconds)

    def _advance(self, task: Task) -> None:
        try:
            self._engine.advance(task)
        except Exception:
            log.exception("task %s could not be committed", task.id)
            with self._changed:
                self._unreleased[task.id] = task
        finally:
            with self._changed:
                self._running.pop(task.id, None)
                self._reported.discard(task.id)
                self._wanted = True
                self._changed.notify_all()

    def _release_failed(self) -> None:
        """Give leases back whose commits failed, so that their tasks are tried again soon. Raises what the store does:
        a store that fails does so for longer than one task runs, and no lease may outlive its holder's interest.
        """
        with self._changed:
            tasks = list(self._unreleased.values())
        if not tasks:
            return
        due_us = self._clock.steady_us() + int(BROKEN_STORE_SECONDS * MICROSECONDS)
        self._store.write(lambda tx: [queries.release_lease(tx, task.id, task.lease_epoch, due_us) for task in tasks])
        with self._changed:
            for task in tasks:
                del self._unreleased[task.id]

    def _seconds_until_due(self) -> float:
        due_us = self._store.read(queries.next_due_us)
        if due_us is None:
            return IDLE_SECONDS
        return min(IDLE_SECONDS, max(0.0, (due_us - self._clock.steady_us()) / MICROSECONDS))

    def _report_stuck(self) -> None:
        now = self._clock.monotonic_seconds()
        with self._changed:
            stuck = [id for id, since in self._running.items() if now - since > WATCHDOG_SECONDS]
        for id in stuck:
            if id not in self._reported:
                self._reported.add(id)
                log.error("task %s has been running one lease for over %.0f s", id, WATCHDOG_SECONDS)

    def _beat(self) -> None:
        """Show that this controller lives, and void the leases of one whose heart stood still for LEASE_SECONDS.

        Both times are this machine's monotonic clock: wall clocks may jump, and two controllers' never agree.
        """
        now = self._clock.monotonic_seconds()
        if now - self._beat_at < HEARTBEAT_SECONDS:
            return
        self._beat_at = now
        incarnation = self._engine.context.incarnation
        beats = self._store.write(lambda tx: queries.heartbeat(tx, incarnation))
        dead = []
        for holder, count in beats.items():
            seen = self._seen.get(holder)
            if holder == incarnation or seen is None or seen[0] != count:
                self._seen[holder] = (count, now)
            elif now - seen[1] > LEASE_SECONDS:
                dead.append(holder)
        for holder in dead:
            log.warning("controller %s is gone: its leases are void", holder)
            self._seen.pop(holder)
            self._store.write(lambda tx, holder=holder: queries.void_leases(tx, holder))  # type: ignore[misc]
