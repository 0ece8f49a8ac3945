from __future__ import annotations

import threading
import weakref

import pytest

from minicloud.errors import PermanentError, TransientError
from minicloud.hosts.bounded_calls import BoundedCalls, Call

LONG = 60.0


def make(max_threads: int = 4) -> BoundedCalls:
    return BoundedCalls("test", max_threads)


def test_results_and_errors_come_back() -> None:
    calls = make()
    assert calls.run("adding", lambda call: 1 + 1, LONG) == 2

    def fail(call: Call) -> None:
        raise PermanentError("Server.InternalError", "broken")

    with pytest.raises(PermanentError, match="broken"):
        calls.run("failing", fail, LONG)


def test_a_call_that_hangs_is_left_behind_and_counted_until_it_returns() -> None:
    calls, gate = make(), threading.Event()
    with pytest.raises(TransientError, match="the outcome is unknown"):
        calls.run("hanging", lambda call: gate.wait(), 0.01, key="i-1")
    assert (calls.hung("i-1"), calls.hung("i-2"), calls.hung_total()) == (1, 0, 1)
    assert not calls.wait_settled("i-1", 0.01)
    gate.set()
    assert calls.wait_settled("i-1", LONG)
    assert calls.hung_total() == 0


def test_an_abandoned_call_goes_no_further_than_its_next_checkpoint() -> None:
    calls, gate, reached = make(), threading.Event(), []

    def work(call: Call) -> None:
        gate.wait()
        call.checkpoint()
        reached.append("beyond")

    with pytest.raises(TransientError):
        calls.run("hanging", work, 0.01, key="i-1")
    gate.set()
    assert calls.wait_settled("i-1", LONG)
    assert reached == []


def test_hung_calls_do_not_hold_up_others_until_all_threads_are_taken() -> None:
    calls, gate = make(max_threads=2), threading.Event()
    with pytest.raises(TransientError):
        calls.run("hanging", lambda call: gate.wait(), 0.01, key="a")
    assert calls.run("working", lambda call: "fine", LONG) == "fine"
    with pytest.raises(TransientError):
        calls.run("hanging", lambda call: gate.wait(), 0.01, key="b")
    with pytest.raises(TransientError, match="that is the limit"):
        calls.run("refused", lambda call: "never", LONG)
    gate.set()
    assert calls.wait_settled("a", LONG)
    assert calls.wait_settled("b", LONG)
    assert calls.run("working", lambda call: "fine", LONG) == "fine"


def test_threads_are_used_again() -> None:
    calls = make(max_threads=1)
    names = {calls.run("naming", lambda call: threading.current_thread().name, LONG) for _ in range(5)}
    assert names == {"test-1"}


def test_an_idle_thread_holds_nothing_of_its_last_call() -> None:
    class Connection:
        pass

    calls, connection = make(max_threads=1), Connection()
    seen = weakref.ref(connection)
    calls.run("using", lambda call, used=connection: None, LONG)
    del connection
    calls.run("next", lambda call: None, LONG)
    assert seen() is None


def test_closed_means_no_more_calls_and_no_more_idle_threads() -> None:
    calls = make()
    thread = calls.run("naming", lambda call: threading.current_thread(), LONG)
    calls.close()
    thread.join(LONG)
    assert not thread.is_alive()
    with pytest.raises(TransientError, match="closed"):
        calls.run("late", lambda call: None, LONG)
