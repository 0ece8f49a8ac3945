"""Seeded simulations of whole clouds (tests/support/simulation.py). A failure names its seed:

    MINICLOUD_SIM_SEED=1234 pytest tests/sim          runs that one again (with MINICLOUD_SIM_SIZE=small if so named)
    MINICLOUD_SIM_RUNS=2000 pytest -m slow tests/sim  runs that many

What scripts/check runs is a few small clouds; tests/sim as a whole, marked slow, runs MINICLOUD_SIM_RUNS of all sizes.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
from support.simulation import SMALL, Simulation, Size

SMOKE_RUNS = 40
SIZES = {"": None, "small": SMALL}
RUNS = int(os.environ.get("MINICLOUD_SIM_RUNS", "200"))
SEED = os.environ.get("MINICLOUD_SIM_SEED")


def simulate(seeds: range, spool: Path, size: Size | None = None) -> None:
    failed: list[int] = []
    first = ""
    for seed in seeds:
        try:
            Simulation(seed, spool, size).run()
        except (AssertionError, Exception):
            failed.append(seed)
            first = first or traceback.format_exc()
    if failed:
        shown = ", ".join(map(str, failed[:20]))
        kind = "" if size is None else "small "
        pytest.fail(
            f"{len(failed)} of {len(seeds)} {kind}runs failed, seeds {shown}; the first:\n{first}", pytrace=False
        )


if SEED is not None:

    def test_one_seed(tmp_path: Path) -> None:
        Simulation(int(SEED or 0), tmp_path / "spool", SIZES[os.environ.get("MINICLOUD_SIM_SIZE", "")]).run()


@pytest.mark.parametrize("part", range(5))
def test_small_clouds_come_to_rest(part: int, tmp_path: Path) -> None:
    count = SMOKE_RUNS // 5
    simulate(range(part * count, (part + 1) * count), tmp_path / "spool", SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_clouds_of_all_sizes_come_to_rest(part: int, tmp_path: Path) -> None:
    count = RUNS // 20
    simulate(range(part * count, (part + 1) * count), tmp_path / "spool")


def test_a_seed_says_everything(tmp_path: Path) -> None:
    """Two runs of one seed do the same, else a failure could not be shown again."""
    stories = []
    for _ in range(2):
        simulation = Simulation(4242, tmp_path / "spool", SMALL)
        simulation.run()
        stories.append([line.replace(str(tmp_path), "") for line in simulation.world.log])
    assert stories[0] == stories[1]
