"""Programs on a host: what they say, what they cost at most, and that none outlives its time."""

from __future__ import annotations

import os
import sys
import time

import pytest

from minicloud.hostside import commands
from minicloud.hostside.failures import Failure


def test_output_comes_back_and_input_goes_in() -> None:
    assert commands.run(["cat"], "hello") == b"hello"
    assert commands.run(["cat"], b"x" * 1_000_000) == b"x" * 1_000_000


def test_a_failure_says_what_the_program_said() -> None:
    with pytest.raises(Failure) as raised:
        commands.run(["sh", "-c", "echo sorry >&2; exit 3"])
    assert raised.value.code == "command-failed" and raised.value.transient
    assert "sorry" in raised.value.detail and "status 3" in raised.value.detail


def test_statuses_may_be_accepted() -> None:
    assert commands.run(["sh", "-c", "echo out; exit 1"], accepted=(0, 1)) == b"out\n"


def test_a_missing_program_is_permanent() -> None:
    with pytest.raises(Failure) as raised:
        commands.run(["no-such-program-anywhere"])
    assert raised.value.code == "missing-program" and not raised.value.transient


def test_too_slow_a_program_is_killed_with_its_children() -> None:
    started = time.monotonic()
    with pytest.raises(Failure) as raised:
        commands.run(["sh", "-c", "sleep 100 & sleep 100"], timeout_seconds=0.1)
    assert raised.value.code == "command-timeout" and raised.value.transient
    # The pipe that a child inherited is closed too, or this would have waited for it.
    assert time.monotonic() - started < 90


def test_long_commands_and_long_complaints_are_cut() -> None:
    with pytest.raises(Failure) as raised:
        commands.run(["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", *["word"] * 1000])
    assert len(raised.value.detail) < 5000


def test_the_callers_environment_and_descriptors_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_TEST", "1")
    assert b"LD_PRELOAD_TEST" not in commands.run(["env"])
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        look = [sys.executable, "-c", f"import os; os.fstat({read})"]
        with pytest.raises(Failure):
            commands.run(look)
        commands.run(look, keep=(read,))
    finally:
        os.close(read)
        os.close(write)
