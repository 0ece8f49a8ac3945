"""A cloud without a controller for every test of this folder; see support/bare_cloud.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.bare_cloud import BareCloud


@pytest.fixture
def bare() -> Iterator[BareCloud]:
    """The default network, two zones with a host each, an image."""
    cloud = BareCloud()
    yield cloud
    cloud.close()


@pytest.fixture
def empty() -> Iterator[BareCloud]:
    """The root account and its default network, no zone."""
    cloud = BareCloud(furnished=False)
    yield cloud
    cloud.close()
