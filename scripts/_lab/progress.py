"""Shows what is being done, stage by stage, and remembers how long each took. Used by the lab and by quickstart."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


def count(number: int, noun: str) -> str:
    """Return "1 host", "2 hosts"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass
class Stages:
    """`times` lists (stage, seconds). Nothing is shown when `quiet`; `clock` counts seconds."""

    quiet: bool = False
    clock: Callable[[], float] = time.monotonic
    times: list[tuple[str, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def __call__(self, text: str) -> Iterator[None]:
        """Show a stage for the length of the block; a stage that raises is shown as failed."""
        began = self.clock()
        self._show(f"{text} … ")
        try:
            yield
        except BaseException:
            self._show(f"failed after {self.clock() - began:.1f} s\n")
            raise
        took = self.clock() - began
        self.times.append((text, took))
        self._show(f"{took:.1f} s\n")

    def _show(self, text: str) -> None:
        if not self.quiet:
            sys.stderr.write(text)
            sys.stderr.flush()
