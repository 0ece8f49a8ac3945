"""The newest lease epoch this process has seen for each resource, and one call at a time for it.

The host side keeps the fence that other controllers see (hostside/fences.py); this one also covers the libvirt call
that follows it, and two threads of one controller. Called by libvirt_host.py.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator

from minicloud.errors import TransientError

MAX_REMEMBERED = 100_000


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.epoch = -1


class EpochFences:
    """Epochs by resource id; the least recently used are forgotten beyond `max_remembered`."""

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._guard = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._max_remembered = max_remembered

    @contextlib.contextmanager
    def held(self, resource_id: str, epoch: int, timeout_seconds: float) -> Iterator[None]:
        """Hold a resource for `epoch`. Raises TransientError: a newer epoch was here, or another call does not end."""
        entry = self._take(resource_id)
        try:
            if not entry.lock.acquire(timeout=max(timeout_seconds, 0.0)):
                raise TransientError(f"{resource_id}: another call is still at work on it")
            try:
                if epoch < entry.epoch:
                    raise TransientError(f"{resource_id}: epoch {epoch} is older than {entry.epoch}, seen before")
                entry.epoch = epoch
                yield
            finally:
                entry.lock.release()
        finally:
            self._release(entry)

    def _take(self, resource_id: str) -> _Entry:
        with self._guard:
            entry = self._entries.setdefault(resource_id, _Entry())
            self._entries.move_to_end(resource_id)
            entry.users += 1
            return entry

    def _release(self, entry: _Entry) -> None:
        with self._guard:
            entry.users -= 1
            while len(self._entries) > self._max_remembered:
                oldest = next((key for key, each in self._entries.items() if not each.users), None)
                if oldest is None:
                    return
                del self._entries[oldest]
