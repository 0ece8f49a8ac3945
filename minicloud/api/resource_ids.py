"""Which resources a request is about, for the request log: ids named in its parameters, and ids of what it made.

Knows ids by their form alone (ids.py), so an operation needs to declare nothing. Refuses to look anything up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from minicloud import ids

# Of a launch of a thousand, the first are enough to find the request by; the count says how many there were.
MAX_SHOWN = 20
MAX_DEPTH = 8

_PREFIXES = sorted({value for name, value in vars(ids).items() if name.isupper() and isinstance(value, str)})
_is_id = re.compile(f"(?:{'|'.join(_PREFIXES)})-(?:[0-9a-f]{{17}}|[0-9a-f]{{8}})").fullmatch
# What only looks makes nothing, and may answer with very much.
_LOOKS = ("Describe", "Get", "List", "Search")


def choose_resource_ids(made: Iterable[str], named: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """Return the first MAX_SHOWN ids, those of what was made before those that were named, and how many there are."""
    found = dict.fromkeys((*made, *named))
    return tuple(found)[:MAX_SHOWN], len(found)


def find_named(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return every id in parameters, wherever it stands."""
    return tuple(_named(parameters, 0))


def find_made(operation: str, output: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the ids of what an operation made, by its result, and of what that belongs to; none for one that only
    looks. The first id of a result is of what it is about: its like come first."""
    if not output or operation.startswith(_LOOKS):
        return ()
    found = list(_made(output))
    return tuple(sorted(found, key=lambda one: _prefix(one) != _prefix(found[0])))


def _prefix(resource_id: str) -> str:
    return resource_id.rpartition("-")[0]


def _named(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        if _is_id(value):
            yield value
    elif depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            for below in value.values():
                yield from _named(below, depth + 1)
        elif isinstance(value, list | tuple):
            for below in value:
                yield from _named(below, depth + 1)


def _made(output: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the shallowest level that has any: below stand the parts of what was made, and what it refers to."""
    level: list[Any] = [output]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        found = False
        for mapping in level:
            for name, value in mapping.items():
                if isinstance(value, str):
                    # A reservation is made by every launch and found by nothing.
                    if name.endswith("Id") and name != "ReservationId" and _is_id(value):
                        found = True
                        yield value
                elif isinstance(value, Mapping):
                    below.append(value)
                elif isinstance(value, list | tuple):
                    below.extend(one for one in value if isinstance(one, Mapping))
        if found or not below:
            return
        level = below
