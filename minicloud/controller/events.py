"""Host events become wake-ups. Owns the queue between libvirt's event threads, which must only enqueue, and the store.

An event never carries a decision: it only says where to look again, so late, lost and doubled ones do no harm. Surveys
have a thread of their own: a host that answers slowly holds up no other host's events.
"""

from __future__ import annotations

import logging
import queue
import threading

from minicloud.clock import Clock
from minicloud.controller.signals import EventSignals
from minicloud.controller.survey import survey_host
from minicloud.errors import HostError
from minicloud.hosts.protocol import HostDirectory
from minicloud.model.plans import HostEvent
from minicloud.model.states import HostState
from minicloud.store.store import Store, Tx

log = logging.getLogger(__name__)

MAX_EVENTS = 10_000
SURVEY_SECONDS = 120.0
# By then a host that can be reached is connected: one that is not was lost while no controller ran to be told of it.
FIRST_SURVEY_SECONDS = 30.0
# Their own launch tells the controller of these; waking a task for them would only cost a commit.
UNINTERESTING = frozenset({"defined", "undefined", "started", "resumed"})


class EventPump:
    """Turns host events into wake-ups, and surveys hosts when they connect and every SURVEY_SECONDS."""

    def __init__(self, store: Store, hosts: HostDirectory, signals: EventSignals, clock: Clock) -> None:
        self._store = store
        self._hosts = hosts
        self._signals = signals
        self._clock = clock
        self._queue: queue.Queue[HostEvent | None] = queue.Queue(MAX_EVENTS)
        self._to_survey: queue.Queue[str | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("events", self._loop), ("surveys", self._survey_loop))
        ]

    def start(self) -> None:
        """Subscribe and begin."""
        self._hosts.subscribe(self.put)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the pump's threads; a survey that waits for a host is left to end by itself."""
        self._queue.put(None)
        self._to_survey.put(None)
        for thread in self._threads:
            thread.join(5)

    def put(self, event: HostEvent) -> None:
        """Enqueue an event; when the queue is full the survey finds what was dropped."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            log.error("too many host events: dropped %s", event)

    def _loop(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                to_survey = self._take(event)
            except Exception:
                log.exception("event %s could not be handled; the survey will find what it meant", event)
            else:
                if to_survey is not None:
                    self._to_survey.put(to_survey)

    def _survey_loop(self) -> None:
        survey_at = self._clock.monotonic_seconds() + FIRST_SURVEY_SECONDS
        while True:
            # Hosts that come back never push the survey of all back.
            left = survey_at - self._clock.monotonic_seconds()
            try:
                host_id = self._to_survey.get(timeout=max(0.0, left)) if left > 0 else self._to_survey.get_nowait()
            except queue.Empty:
                pass
            else:
                if host_id is None:
                    return
                try:
                    self._survey(host_id)
                except Exception:
                    log.exception("host %s could not be surveyed; the next survey looks at it again", host_id)
            if self._clock.monotonic_seconds() >= survey_at:
                self._try_survey_all()
                survey_at = self._clock.monotonic_seconds() + SURVEY_SECONDS

    def _try_survey_all(self) -> None:
        try:
            self.survey_all()
        except Exception:
            log.exception("the survey failed; the next one comes in %.0f s", SURVEY_SECONDS)

    def handle(self, event: HostEvent) -> None:
        """Act on one event, the survey that it asks for included. Raises what the store raises."""
        to_survey = self._take(event)
        if to_survey is not None:
            self._survey(to_survey)

    def _take(self, event: HostEvent) -> str | None:
        """Act on one event and return the host that is to be surveyed for it. Calls no host."""
        if event.kind == "domain" and event.instance_id is not None:
            instance_id = event.instance_id
            if event.detail not in UNINTERESTING:
                self._signals.put(instance_id, event.detail)
                self._store.write(lambda tx: _wake(tx, [instance_id]))
        elif event.kind == "disconnected":
            self._store.write(lambda tx: _set_host_state(tx, event.host_id, HostState.DOWN, event.detail))
        elif event.kind == "connected":
            self._store.write(lambda tx: _host_is_back(tx, event.host_id))
            return event.host_id
        return None

    def survey_all(self) -> None:
        """Survey every host. Raises what the store raises."""
        for host in self._store.read(lambda tx: tx.hosts.where()):
            self._survey(host.id)

    def _survey(self, host_id: str) -> None:
        """Survey a host; also sets right what its row says of it, for its own events may have been lost, too."""
        try:
            host = self._hosts.get(host_id)
        except HostError as error:
            detail = error.detail
            if self._state_of(host_id) is HostState.UP:
                log.warning("host %s is down: %s", host_id, detail)
                self._store.write(lambda tx: _set_host_state(tx, host_id, HostState.DOWN, detail))
            return
        try:
            survey_host(self._store, host)
            self._hosts.get(host_id)
        except HostError as error:
            log.warning("host %s could not be surveyed: %s", host_id, error.detail)
            return
        if self._state_of(host_id) is HostState.DOWN:
            log.warning("host %s is up, which nobody had noted", host_id)
            self._store.write(lambda tx: _host_is_back(tx, host_id))

    def _state_of(self, host_id: str) -> HostState | None:
        row = self._store.read(lambda tx: tx.hosts.get(host_id))
        return None if row is None else row.state


def _wake(tx: Tx, ids: list[str]) -> None:
    for id in ids:
        if tx.tasks.get(id) is not None:
            tx.wake(id)


def _set_host_state(tx: Tx, host_id: str, state: HostState, reason: str | None) -> None:
    host = tx.hosts.get(host_id)
    if host is not None and host.state is not HostState.DRAINING:
        tx.hosts.update(host_id, state=state, state_reason=reason)


def _host_is_back(tx: Tx, host_id: str) -> None:
    """Whatever waited for the host in a back-off goes on at once."""
    _set_host_state(tx, host_id, HostState.UP, None)
    waiting = {
        task.id for task in tx.tasks.where(id=[row.id for row in tx.instances.where(host_id=host_id)]) if task.attempt
    }
    _wake(tx, sorted(waiting))
