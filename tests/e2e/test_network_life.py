"""How a host's network comes, changes, survives and goes: restarts, killed servers, races, refused changes, debris."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.port_plans import EGRESS, allow, group, group_id, port
from support.scratch_host import (
    OUTSIDE_IP,
    ROOT,
    UPLINK_NETWORK,
    Guest,
    HostFailure,
    ScratchHost,
    eventually,
    is_shut_out,
    listen,
    reach,
    scratch_folder,
)

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")]

PUBLIC = f"{UPLINK_NETWORK}.110"
ROUTER = port(10)["router"]["netns"]
OPEN = 7000


@pytest.fixture
def host() -> Iterator[ScratchHost]:
    with scratch_folder() as folder:
        host = ScratchHost(folder)
        try:
            yield host
        finally:
            host.close()


def guest_of(host: ScratchHost, plan: dict[str, Any]) -> Guest:
    guest = Guest(host, plan)
    guest.configure()
    return guest


def servers(host: ScratchHost, router: str = ROUTER) -> dict[str, int]:
    """Return the pids of a router's servers by name; fails if one runs twice."""
    found: dict[str, int] = {}
    for pid, words in host.pids(router).items():
        name = "dnsmasq" if words.startswith("dnsmasq") else "metadata" if " metadata " in words else words
        assert name not in found, f"{name} runs twice"
        found[name] = pid
    return found


def await_servers(host: ScratchHost, without: set[int] = frozenset()) -> dict[str, int]:  # type: ignore[assignment]
    found: dict[str, int] = {}

    def complete() -> bool:
        found.clear()
        found.update(servers(host))
        return set(found) == {"dnsmasq", "metadata"} and not without & set(found.values())

    eventually(complete)
    return found


def supervisors(host: ScratchHost) -> list[int]:
    """Return the pids of the supervisor, which holds the lock, and of its twin; nothing while they are incomplete."""
    lock = host.folder / "supervisor.lock"
    if not lock.exists():
        return []
    inode = f":{lock.stat().st_ino} "
    holders = [line.split()[4] for line in host.run("cat", "/proc/locks").stdout.splitlines() if inode in line]
    running = host.processes().items()
    twins = [pid for pid, (parent, words) in running if [str(parent)] == holders and " supervisor " in words]
    return [int(holders[0]), *twins] if len(twins) == 1 else []


def await_supervisors(host: ScratchHost, without: set[int] = frozenset()) -> list[int]:  # type: ignore[assignment]
    found: list[int] = []

    def complete() -> bool:
        found[:] = supervisors(host)
        return len(found) == 2 and not without & set(found)

    eventually(complete)
    return found


def picture(host: ScratchHost) -> dict[str, object]:
    """Return all that a router could leave behind on a host."""
    running = [words for _, words in host.processes().values()]
    return {
        "links": " ".join(line.split()[0] for line in host.run("ip", "-br", "link").stdout.splitlines()),
        "namespaces": host.run("ip", "netns").stdout,
        "rules": host.run("nft", "list", "ruleset").stdout,
        "routes": host.run("ip", "-4", "route", "show", "table", "all").stdout,
        "proxies": host.run("ip", "neigh", "show", "proxy").stdout,
        "dnsmasq": sum(words.startswith("dnsmasq ") for words in running),
        "metadata": sum(" metadata /" in words for words in running),
        "state": "\n".join(
            sorted(
                str(path.relative_to(host.folder))
                for path in host.folder.rglob("*")
                # What servers write when they have started, and locks of whoever is at work, may be there or not.
                if not path.name.startswith("supervisor")
                and path.name not in ("secret", "leases")
                and path.parent.name != "locks"
                and path.suffix != ".tmp"
            )
        ),
    }


# Coming and going.


def test_what_comes_goes_without_a_trace(host: ScratchHost) -> None:
    host.ensure(port(10, vpc=5))
    host.remove(port(10, vpc=5))
    before = picture(host)
    plans = [port(10, public_ip=PUBLIC), port(11), port(12, subnet=2), port(10, vpc=1, public_ip=f"{UPLINK_NETWORK}.9")]
    host.ensure(*plans)
    assert host.call("network", "list_routers") == sorted({plan["router"]["netns"] for plan in plans})
    assert host.call("network", "list_ports", str(host.folder)) == sorted(plan["id"] for plan in plans)
    during = picture(host)
    assert all(during[name] != before[name] for name in before)
    host.remove(*plans)
    assert picture(host) == before
    host.remove(*plans)
    assert picture(host) == before


