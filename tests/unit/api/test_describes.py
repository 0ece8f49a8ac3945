"""Every Describe action: its filters and pages, over clouds of random rows, are those of a naive model of its replies.

More examples: MINICLOUD_DESCRIBE_EXAMPLES=1000 (of each sort and action; 20 otherwise).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import front as build
from support import rows as make
from support.naive_filters import ITEMS, Beside, Item, Model, identity, items_of
from support.random_cloud import add_resources, change_resources, fill_cloud

from minicloud.api.operations import OPERATIONS, load_served_catalog, perform
from minicloud.api.services import Context

EXAMPLES = int(os.environ.get("MINICLOUD_DESCRIBE_EXAMPLES", "20"))
CATALOG = load_served_catalog()
ROWS = OPERATIONS["ec2"]
DESCRIBES = [name for name in ROWS if name.startswith("Describe")]
FILTERED = [name for name in DESCRIBES if ROWS[name].filters is not None]
PAGED = [name for name in DESCRIBES if ROWS[name].pages is not None]
SEEDS = st.integers(0, 11)
# Parameters besides filters that make an action show more, or other things.
BESIDES: dict[str, list[dict[str, Any]]] = {
    "DescribeInstanceStatus": [{}, {"IncludeAllInstances": True}],
    "DescribeInstanceTypeOfferings": [{}, {"LocationType": "availability-zone"}, {"LocationType": "region"}],
    "DescribeKeyPairs": [{}, {"IncludePublicKey": True}],
    "DescribeAvailabilityZones": [{}, {"AllAvailabilityZones": True}],
    # The default VPC's id: the first that every cloud of the tests makes.
    "DescribeStaleSecurityGroups": [{"VpcId": make.number("vpc", 0x1000)}],
}
RELAXED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=EXAMPLES == 20,
    print_blob=True,
)


@dataclass(frozen=True)
class World:
    """A cloud of random rows, who asks it, and what it showed of everything."""

    context: Context

    def ask(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(perform(self.context, "ec2", operation, dict(parameters)) or {})

    def beside(self) -> Beside:
        tags: dict[str, dict[str, str]] = {}
        for one in self.ask("DescribeTags", {})["Tags"]:
            tags.setdefault(one["ResourceId"], {})[one["Key"]] = one["Value"]
        groups = self.ask("DescribeSecurityGroups", {})["SecurityGroups"]
        return Beside(tags, {one["GroupId"]: one["GroupName"] for one in groups})


def new_world(seed: int) -> World:
    front = build.build_front(CATALOG)
    fill_cloud(front.cloud, seed, most=(2, 6, 12, 40)[seed % 4])
    return World(Context(front.services, build.root_caller()))


# Worlds that nobody changes.
world_of = lru_cache(maxsize=12)(new_world)


@lru_cache(maxsize=12)
def beside_of(seed: int) -> Beside:
    return world_of(seed).beside()


@lru_cache(maxsize=200)
def everything(seed: int, operation: str, besides: int) -> list[Item]:
    return items_of(operation, world_of(seed).ask(operation, BESIDES.get(operation, [{}])[besides]))


def escaped(text: str) -> str:
    return "".join(f"\\{one}" if one in "*?\\" else one for one in text)


@st.composite
def filter_values(draw: st.DrawFn, shown: list[str]) -> str:
    """A value that meets what is shown, nearly does, or does not."""
    if not shown or draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(["*", "?", "", "nonsense", "true", "false", "0", "%", "\\", "*a*b*", "?*", "é"]))
    text = draw(st.sampled_from(shown))
    first = draw(st.integers(0, len(text)))
    second = draw(st.integers(first, len(text)))
    value = draw(
        st.sampled_from(
            [
                escaped(text),
                escaped(text),
                text,
                text.swapcase(),
                f"{escaped(text[:first])}*",
                f"*{escaped(text[first:])}",
                f"*{escaped(text[first:second])}*",
                f"{escaped(text[:first])}*{escaped(text[second:])}",
                f"{escaped(text[:first])}?{escaped(text[first + 1 :])}",
                f"{escaped(text[:first])}??{escaped(text[first:])}",
                f" {text}",
                text[:first],
            ]
        )
    )
    return value[:255]


@st.composite
def some_filters(draw: st.DrawFn, operation: str, items: list[Item], beside: Beside) -> list[dict[str, Any]]:
    known = ROWS[operation].filters
    assert known is not None
    model = Model(operation)
    names = sorted(known.names)
    if known.has_tags:
        names += [f"tag:{key}" for key in ("Name", "name", "env", "owner*", "tag:x", "absent", "")]
    found = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        name = draw(st.sampled_from(names))
        shown = sorted({text for item in items for text in model.shown(name, item, beside)})
        values = [draw(filter_values(shown)) for _ in range(draw(st.sampled_from([1, 1, 2, 3])))]
        found.append({"Name": name, "Values": values})
    return found


def naive(operation: str, filters: list[dict[str, Any]], items: list[Item], beside: Beside) -> list[Item]:
    model = Model(operation)
    return [item for item in items if all(model.passes(one["Name"], one["Values"], item, beside) for one in filters)]


@pytest.mark.parametrize("operation", FILTERED)
def test_filters_pass_what_they_say(operation: str) -> None:
    @RELAXED
    @given(SEEDS, st.integers(0, len(BESIDES.get(operation, [{}])) - 1), st.data())
    def check(seed: int, besides: int, data: st.DataObject) -> None:
        items, beside = everything(seed, operation, besides), beside_of(seed)
        filters = data.draw(some_filters(operation, items, beside))
        found = world_of(seed).ask(operation, {**BESIDES.get(operation, [{}])[besides], "Filters": filters})
        assert found.get("NextToken") is None
        assert items_of(operation, found) == naive(operation, filters, items, beside)

    check()


@pytest.mark.parametrize("operation", FILTERED)
def test_each_filter_finds_each_value_that_is_shown(operation: str) -> None:
    """No filter is left to chance: with each of a few shown values, exactly those that show it are found."""
    known, model = ROWS[operation].filters, Model(operation)
    assert known is not None
    names = sorted(known.names)
    besides = len(BESIDES.get(operation, [{}])) - 1
    wrong = []
    for seed in (1, 2):
        items, beside = everything(seed, operation, besides), beside_of(seed)
        for name in [*names, *(["tag:Name", "tag:a:b"] if known.has_tags else [])]:
            shown = sorted({text for item in items for text in model.shown(name, item, beside)})
            for value in ["*", "?*", "nonsense", *(escaped(text)[:255] for text in shown[:: max(1, len(shown) // 4)])]:
                filters = [{"Name": name, "Values": [value]}]
                found = world_of(seed).ask(operation, {**BESIDES.get(operation, [{}])[besides], "Filters": filters})
                got = [identity(operation, one) for one in items_of(operation, found)]
                expected = [identity(operation, one) for one in naive(operation, filters, items, beside)]
                if got != expected:
                    wrong.append(f"{name}={value!r}: {len(got)} found, {len(expected)} expected of {len(items)}")
    assert not wrong, "\n".join(wrong)


def pages_of(world: World, operation: str, parameters: dict[str, Any], limit: int, between: Any = None) -> list[Item]:
    """Return what all pages list, one after another."""
    found: list[Item] = []
    token: str | None = None
    while True:
        more = {} if token is None else {"NextToken": token}
        reply = world.ask(operation, {**parameters, "MaxResults": limit, **more})
        page = items_of(operation, reply)
        assert len(page) <= limit
        found += page
        token = reply.get("NextToken")
        if token is None:
            return found
        # A page that is not the last is full.
        assert len(page) == limit
        if between is not None:
            between()


def in_order(operation: str, items: list[Item]) -> list[str]:
    """Return identities as they come. Instances go by reservation in one reply, which pages cut through."""
    found = [identity(operation, one) for one in items]
    return sorted(found) if operation == "DescribeInstances" else found


@pytest.mark.parametrize("operation", PAGED)
def test_pages_add_up_to_the_whole(operation: str) -> None:
    pages = ROWS[operation].pages
    assert pages is not None

    @RELAXED
    @given(SEEDS, st.integers(0, len(BESIDES.get(operation, [{}])) - 1), st.integers(0, 6), st.booleans(), st.data())
    def check(seed: int, besides: int, more: int, filtered: bool, data: st.DataObject) -> None:
        items, beside = everything(seed, operation, besides), beside_of(seed)
        parameters = dict(BESIDES.get(operation, [{}])[besides])
        if filtered and operation in FILTERED:
            parameters["Filters"] = data.draw(some_filters(operation, items, beside))
        whole = items_of(operation, world_of(seed).ask(operation, parameters))
        found = pages_of(world_of(seed), operation, parameters, pages.minimum + more)
        assert in_order(operation, found) == in_order(operation, whole)
        assert sorted(map(repr, found)) == sorted(map(repr, whole))

    check()


@pytest.mark.parametrize("operation", PAGED)
def test_what_stays_is_on_exactly_one_page(operation: str) -> None:
    """While other rows come, change and go between the pages."""
    pages = ROWS[operation].pages
    assert pages is not None

    @settings(RELAXED, max_examples=max(EXAMPLES // 4, 5))
    @given(SEEDS, st.integers(0, 3), st.integers(0, 1000))
    def check(seed: int, more: int, changes: int) -> None:
        world, numbers = new_world(seed), random.Random(changes)
        besides = BESIDES.get(operation, [{}])[-1]
        listed = [identity(operation, one) for one in items_of(operation, world.ask(operation, besides))]
        added = False

        def change() -> None:
            nonlocal added
            if not added and numbers.random() < 0.5:
                add_resources(world.context.cloud, changes)
                added = True
            elif numbers.random() < 0.5:
                change_resources(world.context.cloud, numbers.randrange(10**6))

        found = Counter(
            identity(operation, one) for one in pages_of(world, operation, besides, pages.minimum + more, change)
        )
        after = {identity(operation, one) for one in items_of(operation, world.ask(operation, besides))}
        assert [one for one, times in found.items() if times > 1] == []
        assert [one for one in listed if one in after and one not in found] == []

    check()


def test_every_describe_action_is_known_here() -> None:
    """An action that lists anything needs its entry in the model, or it would not be tested."""
    assert set(FILTERED) | set(PAGED) <= set(ITEMS)
    assert {"DescribeInstances", "DescribeImages", "DescribeTags"} <= set(FILTERED) & set(PAGED)
