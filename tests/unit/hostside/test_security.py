"""Security groups as data: what they permit, and that the rules rendered from it agree in every case."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.port_plans import allow

from minicloud.hostside import security
from minicloud.hostside.security import ICMP, TCP, UDP, Traffic, admits, permissions
from minicloud.model.plans import RulePlan, to_json

MEMBERS = {"set-sg-1": frozenset({"10.0.0.5", "10.0.0.6"})}


def granted(*rules: RulePlan, egress: bool = False) -> list[security.Permission]:
    return permissions([to_json(rule) for rule in rules], egress, lambda group_id: f"set-{group_id}")


def admitted(rules: list[security.Permission], protocol: int, port: int, peer: str, code: int = 0) -> bool:
    return admits(rules, lambda name: MEMBERS[name], (protocol, port, code), peer)


def test_rules_of_one_kind_are_one_permission() -> None:
    merged = granted(
        allow("tcp", 22, cidr="10.0.0.0/9"),
        allow("tcp", 22, cidr="10.128.0.0/9"),
        allow("tcp", 22, cidr="10.1.2.3/32"),
        allow("tcp", 22, group="sg-1"),
    )
    assert merged == [
        security.Permission(Traffic(TCP, 22, 22), (IPv4Network("10.0.0.0/8"),), ("set-sg-1",)),
    ]


def test_directions_do_not_mix() -> None:
    rules = [allow("tcp", 22), allow("udp", 53, egress=True)]
    assert [entry.traffic.protocol for entry in granted(*rules)] == [TCP]
    assert [entry.traffic.protocol for entry in granted(*rules, egress=True)] == [UDP]


def test_ipv6_permits_nothing_here() -> None:
    assert granted(allow("tcp", 22, cidr="::/0"), allow("-1", cidr="fd00::/8")) == []


@pytest.mark.parametrize(
    ("rule", "passing", "refused"),
    [
        (allow("tcp", 80, 90), [(TCP, 80), (TCP, 90)], [(TCP, 79), (TCP, 91), (UDP, 80)]),
        (allow("tcp", 0, 65535), [(TCP, 0), (TCP, 65535)], [(UDP, 1), (ICMP, 8)]),
        (allow("udp"), [(UDP, 1)], [(TCP, 1)]),
        (allow("-1"), [(UDP, 1), (TCP, 1), (ICMP, 8), (47, 0)], []),
        (allow("icmp", -1, -1), [(ICMP, 0), (ICMP, 8)], [(TCP, 8)]),
        (allow("icmp", 8, -1), [(ICMP, 8)], [(ICMP, 0)]),
        (allow("47"), [(47, 0)], [(TCP, 0)]),
        (allow("6", 22), [(TCP, 22)], [(TCP, 23)]),
    ],
)
def test_traffic(rule: RulePlan, passing: list[tuple[int, int]], refused: list[tuple[int, int]]) -> None:
    for protocol, port in passing:
        assert admitted(granted(rule), protocol, port, "192.0.2.1")
    for protocol, port in refused:
        assert not admitted(granted(rule), protocol, port, "192.0.2.1")


def test_an_icmp_code_counts() -> None:
    rules = granted(allow("icmp", 3, 4))
    assert admitted(rules, ICMP, 3, "192.0.2.1", code=4)
    assert not admitted(rules, ICMP, 3, "192.0.2.1", code=1)


def test_peers() -> None:
    rules = granted(allow("tcp", 22, cidr="192.0.2.0/25"), allow("tcp", 22, group="sg-1"))
    assert admitted(rules, TCP, 22, "192.0.2.127") and admitted(rules, TCP, 22, "10.0.0.5")
    assert not admitted(rules, TCP, 22, "192.0.2.128") and not admitted(rules, TCP, 22, "10.0.0.7")


CIDRS = st.builds(
    lambda address, length: str(IPv4Network((address, length), strict=False)),
    st.integers(0, 255).map(lambda low: int(IPv4Address("10.0.0.0")) + low),
    st.integers(24, 32),
)
RULES = st.lists(
    st.builds(
        lambda protocol, first, size, cidr: allow(protocol, first, first + size, cidr=cidr),
        st.sampled_from(["tcp", "udp"]),
        st.integers(1, 20),
        st.integers(0, 10),
        CIDRS,
    ),
    max_size=8,
)


@given(RULES, st.sampled_from([TCP, UDP]), st.integers(1, 30), st.integers(0, 255))
def test_merging_changes_nothing_that_any_rule_permits(
    rules: list[RulePlan], protocol: int, port: int, low: int
) -> None:
    peer = f"10.0.0.{low}"
    expected = any(
        {"tcp": TCP, "udp": UDP}[rule.protocol] == protocol
        and rule.from_port is not None
        and rule.to_port is not None
        and rule.from_port <= port <= rule.to_port
        and IPv4Address(peer) in IPv4Network(rule.cidr or "")
        for rule in rules
    )
    assert admitted(granted(*rules), protocol, port, peer) == expected


@given(RULES)
def test_networks_of_a_permission_never_overlap(rules: list[RulePlan]) -> None:
    for entry in granted(*rules):
        for index, network in enumerate(entry.networks):
            assert not any(network.overlaps(other) for other in entry.networks[index + 1 :])
