"""What guests, and those outside, can and cannot do on a host's network: real routers, rules, DHCP and metadata.

One scratch host for all: two subnets of a VPC, and a second VPC with the same addresses.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.port_plans import EGRESS, allow, group, group_id, port
from support.scratch_host import (
    HOST_IP,
    OUTSIDE_IP,
    UPLINK_NETWORK,
    Guest,
    ScratchHost,
    is_shut_out,
    listen,
    reach,
    scratch_folder,
)

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")]

PUBLIC = f"{UPLINK_NETWORK}.110"
PUBLIC_WEB = f"{UPLINK_NETWORK}.111"
SSH, WEB, OPEN = 22, 80, 7000
PORTS = (SSH, WEB, OPEN)

SSH_GROUP = group(1, EGRESS, allow("tcp", SSH), allow("icmp", 8, -1))
# Its members accept the web from members of group 1 only, and from one address outside.
WEB_GROUP = group(2, EGRESS, allow("tcp", WEB, group=group_id(1)), allow("tcp", WEB, cidr=f"{OUTSIDE_IP}/32"))
# May speak to nobody but port 80 of its own subnet.
SHUT_GROUP = group(3, allow("tcp", WEB, egress=True, cidr="10.0.1.0/24"), allow("tcp", 0, 65535))


@dataclass
class Net:
    """The host with its guests: `public` and `plain` (ssh), `web`, `shut`, `far` (another subnet), `other` (a VPC)."""

    host: ScratchHost
    public: Guest
    plain: Guest
    web: Guest
    shut: Guest
    far: Guest
    other: Guest

    @property
    def router(self) -> str:
        return str(self.public.plan["router"]["netns"])


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    plans = {
        "public": port(10, SSH_GROUP, public_ip=PUBLIC),
        "plain": port(11, SSH_GROUP),
        "web": port(12, WEB_GROUP, public_ip=PUBLIC_WEB),
        "shut": port(13, SHUT_GROUP),
        "far": port(14, SSH_GROUP, subnet=2),
        "other": port(10, group(1, EGRESS, allow("-1")), vpc=1),
    }
    with scratch_folder() as folder:
        host = ScratchHost(folder)
        try:
            host.ensure(*plans.values())
            guests = {name: Guest(host, plan) for name, plan in plans.items()}
            for name, guest in guests.items():
                guest.configure()
                for number in PORTS:
                    guest.listen(number, name)
            listen(host, None, OPEN, "host")
            listen(host, "outside", OPEN, "outside")
            listen(host, guests["public"].plan["router"]["netns"], SSH, "router")
            yield Net(host, **guests)
        finally:
            host.close()


def test_dhcp_gives_the_address_of_the_plan_and_all_a_guest_needs(net: Net) -> None:
    answer = net.plain.dhcp()
    assert answer["ip"] == "10.0.1.11"
    assert answer["mask"] == "24"
    assert answer["router"] == answer["dns"] == answer["serverid"] == "10.0.1.1"
    assert answer["hostname"] == "ip-10-0-1-11"
    assert answer["domain"] == "lab-1.compute.internal"
    assert answer["mtu"] == "1450"
    assert answer["lease"] == "3600"
    assert net.far.dhcp()["router"] == "10.0.2.1"


def test_dhcp_gives_a_guest_of_another_vpc_with_the_same_address_its_own(net: Net) -> None:
    assert net.other.dhcp()["ip"] == net.public.dhcp()["ip"] == "10.0.1.10"


@pytest.mark.parametrize("name", ["public", "plain", "web", "shut", "far", "other"])
def test_metadata_knows_who_asks_whatever_its_groups_permit(net: Net, name: str) -> None:
    guest: Guest = getattr(net, name)
    forged = "X-Forwarded-For: 10.0.1.12"
    assert guest.get("/latest/meta-data/instance-id", forged) == (200, guest.plan["instance_id"])


def test_metadata_answers_a_guest_that_believes_it_on_its_own_link(net: Net) -> None:
    # As with a zeroconf route, which some images have.
    net.plain.run("ip", "route", "add", "169.254.0.0/16", "dev", "eth0")
    try:
        assert net.plain.get("/latest/meta-data/instance-id") == (200, net.plain.plan["instance_id"])
    finally:
        net.plain.run("ip", "route", "del", "169.254.0.0/16", "dev", "eth0")


def test_metadata_token_travels_no_further_than_the_hop_limit(net: Net) -> None:
    program = "\n".join(
        [
            "table ip ttl {",
            "counter near {",
            "}",
            "counter far {",
            "}",
            "chain input {",
            "type filter hook input priority 0;",
            "tcp sport 80 tcp flags & psh == psh ip ttl 1 counter name near",
            "tcp sport 80 tcp flags & psh == psh ip ttl != 1 counter name far",
            "}",
            "}",
        ]
    )
    net.host.run("nft", "-f", "-", netns=net.plain.name, stdin=program + "\n")
    try:
        ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
        status, token = net.plain.get("/latest/api/token", ttl, method="PUT")
        assert status == 200 and token
        counters = net.plain.run("nft", "list", "counters").stdout
        assert _packets(counters, "near") >= 1 and _packets(counters, "far") == 0
        header = f"X-aws-ec2-metadata-token: {token}"
        assert net.plain.get("/latest/meta-data/local-ipv4", header) == (200, "10.0.1.11")
        # The token is one instance's own.
        assert net.public.get("/latest/meta-data/local-ipv4", header)[0] == 401
    finally:
        net.plain.run("nft", "delete", "table", "ip", "ttl")


def _packets(counters: str, name: str) -> int:
    return int(counters.split(f"counter {name} {{")[1].split("packets ")[1].split()[0])


# From, to, port, and whether that is let through.
ACCESS = [
    ("plain", "public", SSH, True),
    ("plain", "public", WEB, False),
    ("plain", "public", OPEN, False),
    ("far", "public", SSH, True),
    ("far", "public", OPEN, False),
    ("public", "far", SSH, True),
    ("public", "web", WEB, True),  # a member of the group that the rule names
    ("far", "web", WEB, True),  # the same from another subnet
    ("shut", "web", WEB, False),  # no member
    ("public", "web", SSH, False),
    ("web", "shut", OPEN, True),
    ("shut", "public", SSH, False),  # its own groups do not let it out
    ("other", "plain", OPEN, False),  # another VPC: that address is its own subnet's
    ("plain", "plain", OPEN, True),  # within a guest nothing is filtered
]


@pytest.mark.parametrize(("source", "target", "number", "passes"), ACCESS)
def test_groups_decide_who_reaches_whom(net: Net, source: str, target: str, number: int, passes: bool) -> None:
    sender: Guest = getattr(net, source)
    receiver: Guest = getattr(net, target)
    if passes:
        assert sender.reaches(receiver.ip, number) == f"{target} {sender.ip}"
    else:
        assert sender.is_shut_out(receiver.ip, number)


def test_ping_is_a_rule_of_its_own(net: Net) -> None:
    assert net.plain.pings(net.public.ip)
    assert not net.plain.pings(net.web.ip, 1)


def test_a_guest_reaches_the_outside_under_the_hosts_address_or_its_public_one(net: Net) -> None:
    assert net.plain.reaches(OUTSIDE_IP, OPEN) == f"outside {HOST_IP}"
    assert net.public.reaches(OUTSIDE_IP, OPEN) == f"outside {PUBLIC}"
    assert net.other.reaches(OUTSIDE_IP, OPEN) == f"outside {HOST_IP}"
    assert net.shut.is_shut_out(OUTSIDE_IP, OPEN)


def test_a_public_address_is_reached_from_outside_from_the_host_and_from_guests(net: Net) -> None:
    assert reach(net.host, "outside", PUBLIC, SSH) == f"public {OUTSIDE_IP}"
    assert is_shut_out(net.host, "outside", PUBLIC, OPEN)
    assert (reach(net.host, None, PUBLIC, SSH) or "").startswith("public ")
    for guest in (net.plain, net.far, net.other, net.web):
        assert (guest.reaches(PUBLIC, SSH) or "").startswith("public ")
        assert guest.is_shut_out(PUBLIC, OPEN)
    # Itself, and another public address: seen under its own public address, as on EC2.
    assert net.public.reaches(PUBLIC, SSH) == f"public {PUBLIC}"
    assert net.web.reaches(PUBLIC, SSH) == f"public {PUBLIC_WEB}"


def test_a_rule_for_a_group_does_not_hold_by_public_addresses(net: Net) -> None:
    assert net.public.reaches(net.web.ip, WEB) == f"web {net.public.ip}"
    assert net.public.is_shut_out(PUBLIC_WEB, WEB)
    assert reach(net.host, "outside", PUBLIC_WEB, WEB) == f"web {OUTSIDE_IP}"


def test_a_private_address_is_not_reached_from_outside(net: Net) -> None:
    net.host.run("ip", "route", "add", "10.0.0.0/16", "via", HOST_IP, netns="outside")
    try:
        assert is_shut_out(net.host, "outside", net.public.ip, SSH)
    finally:
        net.host.run("ip", "route", "del", "10.0.0.0/16", netns="outside")


def test_the_router_and_the_transit_link_are_closed_to_guests(net: Net) -> None:
    for guest in (net.plain, net.public, net.other):
        gateway = guest.plan["subnet"]["gateway_ip"]
        assert guest.is_shut_out(gateway, SSH)
        assert not guest.pings(gateway, 1)
        for address in ("100.127.0.0", "100.127.0.1", "100.127.0.2", "100.127.0.3"):
            assert guest.is_shut_out(address, OPEN)
            assert guest.is_shut_out(address, SSH)
        assert guest.is_shut_out("169.254.169.254", SSH)
    # The host's own address on the uplink is like any machine outside.
    assert net.plain.reaches(HOST_IP, OPEN) == "host 100.127.0.1"


def test_what_a_router_serves_its_guests_it_serves_nobody_else(net: Net) -> None:
    transit = net.public.plan["router"]["router_transit_ip"]
    for address in ("10.0.1.1/32", "169.254.169.254/32"):
        net.host.run("ip", "route", "add", address, "via", transit)
    try:
        assert is_shut_out(net.host, None, transit, 53)
        assert is_shut_out(net.host, None, "10.0.1.1", 53)
        assert is_shut_out(net.host, None, "169.254.169.254", 80)
    finally:
        for address in ("10.0.1.1/32", "169.254.169.254/32"):
            net.host.run("ip", "route", "del", address)


def test_addresses_that_mean_something_to_each_machine_alone_lead_nowhere(net: Net) -> None:
    net.host.run("ip", "addr", "add", "169.254.7.7/32", "dev", "lo", netns="outside")
    net.host.run("ip", "route", "add", "169.254.7.7/32", "via", OUTSIDE_IP)
    try:
        assert reach(net.host, None, "169.254.7.7", OPEN) is not None
        assert net.plain.is_shut_out("169.254.7.7", OPEN)
        assert net.public.is_shut_out("169.254.7.7", OPEN)
    finally:
        net.host.run("ip", "route", "del", "169.254.7.7/32")


def test_names_of_the_vpc_resolve_and_stay_there(net: Net) -> None:
    assert lookup(net.plain, "10.0.1.1", "ip-10-0-1-12.lab-1.compute.internal") == "10.0.1.12"
    assert lookup(net.far, "10.0.2.1", "ip-10-0-1-10.lab-1.compute.internal") == "10.0.1.10"
    assert lookup(net.plain, "10.0.1.1", "unknown.lab-1.compute.internal") is None
    # The other VPC has a machine of that name; of this one's machines it knows none.
    assert lookup(net.other, "10.0.1.1", "ip-10-0-1-12.lab-1.compute.internal") is None


_ANSWER = """
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
print("listening", flush=True)
while True:
    q, peer = s.recvfrom(512)
    s.sendto(q[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + q[12:q.index(b"\\0", 12) + 5]
             + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton(peer[0]), peer)
"""


def test_other_names_are_asked_of_the_hosts_resolver_by_the_host(net: Net) -> None:
    server = net.host.popen(sys.executable, "-c", _ANSWER, netns="outside", stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline() == "listening\n"
    # The resolver answers with the address that asked it.
    assert lookup(net.plain, "10.0.1.1", "www.example.org") == HOST_IP
    assert lookup(net.other, "10.0.1.1", "www.example.org") == HOST_IP


_LOOKUP = """
import socket, struct, sys
name = b"".join(bytes([len(p)]) + p.encode() for p in sys.argv[2].split(".")) + b"\\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.sendto(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1), (sys.argv[1], 53))
data = s.recv(512)
if struct.unpack("!H", data[6:8])[0]:
    print(socket.inet_ntoa(data[-4:]))
"""


def lookup(guest: Guest, server: str, name: str) -> str | None:
    return guest.run(sys.executable, "-c", _LOOKUP, server, name).stdout.strip() or None


# Forged frames. What the router sees of them is watched on its end of the subnet's link.

BROADCAST = b"\xff" * 6


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def arp(plan: dict[str, Any], *, source: bytes | None = None, sender_mac: str = "", sender_ip: str = "") -> bytes:
    own = mac(plan["mac"])
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + (mac(sender_mac) if sender_mac else own)
    body += socket.inet_aton(sender_ip or plan["private_ip"]) + b"\0" * 6 + socket.inet_aton("10.0.1.1")
    return BROADCAST + (source or own) + b"\x08\x06" + body


def ipv4(
    plan: dict[str, Any],
    *,
    source: bytes | None = None,
    saddr: str = "",
    daddr: str = "10.0.1.1",
    sport: int = 5000,
    dport: int = 53,
) -> bytes:
    udp = struct.pack("!4H", sport, dport, 8, 0)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0)
    header += socket.inet_aton(saddr or plan["private_ip"]) + socket.inet_aton(daddr)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return BROADCAST + (source or mac(plan["mac"])) + b"\x08\x00" + header + udp


def forgeries(plan: dict[str, Any]) -> dict[str, bytes]:
    own, other = mac(plan["mac"]), mac("0a:00:00:00:01:0a")
    return {
        "arp with another's address": arp(plan, sender_ip="10.0.1.10"),
        "arp with the gateway's address": arp(plan, sender_ip="10.0.1.1"),
        "arp with another's MAC inside": arp(plan, sender_mac="0a:00:00:00:01:0a"),
        "arp from another's MAC": arp(plan, source=other),
        "another's address": ipv4(plan, saddr="10.0.1.10"),
        "an outside address": ipv4(plan, saddr="8.8.8.8"),
        "no address, but no DHCP": ipv4(plan, saddr="0.0.0.0", daddr="255.255.255.255"),
        "another's MAC": ipv4(plan, source=other),
        "DHCP server": ipv4(plan, sport=67, dport=68, daddr="255.255.255.255"),
        "DHCP from another's MAC": ipv4(
            plan, source=other, saddr="0.0.0.0", daddr="255.255.255.255", sport=68, dport=67
        ),
        "IPv6 router advertisement": BROADCAST + own + b"\x86\xdd" + b"\x60" + b"\0" * 53,
        "VLAN tag": BROADCAST + own + b"\x81\x00\x00\x01" + ipv4(plan)[12:],
        "spanning tree": mac("01:80:c2:00:00:00") + own + b"\x00\x26" + b"\x42\x42\x03" + b"\0" * 35,
        "LLDP": mac("01:80:c2:00:00:0e") + own + b"\x88\xcc" + b"\0" * 40,
        "short ARP": BROADCAST + own + b"\x08\x06" + b"\0" * 4,
    }


_SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for frame in sys.argv[1:]:
    s.send(bytes.fromhex(frame))
"""

# Prints every frame in from the bridge, until one that holds the marker.
_WATCH = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((sys.argv[1], 3))
print("watching", flush=True)
while True:
    frame, where = s.recvfrom(2000)
    if where[2] == 4:
        continue
    if frame[34:38] == bytes.fromhex(sys.argv[2]):
        break
    print(frame.hex(), flush=True)
"""


def arrivals(net: Net, guest: Guest, frames: list[bytes], source: tuple[str | None, str] | None = None) -> list[bytes]:
    """Send frames from a guest, or from `source` (namespace, interface); return those that the guest's router got.

    A lawful frame of the guest's follows: when that is there, so is what was let through before it.
    """
    marker = struct.pack("!2H", 4444, 5555)
    watch = net.host.popen(
        sys.executable,
        "-c",
        _WATCH,
        guest.plan["subnet"]["router_veth"],
        marker.hex(),
        netns=guest.plan["router"]["netns"],
        stdout=subprocess.PIPE,
    )
    with watch:
        assert watch.stdout is not None and watch.stdout.readline() == "watching\n"
        last = ipv4(guest.plan, sport=4444, dport=5555)
        send(net, *(source or (guest.name, "eth0")), frames)
        send(net, guest.name, "eth0", [last])
        output, _ = watch.communicate(timeout=180)
    # The guest's own kernel may be talking at this moment, too.
    seen = [bytes.fromhex(line) for line in output.split()]
    return [frame for frame in seen if any(_is_same(frame, one) for one in frames)]


def _is_same(frame: bytes, sent: bytes) -> bool:
    if sent[12:14] == b"\x81\x00":  # the kernel shows a tagged frame without its tag
        return frame[:12] == sent[:12] and frame.endswith(sent[18:])
    return frame.startswith(sent)


@pytest.mark.parametrize("name", sorted(forgeries(port(11))))
def test_forged_frames_do_not_reach_the_router(net: Net, name: str) -> None:
    assert arrivals(net, net.plain, [forgeries(net.plain.plan)[name]]) == []


def test_lawful_frames_do(net: Net) -> None:
    plan = net.plain.plan
    probe = arp(plan)
    probe = probe[:28] + b"\0" * 4 + probe[32:]
    frames = [
        # The guest's own kernel may ask the very same at this moment: what follows tells ours from its.
        arp(plan) + b"ours",
        probe + b"ours",
        ipv4(plan),
        ipv4(plan, saddr="0.0.0.0", daddr="255.255.255.255", sport=68, dport=67),
    ]
    assert [frame[: len(sent)] for frame, sent in zip(arrivals(net, net.plain, frames), frames, strict=True)] == frames


def test_a_tap_that_no_plan_names_sends_nothing(net: Net) -> None:
    plan = net.plain.plan
    stranger = Guest(net.host, {**plan, "tap": "mctffffffff"})
    frames = [ipv4(plan, sport=99), arp(plan) + b"ours"]
    assert arrivals(net, net.plain, frames, (stranger.name, "eth0")) == []


def send(net: Net, netns: str | None, interface: str, frames: list[bytes]) -> None:
    """Send frames from an interface of a namespace, None being the host's."""
    program = _SEND.replace("eth0", interface)
    net.host.run(sys.executable, "-c", program, *(frame.hex() for frame in frames), netns=netns)


def hearing(net: Net, guest: Guest, sender: str | None, interface: str, frames: list[bytes]) -> list[bytes]:
    """Send frames from an interface of a namespace and return those that a guest hears before what follows."""
    marker = struct.pack("!2H", 4444, 5555)
    argv = [sys.executable, "-c", _WATCH, "eth0", marker.hex()]
    with net.host.popen(*argv, netns=guest.name, stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None and watch.stdout.readline() == "watching\n"
        send(net, sender, interface, frames)
        # What ends the watch is for the guest and comes from its router.
        end = mac(guest.plan["mac"]) + ROUTER_MAC + ipv4(guest.plan, sport=4444, dport=5555)[12:]
        send(net, net.router, guest.plan["subnet"]["router_veth"], [end])
        output, _ = watch.communicate(timeout=180)
    heard = [bytes.fromhex(line) for line in output.split()]
    return [frame for frame in heard if frame in frames]


_UDP = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 6000))
print("listening", flush=True)
while True:
    data, (ip, port) = s.recvfrom(100)
    print(ip, flush=True)
    if data == b"end":
        break
