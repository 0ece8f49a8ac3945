"""Which tracked connections end when rules, members or addresses change."""

from __future__ import annotations

from typing import Any

from support.port_plans import EGRESS, allow, group, group_id, port

from minicloud.hostside import nft
from minicloud.hostside.connections import choose_concerning, choose_forbidden
from minicloud.hostside.netlink import Connection, Flow

OWN = frozenset({nft.METADATA_IP, "10.0.1.1"})
A, B, OUTSIDE = "10.0.1.10", "10.0.1.11", "192.0.2.1"
PUBLIC = "192.0.2.110"
TCP, ICMP = 6, 1


def talk(source: str, target: str, dport: int, *, dnat: str | None = None, snat: str | None = None) -> Connection:
    """Return a TCP connection; `dnat` is where it really goes, `snat` under what address it went out."""
    return Connection(
        Flow(TCP, source, 40000, target, dport), Flow(TCP, dnat or target, dport, snat or source, 40000), b"key"
    )


def ping(source: str, target: str) -> Connection:
    return Connection(Flow(ICMP, source, 8, target, 0), Flow(ICMP, target, 0, source, 0), b"key")


def ended(before: list[dict[str, Any]], after: list[dict[str, Any]], *tracked: Connection) -> list[Connection]:
    return choose_forbidden(tracked, nft.router(before).table, nft.router(after), OWN)


def test_nothing_ends_where_nothing_is_lost() -> None:
    before = [port(10)]
    after = [port(10), port(11, public_ip=PUBLIC)]
    assert ended(before, after, talk(OUTSIDE, A, 22), talk(A, OUTSIDE, 80), talk(A, B, 5)) == []


def test_a_revoked_rule_ends_its_own() -> None:
    before = [port(10, group(1, EGRESS, allow("tcp", 22), allow("tcp", 80)))]
    after = [port(10, group(1, EGRESS, allow("tcp", 22)))]
    assert ended(before, after, talk(OUTSIDE, A, 22), talk(OUTSIDE, A, 80), talk(A, OUTSIDE, 80)) == [
        talk(OUTSIDE, A, 80)
    ]


def test_a_revoked_egress_rule_ends_its_own() -> None:
    before = [port(10, group(1, EGRESS)), port(11)]
    after = [port(10, group(1, allow("tcp", 22, egress=True))), port(11)]
    assert ended(before, after, talk(A, B, 22), talk(A, OUTSIDE, 443, snat=PUBLIC), talk(B, OUTSIDE, 443)) == [
        talk(A, OUTSIDE, 443, snat=PUBLIC)
    ]


def test_pings_are_judged_by_type() -> None:
    before = [port(10, group(1, EGRESS, allow("icmp", 8, -1)))]
    after = [port(10, group(1, EGRESS, allow("icmp", 0, -1)))]
    assert ended(before, after, ping(OUTSIDE, A)) == [ping(OUTSIDE, A)]
    assert ended(before, before, ping(OUTSIDE, A)) == []


def test_leaving_a_group_ends_what_membership_gave() -> None:
    server = port(10, group(1, EGRESS, allow("tcp", 80, group=group_id(2))))
    before = [server, port(11, group(2))]
    after = [server, port(11, group(3))]
    assert ended(before, after, talk(B, A, 80), talk(A, B, 22)) == [talk(B, A, 80)]


def test_a_removed_port_ends_all_its_own() -> None:
    before, after = [port(10), port(11)], [port(11)]
    kept = [talk(B, OUTSIDE, 80), talk(OUTSIDE, B, 22)]
    lost = [
        talk(A, OUTSIDE, 80),
        talk(OUTSIDE, PUBLIC, 22, dnat=A),
        talk(A, "10.0.1.1", 53),
        talk(A, nft.METADATA_IP, 80),
    ]
    assert ended(before, after, *kept, *lost) == lost


def test_what_guests_ask_of_the_router_is_no_business_of_their_groups() -> None:
    before = [port(10, group(1, EGRESS))]
    after = [port(10, group(1, allow("tcp", 22)))]
    assert ended(before, after, talk(A, nft.METADATA_IP, 80), talk(A, "10.0.1.1", 53)) == []


def test_losing_a_public_address_ends_what_was_translated() -> None:
    before = [port(10, public_ip=PUBLIC), port(11)]
    after = [port(10), port(11, public_ip=PUBLIC)]
    translated = [talk(OUTSIDE, PUBLIC, 22, dnat=A), talk(A, OUTSIDE, 80, snat=PUBLIC)]
    assert ended(before, after, *translated, talk(B, A, 22)) == translated


def test_choose_concerning_looks_at_every_end() -> None:
    tracked = [talk(OUTSIDE, PUBLIC, 22, dnat=A), talk(PUBLIC, OUTSIDE, 80), talk(A, B, 22)]
    assert choose_concerning(tracked, {PUBLIC}) == tracked[:2]
    assert choose_concerning(tracked, {A}) == [tracked[0], tracked[2]]
    assert choose_concerning(tracked, {"198.51.100.1"}) == []
