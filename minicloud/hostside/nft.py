"""nftables rules of a host as text: what a router filters and translates, what a tap may send, what the host adds.

Pure: port plans in, tables and transactions out; network.py applies them. Thousands of ports stay cheap: what differs
per port is an element of a map, what ports share (a group's rules, a combination of groups) is one chain named by a
digest of its content, so a change is a few elements and chains, never a rewrite.

Router (inet minicloud, in the router's namespace): forwards nothing but established connections and what the sender's
groups permit out and the receiver's groups permit in. Public addresses are translated only towards the outside, so
that an instance reaching another's public address (or its own) is seen, and filtered, under its public address as on
EC2. Guests reach DHCP, DNS and metadata on the router and nothing else of it.

Host: `bridge minicloud` lets a tap send as its own MAC and address only, hear what is for it or for all, and nothing
from a bridge into the host.
`ip minicloud` masquerades transit addresses, refuses connections from routers to transit addresses, and keeps bridged
packets out of the host's connection tracking where br_netfilter would put them into it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Tuple

from minicloud.hostside import security

Plan = Dict[str, Any]

TAP_PREFIX = "mct"
METADATA_IP = "169.254.169.254"
TABLE = "minicloud"


class Set(NamedTuple):
    """A set (values are "") or map: nft's type expression and elements, key to value."""

    type: str
    elements: Dict[str, str]


class Table(NamedTuple):
    """A table: fixed chains as text, sets and maps by name, and chains that come and go."""

    family: str
    base: Tuple[str, ...]
    sets: Dict[str, Set]
    chains: Dict[str, Tuple[str, ...]]


class Groups(NamedTuple):
    """What the groups of one port permit; `ingress` and `egress` name its chains."""

    ingress: str
    egress: str
    ingress_permissions: Tuple[security.Permission, ...]
    egress_permissions: Tuple[security.Permission, ...]


class Router(NamedTuple):
    """A router's table with what network.py needs to judge tracked connections by."""

    table: Table
    groups_by_ip: Dict[str, Groups]
    members: Dict[str, FrozenSet[str]]


def router(plans: List[Plan]) -> Router:
    """Return the rules of one router from the plans of all its ports on this host (at least one)."""
    transit = plans[0]["router"]["router_transit_veth"]
    builder = _RouterBuilder(plans)
    groups_by_ip = {plan["private_ip"]: builder.groups(plan) for plan in plans}
    public = {plan["public_ip"]: plan["private_ip"] for plan in plans if plan["public_ip"]}
    sets = {
        "subnets": Set("type ifname", {_quoted(plan["subnet"]["router_veth"]): "" for plan in plans}),
        "public_to_private": Set("type ipv4_addr : ipv4_addr", public),
        "private_to_public": Set("type ipv4_addr : ipv4_addr", {private: ip for ip, private in public.items()}),
        "ingress": Set(
            "type ipv4_addr : verdict", {ip: f"goto {groups.ingress}" for ip, groups in groups_by_ip.items()}
        ),
        "egress": Set("type ipv4_addr : verdict", {ip: f"goto {groups.egress}" for ip, groups in groups_by_ip.items()}),
    }
    for name, members in builder.members.items():
        sets[name] = Set("type ipv4_addr", dict.fromkeys(members, ""))
    return Router(Table("inet", _router_base(transit), sets, builder.chains), groups_by_ip, builder.members)


