"""Resource ids in EC2's long form: a prefix and 17 lower-case hexadecimal digits (EC2 user guide, "Resource IDs").

Owns their making and their form; whether an id exists is for the store to say.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable

DIGITS = 17

INSTANCE = "i"
RESERVATION = "r"
VOLUME = "vol"
SNAPSHOT = "snap"
IMAGE = "ami"
KEY_PAIR = "key"
VPC = "vpc"
SUBNET = "subnet"
SECURITY_GROUP = "sg"
SECURITY_GROUP_RULE = "sgr"
NETWORK_INTERFACE = "eni"
IMPORT_SNAPSHOT_TASK = "import-snap"
IMPORT_IMAGE_TASK = "import-ami"
ATTACHMENT = "attach"
DHCP_OPTIONS = "dopt"
INTERNET_GATEWAY = "igw"
NETWORK_ACL = "acl"
NETWORK_ACL_ASSOCIATION = "aclassoc"
PREFIX_LIST = "pl"
ROUTE_TABLE = "rtb"
ROUTE_TABLE_ASSOCIATION = "rtbassoc"
VPC_CIDR_ASSOCIATION = "vpc-cidr-assoc"
HOST = "h"
POOL = "pool"

MakeId = Callable[[str], str]


def make_id(prefix: str) -> str:
    """Return a new random id such as `i-0123456789abcdef0`."""
    return f"{prefix}-0{secrets.token_hex(DIGITS // 2)}"


def derived_id(prefix: str, *parts: str) -> str:
    """Return the id that the same parts always give; used where two writers must agree on one id."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{prefix}-0{digest[: DIGITS - 1]}"


def is_well_formed(value: str, prefix: str) -> bool:
    """Say whether `value` has EC2's short (8 digits) or long (17 digits) form for `prefix`."""
    return re.fullmatch(re.escape(prefix) + r"-(?:[0-9a-f]{8}|[0-9a-f]{17})", value) is not None


def short(resource_id: str, digits: int = 11) -> str:
    """Return the last `digits` hexadecimal digits of an id, for kernel names that hold 15 bytes at most."""
    return resource_id.rsplit("-", 1)[1][-digits:]
