"""The request log: one line per request of both doors, who asked what of which resources and how it ended.

A request costs a few microseconds here: it is counted and put into a bounded queue; one thread formats and writes.
What does not fit, or cannot be written, is counted and forgotten: the log never fails or delays a request. Owns what a
line says. Secrets are never part of it: no parameter but resource ids is kept, and what a client merely claims (an
action that does not exist, a key that is not proven) is clipped and stripped to printable ASCII first.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from minicloud.api.changes import ChangeHub
from minicloud.api.request_counters import UNKNOWN, RequestCounters, Sample
from minicloud.api.request_files import RequestFiles
from minicloud.api.resource_ids import choose_resource_ids, find_made, find_named
from minicloud.clock import MICROSECONDS, Clock, to_datetime

log = logging.getLogger(__name__)

MAX_QUEUED = 4096
# After a write, what comes within this time is written together.
GATHER_SECONDS = 0.25
MAX_CLAIM = 64
# These wait on purpose, or as long as a client sends: how long they took says nothing.
WAITING = frozenset({"WaitForChange", "WaitForEvents", "UploadImport"})
# Who follows the log would follow itself.
UNLOGGED = frozenset({"WaitForEvents"})

_not_printable = re.compile(r"[^!-~]")


@dataclass(slots=True)
class Entry:
    """One request while it is being answered; the chain fills in what it learns.

    `principal` is an access key id or `uid:0`. `account_id` stays None until the caller is proven: until then the
    principal is only claimed. `served` says that service and operation are names of the operation table.
    """

    request_id: str
    door: str
    source: str
    began_us: int
    began_seconds: float
    principal: str | None = None
    account_id: str | None = None
    service: str | None = None
    operation: str | None = None
    served: bool = False
    code: str | None = None
    named: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    resource_ids: tuple[str, ...] = ()
    resource_count: int = 0
    status: int = 0
    reply_bytes: int = 0
    latency_seconds: float = 0.0
    slow: bool = False

    def claims(self, principal: str | None = None, service: str | None = None, operation: str | None = None) -> None:
        """Note what a request says of itself, of which nothing is proven."""
        self.principal = clean(principal) or self.principal
        self.service = clean(service) or self.service
        self.operation = clean(operation) or self.operation

    def asks(self, service: str, operation: str) -> None:
        """Note which operation it turned out to be."""
        self.service, self.operation, self.served = service, operation, True

    def names(self, parameters: Mapping[str, Any]) -> None:
        """Note the resources in its parameters. Performing it may take parameters away: call this before."""
        self.named = find_named(parameters)

    def made_of(self, output: Mapping[str, Any] | None) -> None:
        """Note the resources that it made."""
        self.made = find_made(self.operation or "", output)

    def refused(self, code: str) -> None:
        """Note the error code that it is answered with."""
        self.code = code


@dataclass(slots=True)
class _Losses:
    dropped: int = 0
    unwritten: int = 0
    failing: bool = False


class RequestLog:
    """Thread-safe. Files are below `folder`, whose parent must exist. `slow_seconds` makes a request a slow one.

    Works without its thread, too: whoever reads flushes before.
    """

    def __init__(self, folder: Path, clock: Clock, slow_seconds: float) -> None:
        self.counters = RequestCounters()
        self.files = RequestFiles(folder)
        self.changes = ChangeHub()
        self._clock = clock
        self._slow_seconds = slow_seconds
        self._queue: deque[Entry] = deque()
        self._losses = _Losses()
        self._writing = threading.Lock()
        self._queued = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)

    def begin(self, request_id: str, door: str, source: str) -> Entry:
        """Return the entry of a request that has just come."""
        return Entry(request_id, door, source, self._clock.now_us(), self._clock.monotonic_seconds())

    def arrived(self, entry: Entry) -> None:
        """The request is here whole: what its client took to send it is not the daemon's latency."""
        entry.began_seconds = self._clock.monotonic_seconds()

    def end(self, entry: Entry, status: int, reply_bytes: int) -> None:
        """Count an answered request, and let it be written. Never raises."""
        entry.status, entry.reply_bytes = status, reply_bytes
        entry.latency_seconds = self._clock.monotonic_seconds() - entry.began_seconds
        entry.resource_ids, entry.resource_count = choose_resource_ids(entry.made, entry.named)
        entry.made = entry.named = ()  # a thousand ids are not to wait in the queue
        waits = entry.served and entry.operation in WAITING
        entry.slow = not waits and entry.latency_seconds >= self._slow_seconds
        service, operation = (entry.service or UNKNOWN, entry.operation or UNKNOWN) if entry.served else (UNKNOWN,) * 2
        seconds = None if waits else entry.latency_seconds
        self.counters.count(service, operation, status, entry.code, seconds)
        if entry.slow:
            self.counters.count_slow(service, operation)
        if entry.served and operation in UNLOGGED:
            return
        if len(self._queue) >= MAX_QUEUED:
            self._losses.dropped += 1
            return
        self._queue.append(entry)
        if not self._queued.is_set():
            self._queued.set()

    def samples(self) -> list[Sample]:
        """Return the counters of requests and of this log itself."""
        losses = self._losses
        return [
            *self.counters.samples(),
            Sample("minicloud_request_log_lines_dropped_total", {"reason": "queue_full"}, losses.dropped),
            Sample("minicloud_request_log_lines_dropped_total", {"reason": "write_failed"}, losses.unwritten),
        ]

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued, and end the thread."""
        self._stopping.set()
        self._queued.set()
        self._thread.join()

    def flush(self) -> None:
        """Write what is queued. Never raises: what cannot be written is counted."""
        with self._writing:
            entries = [self._queue.popleft() for _ in range(len(self._queue))]
            if not entries:
                return
            try:
                self.files.append([_render(one) for one in entries])
            except OSError as error:
                self._losses.unwritten += len(entries)
                if not self._losses.failing:
                    log.warning("the request log cannot be written: %s", error)
                self._losses.failing = True
                return
            if self._losses.failing:
                log.warning("the request log is written again; %d lines are missing", self._losses.unwritten)
            self._losses.failing = False
        self.changes.notify()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._queued.wait()
            self._queued.clear()
            try:
                self.flush()
            except Exception:
                log.exception("request log: a bug")
            self._stopping.wait(GATHER_SECONDS)
        self.flush()


def clean(text: str | None) -> str | None:
    """Return what a client claims as short printable ASCII without spaces, so that it can forge no line."""
    return _not_printable.sub("?", text[:MAX_CLAIM]) if text else None


def render_time(us: int) -> str:
    """Return wall time as the log has it: ISO 8601 in UTC to the millisecond; such texts sort as their times do."""
    return to_datetime(us - us % 1000).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> str:
    """Return an ISO 8601 time with a zone as `render_time` writes it. Raises ValueError."""
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if parsed.tzinfo is None:
        raise ValueError("a time needs its zone")
    return render_time(int(parsed.timestamp() * MICROSECONDS))


def _render(entry: Entry) -> dict[str, Any]:
    return {
        "Time": render_time(entry.began_us),
        "RequestId": entry.request_id,
        "Door": entry.door,
        "Principal": entry.principal,
        "AccountId": entry.account_id,
        "SourceAddress": entry.source,
        "Service": entry.service,
        "Operation": entry.operation,
        "ResourceIds": entry.resource_ids,
        "ResourceCount": entry.resource_count,
        "LatencyMs": round(entry.latency_seconds * 1000, 3),
        "Slow": entry.slow,
        "Status": entry.status,
        "Code": entry.code,
        "ReplyBytes": entry.reply_bytes,
    }
