"""What goes wrong on a fake host, and when: chosen by a test for one call, or by a seed for thousands.

Owns no host; fake.py asks it at every verb, event and job. For tests and simulations only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from minicloud.hosts.protocol import HOST_CALL_SECONDS
from minicloud.model.plans import HostEvent


class ControllerCrash(BaseException):
    """The controller dies here. Not an Exception, so that nothing in the controller can live through it."""


class Fault(Enum):
    """What may befall a call. In all but the first, TRANSIENT and PERMANENT something was done; nobody is told what."""

    CRASH_BEFORE = "crash before"
    CRASH_HALFWAY = "crash halfway"
    CRASH_AFTER = "crash after"
    TRANSIENT = "transient"
    HALFWAY = "halfway"
    LOST_REPLY = "lost reply"
    HANG = "hang"
    PERMANENT = "permanent"


class EventFate(Enum):
    """What may befall an event."""

    NOW = "now"
    LATE = "late"


class Faults:
    """Nothing goes wrong; the base of what does."""

    deadline_seconds = HOST_CALL_SECONDS

    def choose(self, host_id: str, verb: str, resource_id: str) -> Fault | None:
        """Return what befalls this call."""
        return None

    def event_fates(self, event: HostEvent) -> tuple[EventFate, ...]:
        """Return each delivery of an event: none, one or several."""
        return (EventFate.NOW,)

    def late_seconds(self) -> float:
        """Return how late a late call or event arrives."""
        return HOST_CALL_SECONDS * 1.5

    def job_failure(self, name: str) -> str | None:
        """Return the error code a job ends with, or None if it succeeds."""
        return None


NO_FAULTS = Faults()


class ChosenFault(Faults):
    """One fault at one call: the first that `matches`, unless `skip` says how many go by before it."""

    def __init__(self, fault: Fault, matches: Callable[[str, str], bool], skip: int = 0, times: int = 1) -> None:
        self._fault = fault
        self._matches = matches
        self._skip = skip
        self._times = times
        self.happened = 0

    def choose(self, host_id: str, verb: str, resource_id: str) -> Fault | None:
        if self.happened >= self._times or not self._matches(verb, resource_id):
            return None
        if self._skip > 0:
            self._skip -= 1
            return None
        self.happened += 1
        return self._fault


@dataclass(frozen=True, slots=True)
class Odds:
    """How likely each thing is, from 0 to 1."""

    faults: Mapping[Fault, float] = field(default_factory=dict)
    lost_event: float = 0.0
    late_event: float = 0.0
    double_event: float = 0.0
    failed_job: float = 0.0


class SeededFaults(Faults):
    """Faults by odds from a seeded source; `calm` ends them all."""

    def __init__(self, source: random.Random, odds: Odds) -> None:
        self._source = source
        self._odds = odds
        self.is_calm = False

    def calm(self) -> None:
        """Let nothing go wrong from now on."""
        self.is_calm = True

    def choose(self, host_id: str, verb: str, resource_id: str) -> Fault | None:
        if self.is_calm:
            return None
        draw = self._source.random()
        for fault, odds in self._odds.faults.items():
            if draw < odds:
                return fault
            draw -= odds
        return None

    def event_fates(self, event: HostEvent) -> tuple[EventFate, ...]:
        if self.is_calm:
            return (EventFate.NOW,)
        draw = self._source.random()
        if draw < self._odds.lost_event:
            return ()
        draw -= self._odds.lost_event
        if draw < self._odds.late_event:
            return (EventFate.LATE,)
        draw -= self._odds.late_event
        if draw < self._odds.double_event:
            return (EventFate.NOW, EventFate.LATE)
        return (EventFate.NOW,)

    def late_seconds(self) -> float:
        return self._source.uniform(0.1, 3 * HOST_CALL_SECONDS)

    def job_failure(self, name: str) -> str | None:
        if not self.is_calm and self._source.random() < self._odds.failed_job:
            return "job-lost"
        return None
