"""Elastic IP addresses: none can be allocated yet, so there are none to be described. Public addresses of instances
(addresses.py) are not elastic: they go with a stop.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from minicloud.errors import ApiError


def require_addresses(allocation_ids: Iterable[str], public_ips: Iterable[str]) -> None:
    """Raise EC2's error for the addresses that are named: none exists."""
    ids, ips = list(dict.fromkeys(allocation_ids)), list(dict.fromkeys(public_ips))
    for ip in ips:
        try:
            ipaddress.IPv4Address(ip)
        except ValueError:
            raise ApiError(
                "InvalidParameterValue", f"Value ({ip[:100]}) for parameter publicIp is invalid. Invalid IPv4 address."
            ) from None
    if ids:
        shown = ", ".join(one[:100] for one in ids)
        plural = ("ID", "does") if len(ids) == 1 else ("IDs", "do")
        raise ApiError("InvalidAllocationID.NotFound", f"The allocation {plural[0]} '{shown}' {plural[1]} not exist")
    if ips:
        raise ApiError("InvalidAddress.NotFound", f"Address '{', '.join(ips)}' not found.")
