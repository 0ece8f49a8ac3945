"""Parameters of the operations that AWS does not have: plain JSON, each of a declared type, anything else refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minicloud.errors import ApiError


def take(given: Mapping[str, Any], shape: Mapping[str, type], required: tuple[str, ...]) -> dict[str, Any]:
    """Return parameters that are of the declared types; None means absent. Raises as EC2 does."""
    taken: dict[str, Any] = {}
    for name, value in given.items():
        kind = shape.get(name)
        if kind is None:
            raise ApiError("UnknownParameter", f"The parameter {name[:100]} is not recognized")
        if value is None or value == "":
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is float and number:
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ApiError("InvalidParameterValue", f"Value for parameter {name} is invalid.")
        taken[name] = value
    for name in required:
        if name not in taken:
            raise ApiError("MissingParameter", f"The request must contain the parameter {name}")
    return taken
