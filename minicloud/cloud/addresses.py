"""Private and public addresses and MACs of new network interfaces: the lowest that are free. Choosing is pure.

A MAC follows from the VPC and the private address, so that dnsmasq, which refuses an address that is still leased to
another MAC, never meets that case when an address is used again.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator

from minicloud.errors import ApiError
from minicloud.model.resources import Subnet, Vpc
from minicloud.store import queries
from minicloud.store.store import Tx

# VPC user guide, "Subnet CIDR reservations": the first four addresses and the last of every subnet are reserved.
RESERVED_AT_START = 4
RESERVED_AT_END = 1


def subnet_addresses(cidr: str) -> range:
    """Return the addresses of a subnet that interfaces may have, as integers."""
    network = ipaddress.IPv4Network(cidr)
    first = int(network.network_address)
    return range(first + RESERVED_AT_START, first + network.num_addresses - RESERVED_AT_END)


def choose_free(candidates: Iterable[int], used: Collection[int], count: int) -> list[int]:
    """Return the lowest `count` candidates that are not used; fewer if there are not as many."""
    free: list[int] = []
    for candidate in candidates:
        if len(free) == count:
            break
        if candidate not in used:
            free.append(candidate)
    return free


def allocate_private_ips(tx: Tx, subnet: Subnet, minimum: int, maximum: int) -> list[str]:
    """Return as many free addresses of a subnet as there are, up to `maximum`.

    Raises InsufficientFreeAddressesInSubnet if they are fewer than `minimum`.
    """
    free = choose_free(subnet_addresses(subnet.cidr), _numbers(queries.used_private_ips(tx, subnet.id)), maximum)
    if len(free) < minimum:
        raise ApiError(
            "InsufficientFreeAddressesInSubnet",
            f"There are not enough free addresses in subnet '{subnet.id}' to satisfy the requested number of "
            "instances.",
        )
    return _texts(free)


def claim_private_ip(tx: Tx, subnet: Subnet, text: str) -> str:
    """Return the address that the caller asked for. Raises InvalidParameterValue or InvalidIPAddress.InUse."""
    try:
        address = int(ipaddress.IPv4Address(text))
    except ValueError:
        raise ApiError(
            "InvalidParameterValue", f"Value ({text[:100]}) for parameter privateIpAddress is invalid."
        ) from None
    network = ipaddress.IPv4Network(subnet.cidr)
    if ipaddress.IPv4Address(address) not in network:
        raise ApiError("InvalidParameterValue", f"Address {text} does not fall within the subnet's address range")
    if address not in subnet_addresses(subnet.cidr):
        raise ApiError("InvalidParameterValue", f"Address {text} is in subnet's reserved address range")
    if address in _numbers(queries.used_private_ips(tx, subnet.id)):
        raise ApiError("InvalidIPAddress.InUse", f"Address {text} is in use.")
    return str(ipaddress.IPv4Address(address))


def allocate_public_ips(tx: Tx, pools: Iterable[str], minimum: int, maximum: int) -> list[str]:
    """Return as many free addresses of the public pools as there are, up to `maximum`.

    Raises InsufficientAddressCapacity if they are fewer than `minimum`: as in EC2, an instance does not start without
    the public address that its subnet promises.
    """
    free = choose_free(_pool_addresses(pools), _numbers(queries.used_public_ips(tx)), maximum)
    if len(free) < minimum:
        raise ApiError(
            "InsufficientAddressCapacity",
            "Not enough available addresses to satisfy your minimum request. Reduce the number of addresses you are "
            "requesting or wait for additional capacity to become available.",
            500,
        )
    return _texts(free)


def _texts(addresses: Iterable[int]) -> list[str]:
    return [str(ipaddress.IPv4Address(address)) for address in addresses]


def _numbers(addresses: Iterable[str]) -> set[int]:
    # Ten times as fast as ipaddress, which counts when a subnet is full.
    return {int.from_bytes(socket.inet_aton(address), "big") for address in addresses}


def _pool_addresses(pools: Iterable[str]) -> Iterator[int]:
    for pool in pools:
        network = ipaddress.IPv4Network(pool)
        first = int(network.network_address)
        yield from range(first, first + network.num_addresses)


def render_mac(vpc: Vpc, private_ip: str) -> str:
    """Return a locally administered MAC that no other VPC and no other address of this one has.

    02, three bytes of the VPC's transit index (unique among VPCs), two of the address's place in the VPC (/16 at most).
    """
    offset = int(ipaddress.IPv4Address(private_ip)) - int(ipaddress.IPv4Network(vpc.cidr).network_address)
    octets = bytes([2]) + vpc.transit_index.to_bytes(3, "big") + offset.to_bytes(2, "big")
    return octets.hex(":")
