"""Time as a value that is passed in, so that tests own it. Nobody else calls time.time() or time.monotonic()."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

MICROSECONDS = 1_000_000


class Clock(Protocol):
    """Wall time for what people read, and for what is measured two clocks that never jump: seconds for this process
    alone, and microseconds that may be stored (when a task is due, when a guest's patience ends)."""

    def now_us(self) -> int:
        """Return UTC wall time in microseconds since the epoch."""

    def monotonic_seconds(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean anything."""

    def steady_us(self) -> int:
        """Return microseconds that follow wall time as it was when this process began, whatever wall time does since.

        Never shown to anybody. After a restart it follows wall time anew.
        """


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._steady_offset_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_seconds(self) -> float:
        return time.monotonic()

    def steady_us(self) -> int:
        return time.monotonic_ns() // 1000 + self._steady_offset_us


class ManualClock:
    """A clock that moves only when a test or the simulator moves it."""

    def __init__(self, now_us: int = 1_700_000_000 * MICROSECONDS) -> None:
        self._now_us = now_us
        self._steady_us = now_us
        self._monotonic_seconds = 0.0

    def now_us(self) -> int:
        return self._now_us

    def monotonic_seconds(self) -> float:
        return self._monotonic_seconds

    def steady_us(self) -> int:
        return self._steady_us

    def advance(self, seconds: float) -> None:
        """Move all clocks forward by `seconds`."""
        self._now_us += int(seconds * MICROSECONDS)
        self._steady_us += int(seconds * MICROSECONDS)
        self._monotonic_seconds += seconds

    def jump_wall(self, seconds: float) -> None:
        """Move the wall clock alone, as an operator or a bad NTP server would."""
        self._now_us += int(seconds * MICROSECONDS)


def to_datetime(us: int) -> datetime:
    """Return microseconds since the epoch as an aware UTC datetime."""
    return datetime.fromtimestamp(us / MICROSECONDS, UTC)
