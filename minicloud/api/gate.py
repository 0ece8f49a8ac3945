"""How many requests are worked on at a time, and how many may wait: the rest are told to come back later.

Handlers are ordinary functions that run in threads, for the store is synchronous.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.to_thread

from minicloud.errors import ApiError

T = TypeVar("T")


class Gate:
    """Runs functions in at most `threads` threads; at most `max_requests` requests are inside at once."""

    def __init__(self, threads: int, max_requests: int) -> None:
        self._threads = threads
        self._max_requests = max_requests
        self._inside = 0
        self._limiter: anyio.CapacityLimiter | None = None

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """Hold a place for one request. Raises ApiError: RequestLimitExceeded when there is none."""
        if self._inside >= self._max_requests:
            raise ApiError("RequestLimitExceeded", "Request limit exceeded.", 503)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function in a thread once one is free. It is not interrupted when the client goes away."""
        if self._limiter is None:  # it belongs to the event loop, which exists only now
            self._limiter = anyio.CapacityLimiter(self._threads)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)
