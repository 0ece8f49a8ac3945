"""The event pump: lost events of connections are found again, and a slow host holds up nobody's events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from support.bare_cloud import BareCloud

from minicloud.controller import events
from minicloud.controller.events import EventPump
from minicloud.controller.signals import EventSignals
from minicloud.errors import TransientError
from minicloud.hosts.protocol import Host
from minicloud.model.plans import HostEvent, Inventory
from minicloud.model.states import HostState

SECONDS = 60.0


class OneHost:
    """A host and its directory: reachable or not, empty, and as slow as `released` says."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        self.is_reachable = True
        self.released = threading.Event()
        self.released.set()
        self.asked = threading.Event()

    def get(self, host_id: str) -> Host:
        if not self.is_reachable:
            raise TransientError(f"{host_id}: not connected")
        return cast(Host, self)

    def subscribe(self, listener: Callable[[HostEvent], None]) -> None:
        """Nothing comes by itself."""

    def inventory(self) -> Inventory:
        self.asked.set()
        assert self.released.wait(SECONDS)
        return Inventory(domains={}, ports=(), routers=(), disk_paths=(), jobs=())


@pytest.fixture
def bare() -> Iterator[BareCloud]:
    with closing(BareCloud()) as cloud:
        yield cloud


@pytest.fixture
def host(bare: BareCloud) -> OneHost:
    return OneHost(bare.store.read(lambda tx: tx.hosts.where())[0].id)


def pump_of(bare: BareCloud, host: OneHost, signals: EventSignals | None = None) -> EventPump:
    return EventPump(bare.store, cast(Any, host), signals or EventSignals(), bare.clock)


def set_state(bare: BareCloud, host: OneHost, state: HostState) -> None:
    bare.store.write(lambda tx: tx.hosts.update(host.host_id, state=state))


def state(bare: BareCloud, host: OneHost) -> HostState:
    row = bare.store.read(lambda tx: tx.hosts.get(host.host_id))
    assert row is not None
    return HostState(row.state)


def test_a_host_that_was_lost_while_nobody_was_told_is_down_after_a_survey(bare: BareCloud, host: OneHost) -> None:
    host.is_reachable = False
    for other in bare.store.read(lambda tx: tx.hosts.where()):
        bare.store.write(lambda tx, other=other: tx.hosts.update(other.id, state=HostState.UP))
    pump_of(bare, host).survey_all()
    row = bare.store.read(lambda tx: tx.hosts.get(host.host_id))
    assert row is not None
    assert (row.state, row.state_reason) == (HostState.DOWN, f"{host.host_id}: not connected")


def test_a_host_whose_return_was_missed_is_up_after_a_survey(bare: BareCloud, host: OneHost) -> None:
    set_state(bare, host, HostState.DOWN)
    pump_of(bare, host).survey_all()
    assert state(bare, host) is HostState.UP


@pytest.mark.parametrize("is_reachable", [False, True])
def test_a_survey_looks_at_a_draining_host_and_leaves_it_draining(
    bare: BareCloud, host: OneHost, is_reachable: bool
) -> None:
    set_state(bare, host, HostState.DRAINING)
    host.is_reachable = is_reachable
    pump_of(bare, host).survey_all()
    assert state(bare, host) is HostState.DRAINING
    assert host.asked.is_set() is is_reachable


def test_events_go_on_while_a_host_is_slow_to_be_surveyed(bare: BareCloud, host: OneHost) -> None:
    taken = threading.Event()

    class Signals(EventSignals):
        def put(self, resource_id: str, signal: str) -> None:
            super().put(resource_id, signal)
            taken.set()

    host.released.clear()
    pump = pump_of(bare, host, Signals())
    pump.start()
    try:
        pump.put(HostEvent(host.host_id, "connected"))
        assert host.asked.wait(SECONDS)
        pump.put(HostEvent(host.host_id, "domain", "i-0123456789abcdef0", "stopped/shutdown"))
        assert taken.wait(SECONDS)
    finally:
        host.released.set()
        pump.stop()


def test_the_first_survey_does_not_wait_for_its_turn(
    bare: BareCloud, host: OneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "FIRST_SURVEY_SECONDS", 0.0)
    pump = pump_of(bare, host)
    pump.start()
    try:
        assert host.asked.wait(SECONDS)
    finally:
        pump.stop()
