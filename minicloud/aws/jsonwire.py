"""Parameters and results as JSON by shape, in two manners that share one reader and one writer.

The socket's (`parse_json`, `render_json`), where `minicloud` calls operations: member names are botocore's, times are
ISO 8601 text, empty text means absent where it does over EC2's query protocol; the checks and the error codes are those
of the query protocols, so that a command line and an SDK are told the same thing. Called by the socket's door in api/.

AWS's own (`parse_aws_json`, `render_aws_json`): member names are the wire's, times are seconds since 1970 unless the
model says otherwise, and nothing that is there is taken for absent but null. Called by `awsjson`.

In both, blobs are base64. Refuses anything whose type is not the shape's (no numbers as text).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from minicloud.aws.faults import Faults, faults_of
from minicloud.aws.models import Member, Operation, Shape
from minicloud.aws.values import (
    ABSENT,
    check_count,
    check_float,
    check_integer,
    empty_is_meant,
    epoch_timestamp,
    parse_scalar,
)
from minicloud.errors import ApiError

MAX_DEPTH = 32


def decode_json(body: bytes) -> dict[str, Any]:
    """A JSON object from bytes already bounded in size. Raises ApiError: not JSON, not an object, nested too deep."""
    try:
        decoded = load_json(body or b"{}")
    except (ValueError, RecursionError):  # ValueError covers bad JSON, bad UTF-8 and absurdly long numbers
        raise ApiError("SerializationException", "The request's body is not valid JSON.") from None
    if not isinstance(decoded, dict):
        raise ApiError("SerializationException", "The request's body is not a JSON object.")
    return decoded


def load_json(body: bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """Like json.loads, but for UTF-8 alone and for texts that can be written again: no half of a surrogate pair, which
    neither a database nor a reply takes. Raises ValueError or RecursionError.
    """
    text = body.decode()
    document = json.loads(text, parse_constant=parse_constant)
    if "\\u" in text:
        json.dumps(document, ensure_ascii=False).encode()
    return document


def parse_json(operation: Operation, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `operation` from decoded JSON; like `query.parse_query`, with the same result and errors."""
    reader = _Reader(faults_of(operation.service), ec2=operation.service.speaks_ec2)
    return _parse(operation, parameters, reader)


