"""Counters of requests since the daemon started, in memory: what a metrics store would collect.

Names and labels follow the conventions of Prometheus (units and `_total` in the names, cumulative buckets), so that an
exporter has nothing to decide. Refuses to keep what clients could make unbounded: operations are those that are served,
or UNKNOWN. Written by the request log, read by DaemonStatus.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

UNKNOWN = "unknown"
OTHER = "other"
MAX_CODES = 1000  # codes are written in minicloud's own source: a bound, not a limit that is ever met
BUCKET_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number with its name and labels."""

    name: str
    labels: Labels
    value: float


@dataclass(slots=True)
class _Durations:
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKET_SECONDS) + 1))
    sum_seconds: float = 0.0


class RequestCounters:
    """Thread-safe; counting costs a microsecond or two."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[tuple[str, str, str, str]] = Counter()
        self._slow: Counter[tuple[str, str]] = Counter()
        self._durations: dict[tuple[str, str], _Durations] = {}

    def count(self, service: str, operation: str, status: int, code: str | None, seconds: float | None) -> None:
        """Count one answered request. `code` None: it worked. `seconds` None: it waited on purpose, which says nothing
        of how fast the daemon is."""
        key = (service, operation)
        with self._lock:
            self._requests[key] += 1
            if code is not None:
                error = (service, operation, "5xx" if status >= 500 else "4xx", code)
                if error not in self._errors and len(self._errors) >= MAX_CODES:
                    error = (service, operation, error[2], OTHER)
                self._errors[error] += 1
            if seconds is not None:
                durations = self._durations.get(key)
                if durations is None:
                    durations = self._durations[key] = _Durations()
                durations.buckets[bisect_left(BUCKET_SECONDS, seconds)] += 1
                durations.sum_seconds += seconds

    def count_slow(self, service: str, operation: str) -> None:
        """Count one request that took longer than the operator's threshold."""
        with self._lock:
            self._slow[(service, operation)] += 1

    def samples(self) -> list[Sample]:
        """Return every counter, in a stable order."""
        with self._lock:
            requests, errors, slow = dict(self._requests), dict(self._errors), dict(self._slow)
            durations = {key: (tuple(one.buckets), one.sum_seconds) for key, one in self._durations.items()}
        found = [Sample("minicloud_api_requests_total", _labels(*key), n) for key, n in sorted(requests.items())]
        found += [
            Sample(
                "minicloud_api_request_errors_total", {**_labels(service, operation), "class": kind, "code": code}, n
            )
            for (service, operation, kind, code), n in sorted(errors.items())
        ]
        found += [Sample("minicloud_api_slow_requests_total", _labels(*key), n) for key, n in sorted(slow.items())]
        for key, (buckets, sum_seconds) in sorted(durations.items()):
            found += _histogram(_labels(*key), buckets, sum_seconds)
        return found


def _histogram(labels: Labels, buckets: tuple[int, ...], sum_seconds: float) -> list[Sample]:
    name = "minicloud_api_request_duration_seconds"
    found = []
    total = 0
    for bound, n in zip((*map(str, BUCKET_SECONDS), "+Inf"), buckets, strict=True):
        total += n
        found.append(Sample(f"{name}_bucket", {**labels, "le": bound}, total))
    return [*found, Sample(f"{name}_sum", labels, round(sum_seconds, 6)), Sample(f"{name}_count", labels, total)]


def _labels(service: str, operation: str) -> Labels:
    return {"service": service, "operation": operation}
