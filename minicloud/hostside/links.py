"""Links, addresses, routes and sysctls of a router and its subnets on a host.

A "goal" is JSON: the transit link, subnets by bridge, public addresses with the uplink each is answered on. The
render_ functions are pure and give lines for `ip -batch`; `apply` carries out what differs. Called by network.py,
which keeps the goal that was applied last.

Addresses: a subnet's gateway is on the router's end of its veth, the metadata address on the router's loopback, the
transit pair on the link to the host. The router answers ARP for every address of a subnet (`proxy_arp_pvlan`), since
ports are isolated from each other; without the random delay that Linux puts before such answers.

Of the host: a route per public address, a proxy ARP entry for it on the uplink, and forwarding on just the transit
links and the uplink. Those two sysctls of the uplink stay when the last router goes: others may rely on them by then.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set

from minicloud.hostside import commands, namespaces, netlink
from minicloud.hostside.failures import Failure
from minicloud.hostside.nft import METADATA_IP
from minicloud.hostside.ports import Plan
from minicloud.hostside.threads import together

Goal = Dict[str, Any]

NOTHING: Goal = {"transit": None, "subnets": {}, "public": {}}

_ROUTER_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "1",
    "net/ipv4/conf/default/rp_filter": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    "net/ipv4/conf/all/accept_source_route": "0",
    "net/ipv4/conf/default/accept_source_route": "0",
}
_ROUTER_SYSCTLS_WHERE_KNOWN = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    # A connection whose record was deleted because its rule was revoked must not come back by its next packet.
    "net/netfilter/nf_conntrack_tcp_loose": "0",
}


def goal(plans: List[Plan], default_uplink: Optional[str]) -> Goal:
    """Return what the links of a router should be, from the plans of all its ports (at least one)."""
    router = plans[0]["router"]
    uplink = router["uplink"] or default_uplink
    keys = ("netns", "cidr", "transit_veth", "router_transit_veth", "host_transit_ip", "router_transit_ip")
    subnets = {}
    for plan in plans:
        subnet = plan["subnet"]
        if subnet["bridge"] in subnets:
            continue
        prefix = IPv4Network(subnet["cidr"]).prefixlen
        subnets[subnet["bridge"]] = {
            "gateway": f"{subnet['gateway_ip']}/{prefix}",
            "bridge_veth": subnet["bridge_veth"],
            "router_veth": subnet["router_veth"],
            "mtu": router["mtu"],
        }
    return {
        "transit": {key: router[key] for key in keys},
        "subnets": subnets,
        "public": {plan["public_ip"]: uplink for plan in plans if plan["public_ip"] is not None},
    }


def union(old: Goal, new: Goal) -> Goal:
    """Return a goal that names everything of both: what may exist while one becomes the other."""
    return {
        "transit": new["transit"] or old["transit"],
        "subnets": {**old["subnets"], **new["subnets"]},
        "public": {**old["public"], **new["public"]},
    }


def exist(wanted: Goal) -> bool:
    """Say whether the host still has every link of a goal."""
    names = [wanted["transit"]["transit_veth"]] if wanted["transit"] else []
    for bridge, subnet in wanted["subnets"].items():
        names += [bridge, subnet["bridge_veth"]]
    return all(_exists(name) for name in names)


def stale_links(old: Goal, new: Goal) -> List[str]:
    """Return the host's links that `old` has and `new` has not, or has otherwise; the other ends go with them."""
    names = []
    for bridge, subnet in sorted(old["subnets"].items()):
        if new["subnets"].get(bridge) != subnet:
            names.append(subnet["bridge_veth"])
        if bridge not in new["subnets"]:
            names.append(bridge)
    if old["transit"] is not None and old["transit"] != new["transit"]:
        names.append(old["transit"]["transit_veth"])
    return names


def difference(old: Goal, new: Goal) -> Goal:
    """Return the part of `new` that `old` has not, or has otherwise."""
    transit = new["transit"] if old["transit"] != new["transit"] else None
    return {
        "transit": transit,
        "subnets": {name: subnet for name, subnet in new["subnets"].items() if old["subnets"].get(name) != subnet},
        # Routes go with the link they lead over.
        "public": {
            ip: uplink
            for ip, uplink in new["public"].items()
            if transit is not None or ip not in old["public"] or old["public"][ip] != uplink
        },
    }


