"""Turns table rows into frozen dataclasses and back. Pure; prepared once per dataclass, so a row costs microseconds.

How a field is stored follows from its annotation: texts, numbers, booleans and bytes as they are; a StrEnum as its
text; tuples, dicts and nested dataclasses as JSON text.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")
Convert = Callable[[Any], Any]

_dump = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False).encode
_PLAIN = (str, int, float, bool, bytes)
# Nested values repeat across rows (every instance's metadata options are alike) and are frozen, so they are shared.
_SHARED_VALUES = 1024


class Codec(Generic[Row]):
    """Encodes and decodes one dataclass. `columns` are its fields in order, `comparable` those not stored as JSON."""

    def __init__(self, kind: type[Row]) -> None:
        self._kind = kind
        hints = typing.get_type_hints(kind)
        self.columns = tuple(field.name for field in dataclasses.fields(kind))  # type: ignore[arg-type]
        self.comparable = frozenset(name for name in self.columns if _is_comparable(hints[name]))
        self._encoders: dict[str, Convert] = {}
        self._decoders: list[tuple[int, Convert]] = []
        for index, name in enumerate(self.columns):
            pair = _converters(hints[name])
            if pair is not None:
                self._encoders[name] = pair[0]
                self._decoders.append((index, pair[1]))

    def encode(self, row: Row) -> dict[str, Any]:
        """Return the row as column values."""
        values = {name: getattr(row, name) for name in self.columns}
        for name, convert in self._encoders.items():
            if values[name] is not None:
                values[name] = convert(values[name])
        return values

    def encode_some(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return some fields as column values. Raises TypeError for a field that does not exist."""
        unknown = set(changes).difference(self.columns)
        if unknown:
            raise TypeError(f"{self._kind.__name__} has no {', '.join(sorted(unknown))}")
        return {name: self.encode_value(name, value) for name, value in changes.items()}

    def encode_value(self, name: str, value: Any) -> Any:
        """Return one field's value as its column holds it."""
        convert = self._encoders.get(name)
        return value if convert is None or value is None else convert(value)

    def decode(self, values: Sequence[Any]) -> Row:
        """Return the dataclass of column values in the order of `columns`."""
        fields = list(values)
        for index, convert in self._decoders:
            if fields[index] is not None:
                fields[index] = convert(fields[index])
        return self._kind(*fields)


def _is_comparable(hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return all(part is type(None) or _is_comparable(part) for part in typing.get_args(hint))
    return hint in _PLAIN or (isinstance(hint, type) and issubclass(hint, StrEnum))


def _converters(hint: Any) -> tuple[Convert, Convert] | None:
    """Return (encode, decode) for an annotation, or None where values are stored as they are."""
    if isinstance(hint, types.UnionType):
        (inner,) = (part for part in typing.get_args(hint) if part is not type(None))
        return _converters(inner)
    if hint in _PLAIN:
        return None
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        members = {member.value: member for member in hint}
        # Encoding checks the value, so that a text which is no member never reaches the database.
        return (lambda value: hint(value).value), members.__getitem__
    if typing.get_origin(hint) is dict:
        return _dump, json.loads
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        build = _builder(hint)
        return (lambda value: _dump(dataclasses.asdict(value))), lru_cache(_SHARED_VALUES)(
            lambda text: build(json.loads(text))
        )
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if item is str:
            return (lambda value: _dump(list(value))), lru_cache(_SHARED_VALUES)(lambda text: tuple(json.loads(text)))
        build = _builder(item)
        return (lambda value: _dump([dataclasses.asdict(one) for one in value])), lru_cache(_SHARED_VALUES)(
            lambda text: tuple(build(one) for one in json.loads(text))
        )
    raise TypeError(f"the store cannot hold a field of type {hint!r}")


def _builder(kind: type) -> Callable[[dict[str, Any]], Any]:
    """Return what rebuilds a flat dataclass; fields that an older minicloud did not write get their defaults."""
    for name, hint in typing.get_type_hints(kind).items():
        if _converters(hint) is not None:
            raise TypeError(f"{kind.__name__}.{name} nests too deep for the store")
    return lambda values: kind(**values)
