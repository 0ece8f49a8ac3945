"""The engine: runs one step of one leased task and commits its verdict. Owns the fence between a lease and a commit,
back-off, and what an error does to a task. Refuses to know any resource: programs do.

Called by worker.py, and directly, step by step, by the crash tests and the simulator.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from minicloud.clock import MICROSECONDS
from minicloud.controller.context import Context, Program
from minicloud.controller.verdicts import ChangedError, Done, Hop, Nap, Verdict
from minicloud.errors import PermanentError, TransientError
from minicloud.hosts.protocol import HOST_CALL_SECONDS
from minicloud.model.resources import Task
from minicloud.store import queries
from minicloud.store.store import Tx

log = logging.getLogger(__name__)

WATCHDOG_SECONDS = 120.0
LEASE_SECONDS = 300.0
# A step makes a bounded number of host calls; the worker reports one that outlives WATCHDOG; another controller takes
# a task over only after LEASE. Each must outlast the one before it, or a slow call would be acted upon twice.
if not HOST_CALL_SECONDS < WATCHDOG_SECONDS < LEASE_SECONDS:
    raise AssertionError("HOST_CALL < WATCHDOG < LEASE must hold")

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 30.0
MAX_HOPS = 64


def retry_seconds(attempt: int) -> float:
    """Return how long to nap after the `attempt`-th failure in a row (0 for the first): doubling, bounded."""
    return float(min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(attempt, 16)))


class LostLeaseError(Exception):
    """Another controller holds the task now: whatever this one decided must not be committed."""


class Engine:
    """Advances tasks for one controller incarnation."""

    def __init__(self, context: Context, programs: Iterable[Program]) -> None:
        self.context = context
        self._programs = {program.kind: program for program in programs}

    def lease(self, limit: int) -> list[Task]:
        """Lease up to `limit` due tasks, at most one per lease group."""
        steady_us = self.context.clock.steady_us()
        return self.context.store.write(lambda tx: queries.lease_tasks(tx, self.context.incarnation, limit, steady_us))

    def advance(self, task: Task) -> None:
        """Run a leased task until it naps or is done. The lease is given back with the last commit.

        Hops run on under the same lease: a launch does not wait for the queue between its steps.
        """
        current: Task | None = task
        for _ in range(MAX_HOPS):
            if current is None:
                return
            current = self.step(current)
        if current is not None:
            log.error("task %s hopped %d times in a row, last to %s: it waits", task.id, MAX_HOPS, current.step)
            self.commit(current, Nap(LAST_RETRY_SECONDS))

    def step(self, task: Task) -> Task | None:
        """Run one step and commit its verdict. Returns the task, still leased, if it has more to do at once."""
        verdict, error = self._run(task)
        try:
            try:
                return self.commit(task, verdict, error)
            except ChangedError:
                return self.commit(task, Nap(0))
        except LostLeaseError:
            log.warning("task %s: lease %d was lost during step %s", task.id, task.lease_epoch, task.step)
            return None

    def _run(self, task: Task) -> tuple[Verdict, str | None]:
        program = self._programs[task.kind]
        try:
            return _verdict(program.run(self.context, task)), None
        except TransientError as error:
            log.info("task %s: step %s will be tried again: %s", task.id, task.step, error.detail)
            return Nap(retry_seconds(task.attempt)), error.detail
        except PermanentError as error:
            log.warning("task %s: step %s failed: %s: %s", task.id, task.step, error.code, error.detail)
            code, detail = error.code, error.detail
        except Exception as error:
            log.exception("task %s: bug in step %s", task.id, task.step)
            return Nap(retry_seconds(task.attempt + 4)), f"{type(error).__name__}: {error}"
        try:
            return _verdict(program.fail(self.context, task, code, detail)), f"{code}: {detail}"
        except TransientError as error:
            return Nap(retry_seconds(task.attempt)), error.detail

    def commit(self, task: Task, verdict: Verdict, error: str | None = None) -> Task | None:
        """Write a verdict if the lease still holds. Raises LostLeaseError otherwise."""
        return self.context.store.write(lambda tx: self._commit(tx, task, verdict, error))

    def _commit(self, tx: Tx, task: Task, verdict: Verdict, error: str | None) -> Task | None:
        row = tx.tasks.get(task.id)
        if row is None or row.lease_holder != task.lease_holder or row.lease_epoch != task.lease_epoch:
            raise LostLeaseError(task.id)
        verdict.writes(tx)
        if isinstance(verdict, Done):
            tx.tasks.delete(task.id)
            return None
        facts = row.facts if verdict.facts is None else verdict.facts
        now_us = self.context.clock.steady_us()
        if isinstance(verdict, Hop):
            return tx.tasks.update(
                task.id,
                step=verdict.step,
                facts=facts,
                attempt=0,
                due_us=now_us,
                step_started_us=now_us,
                last_error=error,
            )
        woken = row.wake_count != task.wake_count
        tx.tasks.update(
            task.id,
            facts=facts,
            attempt=task.attempt + 1 if error else 0,
            due_us=now_us if woken else now_us + int(verdict.seconds * MICROSECONDS),
            lease_holder=None,
            last_error=error,
        )
        return None


def _verdict(value: object) -> Verdict:
    if not isinstance(value, Hop | Nap | Done):
        raise TypeError(f"a step must answer Hop, Nap or Done, not {value!r}")
    return value