def _router_base(transit: str) -> Tuple[str, ...]:
    return (
        "chain input {",
        "type filter hook input priority filter; policy drop;",
        "ct state established,related accept",
        "iifname != @subnets drop",
        "meta l4proto udp udp sport 68 udp dport 67 accept",
        f"ip daddr {METADATA_IP} tcp dport 80 accept",
        "meta l4proto { tcp, udp } th dport 53 accept",
        "}",
        "chain forward {",
        "type filter hook forward priority filter; policy drop;",
        "ct state established,related accept",
        "ct state invalid drop",
        "iifname @subnets goto from_guest",
        f'iifname "{transit}" oifname @subnets goto to_guest',
        "}",
        "chain from_guest {",
        "ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3 } drop",
        "ip saddr vmap @egress",
        "}",
        "chain to_guest {",
        f'oifname "{transit}" accept',
        "ip daddr vmap @ingress",
        "}",
        "chain prerouting {",
        "type nat hook prerouting priority dstnat; policy accept;",
        f'iifname "{transit}" dnat ip to ip daddr map @public_to_private',
        "}",
        "chain postrouting {",
        "type nat hook postrouting priority srcnat; policy accept;",
        f'oifname "{transit}" snat ip to ip saddr map @private_to_public',
        f'oifname "{transit}" masquerade',
        "}",
    )


class _RouterBuilder:
    """Collects the chains and member sets that ports need, each under the name of its content."""

    def __init__(self, plans: List[Plan]) -> None:
        self.chains: Dict[str, Tuple[str, ...]] = {}
        self.members: Dict[str, FrozenSet[str]] = {}
        self._local: Dict[str, List[str]] = {}
        self._known: Dict[str, Groups] = {}
        for plan in plans:
            for group in plan["groups"]:
                self._local.setdefault(group["id"], []).append(plan["private_ip"])

    def groups(self, plan: Plan) -> Groups:
        """Return the chains of a port's groups. The port's own plan says who their remote members are."""
        key = json.dumps(plan["groups"], sort_keys=True)
        if key not in self._known:
            remote = {group["id"]: group["members"] for group in plan["groups"]}
            sides = {}
            for egress in (False, True):
                granted = [
                    security.permissions(group["rules"], egress, lambda id: self._member_set(id, remote.get(id, ())))
                    for group in plan["groups"]
                ]
                sides[egress] = (self._side(granted, egress), tuple(entry for part in granted for entry in part))
            self._known[key] = Groups(sides[False][0], sides[True][0], sides[False][1], sides[True][1])
        return self._known[key]

    def _side(self, granted: List[List[security.Permission]], egress: bool) -> str:
        prefix = "out" if egress else "in"
        names = sorted({self._chain(prefix, _group_rules(part, egress)) for part in granted})
        return names[0] if len(names) == 1 else self._chain(prefix, tuple(f"jump {name}" for name in names))

    def _chain(self, prefix: str, rules: Tuple[str, ...]) -> str:
        name = f"{prefix}_{_digest(rules)}"
        self.chains[name] = rules
        return name

    def _member_set(self, group_id: str, remote: Iterable[str]) -> str:
        # Local members are elements that come and go; remote ones are this plan's word, and another port of the same
        # group may still hold an older one: so they are part of the name.
        ordered = tuple(sorted(remote))
        name = f"members_{group_id}" + (f"_{_digest(ordered)}" if ordered else "")
        self.members[name] = frozenset(ordered) | frozenset(self._local.get(group_id, ()))
        return name


def _group_rules(granted: Iterable[security.Permission], egress: bool) -> Tuple[str, ...]:
    field, verdict = ("daddr", "goto to_guest") if egress else ("saddr", "accept")
    rules = []
    for permission in granted:
        traffic = _traffic(permission.traffic)
        if security.is_everywhere(permission.networks):
            rules.append(f"{traffic}{verdict}")
            continue
        if permission.networks:
            rules.append(
                f"{traffic}ip {field} {_one_or_set(str(network) for network in permission.networks)} {verdict}"
            )
        rules.extend(f"{traffic}ip {field} @{name} {verdict}" for name in permission.groups)
    return tuple(rules)


def _traffic(traffic: security.Traffic) -> str:
    protocol, first, last = traffic
    if protocol == security.ALL_PROTOCOLS:
        return ""
    if protocol == security.ICMP and first is not None:
        return f"icmp type {first} " + (f"icmp code {last} " if last is not None else "")
    if first is None or protocol == security.ICMP:
        return f"meta l4proto {protocol} "
    name = "tcp" if protocol == security.TCP else "udp"
    return f"{name} dport {first} " if first == last else f"{name} dport {first}-{last} "