def render_links(part: Goal, netns: str, present: Set[str]) -> List[str]:
    """Return the lines that make a goal's links on the host; `present` are those that it has already."""
    lines = []
    transit = part["transit"]
    if transit is not None and transit["transit_veth"] not in present:
        pair = f"{transit['transit_veth']} type veth peer name {transit['router_transit_veth']}"
        lines.append(f"link add name {pair} netns {netns}")
    for bridge, subnet in sorted(part["subnets"].items()):
        mtu = subnet["mtu"]
        if bridge not in present:
            lines.append(f"link add name {bridge} mtu {mtu} type bridge stp_state 0 mcast_snooping 0")
        if subnet["bridge_veth"] not in present:
            pair = f"{subnet['bridge_veth']} mtu {mtu} type veth peer name {subnet['router_veth']} mtu {mtu}"
            lines.append(f"link add name {pair} netns {netns}")
    return lines


def render_host(part: Goal, ipv6: bool) -> List[str]:
    """Return the lines that configure the host's ends; `ipv6`: whether this kernel has it."""
    lines = []
    transit = part["transit"]
    quiet = ["link set dev {} addrgenmode none"] if ipv6 else []
    if transit is not None:
        name = transit["transit_veth"]
        lines += [line.format(name) for line in quiet]
        lines += [f"addr replace {transit['host_transit_ip']}/31 dev {name}", f"link set dev {name} up"]
    for bridge, subnet in sorted(part["subnets"].items()):
        for name in (bridge, subnet["bridge_veth"]):
            lines += [line.format(name) for line in quiet]
        lines += [f"link set dev {subnet['bridge_veth']} master {bridge} up", f"link set dev {bridge} up"]
    return lines


def render_router(part: Goal) -> List[str]:
    """Return the lines that configure the router's ends, inside its namespace."""
    lines = []
    transit = part["transit"]
    if transit is not None:
        name = transit["router_transit_veth"]
        lines += [
            "link set dev lo up",
            f"addr replace {METADATA_IP}/32 dev lo",
            f"addr replace {transit['router_transit_ip']}/31 dev {name}",
            f"link set dev {name} up",
            f"route replace default via {transit['host_transit_ip']} dev {name}",
            # An address of the VPC that no subnet here has is nowhere, not outside.
            f"route replace blackhole {transit['cidr']}",
        ]
    for subnet in part["subnets"].values():
        name = subnet["router_veth"]
        lines += [f"addr replace {subnet['gateway']} dev {name}", f"link set dev {name} up"]
    return lines


def apply(old: Goal, new: Goal, trusted: bool, lock: int) -> None:
    """Turn `old` into `new`, under a lock (files.locked). Raises Failure, halfway perhaps.

    Not `trusted`: parts of both may or may not be there.
    """
    with _refusals(f"taking public addresses from {(old['transit'] or {}).get('netns')}"):
        _withdraw_public_addresses(old, new)
    _remove_links(stale_links(old, new), lock)
    if new["transit"] is None:
        return
    part = difference(old if trusted else NOTHING, new)
    netns = new["transit"]["netns"]
    making = render_links(part, netns, {name for name in _names(part) if _exists(name)})
    if making:
        commands.run(["ip", "-batch", "-"], _text(making), keep=(lock,))
    if part["transit"] is not None or part["subnets"]:
        together(
            [
                lambda: _configure_host(part, lock),
                lambda: namespaces.inside(netns, lambda: _configure_router(part, lock)),
            ]
        )
    with _refusals(f"leading public addresses to {netns}"):
        _lead_public_addresses(part["public"], new["transit"])


