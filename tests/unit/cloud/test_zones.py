"""Regions and availability zones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.bare_cloud import ROOT, BareCloud

from minicloud.cloud import hosts, subnets, zones
from minicloud.cloud.context import Caller


def test_a_zone_comes_with_the_next_slash_20_of_the_default_vpc(empty: BareCloud) -> None:
    with empty.one_transaction():
        zone = zones.add_zone(empty.cloud, ROOT, "lab-1a")
    assert (zone.id, zone.region, zone.zone_id) == ("lab-1a", "lab-1", "lab1-az1")
    zones.add_zone(empty.cloud, ROOT, "lab-1c")
    views = subnets.describe_subnets(empty.cloud, ROOT, []).items
    assert [(view.subnet.zone, view.subnet.cidr, view.zone.zone_id) for view in views] == [
        ("lab-1a", "172.31.0.0/20", "lab1-az1"),
        ("lab-1c", "172.31.16.0/20", "lab1-az3"),
    ]
    # 4096 but the first four and the last.
    assert all(
        view.free_addresses == 4091 and view.subnet.is_default and view.subnet.map_public_ip_on_launch for view in views
    )


def test_a_smaller_vpc_is_cut_into_sixteen_too(build: Callable[..., BareCloud]) -> None:
    bare = build(furnished=False, vpc_cidr="10.9.0.0/20")
    zones.add_zone(bare.cloud, ROOT, "lab-1a")
    zones.add_zone(bare.cloud, ROOT, "lab-1b")
    views = subnets.describe_subnets(bare.cloud, ROOT, []).items
    assert [(view.subnet.cidr, view.free_addresses) for view in views] == [("10.9.0.0/24", 251), ("10.9.1.0/24", 251)]


def test_an_existing_zone_is_returned_as_it_is(bare: BareCloud) -> None:
    with bare.unchanged():
        assert zones.add_zone(bare.cloud, ROOT, "lab-1b").zone_id == "lab1-az2"


@pytest.mark.parametrize("name", ["lab-1", "lab-1A", "lab-1aa", "lab-2a", "lab-11a", "", "lab-1a\n", "lab-1é"])
def test_a_zone_is_called_after_its_region(empty: BareCloud, name: str) -> None:
    with empty.refuses("InvalidParameterValue", "lab-1a, lab-1b"):
        zones.add_zone(empty.cloud, ROOT, name)


def test_the_seventeenth_zone_finds_no_address_space(empty: BareCloud) -> None:
    for letter in "abcdefghijklmnop":
        zones.add_zone(empty.cloud, ROOT, f"lab-1{letter}")
    with empty.refuses("SubnetLimitExceeded"):
        zones.add_zone(empty.cloud, ROOT, "lab-1q")


def test_the_only_region_is_ours(bare: BareCloud) -> None:
    assert zones.describe_regions(bare.cloud, ROOT, []) == [zones.Region("lab-1", "http://127.0.0.1:8010")]
    assert len(zones.describe_regions(bare.cloud, ROOT, ["lab-1", "lab-1"])) == 1
    with bare.refuses("InvalidParameterValue", "us-east-1"):
        zones.describe_regions(bare.cloud, ROOT, ["lab-1", "us-east-1"])


@pytest.mark.parametrize(
    ("names", "zone_ids", "found"),
    [
        ([], [], ["lab-1a", "lab-1b"]),
        (["lab-1b", "lab-1b"], [], ["lab-1b"]),
        ([], ["lab1-az1"], ["lab-1a"]),
        (["lab-1b"], ["lab1-az1"], ["lab-1a", "lab-1b"]),
    ],
)
def test_zones_are_found_by_name_and_by_id(
    bare: BareCloud, names: list[str], zone_ids: list[str], found: list[str]
) -> None:
    with bare.one_transaction():
        views = zones.describe_zones(bare.cloud, ROOT, names, zone_ids)
    assert [view.zone.id for view in views] == found


@pytest.mark.parametrize(
    ("names", "zone_ids", "message"),
    [
        (["lab-1z"], [], "Invalid availability zone: [lab-1z]"),
        (["lab-1a", "nope", "x" * 300], [], "Invalid availability zone: [nope, " + "x" * 100 + "]"),
        ([], ["use1-az1"], "Invalid availability zone-id: [use1-az1]"),
    ],
)
def test_unknown_zones_are_named(bare: BareCloud, names: list[str], zone_ids: list[str], message: str) -> None:
    with bare.refuses("InvalidParameterValue", message):
        zones.describe_zones(bare.cloud, ROOT, names, zone_ids)


def test_a_zone_counts_its_hosts_and_those_that_are_up(bare: BareCloud) -> None:
    bare.add_host("host-c", "lab-1b")
    hosts.set_host_draining(bare.cloud, ROOT, "host-c", True)
    views = zones.describe_zones(bare.cloud, ROOT, [], [])
    assert [(view.hosts, view.hosts_up) for view in views] == [(1, 1), (2, 1)]


def test_another_region_has_other_zones(bare: BareCloud) -> None:
    elsewhere = Caller(ROOT.account_id, "lab-2")
    assert zones.describe_zones(bare.cloud, elsewhere, [], []) == []
