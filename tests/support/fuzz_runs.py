"""How long a run of the fuzz tests is, what it draws from, and what came of it: see tests/fuzz/test_requests.py."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, settings

ORDINARY_REQUESTS = 3500


@dataclass
class Run:
    """One run. `counts` are answers by error code, or "ok"."""

    requests: int
    seed: int
    is_ordinary: bool
    counts: Counter[str] = field(default_factory=Counter)

    def report(self) -> str:
        """Return a line about the run: how it is repeated, and what it saw."""
        total = sum(self.counts.values())
        codes = ", ".join(f"{code} {count}" for code, count in self.counts.most_common())
        return f"{total} requests (MINICLOUD_FUZZ_REQUESTS={self.requests} MINICLOUD_FUZZ_SEED={self.seed}): {codes}"


def _run() -> Run:
    requests, chosen = os.environ.get("MINICLOUD_FUZZ_REQUESTS"), os.environ.get("MINICLOUD_FUZZ_SEED")
    if requests is None and chosen is None:
        return Run(ORDINARY_REQUESTS, 1, True)
    return Run(
        int(requests or ORDINARY_REQUESTS), int(chosen) if chosen is not None else random.randrange(10**9), False
    )


RUN = _run()


def examples(count: int, **more: Any) -> settings:
    """Return settings for that many examples."""
    return settings(
        max_examples=max(count, 1),
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        **more,
    )