def test_the_last_port_of_a_subnet_takes_its_bridge_and_no_more(host: ScratchHost) -> None:
    stays, goes = port(10), port(11, subnet=2)
    host.ensure(stays)
    before = picture(host)
    host.ensure(goes)
    assert goes["subnet"]["bridge"] in str(picture(host)["links"])
    host.remove(goes)
    assert picture(host) == before
    await_servers(host)
    assert guest_of(host, stays).dhcp()["ip"] == stays["private_ip"]


def test_ensuring_again_changes_nothing(host: ScratchHost) -> None:
    plans = [port(10, public_ip=PUBLIC), port(11)]
    host.ensure(*plans)
    before = await_servers(host)
    rules = host.run("nft", "-a", "list", "ruleset", netns=ROUTER).stdout
    host.ensure(*plans)
    host.restore()
    assert host.run("nft", "-a", "list", "ruleset", netns=ROUTER).stdout == rules
    assert servers(host) == before


def test_a_port_more_is_there_before_its_guest_can_ask(host: ScratchHost) -> None:
    host.ensure(port(10))
    guest_of(host, port(10)).dhcp()
    host.ensure(port(11))
    guest = guest_of(host, port(11))
    assert guest.get("/latest/meta-data/local-ipv4") == (200, "10.0.1.11")
    assert guest.dhcp()["hostname"] == "ip-10-0-1-11"
    host.ensure(port(12, subnet=2))
    guest = guest_of(host, port(12, subnet=2))
    assert guest.get("/latest/meta-data/local-ipv4") == (200, "10.0.2.12")
    assert guest.dhcp()["ip"] == "10.0.2.12"


def test_pushed_metadata_shows_at_once(host: ScratchHost) -> None:
    host.ensure(port(10))
    guest = guest_of(host, port(10))
    assert guest.get("/latest/user-data")[0] == 404
    host.ensure(port(10, user_data_base64="aGk=", http_tokens="required"))
    assert guest.get("/latest/user-data")[0] == 401
    token = guest.get("/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60", method="PUT")[1]
    assert guest.get("/latest/user-data", f"X-aws-ec2-metadata-token: {token}") == (200, "hi")
    host.ensure(port(10, http_endpoint="disabled"))
    assert guest.get("/latest/user-data", f"X-aws-ec2-metadata-token: {token}")[0] == 403


def test_addresses_in_use_are_refused_and_nothing_changes(host: ScratchHost) -> None:
    host.ensure(port(10, public_ip=PUBLIC))
    before = picture(host)
    for plan in (
        {**port(11), "private_ip": "10.0.1.10"},
        {**port(11), "tap": port(10)["tap"]},
        port(11, public_ip=PUBLIC),
        port(11, vpc=1, public_ip=PUBLIC),
    ):
        with pytest.raises(HostFailure) as raised:
            host.ensure(plan)
        assert (raised.value.code, raised.value.transient) == ("address-in-use", True)
    assert picture(host) == before


def test_many_calls_at_once_end_as_one_would(host: ScratchHost) -> None:
    plans = [port(number, public_ip=f"{UPLINK_NETWORK}.{number + 100}") for number in range(10, 20)]
    program = (
        "import json, sys\nsys.path.insert(0, sys.argv[1])\nfrom minicloud.hostside import network\n"
        "network.ensure_ports([json.loads(sys.argv[3])], sys.argv[2])\n"
    )
    arguments = [str(ROOT), str(host.folder)]
    running = [
        host.popen(sys.executable, "-c", program, *arguments, json.dumps(plan), stderr=subprocess.PIPE)
        for plan in plans
    ]
    for process in running:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    await_servers(host)
    await_supervisors(host)
    routes = host.run("ip", "route").stdout
    assert all(f"{plan['public_ip']} via 100.127.0.1" in routes for plan in plans)
    for plan in (plans[0], plans[-1]):
        assert guest_of(host, plan).dhcp()["ip"] == plan["private_ip"]


