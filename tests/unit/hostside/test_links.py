"""Links of a router as goals: what differs, what may exist in between, what is taken away."""

from __future__ import annotations

from typing import Any

from support.port_plans import port

from minicloud.hostside import links


def goal(*plans: dict[str, Any], uplink: str | None = "eth0") -> links.Goal:
    return links.goal(list(plans), uplink) if plans else links.NOTHING


ONE = goal(port(10))
TWO_SUBNETS = goal(port(10), port(11, subnet=2))
PUBLIC = goal(port(10, public_ip="192.0.2.110"))
BRIDGE, BRIDGE_2 = port(10)["subnet"]["bridge"], port(10, subnet=2)["subnet"]["bridge"]
VETH, VETH_2 = port(10)["subnet"]["bridge_veth"], port(10, subnet=2)["subnet"]["bridge_veth"]
TRANSIT = port(10)["router"]["transit_veth"]


def test_the_plans_uplink_comes_before_the_default_route() -> None:
    assert goal(port(10, public_ip="192.0.2.110", uplink="br0"))["public"] == {"192.0.2.110": "br0"}
    assert PUBLIC["public"] == {"192.0.2.110": "eth0"}
    assert goal(port(10, public_ip="192.0.2.110"), uplink=None)["public"] == {"192.0.2.110": None}


def test_difference_is_what_is_new_or_other() -> None:
    assert links.difference(ONE, ONE) == {"transit": None, "subnets": {}, "public": {}}
    assert links.difference(links.NOTHING, PUBLIC) == PUBLIC
    assert links.difference(ONE, TWO_SUBNETS) == {
        "transit": None,
        "subnets": {BRIDGE_2: TWO_SUBNETS["subnets"][BRIDGE_2]},
        "public": {},
    }
    assert links.difference(ONE, PUBLIC)["public"] == {"192.0.2.110": "eth0"}
    moved = goal(port(10, public_ip="192.0.2.110", uplink="br0"))
    assert links.difference(PUBLIC, moved)["public"] == {"192.0.2.110": "br0"}


def test_routes_go_with_the_link_they_lead_over() -> None:
    other = {**PUBLIC, "transit": {**PUBLIC["transit"], "router_transit_ip": "100.127.0.9"}}
    assert links.difference(PUBLIC, other)["public"] == PUBLIC["public"]


def test_union_names_all_that_may_exist() -> None:
    both = links.union(PUBLIC, TWO_SUBNETS)
    assert set(both["subnets"]) == {BRIDGE, BRIDGE_2}
    assert both["public"] == PUBLIC["public"]
    assert links.union(PUBLIC, links.NOTHING) == PUBLIC
    assert links.union(links.NOTHING, PUBLIC) == PUBLIC


def test_stale_links() -> None:
    assert links.stale_links(ONE, TWO_SUBNETS) == []
    assert links.stale_links(TWO_SUBNETS, ONE) == [VETH_2, BRIDGE_2]
    assert links.stale_links(ONE, links.NOTHING) == [VETH, BRIDGE, TRANSIT]
    assert links.stale_links(links.NOTHING, ONE) == []
    # Taps are on the bridge: where only the router's side changed, it stays.
    other_mtu = {**ONE, "subnets": {BRIDGE: {**ONE["subnets"][BRIDGE], "mtu": 1400}}}
    assert links.stale_links(ONE, other_mtu) == [VETH]


def test_links_that_are_there_are_not_made_again() -> None:
    assert links.render_links(ONE, "mcr-1", {TRANSIT, BRIDGE, VETH}) == []
    lines = links.render_links(ONE, "mcr-1", {BRIDGE})
    assert [line.split()[3] for line in lines] == [TRANSIT, VETH]
    assert all("netns mcr-1" in line for line in lines)


def test_ipv6_is_mentioned_only_where_the_kernel_has_it() -> None:
    assert any("addrgenmode none" in line for line in links.render_host(ONE, ipv6=True))
    assert not any("addrgenmode" in line for line in links.render_host(ONE, ipv6=False))


def test_the_gateway_is_on_the_routers_end_and_unknown_addresses_lead_nowhere() -> None:
    lines = links.render_router(ONE)
    assert f"addr replace 10.0.1.1/24 dev {port(10)['subnet']['router_veth']}" in lines
    assert "route replace blackhole 10.0.0.0/16" in lines
