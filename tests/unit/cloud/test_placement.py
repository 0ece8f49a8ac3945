"""Choosing hosts and addresses; pure, and over rows."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import front as build
from support import rows as make

from minicloud.cloud import hosts, instances
from minicloud.cloud.addresses import choose_free, render_mac, subnet_addresses
from minicloud.cloud.placement import Demand, HostUsage, choose_host, choose_hosts, host_usages
from minicloud.config import Config
from minicloud.model.states import HostState

SMALL = Demand(2, 512, 2**30)


def usage(n: int = 1, vcpus: int = 8, memory_mib: int = 4096, disk_bytes: int = 2**40, **changes: Any) -> HostUsage:
    total = Demand(vcpus, memory_mib, disk_bytes)
    return HostUsage(make.host(n, **changes), make.pool(n), total, Demand(0, 0, 0), 0)


def test_the_emptiest_host_is_chosen_and_ties_go_by_name() -> None:
    assert choose_host([usage(2), usage(1)], SMALL) == usage(1)
    busy = usage(1).with_one_more(SMALL)
    assert choose_host([busy, usage(2)], SMALL) == usage(2)
    # By share, not by number: the large host is emptier with one than the small one with none.
    large = usage(1, vcpus=80, memory_mib=40960).with_one_more(SMALL)
    assert choose_host([large, usage(2)], SMALL) == large


@pytest.mark.parametrize("state", [HostState.DOWN, HostState.DRAINING])
def test_only_hosts_that_are_up_are_chosen(state: HostState) -> None:
    assert choose_host([usage(1, state=state)], SMALL) is None
    assert choose_host([usage(1, state=state), usage(2)], SMALL) == usage(2)


@pytest.mark.parametrize("demand", [Demand(9, 1, 1), Demand(1, 4097, 1), Demand(1, 1, 2**40 + 1)])
def test_every_resource_can_be_the_one_that_lacks(demand: Demand) -> None:
    assert choose_host([usage()], demand) is None


def test_an_exact_fit_fits() -> None:
    assert choose_host([usage()], Demand(8, 4096, 2**40)) is not None


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4096)), min_size=1, max_size=5),
    st.integers(1, 4),
    st.integers(1, 1024),
    st.integers(0, 30),
)
def test_no_host_is_ever_overfilled(sizes: list[tuple[int, int]], vcpus: int, memory_mib: int, max_count: int) -> None:
    usages = [usage(n, cpus, memory) for n, (cpus, memory) in enumerate(sizes, start=1)]
    demand = Demand(vcpus, memory_mib, 1)
    chosen = [one.host.id for one in choose_hosts(usages, demand, max_count)]
    counts = {one.host.id: chosen.count(one.host.id) for one in usages}
    fits = {one.host.id: min(one.total.vcpus // vcpus, one.total.memory_mib // memory_mib) for one in usages}
    assert all(counts[id] <= fits[id] for id in counts)
    assert len(chosen) == min(max_count, sum(fits.values()))


def test_usage_follows_ratios_and_states() -> None:
    cloud = build.build_cloud(vcpu_overcommit_ratio=1.0, memory_overcommit_ratio=0.5, disk_overcommit_ratio=2.0)
    caller = build.root_caller()

    def used(name: str = "host1") -> HostUsage:
        return next(one for one in hosts.describe_hosts(cloud, caller) if one.host.name == name)

    assert used().total == Demand(8, 8192, 800 * build.GIB)
    request = instances.RunRequest(build.IMAGE_ID, 1, 1, "m5d.large", zone="lab-1a")
    (view,) = instances.run(cloud, caller, request).instances
    id = view.instance.id
    assert used().used == Demand(2, 8192, 2 * build.GIB + 75 * 10**9)
    build.settle(cloud)
    instances.stop(cloud, caller, [id], False, False)
    # Until it is really off it holds what it has.
    assert used().used.memory_mib == 8192
    build.settle(cloud)
    assert used().used == Demand(0, 0, 2 * build.GIB)
    instances.start(cloud, caller, [id])
    assert used().used == Demand(2, 8192, 2 * build.GIB + 75 * 10**9)
    instances.terminate(cloud, caller, [id])
    build.settle(cloud)
    assert used().used == Demand(0, 0, 0)


def test_memory_is_kept_for_the_host_itself() -> None:
    cloud = build.build_cloud()
    config = replace(cloud.config, reserved_memory_mib=1000)
    (first, _) = cloud.store.read(lambda tx: host_usages(tx, config, tx.hosts.where()))
    assert first.total.memory_mib == 16384 - 1000
    all_of_it = replace(cloud.config, reserved_memory_mib=99999)
    assert cloud.store.read(lambda tx: host_usages(tx, all_of_it, tx.hosts.where()))[0].total.memory_mib == 0


# Addresses


def test_a_subnet_s_reserved_addresses() -> None:
    addresses = subnet_addresses("172.31.16.0/20")
    assert str(ipaddress.IPv4Address(addresses[0])) == "172.31.16.4"
    assert str(ipaddress.IPv4Address(addresses[-1])) == "172.31.31.254"
    assert len(addresses) == 4091


@given(st.sets(st.integers(0, 20)), st.integers(0, 25))
def test_the_lowest_free_ones_are_chosen(used: set[int], count: int) -> None:
    free = [number for number in range(20) if number not in used]
    assert choose_free(range(20), used, count) == free[:count]


def test_macs_are_local_unicast_and_of_one_interface_only() -> None:
    macs = set()
    for index in (0, 1, 40000):
        vpc = make.vpc(1, transit_index=index)
        for offset in (4, 255, 256, 65534):
            mac = render_mac(vpc, str(ipaddress.IPv4Address("172.31.0.0") + offset))
            first = int(mac.split(":")[0], 16)
            assert first & 0b11 == 0b10
            assert len(mac) == 17
            macs.add(mac)
    assert len(macs) == 12
    # The same address of a VPC always has the same MAC: dnsmasq's leases depend on it.
    assert render_mac(make.vpc(1), "172.31.0.9") == render_mac(make.vpc(1), "172.31.0.9")


def test_the_configuration_s_default_pool_has_every_address() -> None:
    assert Config().public_address_pools == ("10.200.0.0/24",)