def parse_aws_json(operation: Operation, parameters: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """Parameters of `operation` from the decoded body of an AWS JSON request. Raises what `faults` makes."""
    return _parse(operation, parameters, _Reader(faults, exact=True))


def _parse(operation: Operation, parameters: Mapping[str, Any], reader: _Reader) -> dict[str, Any]:
    if operation.input is None:
        for name in parameters:
            raise reader.faults.unknown(name)
        return {}
    return reader.structure(operation.input, parameters, "")


def render_json(operation: Operation, output: Mapping[str, Any] | None) -> dict[str, Any]:
    """A result as values that `json.dumps` takes. Raises TypeError for what the output shape does not have (a bug)."""
    return _render_output(operation, output, _SOCKET)


def render_aws_json(operation: Operation, output: Mapping[str, Any] | None) -> dict[str, Any]:
    """A result as the body of an AWS JSON reply; like `render_json`."""
    return _render_output(operation, output, _AWS)


class _Reader:
    """Walks JSON values along shapes. `exact` is AWS's own manner; `ec2` is how EC2's empty parameters are read."""

    def __init__(self, faults: Faults, *, ec2: bool = False, exact: bool = False) -> None:
        self.faults = faults
        self._ec2 = ec2
        self._exact = exact

    def structure(self, shape: Shape, given: Mapping[str, Any], path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in given.items():
            at = f"{path}.{name}" if path else name
            if self._exact and name == "__type":  # what the server has not asked for: which member of a union it is
                continue
            member = (shape.by_request_name if self._exact else shape.members).get(name)
            if member is None:
                raise self.faults.unknown(at)
            parsed = self.value(member, value, at)
            if parsed is not ABSENT:
                found[member.name] = parsed
        if found or not path or self._exact:
            for name in shape.required:
                if name not in found:
                    shown = shape.members[name].request_name if self._exact else name
                    raise self.faults.missing(f"{path}.{shown}" if path else shown)
        return found

    def value(self, member: Member, given: Any, path: str, *, in_list: bool = False) -> Any:
        if given is None:
            return ABSENT
        if path.count(".") > MAX_DEPTH:
            raise self.faults.unknown(path)
        kind = member.shape.kind
        if kind == "structure":
            self._expect(isinstance(given, dict), path, "an object")
            found = self.structure(member.shape, given, path)
            return found if found or self._exact else ABSENT
        if kind == "list":
            return self._list(member, given, path)
        if kind == "map":
            return self._map(member, given, path)
        if given == "" and not self._exact and not empty_is_meant(member, ec2=self._ec2, in_list=in_list):
            return ABSENT
        return self._scalar(member, given, path)

    def _scalar(self, member: Member, given: Any, path: str) -> Any:
        kind = member.shape.kind
        if kind == "boolean":
            self._expect(isinstance(given, bool), path, "true or false")
            return given
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if kind in ("integer", "long"):
            self._expect(number and isinstance(given, int), path, "an integer")
            return check_integer(member, given, path, self.faults)
        if kind in ("float", "double"):
            self._expect(number, path, "a number")
            return check_float(member, self._float(given, path), path, self.faults)
        if kind == "timestamp" and number:
            try:
                return epoch_timestamp(self._float(given, path))
            except (ValueError, OverflowError):
                raise self.faults.invalid(path, None, "Expecting a time.") from None
        self._expect(isinstance(given, str), path, "text")
        if member.timestamp_format == "rfc822" and self._exact:
            return self._http_date(given, path)
        return parse_scalar(member, given, path, self.faults)

    def _http_date(self, given: str, path: str) -> datetime:
        try:
            when = parsedate_to_datetime(given)
            return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise self.faults.wrong_type(path, "a time such as Tue, 29 Apr 2014 18:30:38 GMT") from None

    def _float(self, given: int | float, path: str) -> float:
        try:
            return float(given)
        except OverflowError:
            raise self.faults.invalid(path, None, "Expecting a finite number.") from None

    def _list(self, member: Member, given: Any, path: str) -> Any:
        element = member.shape.element
        assert element is not None
        self._expect(isinstance(given, list), path, "a list")
        suffix = ".member" if self._exact else ""
        values = [
            value
            for index, item in enumerate(given, 1)
            if (value := self.value(element, item, f"{path}.{index}{suffix}", in_list=True)) is not ABSENT
        ]
        if not values and self._ec2:
            return ABSENT  # EC2's query protocol cannot say "an empty list"
        check_count(member, len(values), path, self.faults)
        return values

    def _map(self, member: Member, given: Any, path: str) -> Any:
        key_member, value_member = member.shape.key, member.shape.value
        assert key_member is not None and value_member is not None
        self._expect(isinstance(given, dict), path, "an object")
        found: dict[str, Any] = {}
        for key, item in given.items():
            at = f"{path}.{key}"
            if item is None and self._exact:
                continue
            value = self.value(value_member, item, at)
            if value is ABSENT:
                raise self.faults.missing(at)
            found[parse_scalar(key_member, key, at, self.faults)] = value  # type: ignore[index]
        check_count(member, len(found), path, self.faults)
        return found

    def _expect(self, holds: bool, path: str, what: str) -> None:
        if not holds:
            raise self.faults.wrong_type(path, what)


@dataclass(frozen=True, slots=True)
class _Manner:
    """How results are written: under which names, and times in which form unless the model insists on one."""

    wire_names: bool
    timestamp_format: str


_SOCKET = _Manner(wire_names=False, timestamp_format="iso8601")
_AWS = _Manner(wire_names=True, timestamp_format="unixTimestamp")


def _render_output(operation: Operation, output: Mapping[str, Any] | None, manner: _Manner) -> dict[str, Any]:
    if operation.output is None:
        if output:
            raise TypeError(f"{operation.name} has no output, got {sorted(output)}")
        return {}
    return _render_structure(operation.output, output or {}, manner)


def _render_structure(shape: Shape, value: Mapping[str, Any], manner: _Manner) -> dict[str, Any]:
    rendered = {}
    for name, item in value.items():
        member = shape.members.get(name)
        if member is None:
            raise TypeError(f"{shape.name} has no member {name!r}")
        if item is not None:
            rendered[member.reply_name if manner.wire_names else name] = _render(member, item, manner)
    return rendered


def _render(member: Member, value: Any, manner: _Manner) -> Any:
    shape = member.shape
    kind = shape.kind
    if kind == "structure":
        return _render_structure(shape, value, manner)
    if kind == "list":
        assert shape.element is not None
        element = shape.element
        return [_render(element, item, manner) for item in value]
    if kind == "map":
        assert shape.value is not None
        below = shape.value
        return {str(key): _render(below, item, manner) for key, item in value.items()}
    if not isinstance(value, _PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise TypeError(f"{shape.name} is a {kind}, got {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{shape.name} needs a finite number")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(f"{shape.name} needs a time with a zone")
        insisted = member.timestamp_format if manner.wire_names else None
        return _render_timestamp(value.astimezone(UTC), insisted or manner.timestamp_format)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return str(value) if kind == "string" else value


def _render_timestamp(when: datetime, form: str) -> str | float:
    """To the millisecond, as AWS does."""
    if form == "iso8601":
        return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if form == "rfc822":
        return format_datetime(when, usegmt=True)
    milliseconds = (when - _EPOCH) // timedelta(milliseconds=1)
    return milliseconds // 1000 if milliseconds % 1000 == 0 else milliseconds / 1000


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "timestamp": datetime,
    "blob": (bytes, bytearray),
}
