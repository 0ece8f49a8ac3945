"""Which parameters an operation honours. What it does not is refused, never ignored.

Each operation declares the members it reads, as dotted paths without list numbers ("Placement.AvailabilityZone"); a
path stands for everything below it. `tolerates` lists members that may be given with the values that ask for what
happens anyway (ANYTHING where that is every value). So a member that AWS adds to its model later is refused until
somebody has thought about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from minicloud.errors import ApiError

DRY_RUN = "DryRun"


class _Anything(tuple[object, ...]):
    __slots__ = ()

    def __contains__(self, value: object) -> bool:
        return True


# For `tolerates`: whatever the value is, it changes nothing here.
ANYTHING = _Anything()


def refuse_unsupported(
    parameters: Mapping[str, Any], honours: frozenset[str], tolerates: Mapping[str, tuple[object, ...]]
) -> None:
    """Raise UnsupportedOperation, naming the parameter, for the first one that would be ignored."""
    for path, value in _leaves(parameters, ""):
        if path == DRY_RUN or is_covered(path, honours):
            continue
        tolerated = tolerates.get(path, ())
        if value in tolerated:
            continue
        but = f" but with the value {tolerated[0]}" if tolerated else ""
        raise ApiError("UnsupportedOperation", f"The parameter {path} is not supported{but}.")


def is_covered(path: str, honours: frozenset[str]) -> bool:
    """Say whether a path, or one above it, is honoured."""
    parts = path.split(".")
    return any(".".join(parts[:end]) in honours for end in range(1, len(parts) + 1))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _leaves(below, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for below in value:
            yield from _leaves(below, path)
    else:
        yield path, value
