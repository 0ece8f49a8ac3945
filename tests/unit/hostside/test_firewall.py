"""What iptables' FORWARD chain says, and what passage needs of it."""

from __future__ import annotations

import pytest

from minicloud.hostside.firewall import RULES, drops, missing

OURS = [f"-A FORWARD {' '.join(rule)}" for rule in RULES]


@pytest.mark.parametrize(
    ("listing", "dropping"),
    [
        ([], False),
        (["-P FORWARD ACCEPT"], False),
        (["-P FORWARD ACCEPT", "-A FORWARD -j LIBVIRT_FWX"], False),
        (["-P FORWARD DROP"], True),
        (["-P FORWARD ACCEPT", "-A FORWARD -j DROP"], True),
        (["-P FORWARD ACCEPT", "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"], True),
    ],
)
def test_drops(listing: list[str], dropping: bool) -> None:
    assert drops(listing) is dropping


def test_missing() -> None:
    assert missing(["-P FORWARD DROP"]) == RULES
    assert missing(["-P FORWARD DROP", *OURS, "-A FORWARD -j DOCKER-USER"]) == []
    assert missing(["-P FORWARD DROP", OURS[1]]) == [RULES[0], RULES[2]]
