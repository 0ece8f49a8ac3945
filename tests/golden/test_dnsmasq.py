"""dnsmasq's files as text. MINICLOUD_REGENERATE=1 writes them anew, for a look at the difference."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.port_plans import port

from minicloud.hostside import dhcp

GOLDEN = Path(__file__).parent / "dnsmasq"
FOLDER = Path("/state/routers/mcr-1")

CASES: dict[str, tuple[list[dict[str, Any]], Path | None]] = {
    "one_subnet": ([port(10)], Path("/etc/resolv.conf")),
    "two_subnets": ([port(10), port(11, subnet=2), port(9, subnet=2)], Path("/run/systemd/resolve/resolv.conf")),
    "own_dns_servers": ([port(10, dns_servers=("192.0.2.53", "192.0.2.54"))], None),
}


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("MINICLOUD_REGENERATE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", sorted(CASES))
def test_files(name: str) -> None:
    plans, upstream = CASES[name]
    compare(f"{name}.conf", dhcp.render_config(plans, FOLDER, "dnsmasq", upstream))
    compare(f"{name}.hosts", dhcp.render_hosts(plans))
    compare(f"{name}.names", dhcp.render_names(plans))


@pytest.mark.parametrize("name", sorted(CASES))
def test_dnsmasq_understands_its_configuration(name: str) -> None:
    dnsmasq = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin")
    if dnsmasq is None:
        pytest.skip("dnsmasq is not installed")
    result = subprocess.run([dnsmasq, "--test", f"--conf-file={GOLDEN / name}.conf"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
