"""The lab itself: its hosts are separate machines with real libvirt, and nothing of it outlives `down`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import e2e

pytestmark = pytest.mark.lab

PROJECT = Path(__file__).resolve().parents[2]

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/var/lib/minicloud/{name}.raw'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='pty'><log file='/var/lib/minicloud/{name}.console' append='on'/></serial>
    <interface type='bridge'><source bridge='br-{name}'/><model type='virtio'/></interface>
  </devices>
</domain>
"""


def scripts_lab(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROJECT / "scripts" / "lab"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def lab_name() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("the lab is made of namespaces, which only root may make")
    # Below the name of the run, so that scripts/test finds it should pytest be killed.
    name = f"{os.environ.get('MINICLOUD_TEST_LAB', f'test-{os.getpid()}')[:20]}-{uuid.uuid4().hex[:8]}"
    yield name
    assert scripts_lab("down", "--name", name).returncode == 0


def describe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(scripts_lab("status", "--json", "--name", name).stdout)
    return found


def processes_in(namespaces: list[str]) -> set[tuple[int, str]]:
    """Return (pid, start time) of every process in these network namespaces and their PID namespaces below."""
    found: set[tuple[int, str]] = set()
    for namespace in namespaces:
        pids = subprocess.run(["ip", "netns", "pids", namespace], check=True, capture_output=True, text=True)
        for pid in pids.stdout.split():
            found.add((int(pid), start_time(int(pid)) or ""))
    return found


def start_time(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def run_ip(*arguments: str) -> list[str]:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


def traces_of(name: str, network: str | None = None) -> list[str]:
    """Return everything on this machine that carries the name of a lab, or its network."""
    traces = [line for line in run_ip("netns", "list") if f"mclab-{name}-" in line]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    traces += [line for line in mounts if f"mclab-{name}-" in line or f"minicloud-lab/{name}" in line]
    for folder in (Path("/run/minicloud-lab"), Path("/var/tmp/minicloud-lab")):
        traces += [str(folder / name)] if (folder / name).exists() else []
    if network:
        traces += [line for line in run_ip("route") if network in line]
        leg = f"mclab{network.split('.')[1]}"
        traces += [leg] if Path("/sys/class/net", leg).exists() else []
    return traces


def test_hosts_are_machines_of_their_own(lab: Any) -> None:
    assert lab.hosts == ["host1", "host2"]
    for command in (["cat", "/etc/machine-id"], ["virsh", "-c", "qemu:///system", "capabilities"]):
        first, second = (lab.exec(host, command).stdout for host in lab.hosts)
        assert first != second, command
    for host in lab.hosts:
        assert lab.exec(host, ["hostname"]).stdout.strip() == host
        assert lab.exec(host, ["cat", "/etc/hostname"]).stdout.strip() == host
        assert lab.address(host) in lab.exec(host, ["ip", "-brief", "address", "show", "eth0"]).stdout
        assert "init.py" in lab.exec(host, ["cat", "/proc/1/cmdline"]).stdout
        assert lab.exec(host, ["sh", "-c", "ulimit -n"]).stdout.strip() == "4096"


def test_private_folders_are_seen_by_one_host_only(lab: Any) -> None:
    for folder in ("/root", "/etc/libvirt", "/etc/minicloud", "/var/lib/libvirt", "/var/lib/minicloud", "/run"):
        marker = f"{folder}/{uuid.uuid4().hex}"
        lab.exec("host1", ["touch", marker])
        assert lab.exec("host1", ["test", "-e", marker]).returncode == 0
        assert lab.exec("host2", ["test", "-e", marker], check=False).returncode == 1
        assert not Path(marker).exists()
        if folder != "/run":
            assert lab.private("host1", marker).exists()
        lab.exec("host1", ["rm", marker])


def test_exec_passes_arguments_input_and_status_through(lab: Any) -> None:
    enter = ["exec", "--name", lab.name]
    printed = scripts_lab(*enter, "host1", "--", "printf", "%s|", "a b", "$HOME", "", "--name")
    assert printed.stdout == "a b|$HOME||--name|"
    assert scripts_lab(*enter, "controller", "--", "sh", "-c", "exit 7").returncode == 7
    assert lab.exec("controller", ["cat"], input="over stdin").stdout == "over stdin"
    assert lab.exec("host1", ["sh", "-c", "exit 7"], check=False).returncode == 7
    assert lab.exec("controller", ["sh", "-c", "command -v minicloud; pwd"]).stdout.split() == [
        str(PROJECT / ".venv" / "bin" / "minicloud"),
        str(Path.cwd()),
    ]
    missing = scripts_lab(*enter, "host9", "--", "true")
    assert missing.returncode == 1
    assert "host9" in missing.stderr and "Traceback" not in missing.stderr


def test_controller_reaches_libvirt_over_ssh_with_pinned_keys(lab: Any) -> None:
    for host in lab.hosts:
        asked = lab.exec("controller", ["virsh", "-c", lab.libvirt_uri(host), "hostname"])
        assert asked.stdout.strip() == host
    strict = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "root@host2", "hostname"]
    assert lab.exec("controller", strict).stdout.strip() == "host2"
    # A host that shows another's key is not believed.
    alias = ["ssh", "-o", "BatchMode=yes", "-o", "HostKeyAlias=host1", "root@host2", "hostname"]
    refused = lab.exec("controller", alias, check=False)
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr


def test_this_machine_reaches_the_hosts_directly(lab: Any) -> None:
    argv = ["ssh", "-F", "none", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={lab.known_hosts}"]
    argv += ["-i", str(lab.ssh_key), f"root@{lab.address('host1')}", "hostname"]
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
    assert result.stdout.strip() == "host1", result.stderr


def test_a_domain_lives_and_dies(lab: Any) -> None:
    """A real QEMU, as the packaged libvirt runs it: its own user, its log through virtlogd, its disk made its own."""
    name = f"d{uuid.uuid4().hex[:6]}"
    xml = lab.private("host1", f"/var/lib/minicloud/{name}.xml")
    xml.write_text(DOMAIN.format(name=name))
    lab.exec("host1", ["truncate", "-s", "1M", f"/var/lib/minicloud/{name}.raw"])
    lab.exec("host1", ["ip", "link", "add", f"br-{name}", "type", "bridge"])
    virsh = ["virsh", "-c", "qemu:///system"]
    taken = []
    for again in (True, True, False):
        began = time.monotonic()
        lab.exec("host1", [*virsh, "define", f"/var/lib/minicloud/{name}.xml"])
        taken.append(time.monotonic() - began)
        if again:
            lab.exec("host1", [*virsh, "undefine", name])
    # Milliseconds. Ten seconds each where libvirt and QEMU disagree on whether /dev/kvm may be opened.
    assert min(taken) < 8
    lab.exec("host1", [*virsh, "start", name, "--paused"])
    assert name in describe(lab.name)["machines"][1]["domains"]
    assert lab.exec("host1", ["ps", "-C", "qemu-system-x86", "-o", "user:20="]).stdout.split() == ["libvirt-qemu"]
    assert lab.exec("host1", ["test", "-e", f"/var/lib/minicloud/{name}.console"]).returncode == 0
    lab.exec("host1", [*virsh, "destroy", name])
    lab.exec("host1", [*virsh, "undefine", name])
    lab.exec("host1", ["ip", "link", "delete", f"br-{name}"])
    # Process 1 reaps: libvirt waits seconds for every process of a machine where nobody does.
    deadline = time.monotonic() + 120
    while "Z" in lab.exec("host1", ["ps", "-e", "-o", "stat="]).stdout:
        assert time.monotonic() < deadline, "process 1 leaves zombies"


def test_a_host_holds_routers_rules_and_dhcp_of_its_own(lab: Any) -> None:
    router = f"r{uuid.uuid4().hex[:6]}"
    lab.exec("host1", ["ip", "netns", "add", router])
    try:
        lab.exec("host1", ["ip", "link", "add", f"b-{router}", "type", "bridge"])
        lab.exec("host1", ["ip", "link", "add", f"v-{router}", "type", "veth", "peer", "name", "in0", "netns", router])
        lab.exec("host1", ["ip", "link", "set", f"v-{router}", "master", f"b-{router}", "up"])
        inside = ["ip", "netns", "exec", router]
        lab.exec("host1", [*inside, "ip", "address", "add", "172.31.0.1/20", "dev", "in0"])
        lab.exec("host1", [*inside, "ip", "link", "set", "in0", "up"])
        for key in ("net.ipv4.ip_forward=1", "net.ipv4.conf.in0.proxy_arp_pvlan=1"):
            lab.exec("host1", [*inside, "sysctl", "-q", "-w", key])
        assert lab.exec("host1", ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout.strip() == "0"
        rules = "table inet t { chain f { type filter hook forward priority 0; policy drop; }; }\n"
        lab.exec("host1", [*inside, "nft", "-f", "-"], input=rules)
        assert "policy drop" in lab.exec("host1", [*inside, "nft", "list", "ruleset"]).stdout
        assert lab.exec("host1", ["nft", "list", "ruleset"]).stdout == ""
        dhcp = ["dnsmasq", "--conf-file=/dev/null", "--port=0", "--interface=in0", "--bind-interfaces"]
        dhcp += ["--dhcp-range=172.31.0.2,static", f"--pid-file=/run/{router}.pid", "--leasefile-ro"]
        lab.exec("host1", [*inside, *dhcp])
        pid = lab.exec("host1", ["cat", f"/run/{router}.pid"]).stdout.strip()
        deadline = time.monotonic() + 120
        # Those that dnsmasq went through to become a daemon may still be on their way out.
        while lab.exec("host1", ["ip", "netns", "pids", router]).stdout.split() != [pid]:
            assert time.monotonic() < deadline
        lab.exec("host1", ["kill", pid])
        assert router not in lab.exec("host2", ["ip", "netns", "list"]).stdout
        assert not Path("/run/netns", router).exists()
    finally:
        lab.exec("host1", ["ip", "netns", "delete", router])
        lab.exec("host1", ["ip", "link", "delete", f"b-{router}"])


def test_a_public_address_announced_by_a_host_answers(lab: Any) -> None:
    """How elastic IPs will arrive: a router behind a host, its address in the lab's own network, by proxy ARP."""
    router, address = f"r{uuid.uuid4().hex[:6]}", lab.public_pool.replace("0/24", "77")
    script = f"""
set -e
ip netns add {router}
ip link add v-{router} type veth peer name up0 netns {router}
ip link set v-{router} up
ip -n {router} link set lo up
ip -n {router} link set up0 up
ip -n {router} address add {address}/32 dev lo
ip -n {router} route add default dev up0
ip route add {address}/32 dev v-{router}
sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.eth0.proxy_arp=1 net.ipv4.conf.v-{router}.proxy_arp=1
"""
    server = """
import socket
listener = socket.create_server(("", 7000))
print("listening", flush=True)
while True:
    peer, address = listener.accept()
    peer.sendall(address[0].encode())
    peer.close()
"""
    lab.exec("host1", ["sh", "-c", script])
    process = lab.popen(
        "host1", ["ip", "netns", "exec", router, "python3", "-c", server], stdout=subprocess.PIPE, bufsize=1
    )
    try:
        assert process.stdout.readline() == "listening\n"
        with socket.create_connection((address, 7000), timeout=60) as here:
            assert here.recv(100).decode() == lab.leg
        ask = f"import socket; print(socket.create_connection(('{address}', 7000), 60).recv(100).decode())"
        assert lab.exec("controller", ["python3", "-c", ask]).stdout.strip() == lab.address("controller")
        assert lab.exec("host2", ["python3", "-c", ask]).stdout.strip() == lab.address("host2")
    finally:
        os.kill(lab.inner_pid(process), signal.SIGKILL)
        process.communicate()
        lab.exec("host1", ["ip", "netns", "delete", router])
        lab.exec("host1", ["sysctl", "-q", "-w", "net.ipv4.ip_forward=0", "net.ipv4.conf.eth0.proxy_arp=0"])


def test_hosts_route_through_the_controller(lab: Any) -> None:
    for host in lab.hosts:
        route = lab.exec(host, ["ip", "route", "get", "192.0.2.1"]).stdout
        assert f"via {lab.address('controller')}" in route
    assert lab.exec("controller", ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout.strip() == "1"


def test_down_leaves_nothing_and_two_labs_live_side_by_side(lab: Any, lab_name: str) -> None:
    up = scripts_lab("up", "1", "--name", lab_name)
    assert up.returncode == 0, up.stderr
    second = describe(lab_name)
    assert second["network"] != lab.network
    # Something for `down` to end: a guest, a router with a daemon in it, a process nobody waits for.
    enter = ["exec", "--name", lab_name, "host1", "--", "sh", "-c"]
    xml = DOMAIN.format(name="left").replace("<interface", "<!--").replace("</interface>", "-->")
    work = f"""
set -e
cat >/run/left.xml <<'END'
{xml}
END
truncate -s 1M /var/lib/minicloud/left.raw
virsh -q -c qemu:///system create /run/left.xml --paused
ip netns add left
ip netns exec left setsid sleep 1000 >/dev/null 2>&1 &
setsid sleep 1000 >/dev/null 2>&1 &
"""
    prepared = scripts_lab(*enter, work)
    assert prepared.returncode == 0, prepared.stderr
    living = processes_in([machine["namespace"] for machine in second["machines"]])
    first_pids = {machine["pid"] for machine in second["machines"]}
    assert len(living) >= 8 and first_pids <= {pid for pid, _start in living}
    assert scripts_lab("up", "1", "--name", lab_name).returncode == 0
    assert {machine["pid"] for machine in describe(lab_name)["machines"]} == first_pids, "a second `up` began anew"

    assert scripts_lab("down", "--name", lab_name).returncode == 0
    assert traces_of(lab_name, second["network"]) == []
    assert [pid for pid, started in living if start_time(pid) == started] == []
    again = scripts_lab("down", "--name", lab_name)
    assert (again.returncode, again.stdout) == (0, f"there is no lab {lab_name}\n")
    assert describe(lab.name)["machines"][0]["pid"], "the other lab went, too"
    assert lab.exec("host1", ["virsh", "-c", "qemu:///system", "list"]).returncode == 0


@pytest.mark.parametrize("after_seconds", [0.06, 0.15, 0.3, 0.6])
def test_down_after_an_up_that_was_killed(lab_name: str, after_seconds: float) -> None:
    up = subprocess.Popen(
        [str(PROJECT / "scripts" / "lab"), "up", "2", "--quiet", "--name", lab_name], stdin=subprocess.DEVNULL
    )
    try:
        up.wait(timeout=after_seconds)
    except subprocess.TimeoutExpired:
        up.kill()
    up.wait()
    assert scripts_lab("down", "--name", lab_name).returncode == 0
    assert traces_of(lab_name) == []
    marks = [f"minicloud-lab/{lab_name}/".encode(), f"mclab-{lab_name}-".encode()]
    assert [text for text in command_lines() if any(mark in text for mark in marks)] == []


def test_down_waits_for_what_a_killed_up_had_begun(lab_name: str, tmp_path: Path) -> None:
    """The `ip` that makes the network outlives the `up` that started it."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    slow = tmp_path / "ip"
    slow.write_text(
        f"""#!/bin/sh
case "$*" in *-batch*) touch {begun}; sleep 2 ;; esac
{shutil.which("ip")} "$@"
status=$?
touch {ended}
exit $status
"""
    )
    slow.chmod(0o755)
    up = subprocess.Popen(
        [str(PROJECT / "scripts" / "lab"), "up", "1", "--quiet", "--name", lab_name],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    e2e.until("the network is begun", begun.exists)
    ended.unlink(missing_ok=True)
    up.kill()
    up.wait()
    assert scripts_lab("down", "--name", lab_name).returncode == 0
    e2e.until("the network's end", ended.exists)
    assert traces_of(lab_name) == []


def command_lines() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / "cmdline").read_bytes()
            except OSError:
                continue


def test_a_dead_host_is_reported_and_up_makes_the_lab_anew(lab_name: str) -> None:
    assert scripts_lab("up", "1", "--name", lab_name).returncode == 0
    pid = next(each["pid"] for each in describe(lab_name)["machines"] if each["name"] == "host1")
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while start_time(pid) is not None:
        assert time.monotonic() < deadline
    seen = scripts_lab("status", "--name", lab_name)
    assert seen.returncode == 1
    assert "host1" in seen.stdout and "DEAD" in seen.stdout
    assert scripts_lab("up", "1", "--name", lab_name).returncode == 0
    assert scripts_lab("status", "--name", lab_name).returncode == 0


def test_another_number_of_hosts_is_refused_while_the_lab_is_up(lab: Any) -> None:
    refused = scripts_lab("up", "3", "--name", lab.name)
    assert refused.returncode == 1
    assert "take it down first" in refused.stderr