"""


def test_nothing_from_a_bridge_gets_into_the_host(net: Net) -> None:
    link = net.host.run("ip", "-o", "link", "show", net.plain.plan["subnet"]["bridge"]).stdout
    bridge = mac(link.split("link/ether ")[1].split()[0])
    with net.host.popen(sys.executable, "-c", _UDP, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        frame = ipv4(net.plain.plan, daddr=HOST_IP, dport=6000)
        net.plain.run(sys.executable, "-c", _SEND, (bridge + frame[6:]).hex())
        program = _SEND.replace("eth0", net.plain.plan["subnet"]["router_veth"])
        frame = ipv4(net.plain.plan, saddr=OUTSIDE_IP, daddr=HOST_IP, dport=6000)
        net.host.run(sys.executable, "-c", program, (bridge + ROUTER_MAC + frame[12:]).hex(), netns=net.router)
        end = f"import socket; socket.socket(2, 2).sendto(b'end', ('{HOST_IP}', 6000))"
        net.host.run(sys.executable, "-c", end)
        assert server.communicate(timeout=180)[0].split() == [HOST_IP]


def test_nothing_of_the_host_itself_gets_onto_a_bridge(net: Net) -> None:
    bridge = net.public.plan["subnet"]["bridge"]
    frames = [
        BROADCAST + ROUTER_MAC + ipv4(net.public.plan, sport=7)[12:],
        BROADCAST + ROUTER_MAC + b"\x86\xdd" + b"\0" * 40,
    ]
    assert hearing(net, net.public, None, bridge, frames) == []
    assert arrivals(net, net.plain, frames, (None, bridge)) == []


ROUTER_MAC = mac("0a:ff:00:00:00:01")


def test_a_segment_of_no_connection_is_not_forwarded(net: Net) -> None:
    # Such an ACK follows a connection whose record was deleted, a rule having been revoked.
    stray = to_router(net, net.plain, tcp_ack(net.plain.ip, net.public.ip, SSH))
    argv = [sys.executable, "-c", _WATCH, "eth0", struct.pack("!2H", 4444, SSH).hex()]
    with net.host.popen(*argv, netns=net.public.name, stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None and watch.stdout.readline() == "watching\n"
        send(net, net.plain.name, "eth0", [stray])
        net.plain.run(sys.executable, "-c", _CONNECT_FROM, net.public.ip, str(SSH), "4444")
        output, _ = watch.communicate(timeout=180)
    heard = [bytes.fromhex(line) for line in output.split()]
    assert not [frame for frame in heard if frame[34:38] == struct.pack("!2H", 5000, SSH)]


_CONNECT_FROM = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 60, ("", int(sys.argv[3]))).close()
"""


