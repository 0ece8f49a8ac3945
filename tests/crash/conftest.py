"""Fixtures of the crash tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from support.postgresql import cluster

__all__ = ["cluster"]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The controller logs every injected failure, which is right, and thousands of them help nobody."""
    logger = logging.getLogger("minicloud")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)
