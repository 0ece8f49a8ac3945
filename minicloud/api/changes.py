"""Waiting for something to change without asking again and again: commits wake those who wait.

`notify` is called by the store after every commit, in whatever thread made it, and only marks and wakes.
"""

from __future__ import annotations

import asyncio
import threading


class ChangeHub:
    """Counts commits and wakes waiters on their own event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def count(self) -> int:
        """How many changes there were; take it before looking, and pass it to `wait`."""
        return self._count

    def notify(self) -> None:
        """Tell everybody that something changed."""
        with self._lock:
            self._count += 1
            waiters, self._waiters = self._waiters, set()
        for loop, event in waiters:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:
                # The loop was closed while its waiter was being told: nobody waits any more.
                continue

    async def wait(self, seen: int, timeout_seconds: float) -> bool:
        """Wait until there are more changes than `seen`; False if there were none in time."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._lock:
            if self._count > seen:
                return True
            self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
            return True
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiters.discard(waiter)
