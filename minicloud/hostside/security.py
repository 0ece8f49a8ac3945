"""What security groups permit, as data: the rules of a port's groups, normalised, and whether they admit a packet.

Pure. nft.py renders what this says; network.py asks it which tracked connections a changed rule ends. The rules are
EC2's: a port's groups add up, nothing is permitted that no rule names, replies follow their request.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

Plan = Dict[str, Any]

ALL_PROTOCOLS = -1
ICMP, TCP, UDP = 1, 6, 17

_NUMBERS = {"-1": ALL_PROTOCOLS, "icmp": ICMP, "tcp": TCP, "udp": UDP, "icmpv6": 58}
_EVERYTHING = IPv4Network("0.0.0.0/0")


class Traffic(NamedTuple):
    """A kind of packet. `first`..`last` are ports; for ICMP its type and code, each None for any."""

    protocol: int
    first: Optional[int]
    last: Optional[int]

    def includes(self, protocol: int, port: int, code: int = 0) -> bool:
        """Say whether a packet is of this kind; for ICMP `port` is its type."""
        if self.protocol == ALL_PROTOCOLS:
            return True
        if self.protocol != protocol:
            return False
        if self.protocol == ICMP:
            return self.first in (None, port) and self.last in (None, code)
        return self.first is None or self.last is None or self.first <= port <= self.last


class Permission(NamedTuple):
    """Traffic of one kind with some peers: networks that do not overlap, and groups by the name of their member set."""

    traffic: Traffic
    networks: Tuple[IPv4Network, ...]
    groups: Tuple[str, ...]


def permissions(rules: Iterable[Plan], egress: bool, member_set: Callable[[str], str]) -> List[Permission]:
    """Return one direction of a group's rules, merged by traffic, in a stable order. IPv6 rules match nothing here.

    `member_set` names the set of addresses that a group id stands for.
    """
    networks: Dict[Traffic, List[IPv4Network]] = {}
    groups: Dict[Traffic, Set[str]] = {}
    for rule in rules:
        if rule["egress"] is not egress:
            continue
        traffic = _traffic(rule)
        if rule["group_id"] is not None:
            groups.setdefault(traffic, set()).add(member_set(rule["group_id"]))
        elif ":" not in rule["cidr"]:
            networks.setdefault(traffic, []).append(IPv4Network(rule["cidr"], strict=False))
    return [
        Permission(
            traffic, tuple(collapse_addresses(networks.get(traffic, []))), tuple(sorted(groups.get(traffic, ())))
        )
        for traffic in sorted(set(networks) | set(groups), key=lambda kind: tuple(-2 if x is None else x for x in kind))
    ]


def admits(
    granted: Iterable[Permission], members: Callable[[str], FrozenSet[str]], flow: Tuple[int, int, int], peer: str
) -> bool:
    """Say whether permissions admit `flow` (protocol, port or ICMP type, ICMP code) with `peer`.

    `members` returns the addresses of a member set.
    """
    address = IPv4Address(peer)
    for permission in granted:
        if permission.traffic.includes(*flow):
            if any(address in network for network in permission.networks):
                return True
            if any(peer in members(name) for name in permission.groups):
                return True
    return False


def is_everywhere(networks: Iterable[IPv4Network]) -> bool:
    """Say whether networks are all of IPv4."""
    return _EVERYTHING in networks


def _traffic(rule: Plan) -> Traffic:
    protocol = _NUMBERS.get(rule["protocol"])
    if protocol is None:
        protocol = int(rule["protocol"])
    first, last = rule["from_port"], rule["to_port"]
    if protocol == ICMP:
        return Traffic(protocol, None if first in (None, -1) else first, None if last in (None, -1) else last)
    if protocol in (TCP, UDP) and first is not None and last is not None and first >= 0 and (first, last) != (0, 65535):
        return Traffic(protocol, first, last)
    return Traffic(protocol, None, None)
