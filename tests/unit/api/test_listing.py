"""Filters, MaxResults and NextToken of a request: what is taken, what is refused by which code, and whose tokens are
whose.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import front as build

from minicloud.api.listing import (
    MAX_FILTERS,
    MAX_TOKEN_LENGTH,
    MAX_VALUE_LENGTH,
    MAX_VALUES,
    TOKEN_SECONDS,
    Listing,
    Pages,
    parse_listing,
    seal_token,
)
from minicloud.api.matching import ShownFilters
from minicloud.clock import ManualClock
from minicloud.cloud.context import Caller
from minicloud.cloud.seals import Seals
from minicloud.errors import ApiError
from minicloud.store.search import Asked, Filter

KNOWN = ShownFilters("Name", {"name": "Name", "state": "State.Name", "never": None}, has_tags=True)
UNTAGGED = ShownFilters("Name", {"name": "Name"})
PAGES = Pages(5, 1000, not_with=("Ids",))
ME = build.root_caller()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def seals(clock: ManualClock) -> Seals:
    return Seals(build.build_cloud(clock).store, build.fixed_bytes)


def parse(seals: Seals, caller: Caller = ME, operation: str = "DescribeThings", **parameters: Any) -> Listing:
    return parse_listing(seals, caller, operation, parameters, KNOWN, PAGES)


def refused(code: str, seals: Seals, **parameters: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(seals, **parameters)
    assert caught.value.code == code, caught.value
    assert caught.value.status == 400
    return caught.value


def one(name: str, *values: str) -> dict[str, Any]:
    return {"Name": name, "Values": list(values)}


def test_a_listing_takes_its_parameters_away(seals: Seals) -> None:
    parameters: dict[str, Any] = {"Filters": [one("name", "a", "b*")], "MaxResults": 7, "Ids": []}
    listing = parse_listing(seals, ME, "DescribeThings", parameters, KNOWN, PAGES)
    assert listing.asked == Asked((Filter("name", ("a", "b*")),), 7, None)
    assert parameters == {"Ids": []}


def test_nothing_asked_is_everything(seals: Seals) -> None:
    assert parse(seals).asked == Asked((), None, None)


def test_an_operation_without_pages_keeps_no_token(seals: Seals) -> None:
    listing = parse_listing(seals, ME, "DescribeThings", {"Filters": [one("name", "a")]}, KNOWN, None)
    assert listing == Listing(Asked((Filter("name", ("a",)),)), "")


# Filters


@pytest.mark.parametrize("name", ["Name", "names", "tag", "tags", "Tag:x", "state-name", " name", "name "])
def test_an_unknown_filter_is_named(seals: Seals, name: str) -> None:
    assert (
        refused("InvalidParameterValue", seals, Filters=[one(name, "x")]).message == f"The filter '{name}' is invalid"
    )


def test_an_endless_name_is_not_repeated_whole(seals: Seals) -> None:
    assert len(refused("InvalidParameterValue", seals, Filters=[one("n" * 5000, "x")]).message) < 300


def test_tags_where_there_are_tags(seals: Seals) -> None:
    asked = parse(seals, Filters=[one("tag:Name", "x"), one("tag-key", "y"), one("tag:", "z")]).asked
    assert [each.name for each in asked.filters] == ["tag:Name", "tag-key", "tag:"]
    for name in ("tag:Name", "tag-key", "tag-value"):
        with pytest.raises(ApiError, match=f"The filter '{name}' is invalid"):
            parse_listing(seals, ME, "DescribeThings", {"Filters": [one(name, "x")]}, UNTAGGED, PAGES)


@pytest.mark.parametrize(
    "filter_", [{}, {"Values": ["x"]}, {"Name": "", "Values": ["x"]}, {"Name": "name"}, one("name")]
)
def test_a_filter_has_a_name_and_values(seals: Seals, filter_: dict[str, Any]) -> None:
    refused("MissingParameter", seals, Filters=[filter_])


def test_an_empty_value_is_a_value(seals: Seals) -> None:
    assert parse(seals, Filters=[one("name", "")]).asked.filters == (Filter("name", ("",)),)


def test_limits_of_filters(seals: Seals) -> None:
    most = [one("name", "x", "y", "z", "w") for _ in range(MAX_FILTERS)]
    assert len(most) * 4 == MAX_VALUES
    assert len(parse(seals, Filters=most).asked.filters) == MAX_FILTERS
    refused("FilterLimitExceeded", seals, Filters=[*most, one("name", "x")])
    refused("FilterLimitExceeded", seals, Filters=[*most[1:], one("name", *"xyzwv")])
    refused("FilterLimitExceeded", seals, Filters=[one("name", *["x"] * (MAX_VALUES + 1))])
    longest = "x" * MAX_VALUE_LENGTH
    assert parse(seals, Filters=[one("name", longest)]).asked.filters == (Filter("name", (longest,)),)
    refused("InvalidParameterValue", seals, Filters=[one("name", longest + "x")])


def test_nul_reaches_no_database(seals: Seals) -> None:
    (found,) = parse(seals, Filters=[one("tag:a\0b", "x\0y", "z")]).asked.filters
    assert "\0" not in found.name and not any("\0" in value for value in found.values)


# Pages


@pytest.mark.parametrize(
    ("limit", "taken"), [(4, False), (5, True), (1000, True), (1001, False), (0, False), (-1, False)]
)
def test_a_page_is_within_bounds(seals: Seals, limit: int, taken: bool) -> None:
    if taken:
        assert parse(seals, MaxResults=limit).asked.limit == limit
    else:
        assert str(limit) in refused("InvalidParameterValue", seals, MaxResults=limit).message


def test_ids_and_pages_exclude_each_other(seals: Seals) -> None:
    refused("InvalidParameterCombination", seals, MaxResults=5, Ids=["i-1"])
    assert parse(seals, MaxResults=5, Ids=[]).asked.limit == 5
    assert parse(seals, Ids=["i-1"]).asked.limit is None


def test_a_token_goes_on_where_its_page_ended(seals: Seals) -> None:
    first = parse(seals, Filters=[one("name", "a*")], MaxResults=5)
    token = seal_token(seals, first, (17, "i-1"))
    # The page's size may change, and may be left out.
    for size in (5, 6, None):
        more = {} if size is None else {"MaxResults": size}
        assert parse(seals, Filters=[one("name", "a*")], NextToken=token, **more).asked == Asked(
            first.asked.filters, size, (17, "i-1")
        )


def test_a_token_tells_nothing(seals: Seals) -> None:
    listing = parse(seals, MaxResults=5)
    token = seal_token(seals, listing, (17, "i-0123456789abcdef0"))
    assert "i-0123456789" not in token and token.isascii() and len(token) < 1000
    assert token != seal_token(seals, listing, (17, "i-0123456789abcdef0"))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_tampered_token_is_refused(data: st.DataObject) -> None:
    seals = Seals(_STORE, build.fixed_bytes)
    token = seal_token(seals, parse(seals, MaxResults=5), (17, "i-1"))
    at = data.draw(st.integers(0, len(token) - 1))
    how = data.draw(st.sampled_from(["change", "cut", "add", "remove"]))
    if how == "change":
        # The last character of base64 may have bits that say nothing, and "=" is padding.
        wrong = data.draw(st.characters(min_codepoint=33, max_codepoint=0x2FF))
        at = min(at, len(token) - 4)
        changed = token[:at] + wrong + token[at + 1 :]
    elif how == "cut":
        changed = token[:at]
    elif how == "add":
        changed = token[:at] + data.draw(st.text("AZaz09-_", min_size=1, max_size=5)) + token[at:]
    else:
        changed = token[:at] + token[at + 1 :]
    if changed not in (token, ""):
        refused("InvalidNextToken", seals, NextToken=changed)


_STORE = build.build_cloud(ManualClock()).store


@pytest.mark.parametrize(
    "token",
    ["", "x", "null", "AAAA", "\u00e4", "\U0001f600" * 10, "=" * 40, "A" * (MAX_TOKEN_LENGTH + 1), "gAAAAA" * 500],
)
def test_nonsense_is_no_token(seals: Seals, token: str) -> None:
    refused("InvalidNextToken", seals, NextToken=token)


def test_a_token_expires(seals: Seals, clock: ManualClock) -> None:
    token = seal_token(seals, parse(seals, MaxResults=5), (17, "i-1"))
    clock.advance(TOKEN_SECONDS)
    assert parse(seals, NextToken=token).asked.after == (17, "i-1")
    clock.advance(2)
    assert "expired" in refused("InvalidNextToken", seals, NextToken=token).message


@pytest.mark.parametrize(
    "other",
    [
        {"operation": "DescribeOthers"},
        {"caller": Caller("200000000002", build.REGION)},
        {"caller": Caller(ME.account_id, "lab-2")},
        {"Filters": [one("name", "b")]},
        {"Filters": [one("name", "a", "b")]},
        {"Filters": [one("state", "a")]},
        {"Filters": []},
        {"Filters": [one("name", "a"), one("state", "x")]},
        {"Besides": True},
    ],
    ids=str,
)
def test_a_token_is_of_its_request_alone(seals: Seals, other: dict[str, Any]) -> None:
    request: dict[str, Any] = {"Filters": [one("name", "a")]}
    token = seal_token(seals, parse(seals, **request, MaxResults=5), (17, "i-1"))
    assert parse(seals, **request, NextToken=token).asked.after == (17, "i-1")
    refused("InvalidNextToken", seals, **{**request, **other}, NextToken=token)


def test_a_token_of_another_cloud_is_none(seals: Seals) -> None:
    stranger = Seals(build.build_cloud(ManualClock()).store, lambda count: bytes(count))
    token = seal_token(stranger, parse(stranger, MaxResults=5), (17, "i-1"))
    refused("InvalidNextToken", seals, NextToken=token)


def test_a_seal_for_another_purpose_is_no_token(seals: Seals) -> None:
    listing = parse(seals, MaxResults=5)
    refused("InvalidNextToken", seals, NextToken=seals.seal("session", {"for": listing.binding, "after": [1]}))


def test_tokens_outlive_a_restart(clock: ManualClock) -> None:
    store = build.build_cloud(clock).store
    before = Seals(store, build.fixed_bytes)
    token = seal_token(before, parse(before, MaxResults=5), (17, "i-1"))
    # Another process has other random bytes, and the same database.
    after = Seals(store, lambda count: bytes(count))
    assert parse(after, NextToken=token).asked.after == (17, "i-1")


# What is in no table


ITEMS = [
    {"Name": f"n{n}", "State": {"Name": state}, "Tags": [{"Key": "k", "Value": f"v{n}"}]}
    for n, state in enumerate("abab")
]


def names(*filters: Filter, limit: int | None = None, after: str | None = None) -> list[str]:
    key = None if after is None else (after,)
    return [each["Name"] for each in KNOWN.page(ITEMS, Asked(filters, limit, key)).items]


def test_shown_items_are_filtered_by_what_they_show() -> None:
    assert names() == ["n0", "n1", "n2", "n3"]
    assert names(Filter("state", ("a",))) == ["n0", "n2"]
    assert names(Filter("state", ("a",)), Filter("name", ("n[01]", "n1", "n2"))) == ["n2"]
    assert names(Filter("never", ("*",))) == []
    assert names(Filter("tag:k", ("v?",))) == ["n0", "n1", "n2", "n3"]
    assert names(Filter("tag:k", ("v3",))) == ["n3"]
    assert names(Filter("tag:other", ("*",))) == []
    assert names(Filter("tag-key", ("k",)), Filter("tag-value", ("v0",))) == ["n0"]


def test_shown_items_have_pages_that_nothing_makes_repeat() -> None:
    first = KNOWN.page(ITEMS, Asked(limit=2))
    assert [each["Name"] for each in first.items] == ["n0", "n1"]
    assert first.after == ("n1",)
    assert names(limit=2, after="n1") == ["n2", "n3"]
    assert KNOWN.page(ITEMS, Asked(limit=2, after=("n1",))).after is None
    assert KNOWN.page(ITEMS, Asked(limit=4)).after is None
    # The item that the page ended with may be gone by now.
    assert names(after="n0a") == ["n1", "n2", "n3"]