def test_a_router_speaks_to_the_host_under_its_own_addresses_only(net: Net) -> None:
    router = net.public.plan["router"]
    marker = struct.pack("!2H", 4444, 5555)
    frames = [
        ipv4(net.plain.plan, saddr=saddr, daddr=OUTSIDE_IP, sport=sport, dport=5555)
        for saddr, sport in (("10.0.1.10", 7), ("8.8.8.8", 7), (PUBLIC, 4444))
    ]
    link = net.host.run("ip", "-o", "link", "show", router["transit_veth"]).stdout
    gateway = mac(link.split("link/ether ")[1].split()[0])
    argv = [sys.executable, "-c", _WATCH, "eth0", marker.hex()]
    with net.host.popen(*argv, netns="outside", stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None and watch.stdout.readline() == "watching\n"
        send(net, net.router, router["router_transit_veth"], [gateway + ROUTER_MAC + frame[12:] for frame in frames])
        output, _ = watch.communicate(timeout=180)
    heard = [bytes.fromhex(line) for line in output.split()]
    assert not [frame for frame in heard if frame[34:38] == struct.pack("!2H", 7, 5555)]


def test_the_host_tracks_no_connections_of_bridged_guests(net: Net) -> None:
    # Guests of different VPCs have the same addresses: their connections may not be taken for each other's.
    assert net.plain.reaches(net.public.ip, SSH) == f"public {net.plain.ip}"
    tracked = net.host.call("netlink", "connections")
    assert not [flow for flow, _, _ in tracked if flow[1] == net.plain.ip]


def tcp_ack(saddr: str, daddr: str, dport: int) -> bytes:
    """Return an IPv4 packet with an ACK from port 5000 that belongs to no connection."""
    addresses = socket.inet_aton(saddr) + socket.inet_aton(daddr)
    tcp = struct.pack("!2H2I2BHHH", 5000, dport, 1, 1, 0x50, 0x10, 1000, 0, 0)
    check = checksum(addresses + struct.pack("!2H", 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", check) + tcp[18:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + addresses
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + tcp


def to_router(net: Net, guest: Guest, packet: bytes) -> bytes:
    """Return the frame by which a guest sends an IPv4 packet to its router."""
    plan = guest.plan
    link = net.host.run("ip", "-o", "link", "show", plan["subnet"]["router_veth"], netns=net.router).stdout
    return mac(link.split("link/ether ")[1].split()[0]) + mac(plan["mac"]) + b"\x08\x00" + packet


def test_guests_of_one_bridge_hear_nothing_of_each_other(net: Net) -> None:
    plan = net.plain.plan
    direct = mac(net.public.plan["mac"]) + ipv4(plan, sport=7)[6:]
    assert hearing(net, net.public, net.plain.name, "eth0", [arp(plan), ipv4(plan, sport=7), direct]) == []


def test_a_guest_hears_its_router_but_not_what_that_says_to_others(net: Net) -> None:
    body = ROUTER_MAC + ipv4(net.public.plan, sport=7)[12:]
    own, everybody = mac(net.public.plan["mac"]) + body, BROADCAST + body
    # For a guest of this bridge, and for none: the bridge floods both where it has not learned better.
    others = [mac(net.plain.plan["mac"]) + body, mac("0a:00:00:00:01:63") + body]
    net.host.run("ip", "link", "set", net.plain.plan["subnet"]["bridge"], "type", "bridge", "fdb_flush")
    veth = net.public.plan["subnet"]["router_veth"]
    assert hearing(net, net.public, net.router, veth, [*others, own, everybody]) == [own, everybody]
