"""Hints that host events leave for a step that waits for them. In memory only: losing one is slow, never wrong."""

from __future__ import annotations

import threading

MAX_SIGNALS = 10_000


class EventSignals:
    """Remembers (resource, signal) pairs until a step takes them; bounded, oldest dropped first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: dict[tuple[str, str], None] = {}

    def put(self, resource_id: str, signal: str) -> None:
        """Leave a signal."""
        with self._lock:
            self._pairs[(resource_id, signal)] = None
            while len(self._pairs) > MAX_SIGNALS:
                del self._pairs[next(iter(self._pairs))]

    def take(self, resource_id: str, signal: str) -> bool:
        """Say whether the signal arrived since it was last taken."""
        with self._lock:
            return self._pairs.pop((resource_id, signal), self) is None
