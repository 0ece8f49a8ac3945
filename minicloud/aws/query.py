"""Parameters of the ec2 and query protocols: from `Name.1.Part=value` pairs to a dict keyed by botocore's member names.

Owns the form decoding, the bounds on the number and depth of parameters, list and map numbering, and what an empty
parameter means. Refuses unknown, repeated and contradictory parameters. Called with the pairs that `dispatch` read.

What clients really send, and how it is read:
- Lists count from 1, from 0, or with gaps; the order is that of the numbers.
- ec2: an empty parameter is an absent one (`SubnetId=`, `IamInstanceProfile.Name=`), and a structure or list of only
  absent things is absent. Three places carry an empty string on purpose: elements of lists (a filter's value), members
  called `Value` (a tag's or an attribute's) and `NoDevice` of a block device mapping.
- ec2: boto 2 numbers a single value as if it were a list of one (`InstanceId.1` of GetConsoleOutput), and Libcloud
  leaves the number of a list of one away (`KeyName` of DescribeKeyPairs).
- query: an empty string is an empty string, and an empty list is written `Name=`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from minicloud.aws.faults import Faults, faults_of
from minicloud.aws.models import Member, Operation, Shape
from minicloud.aws.values import ABSENT, check_count, empty_is_meant, parse_scalar
from minicloud.errors import ApiError

MAX_PARAMETERS = 50_000  # a PutMetricData body of 1 MB holds about 40,000
MAX_DEPTH = 24  # parts of one parameter's name; EC2's deepest has 9

Pairs = list[tuple[str, str]]

# Parameters of the protocols themselves, current and historical. They never reach an operation,
# none of which has one of its own under such a name.
COMMON_PARAMETERS = frozenset(
    {
        "Action",
        "Version",
        "AWSAccessKeyId",
        "Signature",
        "SignatureMethod",
        "SignatureVersion",
        "Timestamp",
        "Expires",
        "SecurityToken",
    }
)

_INDEX_DIGITS = 9
_NESTED = frozenset({"structure", "list", "map"})


class _Node:
    """One name in the tree of parameters: its own text, if any, and what is below it."""

    __slots__ = ("below", "text")

    def __init__(self) -> None:
        self.text: str | None = None
        self.below: dict[str, _Node] = {}


def decode_form(encoded: bytes) -> Pairs:
    """Read application/x-www-form-urlencoded pairs in order. Raises ApiError: not UTF-8, or too many."""
    if encoded.count(b"&") >= MAX_PARAMETERS:
        raise ApiError("MalformedQueryString", f"The request has more than {MAX_PARAMETERS} parameters")
    pairs: Pairs = []
    try:
        for field in encoded.split(b"&"):
            if field:
                name, _, value = field.partition(b"=")
                pairs.append((_decode(name), _decode(value)))
    except UnicodeDecodeError:
        raise ApiError("MalformedQueryString", "The query string contains a syntax error: it is not UTF-8") from None
    return pairs


def parse_query(operation: Operation, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Parameters of `operation`, checked against its shape: types, enums, bounds, required members, nothing unknown.

    Keyed by botocore's member names; absent members are not in the dict. Raises ApiError in the service's own words.
    """
    faults = faults_of(operation.service)
    root = _grow(pairs, faults)
    if operation.input is None:
        for name, below in root.below.items():
            raise _unknown(name, below, "", faults)
        return {}
    return _Reader(faults, ec2=operation.service.speaks_ec2).structure(operation.input, root, "")


def _decode(encoded: bytes) -> str:
    if b"+" in encoded:
        encoded = encoded.replace(b"+", b" ")
    if b"%" in encoded:
        encoded = unquote_to_bytes(encoded)
    return encoded.decode()


def _grow(pairs: Iterable[tuple[str, str]], faults: Faults) -> _Node:
    root = _Node()
    for name, text in pairs:
        if name in COMMON_PARAMETERS or name[:6].lower() == "x-amz-":
            continue
        parts = name.split(".")
        if len(parts) > MAX_DEPTH:
            raise faults.unknown(name)
        node = root
        for part in parts:
            below = node.below.get(part)
            if below is None:
                below = node.below[part] = _Node()
            node = below
        if node.text is not None:
            raise faults.repeated(name)
        node.text = text
    return root


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unknown(name: str, node: _Node, path: str, faults: Faults) -> ApiError:
    """The answer to a name that has no business below `path`: it names the first whole parameter under it."""
    path = _join(path, name)
    while node.text is None and node.below:
        name, node = next(iter(node.below.items()))
        path = _join(path, name)
    return faults.unknown(path)


