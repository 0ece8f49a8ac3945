"""Private and public addresses, and MACs."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import rows as make
from support.bare_cloud import OTHER, ROOT, BareCloud

from minicloud.cloud import bootstrap, subnets, zones
from minicloud.cloud.addresses import choose_free, render_mac, subnet_addresses
from minicloud.model.resources import Vpc
from minicloud.model.states import InstanceState
from minicloud.store.store import Tx


@pytest.fixture
def small(build: Callable[..., BareCloud]) -> Iterator[BareCloud]:
    """A zone whose subnet is made a /28: eleven addresses, and a host with room for all of them."""
    cloud = build(vcpu_overcommit_ratio=100.0, memory_overcommit_ratio=10.0, public_address_pools=("10.200.0.0/28",))
    (view,) = [one for one in subnets.describe_subnets(cloud.cloud, ROOT, []).items if one.subnet.zone == "lab-1a"]
    cloud.store.write(lambda tx: tx.subnets.update(view.subnet.id, cidr="172.31.0.0/28"))
    yield cloud
    cloud.close()


def private_ips(cloud: BareCloud) -> list[str]:
    return sorted(cloud.store.read(lambda tx: [port.private_ip for port in tx.network_interfaces.where()]))


def test_the_first_four_and_the_last_address_are_reserved() -> None:
    found = subnet_addresses("172.31.16.0/28")
    assert [str(ipaddress.IPv4Address(one)) for one in (found[0], found[-1])] == ["172.31.16.4", "172.31.16.14"]
    assert len(found) == 11


def test_the_lowest_free_addresses_are_given() -> None:
    assert choose_free(range(4, 15), {4, 6}, 3) == [5, 7, 8]
    assert choose_free(range(4, 6), {4}, 3) == [5]


@given(st.sets(st.integers(0, 40)), st.integers(0, 30))
def test_no_address_is_given_twice(used: set[int], count: int) -> None:
    chosen = choose_free(range(4, 30), used, count)
    assert len(set(chosen)) == len(chosen) == min(count, len(set(range(4, 30)) - used))
    assert not used.intersection(chosen)


def test_a_launch_takes_the_lowest_and_describes_one_less(bare: BareCloud) -> None:
    view = bare.run_one(zone="lab-1b")
    assert (view.ports[0].private_ip, view.ports[0].public_ip) == ("172.31.16.4", "10.200.0.0")
    shown = {one.subnet.zone: one.free_addresses for one in subnets.describe_subnets(bare.cloud, ROOT, []).items}
    assert shown == {"lab-1a": 4091, "lab-1b": 4090}


def test_a_full_subnet_gives_what_it_has_down_to_the_minimum(small: BareCloud) -> None:
    assert len(small.run(min_count=1, max_count=20, zone="lab-1a").instances) == 11
    assert private_ips(small) == sorted(f"172.31.0.{n}" for n in range(4, 15))
    with small.refuses("InsufficientFreeAddressesInSubnet", "subnet-"):
        small.run(zone="lab-1a")


def test_fewer_addresses_than_the_minimum_is_nothing(small: BareCloud) -> None:
    with small.refuses("InsufficientFreeAddressesInSubnet"):
        small.run(min_count=12, max_count=20, zone="lab-1a")


def test_a_terminated_instances_address_is_free_again(small: BareCloud) -> None:
    first = small.run(min_count=11, max_count=11, zone="lab-1a").instances[3]
    small.rest(first.instance.id, InstanceState.TERMINATED)
    assert small.run_one(zone="lab-1a").ports[0].private_ip == first.ports[0].private_ip


def test_every_address_of_the_pools_is_used_and_no_more(build: Callable[..., BareCloud]) -> None:
    bare = build(public_address_pools=("10.200.0.0/31", "10.201.0.8/32"))
    views = bare.run(min_count=1, max_count=5).instances
    assert [view.ports[0].public_ip for view in views] == ["10.200.0.0", "10.200.0.1", "10.201.0.8"]
    with bare.refuses("InsufficientAddressCapacity", status=500):
        bare.run()


def test_fewer_public_addresses_than_the_minimum_is_nothing(build: Callable[..., BareCloud]) -> None:
    bare = build(public_address_pools=("10.200.0.0/31",))
    with bare.refuses("InsufficientAddressCapacity", status=500):
        bare.run(min_count=3, max_count=4)


def test_no_public_address_where_the_subnet_maps_none(build: Callable[..., BareCloud]) -> None:
    bare = build(public_address_pools=())

    def unmap(tx: Tx) -> None:
        for subnet in tx.subnets.where():
            tx.subnets.update(subnet.id, map_public_ip_on_launch=False)

    bare.store.write(unmap)
    assert bare.run_one().ports[0].public_ip is None
    assert bare.run_one(associate_public_ip=False).ports[0].public_ip is None
    with bare.refuses("UnsupportedOperation", "MapPublicIpOnLaunch"):
        bare.run_one(associate_public_ip=True)


def test_a_public_address_cannot_be_declined_where_the_subnet_maps_one(bare: BareCloud) -> None:
    assert bare.run_one(associate_public_ip=True).ports[0].public_ip == "10.200.0.0"
    with bare.refuses("UnsupportedOperation", "MapPublicIpOnLaunch"):
        bare.run_one(associate_public_ip=False)


def test_an_address_of_the_callers_choice(bare: BareCloud) -> None:
    assert bare.run_one(zone="lab-1a", private_ip="172.31.0.77").ports[0].private_ip == "172.31.0.77"
    with bare.refuses("InvalidIPAddress.InUse", "Address 172.31.0.77 is in use."):
        bare.run_one(zone="lab-1a", private_ip="172.31.0.77")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("10.0.0.1", "does not fall within the subnet's address range"),
        ("172.31.16.9", "does not fall within the subnet's address range"),
        ("172.31.0.0", "is in subnet's reserved address range"),
        ("172.31.0.3", "is in subnet's reserved address range"),
        ("172.31.15.255", "is in subnet's reserved address range"),
        ("172.31.0", "for parameter privateIpAddress is invalid"),
        ("::1", "for parameter privateIpAddress is invalid"),
        ("172.31.0.04", "for parameter privateIpAddress is invalid"),
    ],
)
def test_addresses_that_cannot_be_had(bare: BareCloud, address: str, message: str) -> None:
    with bare.refuses("InvalidParameterValue", message):
        bare.run_one(zone="lab-1a", private_ip=address)


def test_one_address_is_for_one_instance(bare: BareCloud) -> None:
    with bare.refuses("InvalidParameterCombination", "MaxCount must be 1"):
        bare.run(zone="lab-1a", private_ip="172.31.0.9", max_count=2)


def vpc(index: int) -> Vpc:
    return make.vpc(1, transit_index=index)


def test_a_mac_is_local_unicast_and_follows_from_the_address() -> None:
    assert render_mac(vpc(0x010203), "172.31.16.4") == "02:01:02:03:10:04"


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**24 - 1), st.integers(0, 2**16 - 1))
def test_macs_differ_wherever_vpc_or_address_do(index: int, offset: int, other_index: int, other: int) -> None:
    base = ipaddress.IPv4Address("172.31.0.0")
    macs = render_mac(vpc(index), str(base + offset)), render_mac(vpc(other_index), str(base + other))
    assert (macs[0] == macs[1]) == ((index, offset) == (other_index, other))
    first = int(macs[0][:2], 16)
    assert (first & 1, first & 2) == (0, 2)


def test_two_vpcs_with_the_same_addresses_have_other_macs(bare: BareCloud) -> None:
    bootstrap.ensure_region(bare.cloud, OTHER.account_id, OTHER.region)
    zones.add_zone(bare.cloud, ROOT, "lab-1c")
    bare.add_host("host-c", "lab-1c")
    image = bare.add_image(5, account_id=OTHER.account_id)
    mine = bare.run_one(zone="lab-1c").ports[0]
    theirs = bare.run(OTHER, image_id=image.id, zone="lab-1c").instances[0].ports[0]
    assert theirs.mac != mine.mac
    assert theirs.public_ip != mine.public_ip
    assert theirs.vpc_id != mine.vpc_id
