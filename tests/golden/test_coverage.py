"""COVERAGE.md is what AWS's models and the operation table say. MINICLOUD_REGENERATE=1 writes it anew."""

from __future__ import annotations

import os
from pathlib import Path

from minicloud.api import coverage
from minicloud.api.operations import OPERATIONS
from minicloud.aws.models import load_service

TABLE = Path(coverage.__file__).parent / "COVERAGE.md"
HINT = "MINICLOUD_REGENERATE=1 .venv/bin/python -m pytest tests/golden/test_coverage.py"


def test_the_table_is_true() -> None:
    names = [*coverage.WHOLE, *sorted(set(OPERATIONS) - set(coverage.WHOLE))]
    services = [(load_service(name, OPERATIONS.get(name, {})), OPERATIONS.get(name, {})) for name in names]
    text = coverage.render_table(services)
    if os.environ.get("MINICLOUD_REGENERATE"):
        TABLE.write_text(text)
    assert text == TABLE.read_text(), f"make it anew: {HINT}"