def test_coming_and_going_at_once_ends_with_the_truth(host: ScratchHost) -> None:
    program = (
        "import json, sys\nsys.path.insert(0, sys.argv[1])\nfrom minicloud.hostside import network\n"
        "plan = json.loads(sys.argv[3])\n"
        "for _ in range(4):\n"
        "    network.ensure_ports([plan], sys.argv[2])\n"
        "    network.ensure_no_ports([plan['id']], sys.argv[2])\n"
        "if sys.argv[4] == 'stay':\n"
        "    network.ensure_ports([plan], sys.argv[2])\n"
    )
    ends = [("stay", port(10, subnet=2)), ("go", port(11)), ("go", port(12))]
    running = [
        host.popen(
            sys.executable, "-c", program, str(ROOT), str(host.folder), json.dumps(plan), end, stderr=subprocess.PIPE
        )
        for end, plan in ends
    ]
    for process in running:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
    await_servers(host)
    links = host.run("ip", "-br", "link").stdout
    assert port(10, subnet=2)["subnet"]["bridge"] in links and port(11)["subnet"]["bridge"] not in links
    assert guest_of(host, port(10, subnet=2)).dhcp()["ip"] == "10.0.2.10"
    host.remove(port(10, subnet=2))
    assert host.call("network", "list_routers") == []


# Changes under way.


