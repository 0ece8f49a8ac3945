"""nft rules of routers and hosts as text. MINICLOUD_REGENERATE=1 writes them anew, for a look at the difference."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support.port_plans import EGRESS, allow, group, group_id, port

from minicloud.hostside import nft
from minicloud.model.plans import GroupPlan

FOLDER = Path(__file__).parent / "nft"

WEB = group(2, EGRESS, allow("tcp", 80, 90, cidr="10.0.0.0/8"), allow("tcp", 80, 90, cidr="10.1.0.0/16"))
MIXED = group(
    3,
    allow("-1", group=group_id(3)),
    allow("icmp", 8, -1, cidr="10.0.0.0/8"),
    allow("icmp", -1, -1, cidr="192.168.0.0/16"),
    allow("udp", 53, cidr="10.0.0.2/32"),
    allow("udp", 53, cidr="10.0.0.9/32"),
    allow("47", cidr="10.0.0.0/8"),
    allow("tcp", 0, 65535, group=group_id(1)),
    allow("tcp", 443, egress=True, cidr="198.51.100.0/24"),
    allow("tcp", 22, cidr="::/0"),
    members=("10.0.9.7", "10.0.9.8"),
)

ROUTERS = {
    "one_port": [port(10)],
    "public_addresses": [port(10, public_ip="192.0.2.110"), port(11), port(12, subnet=2, public_ip="192.0.2.112")],
    "many_groups": [port(10, group(), WEB), port(11, WEB, MIXED), port(12, MIXED, subnet=2)],
    "group_without_rules": [port(10, GroupPlan(group_id(4), ()))],
}
CHANGES = {
    "port_added": (ROUTERS["one_port"], [*ROUTERS["one_port"], port(11, public_ip="192.0.2.111")]),
    "port_removed": ([port(10), port(11, public_ip="192.0.2.111")], [port(10)]),
    "rule_revoked": ([port(10, group(), WEB), port(11)], [port(10), port(11)]),
    "public_address_moved": (
        [port(10, public_ip="192.0.2.110"), port(11)],
        [port(10), port(11, public_ip="192.0.2.110")],
    ),
    "nothing": (ROUTERS["many_groups"], ROUTERS["many_groups"]),
}
HOSTS = {
    "two_vpcs": [port(10, public_ip="192.0.2.110"), port(11, subnet=2), port(10, vpc=1)],
}


def compare(name: str, text: str) -> None:
    path = FOLDER / f"{name}.nft"
    if os.environ.get("MINICLOUD_REGENERATE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_router(name: str) -> None:
    compare(f"router_{name}", nft.render_table(nft.router(ROUTERS[name]).table))


@pytest.mark.parametrize("name", sorted(HOSTS))
def test_host(name: str) -> None:
    compare(f"host_{name}", "".join(nft.render_table(table) for table in nft.host(HOSTS[name])))


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_change(name: str) -> None:
    before, after = (nft.router(plans).table for plans in CHANGES[name])
    compare(f"change_{name}", nft.render_change(before, after))


def test_a_table_survives_json() -> None:
    for plans in ROUTERS.values():
        table = nft.router(plans).table
        assert nft.from_json(json.loads(json.dumps(nft.to_json(table)))) == table


def needs_root(test: Callable[..., None]) -> Callable[..., None]:
    skip = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")
    return pytest.mark.lab(skip(test))


def unshared(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "-n", "sh", "-c", text], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


@needs_root
@pytest.mark.parametrize("path", sorted(path.name for path in FOLDER.glob("[rh]*.nft")))
def test_the_kernel_takes_it(path: str) -> None:
    result = unshared(f"nft -f {FOLDER / path} && nft -f {FOLDER / path}")
    assert result.returncode == 0, result.stderr


@needs_root
@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_change_ends_where_the_whole_would(name: str, tmp_path: Path) -> None:
    before, after = (nft.router(plans).table for plans in CHANGES[name])
    for file, text in (
        ("before", nft.render_table(before)),
        ("change", nft.render_change(before, after)),
        ("after", nft.render_table(after)),
    ):
        (tmp_path / file).write_text(text)
    dump = "nft -s list ruleset | grep -v '^$' | sort"
    changed = unshared(f"cd {tmp_path} && nft -f before && nft -f change && {dump}")
    whole = unshared(f"cd {tmp_path} && nft -f after && {dump}")
    assert changed.returncode == whole.returncode == 0, changed.stderr + whole.stderr
    assert changed.stdout == whole.stdout
