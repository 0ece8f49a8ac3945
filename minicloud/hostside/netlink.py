"""The few netlink questions and orders that would otherwise cost a program each.

Owns the byte layouts (linux/netfilter/nfnetlink*.h, linux/if_ether.h). Every function acts on the network namespace of
the calling thread. Called by network.py.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

_NETLINK_NETFILTER = 12
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_F_REQUEST, _F_ACK, _F_DUMP = 1, 4, 0x300
_NFT_GET_GENERATION = (10 << 8) | 16
_CT_GET, _CT_DELETE = (1 << 8) | 1, (1 << 8) | 2
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_ZONE = 1, 2, 12, 18
_NESTED = 0x8000
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_NEWNEIGH, _RTM_DELNEIGH = 24, 25, 28, 29
_F_REPLACE, _F_CREATE = 0x100, 0x400
_TABLE_MAIN, _PROTOCOL_STATIC, _UNICAST = 254, 4, 1
_RTA_DESTINATION, _RTA_INTERFACE, _RTA_GATEWAY, _NDA_DESTINATION = 1, 4, 5, 1
_PERMANENT, _NTF_PROXY = 0x80, 0x08
_SO_NETNS_COOKIE = 71
_ETH_P_ARP = 0x0806
_RECEIVE_BYTES = 1 << 17
_TIMEOUT_SECONDS = 5.0


class Flow(NamedTuple):
    """One direction of a connection; ports are 0 where the protocol has none. For ICMP they are its type and code."""

    protocol: int
    source: str
    source_port: int
    destination: str
    destination_port: int


class Connection(NamedTuple):
    """A tracked connection: as its first packet went, as replies come; `key` names it to delete_connections."""

    original: Flow
    reply: Flow
    key: bytes


def nft_generation() -> int:
    """Return a number that grows with every change of the namespace's nftables rules, by whomever."""
    with _netfilter_socket() as link:
        _send(link, _NFT_GET_GENERATION, _F_REQUEST, socket.AF_UNSPEC, b"")
        for kind, payload in _messages(link, until_done=False):
            if kind == (10 << 8) | 15:
                return int(struct.unpack("!I", _attributes(payload[4:])[1])[0])
    raise OSError(errno.EPROTO, "nf_tables did not tell its generation")