class Talk:
    """A TCP connection that stays open between two guests, or from outside."""

    def __init__(self, host: ScratchHost, netns: str, address: str, port: int) -> None:
        program = (
            "import socket, sys\n"
            "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)\n"
            "for line in sys.stdin:\n"
            "    s.settimeout(float(line))\n"
            "    s.sendall(b'x')\n"
            "    try: print(s.recv(1).decode(), flush=True)\n"
            "    except OSError: print('silence', flush=True)\n"
        )
        argv = [sys.executable, "-c", program, address, str(port)]
        self._process = host.popen(*argv, netns=netns, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def goes_on(self, seconds: float = 60.0) -> bool:
        """Say whether the other side still answers within so long."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline() == "x\n"


_ECHO = """
import socket, sys, threading
s = socket.create_server(("", int(sys.argv[1])))
print("listening", flush=True)
def serve(c):
    with c:
        while data := c.recv(100):
            c.sendall(data)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


def echo(host: ScratchHost, netns: str, port: int) -> None:
    process = host.popen(sys.executable, "-c", _ECHO, str(port), netns=netns, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "listening\n"


def test_a_revoked_rule_ends_its_connections_and_no_other(host: ScratchHost) -> None:
    both = group(1, EGRESS, allow("tcp", OPEN), allow("tcp", OPEN + 1))
    plans = [port(10, both), port(11, group(2))]
    host.ensure(*plans)
    server, client = (guest_of(host, plan) for plan in plans)
    echo(host, server.name, OPEN)
    echo(host, server.name, OPEN + 1)
    revoked = Talk(host, client.name, server.ip, OPEN)
    kept = Talk(host, client.name, server.ip, OPEN + 1)
    assert revoked.goes_on() and kept.goes_on()
    host.ensure(port(10, group(1, EGRESS, allow("tcp", OPEN + 1))))
    assert kept.goes_on()
    assert not revoked.goes_on(2)


def test_leaving_a_group_ends_what_membership_permitted(host: ScratchHost) -> None:
    members_only = group(1, EGRESS, allow("tcp", OPEN, group=group_id(2)))
    plans = [port(10, members_only), port(11, group(2))]
    host.ensure(*plans)
    server, client = (guest_of(host, plan) for plan in plans)
    echo(host, server.name, OPEN)
    talk = Talk(host, client.name, server.ip, OPEN)
    assert talk.goes_on()
    host.ensure(port(11, group(3)))
    assert not talk.goes_on(2)
    assert client.is_shut_out(server.ip, OPEN)


def test_a_public_address_that_moves_takes_no_connection_along(host: ScratchHost) -> None:
    open_group = group(1, EGRESS, allow("tcp", OPEN))
    host.ensure(port(10, open_group, public_ip=PUBLIC), port(11, open_group))
    first, second = guest_of(host, port(10)), guest_of(host, port(11))
    echo(host, first.name, OPEN)
    talk = Talk(host, "outside", PUBLIC, OPEN)
    assert talk.goes_on()
    host.ensure(port(10, open_group))
    assert not talk.goes_on(2)
    assert is_shut_out(host, "outside", PUBLIC, OPEN)
    host.ensure(port(11, open_group, public_ip=PUBLIC))
    listen(host, second.name, OPEN, "second")
    assert reach(host, "outside", PUBLIC, OPEN) == f"second {OUTSIDE_IP}"


def test_a_public_address_is_announced_to_the_neighbours(host: ScratchHost) -> None:
    program = (
        "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))\n"
        "s.bind(('eth0', 0x0806))\ns.settimeout(180)\nprint('watching', flush=True)\n"
        "while True:\n    f = s.recv(100)\n    if f[28:32] == f[38:42]: break\nprint(f[28:32].hex(), flush=True)\n"
    )
    with host.popen(sys.executable, "-c", program, netns="outside", stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None and watch.stdout.readline() == "watching\n"
        host.ensure(port(10, public_ip=PUBLIC))
        assert watch.stdout.readline().strip() == socket.inet_aton(PUBLIC).hex()


# Faults.


def test_rules_that_somebody_flushed_come_back_with_the_next_call(host: ScratchHost) -> None:
    host.ensure(port(10))
    rules = host.run("nft", "list", "ruleset").stdout
    router_rules = host.run("nft", "list", "ruleset", netns=ROUTER).stdout
    host.run("nft", "flush", "ruleset")
    host.run("nft", "flush", "ruleset", netns=ROUTER)
    host.restore()
    assert host.run("nft", "list", "ruleset").stdout == rules
    assert host.run("nft", "list", "ruleset", netns=ROUTER).stdout == router_rules


def test_other_tables_are_left_alone(host: ScratchHost) -> None:
    host.run("nft", "-f", "-", stdin="table inet mine {\nchain c {\n}\n}\n")
    host.ensure(port(10))
    host.remove(port(10))
    assert "table inet mine" in host.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize("drops", [["-P", "FORWARD", "DROP"], ["-A", "FORWARD", "-j", "REJECT"]])
def test_a_firewall_that_drops_what_it_does_not_know_lets_routers_pass(host: ScratchHost, drops: list[str]) -> None:
    host.run("iptables", *drops)
    before = host.run("iptables", "-S").stdout
    open_group = group(1, EGRESS, allow("tcp", OPEN))
    plans = [port(10, open_group, public_ip=PUBLIC), port(11, open_group), port(10, open_group, vpc=1)]
    for plan in plans:
        host.ensure(plan)
    assert host.run("iptables", "-S").stdout.count("mch+") == 2
    first, second, _ = (guest_of(host, plan) for plan in plans)
    first.listen(OPEN, "first")
    listen(host, "outside", OPEN, "outside")
    assert reach(host, "outside", PUBLIC, OPEN) == f"first {OUTSIDE_IP}"
    assert second.reaches(first.ip, OPEN) == f"first {second.ip}"
    assert second.reaches(OUTSIDE_IP, OPEN) == "outside 192.0.2.2"
    host.remove(*plans)
    assert host.run("iptables", "-S").stdout == before


def test_links_that_somebody_removed_come_back_with_the_next_call(host: ScratchHost) -> None:
    plan = port(
        10,
        public_ip=PUBLIC,
    )
    for name in (plan["router"]["transit_veth"], plan["subnet"]["bridge_veth"], plan["subnet"]["bridge"]):
        host.ensure(plan)
        host.run("ip", "link", "del", name)
        host.ensure(plan)
        assert name in host.run("ip", "-br", "link").stdout
    guest = guest_of(host, plan)
    guest.listen(22, "guest")
    assert reach(host, "outside", PUBLIC, 22) == f"guest {OUTSIDE_IP}"


def test_a_router_that_somebody_deleted_comes_back_with_the_next_call(host: ScratchHost) -> None:
    plan = port(10, public_ip=PUBLIC)
    host.ensure(plan)
    host.kill(*await_servers(host).values())
    host.run("ip", "netns", "delete", ROUTER)
    host.ensure(plan)
    await_servers(host)
    guest = guest_of(host, plan)
    assert guest.dhcp()["ip"] == plan["private_ip"]
    assert guest.get("/latest/meta-data/local-ipv4") == (200, plan["private_ip"])


_DIE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from minicloud.hostside import commands, libnftables, network, netlink
left = int(sys.argv[3])
def counted(function):
    def call(*a, **k):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return function(*a, **k)
    return call
commands.run = counted(commands.run)
libnftables.transact = counted(libnftables.transact)
netlink.replace_route = counted(netlink.replace_route)
netlink.replace_proxy = counted(netlink.replace_proxy)
operation, argument = json.loads(sys.argv[4])
getattr(network, operation)(argument, sys.argv[2])
"""


def die_after(host: ScratchHost, steps: int, operation: str, argument: Any) -> bool:
    """Call the network in a process that dies before its step number `steps`; True if it lived."""
    words = [str(ROOT), str(host.folder), str(steps), json.dumps([operation, argument])]
    result = host.run(sys.executable, "-c", _DIE, *words, check=False)
    assert result.returncode in (0, 9), result.stderr
    return result.returncode == 0


def test_a_call_that_dies_anywhere_is_made_good_by_the_next(host: ScratchHost) -> None:
    host.ensure(port(10, vpc=5))
    host.remove(port(10, vpc=5))
    before = picture(host)
    plan = port(10, public_ip=PUBLIC)
    host.ensure(plan)
    whole = picture(host)
    host.remove(plan)
    steps = 0
    while not die_after(host, steps, "ensure_ports", [plan]):
        # Half made: what is removed now leaves nothing, and what is made whole is whole.
        if steps % 2:
            host.remove(plan)
            assert picture(host) == before, f"debris after dying at step {steps}"
            die_after(host, steps, "ensure_ports", [plan])
        host.ensure(plan)
        await_servers(host)
        made = picture(host)
        assert made == whole
        host.remove(plan)
        assert picture(host) == before
        steps += 1
    assert steps > 5
    steps = 0
    while True:
        host.ensure(plan)
        if die_after(host, steps, "ensure_no_ports", [plan["id"]]):
            break
        # Either way of going on must do: the same call again, or what a new session does.
        if steps % 2:
            host.restore()
        else:
            host.remove(plan)
        assert picture(host) == before, f"debris after dying at step {steps} of the removal"
        steps += 1
    assert steps > 1
    assert picture(host) == before
    host.restore()
    assert not list(host.folder.rglob("*.tmp"))


def test_a_refused_transaction_leaves_the_old_rules(host: ScratchHost) -> None:
    open_group = group(1, EGRESS, allow("tcp", OPEN))
    plans = [port(10, open_group), port(11, open_group)]
    host.ensure(*plans)
    first, second = (guest_of(host, plan) for plan in plans)
    first.listen(OPEN, "first")
    rules = host.run("nft", "list", "ruleset", netns=ROUTER).stdout
    program = (
        "import json, sys\nsys.path.insert(0, sys.argv[1])\nfrom minicloud.hostside import libnftables, network\n"
        "good = libnftables.transact\n"
        "libnftables.transact = lambda text: good(text + 'add rule inet minicloud nowhere drop\\n')\n"
        "try:\n    network.ensure_ports([json.loads(sys.argv[3])], sys.argv[2])\n"
        "except network.Failure as failure:\n    print(failure.code, failure.transient)\n"
    )
    wanted = port(12, open_group)
    result = host.run(sys.executable, "-c", program, str(ROOT), str(host.folder), json.dumps(wanted))
    assert result.stdout == "nft-refused True\n"
    assert host.run("nft", "list", "ruleset", netns=ROUTER).stdout == rules
    assert second.reaches(first.ip, OPEN) == "first 10.0.1.11"
    host.ensure(wanted)
    assert guest_of(host, wanted).reaches(first.ip, OPEN) == "first 10.0.1.12"


def test_a_reboot_brings_everything_back_from_the_plans() -> None:
    open_group = group(1, EGRESS, allow("tcp", OPEN))
    plans = [port(10, open_group, public_ip=PUBLIC), port(11, open_group, subnet=2), port(10, open_group, vpc=1)]
    with scratch_folder() as folder:
        host = ScratchHost(folder)
        host.ensure(*plans)
        rules = host.run("nft", "list", "ruleset").stdout
        (folder / "ports" / "eni-half.json").write_text('{"id": "eni-ha')
        host = host.reboot()
        try:
            assert host.call("network", "list_routers") == []
            host.restore()
            assert host.run("nft", "list", "ruleset").stdout == rules
            await_servers(host)
            guests = [guest_of(host, plan) for plan in plans]
            for guest in guests:
                guest.listen(OPEN, guest.plan["id"])
            assert reach(host, "outside", PUBLIC, OPEN) == f"{plans[0]['id']} {OUTSIDE_IP}"
            for guest in guests:
                assert guest.dhcp()["ip"] == guest.ip
                assert guest.get("/latest/meta-data/instance-id") == (200, guest.plan["instance_id"])
        finally:
            host.close()


# Servers.


@pytest.mark.parametrize("name", ["dnsmasq", "metadata"])
def test_a_killed_server_comes_back_by_itself(host: ScratchHost, name: str) -> None:
    host.ensure(port(10))
    before = await_servers(host)
    host.kill(before[name])
    await_servers(host, without={before[name]})
    guest = guest_of(host, port(10))
    assert guest.dhcp()["ip"] == "10.0.1.10"
    assert guest.get("/latest/meta-data/local-ipv4") == (200, "10.0.1.10")


def test_no_guest_is_refused_while_the_metadata_server_is_away(host: ScratchHost) -> None:
    host.ensure(port(10))
    guest = guest_of(host, port(10))
    for _ in range(3):
        host.kill(await_servers(host)["metadata"])
        assert guest.get("/latest/meta-data/local-ipv4") == (200, "10.0.1.10")


def test_the_supervisor_outlives_being_killed_and_takes_its_servers_over(host: ScratchHost) -> None:
    host.ensure(port(10))
    before = await_servers(host)
    for victim in (0, 1, 0):
        killed = await_supervisors(host)[victim]
        host.kill(killed)
        await_supervisors(host, without={killed})
        assert servers(host) == before
    host.kill(before["metadata"])
    host.kill(before["dnsmasq"])
    await_servers(host, without=set(before.values()))


def test_a_lost_supervisor_is_started_by_the_next_call(host: ScratchHost) -> None:
    host.ensure(port(10))
    before = await_servers(host)
    host.kill(*await_supervisors(host))
    host.kill(before["dnsmasq"])
    host.ensure(port(11))
    await_servers(host, without={before["dnsmasq"]})
    assert servers(host)["metadata"] == before["metadata"]
    assert guest_of(host, port(11)).dhcp()["ip"] == "10.0.1.11"


def test_another_version_replaces_the_supervisor_and_what_it_started(host: ScratchHost) -> None:
    host.ensure(port(10))
    before = await_servers(host)
    elders = await_supervisors(host)
    copy = host.folder / "newer" / "minicloud"
    subprocess.run(["mkdir", "-p", str(copy)], check=True)
    subprocess.run(
        ["cp", "-r", str(ROOT / "minicloud/hostside"), str(ROOT / "minicloud/__init__.py"), copy], check=True
    )
    program = (
        "import sys\nsys.path.insert(0, sys.argv[1])\nfrom minicloud.hostside import supervisor\n"
        "supervisor.restore(sys.argv[2])\n"
    )
    host.run(sys.executable, "-I", "-S", "-c", program, str(copy.parent), str(host.folder))
    after = await_servers(host, without={before["metadata"]})
    assert after["dnsmasq"] == before["dnsmasq"]
    await_supervisors(host, without=set(elders))
    assert guest_of(host, port(10)).get("/latest/meta-data/local-ipv4") == (200, "10.0.1.10")


def test_somebody_elses_processes_in_a_router_are_not_touched(host: ScratchHost) -> None:
    host.ensure(port(10))
    await_servers(host)
    with host.popen("sleep", "1000", netns=ROUTER) as watcher:
        host.kill(*await_supervisors(host))
        host.restore()
        assert watcher.poll() is None
        host.remove(port(10))  # the router goes, and all that is in it
        assert watcher.wait(60) != 0


def test_slow_and_greedy_guests_hold_up_nobody(host: ScratchHost) -> None:
    host.ensure(port(10), port(11))
    greedy, other = guest_of(host, port(10)), guest_of(host, port(11))
    program = (
        "import socket\nkept = []\n"
        "for _ in range(200):\n"
        "    s = socket.socket()\n    s.settimeout(60)\n    s.connect(('169.254.169.254', 80))\n"
        "    s.sendall(b'GET /latest/ HTTP/1.1\\r\\nX: ')\n    kept.append(s)\n"
        "print('holding', flush=True)\ninput()\n"
    )
    holder = host.popen(sys.executable, "-c", program, netns=greedy.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "holding\n"
        assert other.get("/latest/meta-data/local-ipv4") == (200, "10.0.1.11")
        holder.communicate("\n")