class _Reader:
    """Walks the tree along the shapes. Depth is bounded by the tree's, so recursive shapes end."""

    def __init__(self, faults: Faults, *, ec2: bool) -> None:
        self._faults = faults
        self._ec2 = ec2

    def structure(self, shape: Shape, node: _Node, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, below in node.below.items():
            member = shape.by_request_name.get(name)
            if member is None:
                raise _unknown(name, below, path, self._faults)
            value = self.value(member, below, _join(path, name))
            if value is not ABSENT:
                found[member.name] = value
        if found or not path:  # a structure of only empty parameters was not meant at all
            for required in shape.required:
                if required not in found:
                    raise self._faults.missing(_join(path, shape.members[required].request_name))
        return found

    def value(self, member: Member, node: _Node, path: str, *, in_list: bool = False) -> Any:
        kind = member.shape.kind
        if kind == "structure":
            self._refuse_text(node, path)
            return self.structure(member.shape, node, path) or ABSENT
        if kind == "list":
            return self._list(member, node, path)
        if kind == "map":
            return self._map(member, node, path)
        if self._ec2 and not in_list and node.text is None and list(node.below) == ["1"]:
            node, path = node.below["1"], f"{path}.1"
        for name, below in node.below.items():
            raise _unknown(name, below, path, self._faults)
        text = node.text or ""
        if not text and not empty_is_meant(member, ec2=self._ec2, in_list=in_list):
            return ABSENT
        return parse_scalar(member, text, path, self._faults)

    def _list(self, member: Member, node: _Node, path: str) -> Any:
        element = member.shape.element
        assert element is not None
        if self._ec2 and node.text and not node.below and element.shape.kind not in _NESTED:
            only, node = node, _Node()
            node.below["1"] = only
        self._refuse_text(node, path)
        said_empty = node.text is not None and not self._ec2
        if not self._ec2:
            node, path = self._wrapped(node, element.request_name, path)
        values = [
            value
            for index, below in self._numbered(node, path)
            if (value := self.value(element, below, f"{path}.{index}", in_list=True)) is not ABSENT
        ]
        if not values and not said_empty:
            return ABSENT
        check_count(member, len(values), path, self._faults)
        return values

    def _map(self, member: Member, node: _Node, path: str) -> Any:
        key_member, value_member = member.shape.key, member.shape.value
        assert key_member is not None and value_member is not None
        self._refuse_text(node, path)
        node, path = self._wrapped(node, "entry", path)
        found: dict[str, Any] = {}
        for index, entry in self._numbered(node, path):
            at = f"{path}.{index}"
            self._refuse_text(entry, at)
            for name, below in entry.below.items():
                if name not in (key_member.request_name, value_member.request_name):
                    raise _unknown(name, below, at, self._faults)
            key, value = (self._map_part(part, entry, at) for part in (key_member, value_member))
            if key in found:
                raise self._faults.repeated(f"{at}.{key_member.request_name}")
            found[key] = value
        if not found:
            return ABSENT
        check_count(member, len(found), path, self._faults)
        return found

    def _map_part(self, member: Member, entry: _Node, path: str) -> Any:
        path = f"{path}.{member.request_name}"
        below = entry.below.get(member.request_name)
        value = ABSENT if below is None else self.value(member, below, path)
        if value is ABSENT:
            raise self._faults.missing(path)
        return value

    def _refuse_text(self, node: _Node, path: str) -> None:
        # Something with parts was given a value of its own. Empty is how the query protocol writes "no elements".
        if node.text:
            raise self._faults.unknown(path)

    def _wrapped(self, node: _Node, wrapper: str, path: str) -> tuple[_Node, str]:
        """Step over the `member` or `entry` between a list's name and its numbers."""
        for name, below in node.below.items():
            if name != wrapper:
                raise _unknown(name, below, path, self._faults)
        inner = node.below.get(wrapper)
        if inner is None:
            return _Node(), path
        path = f"{path}.{wrapper}"
        if inner.text is not None:
            raise self._faults.unknown(path)
        return inner, path

    def _numbered(self, node: _Node, path: str) -> list[tuple[int, _Node]]:
        """What is below, by number."""
        numbered: dict[int, _Node] = {}
        for name, below in node.below.items():
            if not (name.isascii() and name.isdigit() and len(name) <= _INDEX_DIGITS):
                raise _unknown(name, below, path, self._faults)
            index = int(name)
            if index in numbered:
                raise self._faults.repeated(f"{path}.{name}")
            numbered[index] = below
        return sorted(numbered.items(), key=lambda item: item[0])
