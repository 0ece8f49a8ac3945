"""What exists before the first request: the root account, its key, the default network, zones."""

from __future__ import annotations

import itertools
import re
import secrets

import pytest
from support import front as build
from support import rows as make

from minicloud.clock import ManualClock
from minicloud.cloud import bootstrap, zones
from minicloud.cloud.context import Caller, Cloud
from minicloud.config import Config
from minicloud.errors import ApiError
from minicloud.store.store import Store


@pytest.fixture
def empty() -> Cloud:
    store = Store("sqlite://", ManualClock())
    store.migrate()
    numbers = itertools.count(1)
    return Cloud(store, Config(), {}, lambda prefix: make.number(prefix, next(numbers)), secrets.token_bytes)


def test_the_root_key_has_aws_s_form_and_stays(empty: Cloud) -> None:
    root = bootstrap.ensure_root(empty)
    assert re.fullmatch(r"\d{12}", root.account.id)
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", root.access_key.id)
    assert re.fullmatch(r"[A-Za-z0-9+/]{40}", root.access_key.secret)
    assert bootstrap.ensure_root(empty) == root


def test_keys_are_random(empty: Cloud) -> None:
    store = Store("sqlite://", ManualClock())
    store.migrate()
    other = Cloud(store, empty.config, {}, empty.make_id, secrets.token_bytes)
    assert bootstrap.ensure_root(other).access_key.secret != bootstrap.ensure_root(empty).access_key.secret


def test_a_region_is_made_once(empty: Cloud) -> None:
    vpc = bootstrap.ensure_region(empty, "100000000001", "local-1")
    assert bootstrap.ensure_region(empty, "100000000001", "local-1") == vpc
    assert (vpc.cidr, vpc.is_default, vpc.transit_index) == ("172.31.0.0/16", True, 0)
    assert empty.store.read(lambda tx: (tx.vpcs.count(), tx.security_groups.count())) == (1, 1)
    assert bootstrap.ensure_region(empty, "100000000001", "other-1").transit_index == 1


def test_a_revoked_rule_stays_revoked(empty: Cloud) -> None:
    bootstrap.ensure_region(empty, "100000000001", "local-1")
    (ssh,) = empty.store.read(lambda tx: tx.security_group_rules.where(protocol="tcp"))
    assert (ssh.egress, ssh.from_port, ssh.to_port, ssh.cidr) == (False, 22, 22, "0.0.0.0/0")
    empty.store.write(lambda tx: tx.security_group_rules.delete(ssh.id))
    bootstrap.ensure_region(empty, "100000000001", "local-1")
    assert empty.store.read(lambda tx: tx.security_group_rules.where(protocol="tcp")) == []


def test_zones_take_the_subnets_in_order_and_once() -> None:
    cloud, caller = build.build_cloud(), build.root_caller()
    assert zones.add_zone(cloud, caller, "lab-1a").zone_id == "lab1-az1"
    zones.add_zone(cloud, caller, "lab-1d")
    cidrs = cloud.store.read(lambda tx: {row.zone: row.cidr for row in tx.subnets.where()})
    assert cidrs == {"lab-1a": "172.31.0.0/20", "lab-1b": "172.31.16.0/20", "lab-1d": "172.31.32.0/20"}


@pytest.mark.parametrize("name", ["", "lab-1", "lab-1A", "lab-1ab", "lab-2a", "lab-1a\n", "lab-11"])
def test_zone_names_are_the_region_s_with_a_letter(name: str) -> None:
    with pytest.raises(ApiError) as caught:
        zones.add_zone(build.build_cloud(), build.root_caller(), name)
    assert caught.value.code == "InvalidParameterValue"


def test_a_smaller_vpc_still_has_sixteen_zones() -> None:
    cloud = build.build_cloud(vpc_cidr="10.7.0.0/20")
    cidrs = cloud.store.read(lambda tx: [row.cidr for row in tx.subnets.where()])
    assert cidrs == ["10.7.0.0/24", "10.7.1.0/24"]


def test_other_regions_see_nothing() -> None:
    cloud = build.build_cloud()
    elsewhere = Caller(build.root_caller().account_id, "mars-1")
    assert zones.describe_zones(cloud, elsewhere, (), ()) == []
