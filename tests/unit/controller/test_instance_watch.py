"""What the controller does about a running instance: what changes under it, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from support.debris import debris
from support.world import World

from minicloud.cloud.metadata_options import MetadataRequest
from minicloud.hosts.fake_faults import NO_FAULTS
from minicloud.model.plans import DomainStatus, InstancePlan
from minicloud.model.resources import MetadataOptions
from minicloud.model.states import InstanceState


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World(faults=NO_FAULTS)) as made:
        yield made


def test_an_instance_stops_soon_after_a_qemu_that_outlived_its_domain_is_gone(world: World) -> None:
    """No event tells when that process ends."""
    (id,) = world.launch()
    world.rest()
    host = world.host_of(id)
    domain = host.domains[id]
    host._end(domain, "shutdown", death_seconds=20.0)

    assert not world.run_until(lambda: world.instance(id).state is not InstanceState.RUNNING, 19.0)
    assert world.run_until(lambda: world.instance(id).state is InstanceState.STOPPED, 10.0), world.story()


# What a guest is told of itself


def told(world: World, id: str) -> Any:
    """What the host answers the guest by."""
    (port,) = [one for one in world.host_of(id).ports.values() if one.instance_id == id]
    return port.metadata


def pushes(world: World, id: str) -> int:
    return world.host_of(id).calls.count(("ensure_instance", id))


def test_a_change_of_options_reaches_the_host_of_a_running_guest(world: World) -> None:
    (id,) = world.launch()
    world.rest()
    before = pushes(world, id)
    world.change_options(id, http_tokens="required", http_put_response_hop_limit=5, instance_metadata_tags="enabled")
    assert world.instance(id).metadata_options.state == "pending"
    assert told(world, id).http_tokens == "optional"

    assert world.run_until(lambda: world.instance(id).metadata_options.state == "applied", 1.0), world.story()
    assert (told(world, id).http_tokens, told(world, id).hop_limit) == ("required", 5)
    assert pushes(world, id) == before + 1
    assert world.instance(id).state is InstanceState.RUNNING


def test_a_running_guest_sees_its_tags_change(world: World) -> None:
    (id,) = world.launch(metadata=MetadataRequest(instance_metadata_tags="enabled"))
    world.rest()
    world.tag(id, Name="one", more="two")
    world.rest()
    tags = {path: text for path, text in told(world, id).leaves.items() if path.startswith("tags/")}
    assert tags == {"tags/instance/Name": "one", "tags/instance/more": "two"}
    world.untag(id, "more")
    world.tag(id, Name="changed")
    world.rest()
    tags = {path: text for path, text in told(world, id).leaves.items() if path.startswith("tags/")}
    assert tags == {"tags/instance/Name": "changed"}


def test_nothing_is_pushed_that_the_host_holds_already(world: World) -> None:
    (id,) = world.launch()
    world.rest()
    before = pushes(world, id)
    world.tag(id, Name="nobody in the guest sees it")
    world.change_options(id, http_tokens="optional")
    world.survey()
    world.store.write(lambda tx: tx.wake(id))
    world.rest()
    assert pushes(world, id) == before


def test_a_task_of_an_older_version_pushes_once(world: World) -> None:
    """It has no fact of what was pushed."""
    (id,) = world.launch()
    world.rest()
    before = pushes(world, id)
    world.store.write(lambda tx: tx.tasks.update(id, facts={"ran": True}))
    for _ in range(2):
        world.store.write(lambda tx: tx.wake(id))
        world.rest()
        assert pushes(world, id) == before + 1


def test_options_that_change_while_the_host_is_told_are_not_called_applied(world: World) -> None:
    (id,) = world.launch()
    world.rest()
    world.change_options(id, http_tokens="required")
    host = world.host_of(id)
    tell = host.ensure_instance
    seen: list[str] = []

    def tell_and_change(plan: InstancePlan, epoch: int) -> None:
        tell(plan, epoch)
        if not seen:
            world.change_options(id, http_put_response_hop_limit=7)
        seen.append(world.instance(id).metadata_options.state)

    host.ensure_instance = tell_and_change  # type: ignore[method-assign]
    world.rest()
    assert seen == ["pending", "pending"]
    assert world.instance(id).metadata_options == MetadataOptions(
        http_tokens="required", http_put_response_hop_limit=7, state="applied"
    )
    assert (told(world, id).http_tokens, told(world, id).hop_limit) == ("required", 7)


def test_a_push_touches_no_disk_of_the_guest(world: World) -> None:
    (id,) = world.launch(instance_type="m5d.large")
    world.rest()
    host = world.host_of(id)
    tell = host.ensure_instance
    plans: list[InstancePlan] = []

    def tell_noted(plan: InstancePlan, epoch: int) -> None:
        plans.append(plan)
        tell(plan, epoch)

    host.ensure_instance = tell_noted  # type: ignore[method-assign]
    world.change_options(id, http_tokens="required")
    world.rest()
    assert [plan.disks for plan in plans] == [()]


def test_options_of_a_stopped_instance_are_those_of_its_next_start(world: World) -> None:
    (id,) = world.launch()
    world.rest()
    world.stop(id)
    world.rest()
    world.change_options(id, http_tokens="required")
    assert world.instance(id).metadata_options.state == "applied"
    world.start(id)
    world.rest()
    assert told(world, id).http_tokens == "required"


def test_options_changed_while_it_stops_are_not_pending_for_ever(world: World) -> None:
    (id,) = world.launch()
    world.rest()
    world.stop(id)
    world.change_options(id, http_tokens="required")
    world.rest()
    assert world.instance(id).state is InstanceState.STOPPED
    assert world.instance(id).metadata_options == MetadataOptions(http_tokens="required")


# What its owner may change while it runs


def test_the_shutdown_behaviour_of_now_decides_when_a_guest_powers_off(world: World) -> None:
    stays, goes = world.launch(), world.launch(shutdown_behavior="terminate")
    world.rest()
    (kept,), (ended,) = goes, stays
    world.change_attribute(ended, shutdown_behavior="terminate")
    world.change_attribute(kept, shutdown_behavior="stop")
    for id in (kept, ended):
        world.host_of(id).guest_powers_off(id)
    world.rest()
    assert world.instance(kept).state is InstanceState.STOPPED
    assert world.instance(ended).state is InstanceState.TERMINATED


def test_a_behaviour_that_changes_while_the_guest_goes_is_looked_at_again(world: World) -> None:
    (id,) = world.launch(shutdown_behavior="terminate")
    world.rest()
    host = world.host_of(id)
    look = host.domain_status

    def look_and_change(instance_id: str) -> DomainStatus:
        world.change_attribute(id, shutdown_behavior="stop")
        return look(instance_id)

    host.guest_powers_off(id)
    host.domain_status = look_and_change  # type: ignore[method-assign]
    world.rest()
    assert world.instance(id).state is InstanceState.STOPPED


def test_a_resized_instance_starts_with_what_its_type_has(world: World) -> None:
    (id,) = world.launch()
    world.rest()
    world.stop(id)
    world.rest()
    world.change_attribute(id, instance_type="m5d.large")
    world.start(id)
    world.rest()
    spec = world.host_of(id).domains[id].spec
    assert (spec.vcpus, spec.memory_mib) == (2, 8192)
    assert [disk.serial for disk in spec.disks][1:] == ["ephemeral0"]
    world.stop(id)
    world.rest()
    world.change_attribute(id, instance_type="t3.micro")
    world.start(id)
    world.rest()
    spec = world.host_of(id).domains[id].spec
    assert (spec.vcpus, spec.memory_mib, len(spec.disks)) == (2, 1024, 1)
    assert debris(world) == []
