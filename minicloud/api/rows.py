"""One row of the operation table: what an operation honours and the function that does it.

The rows themselves stand beside their handlers, as `ROWS` of each module; operations.py puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minicloud.api.listing import FILTERS, MAX_RESULTS, NEXT_TOKEN, KnownFilters, Pages
from minicloud.api.services import Context

Handler = Callable[[Context, dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Row:
    """One operation. `honours` and `tolerates` are explained in parameters.py, `filters` and `pages` in listing.py."""

    handler: Handler
    honours: frozenset[str] = frozenset()
    tolerates: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    filters: KnownFilters | None = None
    pages: Pages | None = None


Rows = Mapping[str, Row]


def row(
    handler: Handler,
    *honours: str,
    tolerates: Mapping[str, tuple[object, ...]] | None = None,
    filters: KnownFilters | None = None,
    pages: Pages | None = None,
) -> Row:
    """Return a row. Filters and pages bring the parameters that they are asked by."""
    listing = ((FILTERS,) if filters is not None else ()) + ((MAX_RESULTS, NEXT_TOKEN) if pages is not None else ())
    return Row(handler, frozenset((*honours, *listing)), tolerates or {}, filters, pages)
