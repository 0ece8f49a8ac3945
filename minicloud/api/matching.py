"""Filters and pages over what is in no table: regions, instance types, the parts of a VPC that follow from it.

Works on items as they are shown: a filter is a path into the reply. What has rows is filtered in the database (see
store/search.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from minicloud.aws.render import render_timestamp
from minicloud.model.patterns import matches
from minicloud.store.search import TAG_PREFIX, Asked, Filter, Found

Item = Mapping[str, Any]


class ShownFilters:
    """Filters of shown items. `paths` are dotted member names without list numbers, None for what no item has.

    `key` is the member that orders them: a text that no two items share. `has_tags` adds tag:KEY and tag-key.
    """

    def __init__(self, key: str, paths: Mapping[str, str | None], has_tags: bool = False) -> None:
        self._key = key
        self._paths = dict(paths)
        self._has_tags = has_tags
        if has_tags:
            self._paths["tag-key"] = "Tags.Key"
            self._paths["tag-value"] = "Tags.Value"

    @property
    def names(self) -> frozenset[str]:
        """The filters' names, tag:KEY aside."""
        return frozenset(self._paths)

    @property
    def has_tags(self) -> bool:
        """Whether it knows tag:KEY."""
        return self._has_tags

    def knows(self, name: str) -> bool:
        """Say whether a filter exists."""
        return name in self._paths or (self._has_tags and name.startswith(TAG_PREFIX))

    def page(self, items: Sequence[dict[str, Any]], asked: Asked) -> Found[dict[str, Any]]:
        """Return the page that is asked for, ordered by key."""
        passed = [one for one in items if all(self._passes(one, filter_) for filter_ in asked.filters)]
        passed.sort(key=lambda one: str(one[self._key]))
        if asked.after is not None:
            passed = [one for one in passed if str(one[self._key]) > str(asked.after[0])]
        if asked.limit is None or len(passed) <= asked.limit:
            return Found(passed)
        page = passed[: asked.limit]
        return Found(page, (str(page[-1][self._key]),))

    def _passes(self, item: Item, wanted: Filter) -> bool:
        shown = list(self._shown(item, wanted.name))
        return any(matches(value, text) for value in wanted.values for text in shown)

    def _shown(self, item: Item, name: str) -> Iterator[str]:
        path = self._paths.get(name)
        if path is not None:
            yield from _at(item, path.split("."))
        elif self._has_tags and name.startswith(TAG_PREFIX):
            key = name.removeprefix(TAG_PREFIX)
            yield from (tag["Value"] for tag in item["Tags"] if tag["Key"] == key)


def _at(value: Any, path: Sequence[str]) -> Iterator[str]:
    """Yield the texts at a path, with every element of the lists on the way."""
    if value is None:
        return
    if isinstance(value, list):
        for one in value:
            yield from _at(one, path)
    elif path:
        yield from _at(value.get(path[0]), path[1:])
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, datetime):
        yield render_timestamp(value)
    else:
        yield str(value)