def namespace_cookie() -> int:
    """Return what names this namespace among all since boot; 0 on kernels before 5.14, which cannot tell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return int(struct.unpack("Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
        except OSError:
            return 0


def connections() -> List[Connection]:
    """Return all tracked IPv4 connections."""
    found: List[Connection] = []
    with _netfilter_socket() as link:
        _send(link, _CT_GET, _F_REQUEST | _F_DUMP, socket.AF_INET, b"")
        for _, payload in _messages(link, until_done=True):
            attributes = _attributes(payload[4:])
            original, reply = attributes.get(_CTA_TUPLE_ORIG), attributes.get(_CTA_TUPLE_REPLY)
            if original is None or reply is None:
                continue
            key = _attribute(_CTA_TUPLE_ORIG | _NESTED, original)
            for kind in (_CTA_ID, _CTA_ZONE):
                if kind in attributes:
                    key += _attribute(kind, attributes[kind])
            found.append(Connection(_flow(original), _flow(reply), key))
    return found


def delete_connections(doomed: Iterable[Connection]) -> int:
    """Forget tracked connections, so that their next packet counts as a new one; return how many there still were."""
    deleted = 0
    with _netfilter_socket() as link:
        for connection in doomed:
            _send(link, _CT_DELETE, _F_REQUEST | _F_ACK, socket.AF_INET, connection.key)
            try:
                for _ in _messages(link, until_done=False):
                    pass
                deleted += 1
            except FileNotFoundError:
                pass  # it ended by itself meanwhile
    return deleted


def replace_route(address: str, gateway: str, interface: str) -> None:
    """Lead one address over a gateway on an interface, whatever led it elsewhere before. Raises OSError."""
    gateway_part = _attribute(_RTA_GATEWAY, socket.inet_aton(gateway))
    _order(_RTM_NEWROUTE, _F_CREATE | _F_REPLACE, _route(address, interface) + gateway_part)


def delete_route(address: str, interface: str) -> None:
    """Lead one address over an interface no more; none that did is fine. Raises OSError."""
    _forget(lambda: _order(_RTM_DELROUTE, 0, _route(address, interface)))


def replace_proxy(address: str, interface: str) -> None:
    """Answer ARP for an address on an interface. Raises OSError."""
    _order(_RTM_NEWNEIGH, _F_CREATE | _F_REPLACE, _proxy(address, interface))


def delete_proxy(address: str, interface: str) -> None:
    """Answer ARP for an address on an interface no more; not having done so is fine. Raises OSError."""
    _forget(lambda: _order(_RTM_DELNEIGH, 0, _proxy(address, interface)))


def _route(address: str, interface: str) -> bytes:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, 0, _UNICAST, 0)
    body += _attribute(_RTA_DESTINATION, socket.inet_aton(address))
    return body + _attribute(_RTA_INTERFACE, struct.pack("=I", _index(interface)))


def _proxy(address: str, interface: str) -> bytes:
    body = struct.pack("=BxxxiHBB", socket.AF_INET, _index(interface), _PERMANENT, _NTF_PROXY, 0)
    return body + _attribute(_NDA_DESTINATION, socket.inet_aton(address))


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:  # which comes without a number
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), interface) from None


def _forget(order: Callable[[], None]) -> None:
    try:
        order()
    except OSError as error:
        # What is gone went by itself, or with its interface.
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO):
            raise


def announce_address(interface: str, address: str) -> None:
    """Broadcast a gratuitous ARP: neighbours that knew `address` elsewhere learn at once that it is here now."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ARP)) as link:
        link.bind((interface, _ETH_P_ARP))
        mac = link.getsockname()[4]
        ip = socket.inet_aton(address)
        if len(mac) != 6:
            return  # not Ethernet (a tunnel, for one): nobody there speaks ARP
        header = b"\xff" * 6 + mac + struct.pack("!H", _ETH_P_ARP)
        link.send(header + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + ip + b"\x00" * 6 + ip)


def _netfilter_socket() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    link.settimeout(_TIMEOUT_SECONDS)
    link.bind((0, 0))
    return link


def _order(kind: int, flags: int, body: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as link:
        link.settimeout(_TIMEOUT_SECONDS)
        link.bind((0, 0))
        link.send(struct.pack("=IHHII", 16 + len(body), kind, flags | _F_REQUEST | _F_ACK, 1, 0) + body)
        for _ in _messages(link, until_done=False):
            pass


def _send(link: socket.socket, kind: int, flags: int, family: int, attributes: bytes) -> None:
    body = struct.pack("!BBH", family, 0, 0) + attributes
    link.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)


def _messages(link: socket.socket, until_done: bool) -> Iterator[Tuple[int, bytes]]:
    """Yield (type, payload) of what answers one request. Raises the OSError that the kernel answered."""
    while True:
        data = link.recv(_RECEIVE_BYTES)
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            payload = data[16:length]
            data = data[(length + 3) & ~3 :]
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return
            yield kind, payload
        if not until_done:
            return


def _attributes(data: bytes) -> Dict[int, bytes]:
    found: Dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\x00" * (-len(value) % 4)


def _flow(data: bytes) -> Flow:
    parts = _attributes(data)
    ip, protocol = _attributes(parts[1]), _attributes(parts[2])
    number = protocol[1][0]
    if number == socket.IPPROTO_ICMP:
        ports: Tuple[int, int] = (_octet(protocol.get(5)), _octet(protocol.get(6)))
    else:
        ports = (_port(protocol.get(2)), _port(protocol.get(3)))
    return Flow(number, socket.inet_ntoa(ip[1]), ports[0], socket.inet_ntoa(ip[2]), ports[1])


def _octet(value: Optional[bytes]) -> int:
    return value[0] if value else 0


def _port(value: Optional[bytes]) -> int:
    return int(struct.unpack("!H", value[:2])[0]) if value else 0
