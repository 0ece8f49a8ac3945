"""What AWS's protocol vectors have in common, whatever the protocol."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from minicloud.aws.models import Shape


def as_python(shape: Shape, value: Any) -> Any:
    """Vectors write times as numbers and blobs as text."""
    if shape.kind == "structure":
        return {name: as_python(shape.members[name].shape, item) for name, item in value.items() if item is not None}
    if shape.kind == "list":
        assert shape.element is not None
        return [as_python(shape.element.shape, item) for item in value]
    if shape.kind == "map":
        assert shape.value is not None
        return {key: as_python(shape.value.shape, item) for key, item in value.items() if item is not None}
    if shape.kind == "timestamp":
        return datetime.fromtimestamp(value, UTC)
    return value.encode() if shape.kind == "blob" and isinstance(value, str) else value
