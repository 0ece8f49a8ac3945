from __future__ import annotations

import threading

import pytest

from minicloud.errors import TransientError
from minicloud.hosts.epochs import EpochFences


def test_an_older_epoch_is_refused_and_the_same_or_a_newer_one_is_not() -> None:
    fences = EpochFences()
    for epoch in (3, 3, 5):
        with fences.held("i-1", epoch, 1.0):
            pass
    with pytest.raises(TransientError, match="older than 5"), fences.held("i-1", 4, 1.0):
        pass
    with fences.held("i-2", 1, 1.0):
        pass


def test_a_refused_epoch_is_not_remembered_and_holds_nothing() -> None:
    fences = EpochFences()
    with fences.held("i-1", 5, 1.0):
        pass
    with pytest.raises(TransientError), fences.held("i-1", 4, 1.0):
        pass
    with fences.held("i-1", 5, 1.0):
        pass


def test_one_call_at_a_time_for_a_resource() -> None:
    fences, inside, leave = EpochFences(), threading.Event(), threading.Event()

    def hold() -> None:
        with fences.held("i-1", 1, 1.0):
            inside.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)
    with pytest.raises(TransientError, match="still at work"), fences.held("i-1", 1, 0.01):
        pass
    with fences.held("i-2", 1, 0.01):
        pass
    leave.set()
    holder.join(60)
    with fences.held("i-1", 1, 1.0):
        pass


def test_what_is_remembered_is_bounded_and_never_what_is_held() -> None:
    fences = EpochFences(max_remembered=2)
    with fences.held("held", 9, 1.0):
        for number in range(5):
            with fences.held(f"i-{number}", 1, 1.0):
                pass
    assert len(fences._entries) == 2
    with pytest.raises(TransientError), fences.held("held", 8, 1.0):
        pass
