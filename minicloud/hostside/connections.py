"""Which tracked connections of a router end when its rules change. Pure; network.py deletes what this chooses.

Established connections pass without being looked at again, so revoking a rule, taking an address away or moving it
must end the connections it concerns. Those that are still permitted stay.
"""

from __future__ import annotations

from typing import FrozenSet, Iterable, List, Set, Tuple

from minicloud.hostside import nft, security
from minicloud.hostside.netlink import Connection


def changed_addresses(old: nft.Table, new: nft.Table) -> Tuple[Set[str], Set[str]]:
    """Return the private addresses whose permissions may have shrunk, and those that lost a public address."""
    permissions: Set[str] = set()
    for name in set(old.sets) | set(new.sets):
        if name in ("ingress", "egress") or name.startswith("members_"):
            permissions |= _lost(old, new, name)
    return permissions, _lost(old, new, "private_to_public")


def choose_forbidden(
    tracked: Iterable[Connection], old: nft.Table, router: nft.Router, own_addresses: FrozenSet[str]
) -> List[Connection]:
    """Choose the connections that a router may not carry any more after `old` became its table.

    `own_addresses` are the router's: what guests ask of it (DNS, metadata) is no business of their groups.
    """
    permissions, translations = changed_addresses(old, router.table)
    known = router.groups_by_ip
    chosen = []
    for one in tracked:
        ends = {one.original.source, one.reply.source}
        if one.original.destination in own_addresses:
            if one.original.source in permissions - set(known):
                chosen.append(one)
        elif (ends & translations and _is_translated(one)) or (ends & permissions and not _is_permitted(one, router)):
            chosen.append(one)
    return chosen


def choose_concerning(tracked: Iterable[Connection], addresses: Set[str]) -> List[Connection]:
    """Choose the connections in which one of some addresses takes part."""
    return [
        one
        for one in tracked
        if not addresses.isdisjoint((one.original.source, one.original.destination, one.reply.source))
    ]


def _is_permitted(one: Connection, router: nft.Router) -> bool:
    sender, receiver = router.groups_by_ip.get(one.original.source), router.groups_by_ip.get(one.reply.source)
    if sender is None and receiver is None:
        return False
    first = one.original

    def members(name: str) -> FrozenSet[str]:
        return router.members[name]

    if first.protocol == security.ICMP:
        out = into = (first.protocol, first.source_port, first.destination_port)
    else:
        out = (first.protocol, first.destination_port, 0)
        into = (first.protocol, one.reply.source_port, 0)
    if sender is not None and not security.admits(sender.egress_permissions, members, out, first.destination):
        return False
    return receiver is None or security.admits(receiver.ingress_permissions, members, into, first.source)


def _is_translated(one: Connection) -> bool:
    return one.original.destination != one.reply.source or one.original.source != one.reply.destination


def _lost(old: nft.Table, new: nft.Table, name: str) -> Set[str]:
    before = old.sets[name].elements if name in old.sets else {}
    after = new.sets[name].elements if name in new.sets else {}
    return {key for key, value in before.items() if after.get(key) != value}
