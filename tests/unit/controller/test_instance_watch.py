"""A running instance whose QEMU outlives its domain: no event tells when that process ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from support.world import World

from minicloud.hosts.fake_faults import NO_FAULTS
from minicloud.model.states import InstanceState


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World(faults=NO_FAULTS)) as made:
        yield made


def test_an_instance_stops_soon_after_a_qemu_that_outlived_its_domain_is_gone(world: World) -> None:
    (id,) = world.launch()
    world.rest()
    host = world.host_of(id)
    domain = host.domains[id]
    host._end(domain, "shutdown", death_seconds=20.0)

    assert not world.run_until(lambda: world.instance(id).state is not InstanceState.RUNNING, 19.0)
    assert world.run_until(lambda: world.instance(id).state is InstanceState.STOPPED, 10.0), world.story()
