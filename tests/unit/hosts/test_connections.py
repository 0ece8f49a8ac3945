"""Connections that come, die and come again, against a libvirt made of Python."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import libvirt
import pytest

from minicloud.errors import TransientError
from minicloud.hosts import connections as module
from minicloud.hosts.connections import MAX_CONNECTIONS, MAX_IN_FLIGHT, Connections

LONG = 60.0


class Connection:
    def __init__(self, libvirtd: Libvirtd) -> None:
        self.libvirtd = libvirtd
        self.alive = True
        self.on_close: Callable[[], None] = lambda: None
        self.subscriptions: dict[int, object] = {}
        self.closed = False

    def isAlive(self) -> int:
        return int(self.alive)

    def setKeepAlive(self, interval: int, count: int) -> int:
        return 0

    def registerCloseCallback(self, callback: Callable[..., None], opaque: object) -> None:
        self.on_close = lambda: callback(self, libvirt.VIR_CONNECT_CLOSE_REASON_EOF, opaque)

    def unregisterCloseCallback(self) -> None:
        self.on_close = lambda: None

    def domainEventRegisterAny(self, domain: None, event: int, callback: object, opaque: object) -> int:
        self.subscriptions[event] = opaque
        return event

    def domainEventDeregisterAny(self, callback_id: int) -> None:
        del self.subscriptions[callback_id]

    def close(self) -> None:
        self.closed = True

    def die(self) -> None:
        self.alive = False
        self.on_close()


class Libvirtd:
    """What `libvirt.open` reaches. `gate` closed: opening hangs; `is_up` False: it is refused."""

    def __init__(self) -> None:
        self.is_up = True
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.connections: list[Connection] = []

    def open(self, uri: str) -> Connection:
        self.asked.set()
        self.gate.wait(LONG)
        if not self.is_up:
            raise libvirt.libvirtError("refused by the test")
        connection = Connection(self)
        self.connections.append(connection)
        return connection

    def living(self) -> list[Connection]:
        return [each for each in self.connections if each.alive and not each.closed]

    def carrying_events(self) -> Connection:
        (found,) = [each for each in self.living() if each.subscriptions]
        return found


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF_SECONDS", (0.01,))
    # What is quick here may take its time on a busy machine.
    for bound in ("OPEN_SECONDS", "REOPEN_SECONDS", "CLOSE_SECONDS"):
        monkeypatch.setattr(module, bound, LONG)


class Subject:
    def __init__(self, check: Callable[[], object] = lambda: None) -> None:
        self.libvirtd = Libvirtd()
        self.states: queue.Queue[str] = queue.Queue()
        self.connections = Connections(
            "h-1",
            "test",
            lambda name, detail: None,
            lambda state, why: self.states.put(state),
            check,
            self.libvirtd.open,
        )

    def expect(self, *states: str) -> None:
        assert [self.states.get(timeout=LONG) for _ in states] == list(states)

    def has_for_calls(self, count: int) -> None:
        """Wait until that many connections can be lent; they are opened in the background, one after the other."""
        deadline = time.monotonic() + LONG
        while len([each for each in self.connections._control if not each.is_dead]) != count:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def subject() -> Iterator[Subject]:
    made = Subject()
    made.connections.start()
    made.expect("connected")
    made.has_for_calls(2)
    yield made
    made.libvirtd.gate.set()
    made.connections.close()
    assert made.libvirtd.living() == []


def test_one_connection_carries_events_and_others_carry_calls(subject: Subject) -> None:
    assert len(subject.libvirtd.living()) == 3
    with subject.connections.lease() as lent:
        assert lent is not subject.libvirtd.carrying_events()


def test_before_it_is_connected_nothing_waits() -> None:
    unstarted = Subject()
    with pytest.raises(TransientError, match="not connected yet"), unstarted.connections.lease():
        pass


def test_the_least_busy_connection_is_lent_and_more_are_opened_when_all_are_busy(subject: Subject) -> None:
    leases = [subject.connections.lease() for _ in range(2)]
    lent = [each.__enter__() for each in leases]
    assert lent[0] is not lent[1]
    leases.append(subject.connections.lease())
    leases[-1].__enter__()
    subject.has_for_calls(3)
    for each in leases:
        each.__exit__(None, None, None)


def test_calls_beyond_what_libvirtd_serves_are_refused(subject: Subject) -> None:
    leases = []
    with pytest.raises(TransientError, match="busy"):
        for _ in range(MAX_CONNECTIONS * MAX_IN_FLIGHT + 1):
            leases.append(subject.connections.lease())
            leases[-1].__enter__()
            # One more is opened whenever none is idle: for the third lease, and again for the fifth.
            subject.has_for_calls({1: 2, 2: 2, 3: 3, 4: 3}.get(len(leases), MAX_CONNECTIONS))
    assert len(leases) == MAX_CONNECTIONS * MAX_IN_FLIGHT + 1
    for each in leases[:-1]:
        each.__exit__(None, None, None)


def test_a_call_connection_that_dies_is_replaced_without_a_word(subject: Subject) -> None:
    with subject.connections.lease() as lent:
        lent.die()
    subject.has_for_calls(2)
    assert len(subject.libvirtd.living()) == 3
    assert subject.connections.is_up
    assert subject.states.empty()


def test_losing_the_events_means_down_and_up_again(subject: Subject) -> None:
    subject.libvirtd.carrying_events().die()
    subject.expect("disconnected", "connected")
    assert subject.libvirtd.carrying_events().alive


def test_losing_every_call_connection_means_down_at_once_even_where_opening_hangs(subject: Subject) -> None:
    subject.libvirtd.gate.clear()
    # The lease in vain wakes who looks after the connections, and lets this one go before we could ask for it.
    events = subject.libvirtd.carrying_events()
    for each in subject.libvirtd.living():
        if not each.subscriptions:
            each.alive = False
    with pytest.raises(TransientError), subject.connections.lease():
        pass
    events.on_close()
    subject.expect("disconnected")
    subject.libvirtd.gate.set()
    subject.expect("connected")


def test_a_libvirtd_that_is_away_is_asked_again_until_it_is_back(subject: Subject) -> None:
    subject.libvirtd.is_up = False
    for each in subject.libvirtd.living():
        each.die()
    subject.expect("disconnected")
    with pytest.raises(TransientError, match="not connected"), subject.connections.lease():
        pass
    subject.libvirtd.is_up = True
    subject.expect("connected")


def test_closing_waits_for_no_attempt_to_connect_and_what_comes_late_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    subject = Subject()
    subject.libvirtd.gate.clear()
    subject.connections.start()
    assert subject.libvirtd.asked.wait(LONG)
    began = time.monotonic()
    subject.connections.close()
    assert time.monotonic() - began < LONG / 2
    monkeypatch.setattr(module, "CLOSE_SECONDS", LONG)
    subject.libvirtd.gate.set()
    subject.connections._thread.join(LONG)
    assert len(subject.libvirtd.connections) == 1
    assert subject.libvirtd.living() == []
    assert subject.states.empty()


def test_the_host_stays_down_while_its_check_fails() -> None:
    failing = threading.Event()
    failing.set()
    tried = threading.Semaphore(0)

    def check() -> None:
        tried.release()
        if failing.is_set():
            raise TransientError("no session")

    subject = Subject(check)
    subject.connections.start()
    for _ in range(3):
        assert tried.acquire(timeout=LONG)
    assert not subject.connections.is_up
    assert subject.connections.why_down == "no session"
    failing.clear()
    subject.expect("connected")
    subject.connections.close()
    subject.expect("disconnected")
    assert subject.libvirtd.living() == []