def _remove_links(names: List[str], lock: int) -> None:
    # Links also go by themselves, some time after somebody deleted the namespace their other ends were in.
    doomed = [name for name in names if _exists(name)]
    while doomed:
        text = _text([f"link del dev {name}" for name in doomed])
        commands.run(["ip", "-batch", "-"], text, accepted=(0, 1, 2), keep=(lock,))
        left = [name for name in doomed if _exists(name)]
        if left == doomed:
            raise Failure("network-refused", f"links remain: {' '.join(left)}", transient=True)
        doomed = left


def default_uplink() -> Optional[str]:
    """Return the interface of the host's default route with the best metric; None where there is none."""
    best: Optional[List[str]] = None
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == "00000000" and words[7] == "00000000" and (best is None or int(words[6]) < int(best[6])):
            best = words
    return best[0] if best else None


def _configure_router(part: Goal, lock: int) -> None:
    if part["transit"] is not None:
        for key, value in _ROUTER_SYSCTLS.items():
            _set(key, value)
        for key, value in _ROUTER_SYSCTLS_WHERE_KNOWN.items():
            if os.path.exists(f"/proc/sys/{key}"):
                _set(key, value)
    for subnet in part["subnets"].values():
        name = subnet["router_veth"]
        _set(f"net/ipv4/conf/{name}/proxy_arp_pvlan", "1")
        _set(f"net/ipv4/neigh/{name}/proxy_delay", "0")
    commands.run(["ip", "-batch", "-"], _text(render_router(part)), keep=(lock,))


def _configure_host(part: Goal, lock: int) -> None:
    transit = part["transit"]
    if transit is not None:
        _set(f"net/ipv4/conf/{transit['transit_veth']}/forwarding", "1")
        _set(f"net/ipv4/conf/{transit['transit_veth']}/send_redirects", "0")
        uplink = default_uplink()
        if uplink is not None:
            _use_uplink(uplink)
    lines = render_host(part, os.path.exists("/proc/sys/net/ipv6"))
    commands.run(["ip", "-batch", "-"], _text(lines), keep=(lock,))


def _withdraw_public_addresses(old: Goal, new: Goal) -> None:
    for ip, uplink in old["public"].items():
        if ip not in new["public"]:
            netlink.delete_route(ip, old["transit"]["transit_veth"])
        if uplink is not None and new["public"].get(ip) != uplink:
            netlink.delete_proxy(ip, uplink)


def _lead_public_addresses(public: Dict[str, Optional[str]], transit: Dict[str, str]) -> None:
    for name in sorted({uplink for uplink in public.values() if uplink is not None}):
        _use_uplink(name)
    for ip, uplink in public.items():
        netlink.replace_route(ip, transit["router_transit_ip"], transit["transit_veth"])
        if uplink is not None:
            netlink.replace_proxy(ip, uplink)
    if public:
        # Nobody waits for it: closing the socket it takes costs a pause of the kernel's, tens of milliseconds.
        threading.Thread(target=_announce, args=(dict(public),), name="announce", daemon=True).start()


@contextmanager
def _refusals(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure("network-refused", f"{doing}: {error}", transient=True) from error


def _announce(public: Dict[str, Optional[str]]) -> None:
    for ip, uplink in public.items():
        if uplink is not None:
            try:
                netlink.announce_address(uplink, ip)
            except OSError:
                pass  # the uplink is gone or down: there is nobody to tell


def _use_uplink(uplink: str) -> None:
    _set(f"net/ipv4/conf/{uplink}/forwarding", "1")
    _set(f"net/ipv4/neigh/{uplink}/proxy_delay", "0")


def _names(part: Goal) -> List[str]:
    names = [part["transit"]["transit_veth"]] if part["transit"] is not None else []
    for bridge, subnet in part["subnets"].items():
        names += [bridge, subnet["bridge_veth"]]
    return names


def _exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _set(key: str, value: str) -> None:
    try:
        with open(f"/proc/sys/{key}") as file:
            if file.read().strip() == value:
                return  # some writes cost the kernel much although they change nothing
        with open(f"/proc/sys/{key}", "w") as file:
            file.write(value)
    except OSError as error:
        raise Failure("sysctl-refused", f"cannot set {key} to {value}: {error}", transient=True) from error


def _text(lines: List[str]) -> str:
    return "".join(line + "\n" for line in lines)
