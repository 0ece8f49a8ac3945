"""One row of the operation table: what an operation honours and the function that does it.

The rows themselves stand beside their handlers, as `ROWS` of each module; operations.py puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minicloud.api.services import Context

Handler = Callable[[Context, dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One operation. `honours` and `tolerates` are explained in parameters.py."""

    handler: Handler
    honours: frozenset[str] = frozenset()
    tolerates: Mapping[str, tuple[object, ...]] = field(default_factory=dict)


Rows = Mapping[str, Row]


def row(handler: Handler, *honours: str, tolerates: Mapping[str, tuple[object, ...]] | None = None) -> Row:
    """Return a row."""
    return Row(handler, frozenset(honours), tolerates or {})
