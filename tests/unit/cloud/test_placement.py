"""Which host takes a new instance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rows as make
from support.bare_cloud import ROOT, BareCloud

from minicloud.cloud import hosts
from minicloud.cloud.instance_types import instance_store_bytes
from minicloud.cloud.placement import Demand, HostUsage, choose_hosts
from minicloud.model.plans import GIB
from minicloud.model.states import HostState, InstanceState, Intent


def usage(n: int, total: Demand, used: Demand = Demand(0, 0, 0), instances: int = 0, **changes: Any) -> HostUsage:
    return HostUsage(make.host(n, **changes), make.pool(n), total, used, instances)


def names(chosen: list[HostUsage]) -> list[str]:
    return [one.host.name for one in chosen]


ROOM = Demand(8, 8192, 100 * GIB)
SMALL = Demand(2, 512, 8 * GIB)


def choose_host(usages: list[HostUsage], demand: Demand) -> HostUsage | None:
    return next(iter(choose_hosts(usages, demand, 1)), None)


def test_instances_spread_over_equal_hosts() -> None:
    assert names(choose_hosts([usage(2, ROOM), usage(1, ROOM)], SMALL, 4)) == ["host1", "host2", "host1", "host2"]


def test_the_emptiest_host_is_first() -> None:
    loaded = usage(1, ROOM, used=Demand(0, 4096, 0), instances=1)
    chosen = choose_host([loaded, usage(2, ROOM)], SMALL)
    assert chosen is not None
    assert chosen.host.name == "host2"


def test_a_larger_host_takes_more() -> None:
    large = usage(1, Demand(32, 32768, 1000 * GIB))
    assert names(choose_hosts([large, usage(2, ROOM)], SMALL, 5)).count("host1") == 4


def test_of_equally_loaded_hosts_the_one_with_fewer_instances_is_first() -> None:
    crowded = usage(1, ROOM, used=Demand(2, 512, 0), instances=2)
    calm = usage(2, ROOM, used=Demand(2, 512, 0), instances=1)
    chosen = choose_host([crowded, calm], SMALL)
    assert chosen is not None
    assert chosen.host.name == "host2"


@pytest.mark.parametrize("state", [HostState.DOWN, HostState.DRAINING])
def test_only_hosts_that_are_up_are_chosen(state: HostState) -> None:
    assert choose_host([usage(1, ROOM, state=state)], SMALL) is None


@pytest.mark.parametrize(
    "demand", [Demand(9, 1, 1), Demand(1, 8193, 1), Demand(1, 1, 100 * GIB + 1)], ids=["vcpus", "memory", "disk"]
)
def test_every_resource_bounds_by_itself(demand: Demand) -> None:
    assert choose_host([usage(1, ROOM)], demand) is None
    assert choose_host([usage(1, ROOM)], Demand(8, 8192, 100 * GIB)) is not None


def test_as_many_as_fit_are_chosen() -> None:
    assert names(choose_hosts([usage(1, ROOM)], Demand(3, 1, 1), 5)) == ["host1", "host1"]
    assert choose_hosts([], SMALL, 5) == []


demands = st.builds(Demand, st.integers(1, 8), st.integers(1, 64), st.integers(0, 100))
totals = st.builds(Demand, st.integers(0, 40), st.integers(0, 300), st.integers(0, 600))
usages = st.lists(
    st.tuples(totals, demands, st.integers(0, 3), st.sampled_from(HostState)), min_size=0, max_size=5
).map(lambda each: [usage(n, total, used, count, state=state) for n, (total, used, count, state) in enumerate(each, 1)])


@given(usages, demands, st.integers(1, 20))
def test_capacity_is_never_exceeded_and_never_left_unused(given_: list[HostUsage], demand: Demand, count: int) -> None:
    chosen = choose_hosts(given_, demand, count)
    assert len(chosen) <= count
    for one in given_:
        times = sum(other.host.id == one.host.id for other in chosen)
        after = one
        for _ in range(times):
            assert after.fits(demand)
            after = after.with_one_more(demand)
        if times:
            assert one.host.state is HostState.UP
            assert after.used.vcpus <= one.total.vcpus
            assert after.used.memory_mib <= one.total.memory_mib
            assert after.used.disk_bytes <= one.total.disk_bytes
        # Fewer than were asked for only where not one more would fit anywhere.
        assert len(chosen) == count or not after.fits(demand)


@given(usages, demands, st.integers(1, 20), st.randoms(use_true_random=False))
def test_the_choice_is_deterministic_whatever_the_order(
    given_: list[HostUsage], demand: Demand, count: int, random: Any
) -> None:
    shuffled = list(given_)
    random.shuffle(shuffled)
    assert names(choose_hosts(given_, demand, count)) == names(choose_hosts(shuffled, demand, count))


@pytest.mark.parametrize(
    ("settings", "fitting"),
    [
        ({"vcpu_overcommit_ratio": 1.0}, 4),
        ({"vcpu_overcommit_ratio": 1.5}, 6),
        ({"vcpu_overcommit_ratio": 0.5}, 2),
        ({"vcpu_overcommit_ratio": 100.0, "disk_overcommit_ratio": 100.0}, 32),
        ({"vcpu_overcommit_ratio": 100.0, "memory_overcommit_ratio": 2.0, "disk_overcommit_ratio": 100.0}, 64),
        ({"vcpu_overcommit_ratio": 100.0, "reserved_memory_mib": 16384 - 1024}, 2),
        ({"vcpu_overcommit_ratio": 100.0, "reserved_memory_mib": 20000}, 0),
        ({"vcpu_overcommit_ratio": 100.0, "disk_overcommit_ratio": 0.1}, 12),
    ],
    ids=str,
)
def test_capacity_is_what_the_host_has_times_over_commit(
    settings: dict[str, Any], fitting: int, build: Callable[..., BareCloud]
) -> None:
    """A host of 8 vCPUs, 16 GiB and 1 TiB; a t3.nano has 2 vCPUs, 512 MiB and a volume of 8 GiB."""
    bare = build(**settings)
    if fitting:
        assert len(bare.run(min_count=1, max_count=100, zone="lab-1a").instances) == fitting
    with bare.refuses("InsufficientInstanceCapacity", "t3.nano capacity", status=500):
        bare.run(zone="lab-1a")


@pytest.mark.parametrize("state", sorted(InstanceState))
def test_what_an_instance_holds_in_each_state(bare: BareCloud, state: InstanceState) -> None:
    bare.run_in(state, zone="lab-1a", instance_type="m5d.large")
    used = hosts.describe_hosts(bare.cloud, ROOT)[0].used
    compute = state not in (InstanceState.STOPPED, InstanceState.TERMINATED)
    volumes = 0 if state is InstanceState.TERMINATED else 8 * GIB
    assert used == Demand(2 * compute, 8192 * compute, volumes + instance_store_bytes(75) * compute)


def test_a_stopped_instance_that_is_to_start_holds_its_place(bare: BareCloud) -> None:
    bare.run_in(InstanceState.STOPPED, zone="lab-1a", intent=Intent.RUNNING)
    assert hosts.describe_hosts(bare.cloud, ROOT)[0].used.vcpus == 2


def test_a_launch_is_spread_over_the_hosts_of_its_zone(bare: BareCloud) -> None:
    bare.add_host("host-a2", "lab-1a")
    views = bare.run(min_count=4, max_count=4, zone="lab-1a").instances
    assert len({view.instance.host_id for view in views}) == 2


def test_a_launch_without_a_zone_goes_to_the_emptiest(bare: BareCloud) -> None:
    assert [bare.run_one().instance.zone for _ in range(4)] == ["lab-1a", "lab-1b", "lab-1a", "lab-1b"]


def test_a_launch_stays_in_one_zone_the_one_that_takes_most_of_it(bare: BareCloud) -> None:
    bare.add_host("host-b2", "lab-1b")
    bare.run(min_count=1, max_count=1, zone="lab-1b")
    views = bare.run(min_count=1, max_count=20).instances
    assert {view.instance.zone for view in views} == {"lab-1b"}
    assert len(views) == 20


def test_fewer_than_the_minimum_is_nothing_at_all(bare: BareCloud) -> None:
    # 16 fit a zone.
    with bare.refuses("InsufficientInstanceCapacity", "in any Availability Zone", status=500):
        bare.run(min_count=17, max_count=20)
    with bare.refuses("InsufficientInstanceCapacity", "(lab-1b)", status=500):
        bare.run(min_count=17, max_count=20, zone="lab-1b")
    assert len(bare.run(min_count=16, max_count=20).instances) == 16


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 80), st.integers(0, 5)), min_size=1, max_size=6),
    st.integers(1, 60),
)
def test_a_fleet_is_spread_as_one_instance_after_the_other_would_be(
    used: list[tuple[int, int, int]], count: int
) -> None:
    usages = [
        replace(usage(n, ROOM), used=Demand(vcpus, memory_gib * 1024, 0), instances=instances)
        for n, (vcpus, memory_gib, instances) in enumerate(used, start=1)
    ]
    expected, current = [], {one.host.name: one for one in usages}
    for _ in range(count):
        fitting = [one for one in current.values() if one.fits(SMALL)]
        if not fitting:
            break
        best = min(fitting, key=lambda one: (one.with_one_more(SMALL).load(), one.instances, one.host.name))
        expected.append(best.host.name)
        current[best.host.name] = best.with_one_more(SMALL)
    assert names(choose_hosts(usages, SMALL, count)) == expected
