"""The states and what may follow what (EC2 user guide, "Instance lifecycle"), and what owners see of it."""

from __future__ import annotations

import pytest

from minicloud.model.states import (
    INSTANCE_STATE_CODES,
    LEGAL_TRANSITIONS,
    InstanceState,
    Intent,
    shown_instance_state,
)

PENDING, RUNNING, STOPPING = InstanceState.PENDING, InstanceState.RUNNING, InstanceState.STOPPING
STOPPED, SHUTTING_DOWN, TERMINATED = InstanceState.STOPPED, InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED


def test_every_state_has_ec2s_code() -> None:
    """EC2 API reference, InstanceState."""
    assert {state.value: code for state, code in INSTANCE_STATE_CODES.items()} == {
        "pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80,
    }  # fmt: skip


def test_every_state_says_what_may_follow_it() -> None:
    assert set(LEGAL_TRANSITIONS) == set(InstanceState)
    assert all(state not in after for state, after in LEGAL_TRANSITIONS.items())


def test_nothing_follows_termination_and_everything_leads_there() -> None:
    assert LEGAL_TRANSITIONS[TERMINATED] == frozenset()
    reached = {TERMINATED}
    while True:
        more = {state for state, after in LEGAL_TRANSITIONS.items() if after & reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(InstanceState)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TERMINATED, RUNNING),
        (SHUTTING_DOWN, RUNNING),
        (SHUTTING_DOWN, STOPPED),
        (STOPPED, RUNNING),
        (RUNNING, PENDING),
        (RUNNING, TERMINATED),
        (PENDING, TERMINATED),
        (STOPPED, TERMINATED),
    ],
)
def test_no_state_is_skipped(before: InstanceState, after: InstanceState) -> None:
    assert after not in LEGAL_TRANSITIONS[before]


SHOWN = {
    Intent.RUNNING: {STOPPED: PENDING},
    Intent.STOPPED: {PENDING: STOPPING, RUNNING: STOPPING},
    Intent.TERMINATED: {state: SHUTTING_DOWN for state in InstanceState if state is not TERMINATED},
}


@pytest.mark.parametrize("intent", Intent)
@pytest.mark.parametrize("state", InstanceState)
def test_an_owner_sees_what_was_asked_for_at_once(state: InstanceState, intent: Intent) -> None:
    assert shown_instance_state(state, intent) is SHOWN[intent].get(state, state)


@pytest.mark.parametrize("intent", Intent)
@pytest.mark.parametrize("state", InstanceState)
def test_what_is_shown_can_be_reached_from_what_is(state: InstanceState, intent: Intent) -> None:
    shown = shown_instance_state(state, intent)
    assert shown is state or shown in LEGAL_TRANSITIONS[state]
