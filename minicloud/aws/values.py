"""Scalars: from a request's text to Python's types, and the constraints the model puts on them.

Owns number, time, base64 and boolean syntax and every bound. Shared by `query` (text) and `jsonwire` (JSON values).
Timestamps become aware datetimes in UTC; blobs become bytes.
"""

from __future__ import annotations

import base64
import math
import re
from datetime import UTC, datetime, timedelta

from minicloud.aws.faults import Faults
from minicloud.aws.models import Member
from minicloud.aws.text import find_illegal


class Absent:
    """The type of ABSENT."""

    __slots__ = ()


ABSENT = Absent()  # a parameter that was named but says nothing

_MEANINGFUL_EMPTY = frozenset({"Value", "NoDevice"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}\Z")
_FLOAT = re.compile(r"[+-]?([0-9]{1,320}(\.[0-9]{0,320})?|\.[0-9]{1,320})([eE][+-]?[0-9]{1,4})?\Z")
_ISO8601 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?(?:([Zz])|([+-])(\d{2}):?(\d{2}))?)?\Z",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT32 = 1 << 31
_INT64 = 1 << 63


def empty_is_meant(member: Member, *, ec2: bool, in_list: bool) -> bool:
    """Whether empty text is a value here rather than a client's way of leaving the parameter out (see `query`)."""
    if member.shape.kind not in ("string", "blob"):
        return False
    return not ec2 or in_list or member.name in _MEANINGFUL_EMPTY


def parse_scalar(member: Member, text: str, name: str, faults: Faults) -> object:
    """Read one scalar parameter from text. Raises ApiError in the service's words."""
    kind = member.shape.kind
    if kind == "string":
        return check_string(member, text, name, faults)
    if kind in ("integer", "long"):
        if not _INTEGER.match(text):
            raise faults.invalid(name, _shown(member, text), "Expecting an integer.")
        return check_integer(member, int(text), name, faults)
    if kind == "boolean":
        return parse_boolean(member, text, name, faults)
    if kind in ("float", "double"):
        if not _FLOAT.match(text):
            raise faults.invalid(name, _shown(member, text), "Expecting a number.")
        return check_float(member, float(text), name, faults)
    if kind == "timestamp":
        return parse_timestamp(member, text, name, faults)
    if kind == "blob":
        return parse_blob(member, text, name, faults)
    raise TypeError(f"{member.shape.name} is not a scalar")


def check_string(member: Member, text: str, name: str, faults: Faults) -> str:
    """Enum, length in characters, and only characters that a reply can carry (so nothing is altered by storing it)."""
    shape = member.shape
    if find_illegal(text) is not None:
        raise faults.invalid(name, None, "It contains characters that are not valid.")
    if shape.enum and text not in shape.enum:
        raise faults.not_allowed(name, _shown(member, text), shape.enum)
    _check_bounds(member, len(text), text, name, faults, "length")
    return text


def check_integer(member: Member, number: int, name: str, faults: Faults) -> int:
    """Within 32 (integer) or 64 (long) bits and the model's bounds."""
    limit = _INT32 if member.shape.kind == "integer" else _INT64
    if not -limit <= number < limit:
        raise faults.invalid(name, _shown(member, str(number)), "Expecting an integer.")
    _check_bounds(member, number, str(number), name, faults, "value")
    return number


def check_float(member: Member, number: float, name: str, faults: Faults) -> float:
    """Finite and within the model's bounds."""
    if not math.isfinite(number):
        raise faults.invalid(name, _shown(member, str(number)), "Expecting a finite number.")
    _check_bounds(member, number, str(number), name, faults, "value")
    return number


def check_count(member: Member, count: int, name: str, faults: Faults) -> None:
    """The number of elements of a list or a map against the model's bounds."""
    _check_bounds(member, count, None, name, faults, "length")


def parse_boolean(member: Member, text: str, name: str, faults: Faults) -> bool:
    """`true` or `false`, without regard to case (boto 2 and some CLIs capitalise)."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    raise faults.invalid(name, _shown(member, text), "Expecting true or false.")


def parse_timestamp(member: Member, text: str, name: str, faults: Faults) -> datetime:
    """ISO 8601 (a missing zone is UTC, a missing time is midnight) or seconds since 1970."""
    try:
        parsed = _iso8601(text) or (epoch_timestamp(float(text)) if _FLOAT.match(text) else None)
    except (ValueError, OverflowError):
        parsed = None
    if parsed is None:
        raise faults.invalid(name, _shown(member, text), "Expecting a time such as 2016-11-15T12:00:00Z.")
    return parsed


def epoch_timestamp(seconds: float) -> datetime:
    """Seconds since 1970 as a time, to the microsecond. Raises OverflowError or ValueError outside years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=round(seconds * 1_000_000))


def parse_blob(member: Member, text: str, name: str, faults: Faults) -> bytes:
    """A blob is written as base64."""
    try:
        blob = decode_base64(text)
    except ValueError:
        raise faults.bad_base64(name) from None
    _check_bounds(member, len(blob), None, name, faults, "length")
    return blob


def decode_base64(text: str) -> bytes:
    """Base64, white space allowed (`base64` wraps its lines), nothing else tolerated. Raises ValueError.

    Also for members that the model calls text but EC2 calls base64, such as the UserData of RunInstances.
    """
    return base64.b64decode("".join(text.split()), validate=True)


def _iso8601(text: str) -> datetime | None:
    match = _ISO8601.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, zone_hours, zone_minutes = match.groups()
    local = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
        int((fraction or "0")[:6].ljust(6, "0")), tzinfo=UTC,
    )  # fmt: skip
    if sign is None:
        return local
    if int(zone_hours) > 23 or int(zone_minutes) > 59:
        return None
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    return local - offset if sign == "+" else local + offset


def _check_bounds(member: Member, size: float, value: str | None, name: str, faults: Faults, what: str) -> None:
    shape = member.shape
    if shape.minimum is not None and size < shape.minimum:
        raise faults.out_of_bounds(name, _shown(member, value), "greater", shape.minimum, what)
    if shape.maximum is not None and size > shape.maximum:
        raise faults.out_of_bounds(name, _shown(member, value), "less", shape.maximum, what)


def _shown(member: Member, value: str | None) -> str | None:
    return None if member.sensitive else value
