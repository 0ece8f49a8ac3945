"""Wall clocks jump by an hour, forward and back: nothing is forced early, nothing waits an hour for nothing."""

from __future__ import annotations

import pytest
from support.debris import assert_no_debris
from support.world import World

from minicloud.hosts.fake import Guest
from minicloud.model.states import InstanceState

HOUR = 3600.0


@pytest.fixture(params=[HOUR, -HOUR], ids=["forward", "back"])
def jump(request: pytest.FixtureRequest) -> float:
    return float(request.param)


def test_a_guest_keeps_the_time_it_was_given_to_shut_down(jump: float) -> None:
    world = World(guest_of=lambda _id: Guest(obeys_acpi=False))
    (id,) = world.launch()
    world.rest()
    host = world.host_of(id)
    world.stop(id)
    patience = world.config.deadlines.guest_shutdown_seconds
    world.run_until(lambda: False, patience / 2)
    world.clock.jump_wall(jump)
    world.run_until(lambda: False, patience / 2 - 10)
    assert host.domain_status(id).state == "running"
    assert world.run_until(lambda: world.instance(id).state is InstanceState.STOPPED, 20)
    world.rest()
    assert_no_debris(world)
    world.close()


def test_whatever_is_asked_after_a_jump_happens_at_once(jump: float) -> None:
    world = World()
    (before,) = world.launch()
    world.rest()
    world.clock.jump_wall(jump)
    (after,) = world.launch()
    assert world.run_until(lambda: world.instance(after).state is InstanceState.RUNNING, 5)
    world.terminate(before)
    assert world.run_until(lambda: world.instance(before).state is InstanceState.TERMINATED, 5)
    world.close()


def test_a_back_off_is_as_long_as_it_was_meant(jump: float) -> None:
    world = World()
    world.hosts[0].disconnect()
    (id,) = world.launch()
    world.run_until(lambda: False, 60)
    world.clock.jump_wall(jump)
    assert world.instance(id).state is InstanceState.PENDING
    world.hosts[0].reconnect()
    world.events.clear()
    assert world.run_until(lambda: world.instance(id).state is InstanceState.RUNNING, 40)
    world.close()


def test_a_launch_that_fails_once_after_a_jump_is_not_given_up(jump: float) -> None:
    world = World()
    world.clock.jump_wall(jump)
    world.fail_jobs("unavailable")
    (id,) = world.launch()
    world.clock.jump_wall(jump)
    world.rest()
    assert world.instance(id).state is InstanceState.RUNNING
    world.close()