def host(plans: List[Plan]) -> List[Table]:
    """Return the host's own tables from the plans of all ports of all routers on this host."""
    return [_bridge_table(plans), _ip_table(plans)]


def _bridge_table(plans: List[Plan]) -> Table:
    # A tap that no plan names may send nothing, so taps are told by their names' beginning (ports.py insists on it);
    # telling them by their bridge would need nft_meta_bridge, which not every kernel has.
    base = (
        "chain prerouting {",
        "type filter hook prerouting priority -300; policy accept;",
        f'iifname "{TAP_PREFIX}*" goto from_guest',
        "}",
        "chain from_guest {",
        "iifname . ether saddr != @senders drop",
        "ether type arp goto arp_from_guest",
        "ether type ip goto ip_from_guest",
        "drop",
        "}",
        "chain arp_from_guest {",
        "arp htype 1 arp ptype 0x0800 iifname . arp saddr ether . arp saddr ip @bindings accept",
        # A probe for a duplicate of the guest's own address (RFC 5227) has no sender address yet.
        "arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether @senders accept",
        "drop",
        "}",
        "chain ip_from_guest {",
        "udp sport 67 udp dport 68 drop",
        "iifname . ether saddr . ip saddr @bindings accept",
        "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
        "drop",
        "}",
        # What the bridge floods, because it forgot where an address is, is still for one guest only.
        "chain forward {",
        "type filter hook forward priority filter; policy accept;",
        f'oifname "{TAP_PREFIX}*" ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 jump to_guest',
        "}",
        "chain to_guest {",
        "oifname . ether daddr != @senders drop",
        "}",
        "chain input {",
        "type filter hook input priority filter; policy accept;",
        f'iifname "{TAP_PREFIX}*" drop',
        "iifname @routers drop",
        "}",
        "chain output {",
        "type filter hook output priority filter; policy accept;",
        f'oifname "{TAP_PREFIX}*" drop',
        "oifname @routers drop",
        "}",
    )
    sets = {
        "routers": Set("type ifname", {_quoted(plan["subnet"]["bridge_veth"]): "" for plan in plans}),
        "senders": Set("type ifname . ether_addr", {f"{_quoted(plan['tap'])} . {plan['mac']}": "" for plan in plans}),
        "bindings": Set(
            "type ifname . ether_addr . ipv4_addr",
            {f"{_quoted(plan['tap'])} . {plan['mac']} . {plan['private_ip']}": "" for plan in plans},
        ),
    }
    return Table("bridge", base, sets, {})


def _ip_table(plans: List[Plan]) -> Table:
    base = (
        "chain raw {",
        "type filter hook prerouting priority raw; policy accept;",
        "iifname @bridges notrack accept",
        "iifname @transits iifname . ip saddr != @sources drop",
        "}",
        "chain input {",
        "type filter hook input priority filter; policy accept;",
        "iifname @transits ct state established,related accept",
        "iifname @transits ip daddr @host_ends drop",
        "}",
        "chain postrouting {",
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip saddr @router_ends masquerade",
        "}",
    )
    sources = {}
    for plan in plans:
        link = _quoted(plan["router"]["transit_veth"])
        sources[f"{link} . {plan['router']['router_transit_ip']}"] = ""
        if plan["public_ip"]:
            sources[f"{link} . {plan['public_ip']}"] = ""
    sets = {
        "bridges": Set("type ifname", {_quoted(plan["subnet"]["bridge"]): "" for plan in plans}),
        "transits": Set("type ifname", {_quoted(plan["router"]["transit_veth"]): "" for plan in plans}),
        "sources": Set("type ifname . ipv4_addr", sources),
        "host_ends": Set("type ipv4_addr", {plan["router"]["host_transit_ip"]: "" for plan in plans}),
        "router_ends": Set("type ipv4_addr", {plan["router"]["router_transit_ip"]: "" for plan in plans}),
    }
    return Table("ip", base, sets, {})


