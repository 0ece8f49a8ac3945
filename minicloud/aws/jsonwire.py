"""Parameters and results as JSON by shape: the unix socket's door, where `minicloud` calls operations.

Member names are botocore's; times are ISO 8601 text; blobs are base64. The same checks and the same error codes as
the query protocols: a command line and an SDK are told the same thing. Empty text means absent where it does over
EC2's query protocol. Refuses anything whose type is not the shape's (no numbers as text). Called by the socket's door
in api/.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
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
        decoded = json.loads(body or b"{}")
    except (ValueError, RecursionError):  # ValueError covers bad JSON, bad UTF-8 and absurdly long numbers
        raise ApiError("SerializationException", "The request's body is not valid JSON.") from None
    if not isinstance(decoded, dict):
        raise ApiError("SerializationException", "The request's body is not a JSON object.")
    return decoded


def parse_json(operation: Operation, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `operation` from decoded JSON; like `query.parse_query`, with the same result and errors."""
    faults = faults_of(operation.service)
    if operation.input is None:
        for name in parameters:
            raise faults.unknown(name)
        return {}
    return _Reader(faults, ec2=operation.service.speaks_ec2).structure(operation.input, parameters, "")


def render_json(operation: Operation, output: Mapping[str, Any] | None) -> dict[str, Any]:
    """A result as values that `json.dumps` takes. Raises TypeError for what the output shape does not have (a bug)."""
    if operation.output is None:
        if output:
            raise TypeError(f"{operation.name} has no output, got {sorted(output)}")
        return {}
    rendered: dict[str, Any] = _render(operation.output, output or {})
    return rendered


class _Reader:
    def __init__(self, faults: Faults, *, ec2: bool) -> None:
        self._faults = faults
        self._ec2 = ec2

    def structure(self, shape: Shape, given: Mapping[str, Any], path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in given.items():
            at = f"{path}.{name}" if path else name
            member = shape.members.get(name)
            if member is None:
                raise self._faults.unknown(at)
            parsed = self.value(member, value, at)
            if parsed is not ABSENT:
                found[name] = parsed
        if found or not path:
            for name in shape.required:
                if name not in found:
                    raise self._faults.missing(f"{path}.{name}" if path else name)
        return found

    def value(self, member: Member, given: Any, path: str, *, in_list: bool = False) -> Any:
        if given is None:
            return ABSENT
        if path.count(".") > MAX_DEPTH:
            raise self._faults.unknown(path)
        kind = member.shape.kind
        if kind == "structure":
            self._expect(isinstance(given, dict), path, "an object")
            return self.structure(member.shape, given, path) or ABSENT
        if kind == "list":
            return self._list(member, given, path)
        if kind == "map":
            return self._map(member, given, path)
        if given == "" and not empty_is_meant(member, ec2=self._ec2, in_list=in_list):
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
            return check_integer(member, given, path, self._faults)
        if kind in ("float", "double"):
            self._expect(number, path, "a number")
            return check_float(member, self._float(given, path), path, self._faults)
        if kind == "timestamp" and number:
            try:
                return epoch_timestamp(self._float(given, path))
            except (ValueError, OverflowError):
                raise self._faults.invalid(path, None, "Expecting a time.") from None
        self._expect(isinstance(given, str), path, "text")
        return parse_scalar(member, given, path, self._faults)

    def _float(self, given: int | float, path: str) -> float:
        try:
            return float(given)
        except OverflowError:
            raise self._faults.invalid(path, None, "Expecting a finite number.") from None

    def _list(self, member: Member, given: Any, path: str) -> Any:
        element = member.shape.element
        assert element is not None
        self._expect(isinstance(given, list), path, "a list")
        values = [
            value
            for index, item in enumerate(given, 1)
            if (value := self.value(element, item, f"{path}.{index}", in_list=True)) is not ABSENT
        ]
        if not values and self._ec2:
            return ABSENT  # EC2's query protocol cannot say "an empty list"
        check_count(member, len(values), path, self._faults)
        return values

    def _map(self, member: Member, given: Any, path: str) -> Any:
        key_member, value_member = member.shape.key, member.shape.value
        assert key_member is not None and value_member is not None
        self._expect(isinstance(given, dict), path, "an object")
        found: dict[str, Any] = {}
        for key, item in given.items():
            at = f"{path}.{key}"
            value = self.value(value_member, item, at)
            if value is ABSENT:
                raise self._faults.missing(at)
            found[parse_scalar(key_member, key, at, self._faults)] = value  # type: ignore[index]
        check_count(member, len(found), path, self._faults)
        return found

    def _expect(self, holds: bool, path: str, what: str) -> None:
        if not holds:
            raise self._faults.invalid(path, None, f"Expecting {what}.")


def _render(shape: Shape, value: Any) -> Any:
    kind = shape.kind
    if kind == "structure":
        rendered = {}
        for name, item in value.items():
            member = shape.members.get(name)
            if member is None:
                raise TypeError(f"{shape.name} has no member {name!r}")
            if item is not None:
                rendered[name] = _render(member.shape, item)
        return rendered
    if kind == "list":
        assert shape.element is not None
        return [_render(shape.element.shape, item) for item in value]
    if kind == "map":
        assert shape.value is not None
        return {str(key): _render(shape.value.shape, item) for key, item in value.items()}
    if not isinstance(value, _PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise TypeError(f"{shape.name} is a {kind}, got {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{shape.name} needs a finite number")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError(f"{shape.name} needs a time with a zone")
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return str(value) if kind == "string" else value


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
