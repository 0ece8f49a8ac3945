"""A launch that its host refuses fails soon; one whose host is merely slow or away is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from support.world import World

from minicloud.errors import RefusedError, TransientError
from minicloud.model.plans import DomainSpec, DomainStatus
from minicloud.model.states import InstanceState


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World()) as one:
        yield one


def state(world: World, instance_id: str) -> InstanceState:
    return world.instance(instance_id).state


def failing(error: Exception) -> Callable[[DomainSpec, int], DomainStatus]:
    def ensure_domain(spec: DomainSpec, epoch: int) -> DomainStatus:
        raise error

    return ensure_domain


def test_a_refused_domain_is_given_up_within_seconds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (instance_id,) = world.launch()
    monkeypatch.setattr(world.host_of(instance_id), "ensure_domain", failing(RefusedError("Image size is odd")))
    assert world.run_until(lambda: state(world, instance_id) is InstanceState.TERMINATED, 30)
    reason = world.instance(instance_id).state_reason
    assert reason is not None
    assert reason.code == "Server.InternalError"


def test_a_host_that_says_nothing_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (instance_id,) = world.launch()
    with monkeypatch.context() as patched:
        patched.setattr(world.host_of(instance_id), "ensure_domain", failing(TransientError("no answer")))
        assert not world.run_until(lambda: state(world, instance_id) is not InstanceState.PENDING, 120)
    assert world.run_until(lambda: state(world, instance_id) is InstanceState.RUNNING, 60)
