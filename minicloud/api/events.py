"""DescribeEvents and WaitForEvents: the request log read back, for `minicloud events`.

The log is read from its newest line back, by at most MAX_SCANNED lines a request, so that no question about a rare
thing holds a thread for long: an answer may have few events, or none, and a token to go on.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from minicloud.api.gate import Gate
from minicloud.api.operator_parameters import take
from minicloud.api.request_files import parse_line
from minicloud.api.request_log import RequestLog, parse_time
from minicloud.api.services import Context
from minicloud.errors import ApiError

MAX_EVENTS = 1000
DEFAULT_EVENTS = 100
MAX_SCANNED = 50_000
MAX_WAIT_SECONDS = 60.0
# Lines stand in the order in which requests ended. Bodies take time that is no latency, and clocks are set.
SLACK = timedelta(minutes=10)

_FILTERS: Mapping[str, type] = {
    "StartTime": str,
    "Operation": str,
    "ResourceId": str,
    "ErrorsOnly": bool,
    "SlowOnly": bool,
    "MaxResults": int,
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which events are asked for. `start` is a time as the log writes it."""

    start: str | None
    operation: str | None
    resource_id: str | None
    errors_only: bool
    slow_only: bool

    def may_match(self, line: bytes) -> bool:
        """Say cheaply whether a line is worth being parsed."""
        if self.errors_only and b'"Code":null' in line:
            return False
        if self.slow_only and b'"Slow":true' not in line:
            return False
        # Both were checked to be plain ASCII words, so JSON writes them as they are.
        return all(text is None or text.encode() in line for text in (self.operation, self.resource_id))

    def is_long_before(self, event: Mapping[str, Any]) -> bool:
        """Say whether a request ended so long before the start that all further back did, too."""
        if self.start is None or event["Time"] >= self.start:
            return False
        ended = datetime.fromisoformat(event["Time"]) + timedelta(milliseconds=event["LatencyMs"])
        return ended + SLACK < datetime.fromisoformat(self.start)

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Say whether an event is asked for."""
        return (
            (self.start is None or event["Time"] >= self.start)
            and (self.operation is None or event["Operation"] == self.operation)
            and (self.resource_id is None or self.resource_id in event["ResourceIds"])
            and (not self.errors_only or event["Code"] is not None)
            and (not self.slow_only or event["Slow"])
        )


def describe_events(context: Context, parameters: dict[str, Any]) -> dict[str, Any]:
    """DescribeEvents: requests that were answered, the newest first; NextToken leads to older ones.

    `LastSequence` is where WaitForEvents may go on from.
    """
    given = take(parameters, {**_FILTERS, "NextToken": str}, required=())
    wanted, limit = _parse(given)
    before = _parse_token(given.get("NextToken"))
    with _readable():
        return _find_newest(context.services.requests, wanted, before, limit)


def _find_newest(requests: RequestLog, wanted: _Wanted, before: int | None, limit: int) -> dict[str, Any]:
    requests.flush()
    last = requests.files.last_sequence
    events: list[dict[str, Any]] = []
    next_token = None
    for number, (sequence, line) in enumerate(requests.files.newest_first(before), start=1):
        event = parse_line(line) if wanted.may_match(line) else None
        if event is not None:
            if wanted.is_long_before(event):
                break
            if wanted.matches(event):
                events.append(event)
        if len(events) == limit or number == MAX_SCANNED:
            next_token = str(sequence)
            break
    answer = {"Events": events, "LastSequence": last}
    return answer if next_token is None else {**answer, "NextToken": next_token}


async def wait_for_events(context: Context, gate: Gate, parameters: dict[str, Any]) -> dict[str, Any]:
    """WaitForEvents: events after number `After`, the oldest first, as soon as there are any or time is up.

    `LastSequence` is the next `After`. Waiting takes no thread.
    """
    shape = {**_FILTERS, "After": int, "TimeoutSeconds": float}
    given = take(parameters, shape, required=("After",))
    wanted, limit = _parse(given)
    requests = context.services.requests
    deadline = time.monotonic() + min(max(given.get("TimeoutSeconds", MAX_WAIT_SECONDS), 0.0), MAX_WAIT_SECONDS)
    after = given["After"]
    while True:
        seen = requests.changes.count
        events, after = await gate.run(partial(_find_after, requests, wanted, after, limit))
        left = deadline - time.monotonic()
        if events or left <= 0:
            return {"Events": events, "LastSequence": after}
        await requests.changes.wait(seen, left)


def _find_after(requests: RequestLog, wanted: _Wanted, after: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Return the oldest `limit` wanted events after a number, the oldest first, and the number to go on from."""
    with _readable():
        return _read_after(requests, wanted, after, limit)


def _read_after(requests: RequestLog, wanted: _Wanted, after: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    requests.flush()
    last = requests.files.last_sequence
    # What is older than the bound is passed over: whoever follows wants to see what happens now.
    after = max(min(after, last), last - MAX_SCANNED)
    found: deque[bytes] = deque(maxlen=limit)
    for sequence, line in requests.files.newest_first():
        if sequence <= after:
            break
        if wanted.may_match(line) and (event := parse_line(line)) is not None and wanted.matches(event):
            found.appendleft(line)
    events = [event for line in found if (event := parse_line(line)) is not None]
    return events, events[-1]["Sequence"] if len(events) == limit else last


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Whoever reads the log is its operator: the detail is for them.
        raise ApiError("Unavailable", f"The request log cannot be read: {error}", 503) from None


def _parse(given: Mapping[str, Any]) -> tuple[_Wanted, int]:
    limit = given.get("MaxResults", DEFAULT_EVENTS)
    if not 1 <= limit <= MAX_EVENTS:
        raise ApiError("InvalidParameterValue", f"MaxResults must be 1 to {MAX_EVENTS}")
    for name in ("Operation", "ResourceId"):
        if not all(character.isalnum() or character in "-_" for character in given.get(name, "")):
            raise ApiError("InvalidParameterValue", f"Value for parameter {name} is invalid.")
    start = None
    if "StartTime" in given:
        try:
            start = parse_time(given["StartTime"])
        except (ValueError, OverflowError):
            raise ApiError(
                "InvalidParameterValue", "StartTime must be a time with its zone, such as 2026-01-31T12:00:00Z"
            ) from None
    wanted = _Wanted(
        start=start,
        operation=given.get("Operation"),
        resource_id=given.get("ResourceId"),
        errors_only=given.get("ErrorsOnly", False),
        slow_only=given.get("SlowOnly", False),
    )
    return wanted, limit


def _parse_token(token: str | None) -> int | None:
    if token is None:
        return None
    if not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise ApiError("InvalidNextToken", "The specified NextToken is not valid.")
    return int(token)