def render_table(table: Table) -> str:
    """Return a transaction that puts `table` in the place of whatever table has its name."""
    lines = [f"add table {table.family} {TABLE}", f"delete table {table.family} {TABLE}"]
    lines.append(f"table {table.family} {TABLE} {{")
    for name in sorted(table.sets):
        entry = table.sets[name]
        lines += [f"{_kind(entry)} {name} {{", entry.type]
        if entry.elements:
            lines.append(f"elements = {{ {_elements(entry.elements)} }}")
        lines.append("}")
    for name in _in_order(table.chains):
        lines += [f"chain {name} {{", *table.chains[name], "}"]
    lines += [*table.base, "}"]
    return "\n".join(lines) + "\n"


def render_change(old: Optional[Table], new: Table) -> str:
    """Return the smallest transaction that turns `old`, if that is in force, into `new`; empty if they are the same."""
    if (
        old is None
        or old.base != new.base
        or any(entry.type != old.sets[name].type for name, entry in new.sets.items() if name in old.sets)
    ):
        return render_table(new)
    where = f"{new.family} {TABLE}"
    lines = []
    for name in sorted(set(new.sets) - set(old.sets)):
        lines.append(f"add {_kind(new.sets[name])} {where} {name} {{ {new.sets[name].type}; }}")
    fresh = [name for name in _in_order(new.chains) if name not in old.chains]
    lines += [f"add chain {where} {name}" for name in fresh]
    lines += [f"add rule {where} {name} {rule}" for name in fresh for rule in new.chains[name]]
    for name in sorted(new.sets):
        before = old.sets[name].elements if name in old.sets else {}
        after = new.sets[name].elements
        doomed = {key: value for key, value in before.items() if after.get(key) != value}
        added = {key: value for key, value in after.items() if before.get(key) != value}
        for verb, elements in (("delete", doomed), ("add", added)):
            if elements:
                lines.append(f"{verb} element {where} {name} {{ {_elements(elements)} }}")
    stale = [name for name in reversed(_in_order(old.chains)) if name not in new.chains]
    lines += [f"flush chain {where} {name}" for name in stale]
    lines += [f"delete chain {where} {name}" for name in stale]
    lines += [f"delete set {where} {name}" for name in sorted(set(old.sets) - set(new.sets))]
    return "".join(line + "\n" for line in lines)


def render_removal() -> str:
    """Return a transaction that leaves nothing of the host's own tables."""
    return "".join(f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n" for family in ("bridge", "ip"))


def to_json(table: Table) -> List[Any]:
    """Return a table as JSON values."""
    return [
        table.family,
        list(table.base),
        {name: [entry.type, entry.elements] for name, entry in table.sets.items()},
        {name: list(rules) for name, rules in table.chains.items()},
    ]


def from_json(value: List[Any]) -> Table:
    """Return the table that to_json gave."""
    family, base, sets, chains = value
    return Table(
        family,
        tuple(base),
        {name: Set(type, elements) for name, (type, elements) in sets.items()},
        {name: tuple(rules) for name, rules in chains.items()},
    )


def _in_order(chains: Dict[str, Tuple[str, ...]]) -> List[str]:
    # Chains that jump come after those they jump to.
    return sorted(chains, key=lambda name: (any(rule.startswith("jump ") for rule in chains[name]), name))


def _kind(entry: Set) -> str:
    return "map" if ":" in entry.type else "set"


def _elements(elements: Dict[str, str]) -> str:
    return ", ".join(f"{key} : {value}" if value else key for key, value in sorted(elements.items()))


def _one_or_set(words: Iterable[str]) -> str:
    listed = list(words)
    return listed[0] if len(listed) == 1 else "{ " + ", ".join(listed) + " }"


def _quoted(word: str) -> str:
    return f'"{word}"'


def _digest(parts: Tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
