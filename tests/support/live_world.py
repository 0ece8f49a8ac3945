"""A world on the machine's own clock, for workers with threads: time in its fake hosts passes, and their events are
handled, by a thread of its own.

What one waits for is looked at with every commit and every turn of that thread, and in the end fails with the story:
seconds are never asserted, for they would measure the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from support.debris import debris
from support.world import World, open_store_at

from minicloud.clock import SystemClock
from minicloud.hosts.fake import Guest
from minicloud.model.states import InstanceState

# What a machine that is busy with other things never needs; only a failing test takes so long.
PATIENCE_SECONDS = 240.0
TURN_SECONDS = 0.02
QUICK = Guest(boot_seconds=0.0, shutdown_seconds=0.05)


class LiveWorld:
    """A world over the database at `url`, without a worker: those are the subclasses'."""

    def __init__(self, url: str, host_count: int = 1) -> None:
        clock = SystemClock()
        self.world = World(
            host_count=host_count, clock=clock, store=open_store_at(url, clock), guest_of=lambda _id: QUICK
        )
        for host in self.world.hosts:
            host.job_seconds = 0.05
        self._changed = threading.Condition()
        self._changes = 0
        self.world.store.on_commit(self._tell)
        self._stop = threading.Event()
        # One at a time: time in hosts passes, or a controller is put in the place of another.
        self._turn = threading.Lock()
        self._turns = 0
        self._fate = threading.Thread(target=self._settle)
        self._fate.start()

    def _settle(self) -> None:
        while not self._stop.wait(TURN_SECONDS):
            with self._turn:
                self.world.settle_hosts()
                while self.world.handle_event():
                    pass
            self._turns += 1
            self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def start_controller(self) -> None:
        """Start a controller, as the daemon does, in the place of one whose worker was stopped."""
        with self._turn:
            self.world.start_controller()

    def wait_turns(self, count: int) -> None:
        """Let time in the hosts pass: for what shall take long, or not happen at all."""
        end = self._turns + count
        self.until(lambda: self._turns >= end)

    def until(self, holds: Callable[[], bool], why_not: Callable[[], str] = lambda: "") -> None:
        """Wait until something holds, which is looked at again with every change. AssertionError in the end."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            # Before the look: what changes during it is looked at again.
            seen = self._changes
            if holds():
                return
            if time.monotonic() > end:
                raise AssertionError("\n".join([why_not(), "What happened:", self.world.story()]))
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._changes != seen, 1.0)  # type: ignore[misc]

    def until_all(self, ids: list[str], state: InstanceState) -> None:
        self.until(lambda: all(self.world.instance(id).state is state for id in ids))

    def assert_comes_to_rest(self) -> None:
        """Wait until nothing is left that should not be and no task is leased. What must never happen fails at once.

        A late event may always lease a task once more: there is no moment at which one could look once and be right.
        """
        found: list[str] = []

        def rests() -> bool:
            violations = self.world.violations()
            if violations:
                raise AssertionError("\n".join([*violations, "What happened:", self.world.story()]))
            found[:] = debris(self.world)
            return not found

        self.until(rests, lambda: "\n".join(found))

    def close(self) -> None:
        """End the hosts' time and close the store; workers are stopped before."""
        self._stop.set()
        self._fate.join()
        self.world.store.close()
