"""The filters and pages of every Describe action are those that AWS documents for it."""

from __future__ import annotations

import pytest
from support.documented_filters import (
    ALIASES,
    EVERYWHERE,
    MISSING,
    TAGS_ANYWAY,
    documented_filters,
    has_filters,
    has_pages,
)

from minicloud.api.operations import OPERATIONS

DESCRIBES = [name for name in OPERATIONS["ec2"] if name.startswith("Describe")]
FILTERED = [name for name in DESCRIBES if has_filters(name)]


def test_the_texts_are_understood() -> None:
    """What the parsing finds, for operations whose pages are known."""
    names, tags = documented_filters("DescribeKeyPairs")
    assert names == {"key-pair-id", "fingerprint", "key-name", "tag-key"} and tags
    names, tags = documented_filters("DescribeRegions")
    assert names == {"endpoint", "opt-in-status", "region-name"} and not tags
    names, tags = documented_filters("DescribeImages")
    assert {"architecture", "is-public", "block-device-mapping.volume-size"} < names and tags
    assert not any(" " in name or ":" in name for name in names)


@pytest.mark.parametrize("name", FILTERED)
def test_filters_are_the_documented_ones(name: str) -> None:
    known = OPERATIONS["ec2"][name].filters
    assert known is not None
    documented, tags = documented_filters(name)
    missing = MISSING.get(name, {})
    assert not set(missing).difference(documented), "an exception for what is not documented"
    assert documented.difference(known.names, missing) == set()
    assert known.names.difference(documented, EVERYWHERE, ALIASES.get(name, {})) == set()
    assert not known.names.intersection(missing), "an exception that is none any more"
    assert known.has_tags is (tags or name in TAGS_ANYWAY)
    for one in documented.difference(missing):
        assert known.knows(one)
    assert known.knows("tag:any key") is known.has_tags
    # Without tags there is nothing to ask for by their parts, unless the operation says otherwise.
    if not known.has_tags:
        assert not known.names.intersection(EVERYWHERE.difference(documented))


@pytest.mark.parametrize("name", DESCRIBES)
def test_pages_are_where_ec2_has_them(name: str) -> None:
    row = OPERATIONS["ec2"][name]
    assert (row.pages is not None) is has_pages(name)
    assert (row.filters is not None) is has_filters(name)


def test_exceptions_are_of_operations_that_exist() -> None:
    for name in (*ALIASES, *TAGS_ANYWAY, *MISSING):
        assert name in FILTERED
