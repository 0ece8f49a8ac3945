"""A run says at its end how many requests it made, what was answered, and by which seed it is repeated."""

from __future__ import annotations

from typing import Any

from support.fuzz_runs import RUN


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if RUN.counts:
        terminalreporter.section("fuzz")
        terminalreporter.line(RUN.report())
