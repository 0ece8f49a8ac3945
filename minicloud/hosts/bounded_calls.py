"""Calls that end when their deadline does, whatever the called library thinks of it.

libvirt has no timeouts: a call may wait for ever for a hung QEMU. Each call therefore runs in a thread of its own,
and a caller whose deadline passes leaves the thread behind: the call is *abandoned*, its thread stays counted against
a bound and against its key (an instance) until it returns, if it ever does. Knows nothing of libvirt.
Called by connections.py and libvirt_host.py, one BoundedCalls per host.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from minicloud.errors import TransientError

T = TypeVar("T")


class Call:
    """A call as the work in it sees it: whether somebody still waits for its outcome."""

    def __init__(self) -> None:
        self.is_abandoned = False

    def checkpoint(self) -> None:
        """Go no further if nobody waits any more: the rest would come late and undo somebody's later work."""
        if self.is_abandoned:
            raise TransientError("the call was abandoned")


class _Job(Generic[T]):
    def __init__(self, work: Callable[[Call], T], key: str | None) -> None:
        self.work = work
        self.key = key
        self.call = Call()
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.returned = threading.Event()


class BoundedCalls:
    """Runs work in daemon threads, `max_threads` at most; threads are kept for the next call."""

    def __init__(self, name: str, max_threads: int) -> None:
        self._name = name
        self._max_threads = max_threads
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._idle: list[queue.SimpleQueue[_Job[Any] | None]] = []
        self._threads = 0
        self._hung: Counter[str | None] = Counter()
        self._closed = False

    def run(self, what: str, work: Callable[[Call], T], timeout_seconds: float, key: str | None = None) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises TransientError when `timeout_seconds` pass first (the outcome is unknown) and at once when every thread
        is in use.
        """
        job = _Job(work, key)
        self._worker(what).put(job)
        if not job.returned.wait(max(timeout_seconds, 0.0)) and self._abandon(job):
            raise TransientError(f"{self._name}: {what}: no answer in {timeout_seconds:.1f} s, the outcome is unknown")
        if job.error is not None:
            raise job.error
        result: T = job.value
        return result

    def hung(self, key: str) -> int:
        """Return how many abandoned calls of `key` have not returned yet."""
        with self._lock:
            return self._hung[key]

    def hung_total(self) -> int:
        """Return how many abandoned calls have not returned yet."""
        with self._lock:
            return self._hung.total()

    def wait_settled(self, key: str, timeout_seconds: float) -> bool:
        """Wait until no abandoned call of `key` is out any more; False if that takes longer."""
        with self._settled:
            return self._settled.wait_for(lambda: not self._hung[key], max(timeout_seconds, 0.0))

    def close(self) -> None:
        """Let idle threads end; those in a call end after it."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.put(None)

    def _worker(self, what: str) -> queue.SimpleQueue[_Job[Any] | None]:
        with self._lock:
            if self._closed:
                raise TransientError(f"{self._name}: {what}: closed")
            if self._idle:
                return self._idle.pop()
            if self._threads >= self._max_threads:
                raise TransientError(f"{self._name}: {what}: {self._threads} calls are under way, that is the limit")
            self._threads += 1
            name = f"{self._name}-{self._threads}"
        jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(jobs,), name=name, daemon=True).start()
        return jobs

    def _serve(self, jobs: queue.SimpleQueue[_Job[Any] | None]) -> None:
        while (job := jobs.get()) is not None:
            try:
                job.value = job.work(job.call)
            except BaseException as error:
                job.error = error
            if not self._settle(job, jobs):
                return
            # An idle thread must not keep alive what the last call held (a connection, an exception's frames).
            del job

    def _settle(self, job: _Job[Any], jobs: queue.SimpleQueue[_Job[Any] | None]) -> bool:
        """Note that a job returned and that its thread is idle; False if the thread should end."""
        with self._settled:
            job.is_done = True
            if job.call.is_abandoned:
                self._hung[job.key] -= 1
                if not self._hung[job.key]:
                    del self._hung[job.key]
                self._settled.notify_all()
            keep = not self._closed
            if keep:
                self._idle.append(jobs)
            else:
                self._threads -= 1
        job.returned.set()
        return keep

    def _abandon(self, job: _Job[Any]) -> bool:
        """Give a job up; False if it returned at the last moment."""
        with self._lock:
            if job.is_done:
                return False
            job.call.is_abandoned = True
            self._hung[job.key] += 1
            return True
