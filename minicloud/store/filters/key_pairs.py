"""Filters of DescribeKeyPairs (EC2 API reference, "Filter.N")."""

from __future__ import annotations

from minicloud.store import schema
from minicloud.store.search import FilterSet, text

_key_pairs = schema.key_pairs.c

KEY_PAIRS = FilterSet(
    {
        "key-pair-id": text(_key_pairs.id),
        "fingerprint": text(_key_pairs.fingerprint),
        "key-name": text(_key_pairs.name),
    },
    tagged=_key_pairs.id,
)
