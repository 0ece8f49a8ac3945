"""Hosts and their pools as rows."""

from __future__ import annotations

from typing import Any

import pytest
from support import rows as make
from support.bare_cloud import ROOT, BareCloud, new_host

from minicloud.cloud import hosts
from minicloud.cloud.context import Caller
from minicloud.cloud.instance_types import instance_store_bytes
from minicloud.model.plans import GIB
from minicloud.model.states import HostState, InstanceState
from minicloud.store.store import Tx


def test_a_host_gets_a_row_and_a_pool(bare: BareCloud) -> None:
    with bare.one_transaction():
        host = hosts.register_host(bare.cloud, ROOT, new_host("host-c", vcpus=2, memory_mib=4096))
    assert (host.name, host.zone, host.state) == ("host-c", "lab-1a", HostState.UP)
    assert (host.vcpus, host.memory_mib, host.virt_type, host.machine_type) == (2, 4096, "qemu", "pc-q35-7.2")
    assert host.facts["kernel"] == "6.1.0"
    (pool,) = bare.store.read(lambda tx: tx.pools.where(host_id=host.id))
    assert (pool.name, pool.backend, pool.path) == ("default", "directory", "/var/lib/minicloud/pool")
    assert pool.capacity_bytes == 1024 * GIB


def test_registering_again_takes_over_what_was_measured(bare: BareCloud) -> None:
    first = bare.add_host("host-c")
    again = bare.add_host("host-c", vcpus=16, host_key="ssh-ed25519 BBBB", pool_capacity_bytes=GIB, uplink="eth1")
    assert (again.id, again.created_us) == (first.id, first.created_us)
    assert (again.vcpus, again.host_key, again.uplink) == (16, "ssh-ed25519 BBBB", "eth1")
    (pool,) = bare.store.read(lambda tx: tx.pools.where(host_id=first.id))
    assert pool.capacity_bytes == GIB


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "host-a", "address": "elsewhere"},
        {"name": "host-a", "zone": "lab-1b"},
        {"name": "host-a", "ssh_port": 2222},
        {"name": "other", "address": "host-a.lab"},
    ],
    ids=str,
)
def test_a_name_or_an_address_is_one_hosts(bare: BareCloud, changes: dict[str, Any]) -> None:
    with bare.refuses("HostAlreadyExists", "Host host-a (host-a.lab, zone lab-1a)"):
        bare.add_host(**changes)


def test_one_address_may_have_hosts_on_two_ports(bare: BareCloud) -> None:
    assert bare.add_host("other", address="host-a.lab", ssh_port=2222).ssh_port == 2222


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a b", "a;b", "a" * 65, "a\n", "ä"])
def test_bad_names_are_refused(bare: BareCloud, name: str) -> None:
    with bare.refuses("InvalidParameterValue", "is not a host name"):
        bare.add_host(name)


@pytest.mark.parametrize("caller", [ROOT, Caller(ROOT.account_id, "lab-2")], ids=["unknown", "of another region"])
def test_a_host_is_of_a_zone_of_the_region(bare: BareCloud, caller: Caller) -> None:
    zone = "lab-1z" if caller == ROOT else "lab-1a"
    with bare.refuses("InvalidParameterValue", f"Invalid availability zone: [{zone}]"):
        hosts.register_host(bare.cloud, caller, new_host("host-c", zone))


def test_an_idle_host_leaves_with_its_pool(bare: BareCloud) -> None:
    with bare.one_transaction():
        removed = hosts.remove_host(bare.cloud, ROOT, "host-a")
    assert bare.store.read(lambda tx: (tx.hosts.get(removed.id), tx.pools.where(host_id=removed.id))) == (None, [])


@pytest.mark.parametrize("state", sorted(set(InstanceState) - {InstanceState.TERMINATED}))
def test_a_host_with_an_instance_stays(bare: BareCloud, state: InstanceState) -> None:
    instance = bare.run_in(state, zone="lab-1a")
    with bare.refuses("DependencyViolation", instance.id):
        hosts.remove_host(bare.cloud, ROOT, "host-a")


def test_a_host_may_leave_once_its_instances_are_terminated(bare: BareCloud) -> None:
    bare.run_in(InstanceState.TERMINATED, zone="lab-1a")
    hosts.remove_host(bare.cloud, ROOT, "host-a")
    assert [usage.host.name for usage in hosts.describe_hosts(bare.cloud, ROOT)] == ["host-b"]


def test_a_host_with_a_volume_stays(bare: BareCloud) -> None:
    def add(tx: Tx) -> None:
        (host,) = tx.hosts.where(name="host-a")
        (pool,) = tx.pools.where(host_id=host.id)
        tx.volumes.insert(make.volume(7, pool_id=pool.id))

    bare.store.write(add)
    with bare.refuses("DependencyViolation", make.number("vol", 7)):
        hosts.remove_host(bare.cloud, ROOT, "host-a")


def test_a_draining_host_keeps_what_it_has_and_gets_nothing(bare: BareCloud) -> None:
    bare.run_one(zone="lab-1a")
    with bare.one_transaction():
        assert hosts.set_host_draining(bare.cloud, ROOT, "host-a", True).state is HostState.DRAINING
    with bare.refuses("InsufficientInstanceCapacity", status=500):
        bare.run_one(zone="lab-1a")
    assert hosts.set_host_draining(bare.cloud, ROOT, "host-a", False).state is HostState.UP
    bare.run_one(zone="lab-1a")


def test_a_host_that_is_down_cannot_be_marked(bare: BareCloud) -> None:
    host = hosts.describe_hosts(bare.cloud, ROOT)[0].host
    bare.store.write(lambda tx: tx.hosts.update(host.id, state=HostState.DOWN, state_reason="no route"))
    for draining in (True, False):
        with bare.refuses("IncorrectState", "no route"):
            hosts.set_host_draining(bare.cloud, ROOT, "host-a", draining)


def test_hosts_are_found_by_id_too(bare: BareCloud) -> None:
    host = hosts.describe_hosts(bare.cloud, ROOT)[0].host
    assert hosts.set_host_draining(bare.cloud, ROOT, host.id, True).id == host.id
    for unknown in ("nobody", make.number("h", 99)):
        with bare.refuses("InvalidHostID.NotFound", unknown):
            hosts.remove_host(bare.cloud, ROOT, unknown)


def test_hosts_are_described_with_what_they_carry(bare: BareCloud) -> None:
    bare.run(min_count=2, max_count=2, zone="lab-1b", instance_type="m5d.large")
    with bare.one_transaction():
        first, second = hosts.describe_hosts(bare.cloud, ROOT)
    assert (first.host.name, first.instances, first.used.vcpus, first.used.disk_bytes) == ("host-a", 0, 0, 0)
    assert (second.host.name, second.instances) == ("host-b", 2)
    assert (second.used.vcpus, second.used.memory_mib) == (4, 2 * 8192)
    assert second.used.disk_bytes == 2 * (8 * GIB + instance_store_bytes(75))
    # 8 vCPUs over-committed four times, memory not at all, disk four times.
    assert (second.total.vcpus, second.total.memory_mib, second.total.disk_bytes) == (32, 16384, 4096 * GIB)
    assert hosts.describe_hosts(bare.cloud, Caller(ROOT.account_id, "lab-2")) == []
