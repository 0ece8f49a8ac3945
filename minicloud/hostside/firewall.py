"""Passage for routers' traffic through another firewall of the host that drops what it does not know.

Docker, ufw and others set the policy of iptables' FORWARD chain to DROP; no accepting table of ours can overrule that,
so `ensure_passage` puts three rules before theirs, and only where the chain drops at all: traffic of transit links
(it is filtered in the routers), and bridged traffic where br_netfilter leads it there (it is filtered there, too).
`ensure_no_passage` takes them away again. It refuses to change anything else, and knows no firewall but iptables:
with firewalld's own nftables tables the operator adds the interfaces `mch*` to a zone that forwards.
Called by network.py as routers come and go.
"""

from __future__ import annotations

import shutil
from typing import List

from minicloud.hostside import commands

_COMMENT = ["-m", "comment", "--comment", "minicloud"]
RULES = [
    ["-i", "mch+", *_COMMENT, "-j", "ACCEPT"],
    ["-o", "mch+", *_COMMENT, "-j", "ACCEPT"],
    ["-i", "mcb+", "-o", "mcb+", *_COMMENT, "-j", "ACCEPT"],
]


def ensure_passage(lock: int) -> None:
    """Let routers' traffic pass where the FORWARD chain drops; under a lock. Raises Failure."""
    listing = _forward_chain()
    if drops(listing):
        for rule in missing(listing):
            commands.run(["iptables", "-w", "5", "-I", "FORWARD", *rule], keep=(lock,))


def ensure_no_passage(lock: int) -> None:
    """Take the rules of ensure_passage away; under a lock. Raises Failure."""
    present = [rule for rule in RULES if rule not in missing(_forward_chain())]
    for rule in present:
        commands.run(["iptables", "-w", "5", "-D", "FORWARD", *rule], keep=(lock,))


def drops(listing: List[str]) -> bool:
    """Say whether a FORWARD chain, as `iptables -S` prints it, may drop or reject anything by itself."""
    return any(
        line == "-P FORWARD DROP" or line.endswith(("-j DROP", "-j REJECT")) or " -j REJECT " in line
        for line in listing
    )


def missing(listing: List[str]) -> List[List[str]]:
    """Return which of RULES a FORWARD chain, as `iptables -S` prints it, lacks."""
    return [rule for rule in RULES if f"-A FORWARD {' '.join(rule)}" not in listing]


def _forward_chain() -> List[str]:
    if shutil.which("iptables", path=commands.ENVIRONMENT["PATH"]) is None:
        return []
    # A status other than 0: there is no such table, and nothing that drops.
    return commands.run(["iptables", "-w", "5", "-S", "FORWARD"], accepted=(0, 1, 2, 3, 4)).decode().splitlines()
