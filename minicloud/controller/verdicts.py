"""What a step of a program answers. Pure data; the engine commits it, nobody else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicloud.store.store import Tx

Facts = dict[str, object]
Writes = Callable[["Tx"], None]


class ChangedError(Exception):
    """Raised by a verdict's writes: what the step decided upon has changed, so the step must look again."""


def _no_writes(_tx: Tx) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Hop:
    """Go to another step at once. `writes` changes rows in the same transaction; `facts` None keeps the old ones."""

    step: str
    facts: Facts | None = None
    writes: Writes = field(default=_no_writes)


@dataclass(frozen=True, slots=True)
class Nap:
    """Run the same step again after `seconds`, or as soon as somebody wakes the task."""

    seconds: float
    facts: Facts | None = None
    writes: Writes = field(default=_no_writes)


@dataclass(frozen=True, slots=True)
class Done:
    """The resource is gone: forget the task."""

    writes: Writes = field(default=_no_writes)


Verdict = Hop | Nap | Done
