"""A cloud without a controller for every test of this folder; see support/bare_cloud.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from support.bare_cloud import BareCloud


@pytest.fixture
def build() -> Iterator[Callable[..., BareCloud]]:
    """Clouds of the test's own settings."""
    with ExitStack() as stack:

        def build_one(**settings: Any) -> BareCloud:
            return stack.enter_context(closing(BareCloud(**settings)))

        yield build_one


@pytest.fixture
def bare() -> Iterator[BareCloud]:
    """The default network, two zones with a host each, an image."""
    with closing(BareCloud()) as cloud:
        yield cloud


@pytest.fixture
def empty() -> Iterator[BareCloud]:
    """The root account and its default network, no zone."""
    with closing(BareCloud(furnished=False)) as cloud:
        yield cloud
