"""The root account, the default network, who is asking."""

from __future__ import annotations

import re

from support.bare_cloud import REGION, ROOT, BareCloud

from minicloud.cloud import accounts, bootstrap, security_groups, vpcs
from minicloud.cloud.context import Caller
from minicloud.store.store import Tx


def test_the_root_key_has_awss_forms(empty: BareCloud) -> None:
    root = bootstrap.ensure_root(empty.cloud)
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", root.access_key.id)
    assert re.fullmatch(r"[A-Za-z0-9/+]{40}", root.access_key.secret)
    assert root.access_key.account_id == root.account.id == ROOT.account_id


def test_ensure_root_repeats(empty: BareCloud) -> None:
    first = bootstrap.ensure_root(empty.cloud)
    with empty.unchanged(), empty.one_transaction():
        assert bootstrap.ensure_root(empty.cloud) == first


def test_ensure_root_makes_a_key_when_the_last_is_gone(empty: BareCloud) -> None:
    first = bootstrap.ensure_root(empty.cloud)
    empty.store.write(lambda tx: tx.access_keys.delete(first.access_key.id))
    empty.clock.advance(1)
    again = bootstrap.ensure_root(empty.cloud)
    assert again.account == first.account
    assert again.access_key.created_us == first.access_key.created_us + 1_000_000


def test_a_region_gets_a_default_vpc_and_group(empty: BareCloud) -> None:
    (view,) = vpcs.describe_vpcs(empty.cloud, ROOT, []).items
    assert (view.vpc.cidr, view.vpc.is_default, view.vpc.transit_index) == ("172.31.0.0/16", True, 0)
    (group,) = security_groups.describe_security_groups(empty.cloud, ROOT, [], []).items
    assert (group.group.name, group.group.description) == ("default", "default VPC security group")
    rules = {
        (rule.egress, rule.protocol, rule.from_port, rule.to_port, rule.cidr, rule.source_group_id)
        for rule in group.rules
    }
    assert rules == {
        (False, "-1", None, None, None, group.group.id),
        (True, "-1", None, None, "0.0.0.0/0", None),
        (False, "tcp", 22, 22, "0.0.0.0/0", None),
    }


def test_ensure_region_repeats(empty: BareCloud) -> None:
    (view,) = vpcs.describe_vpcs(empty.cloud, ROOT, []).items
    with empty.unchanged(), empty.one_transaction():
        assert bootstrap.ensure_region(empty.cloud, ROOT.account_id, REGION) == view.vpc


def test_a_revoked_rule_stays_revoked(empty: BareCloud) -> None:
    def revoke(tx: Tx) -> None:
        for rule in tx.security_group_rules.where(protocol="tcp"):
            tx.security_group_rules.delete(rule.id)

    empty.store.write(revoke)
    with empty.unchanged():
        bootstrap.ensure_region(empty.cloud, ROOT.account_id, REGION)


def test_every_vpc_has_a_transit_index_of_its_own_and_free_ones_are_used_again(empty: BareCloud) -> None:
    made = [bootstrap.ensure_region(empty.cloud, ROOT.account_id, f"lab-{n}") for n in (2, 3)]
    assert [vpc.transit_index for vpc in made] == [1, 2]

    def remove_first(tx: Tx) -> None:
        for group in tx.security_groups.where(vpc_id=made[0].id):
            for rule in tx.security_group_rules.where(group_id=group.id):
                tx.security_group_rules.delete(rule.id)
            tx.security_groups.delete(group.id)
        tx.vpcs.delete(made[0].id)

    empty.store.write(remove_first)
    assert bootstrap.ensure_region(empty.cloud, ROOT.account_id, "lab-4").transit_index == 1


def test_the_caller_is_the_root_of_its_account(empty: BareCloud) -> None:
    identity = accounts.get_caller_identity(empty.cloud, Caller("123456789012", REGION))
    assert (identity.account_id, identity.user_id) == ("123456789012", "123456789012")
    assert identity.arn == "arn:aws:iam::123456789012:root"


def test_an_access_key_is_found_by_its_id(empty: BareCloud) -> None:
    key = bootstrap.ensure_root(empty.cloud).access_key
    with empty.one_transaction():
        found = accounts.find_signing_key(empty.cloud, key.id, None)
        assert found is not None
        assert (found.access_key_id, found.secret_access_key, found.expires_us) == (key.id, key.secret, None)
        assert found.caller == Caller(key.account_id, empty.cloud.config.region)
    assert accounts.find_signing_key(empty.cloud, "AKIAUNKNOWN", None) is None
