"""Listings in both databases: what filters of every sort of column find, and pages that never skip or repeat a row."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import rows as make
from support.patterns import PATTERNS, TEXTS, naive_matches

from minicloud.aws.render import render_timestamp
from minicloud.clock import to_datetime
from minicloud.model.patterns import parse_pattern
from minicloud.model.resources import BlockDevice, Image, KeyPair, MetadataOptions
from minicloud.store import schema, search
from minicloud.store.filters.tags import find_tags
from minicloud.store.search import Asked, Filter, FilterSet, Found
from minicloud.store.store import Store, Tx

KEYS = FilterSet(
    {
        "key-name": search.text(schema.key_pairs.c.name),
        "create-time": search.time(schema.key_pairs.c.created_us),
        "owner": search.constant("me"),
        "color": search.ABSENT,
        "either": search.any_of(search.text(schema.key_pairs.c.key_type), search.text(schema.key_pairs.c.fingerprint)),
        "upper": search.when(schema.key_pairs.c.name == "A", search.text(schema.key_pairs.c.name)),
        "joined": search.text(search.concat("<", schema.key_pairs.c.name, ">")),
        "dashed": search.text(search.dotted_as_dashed(schema.key_pairs.c.name)),
    },
    schema.key_pairs.c.id,
)
IMAGES = FilterSet(
    {
        "description": search.text(schema.images.c.description),
        "is-public": search.boolean(schema.images.c.public),
        "allowed": search.listed(schema.images.c.allowed_account_ids),
        "device": search.listed_objects(
            schema.images.c.block_devices, lambda one: search.json_text(one, "device_name")
        ),
        "size": search.listed_objects(schema.images.c.block_devices, lambda one: search.json_text(one, "size_gib")),
        "encrypted": search.listed_objects(
            schema.images.c.block_devices, lambda one: search.json_text(one, "encrypted")
        ),
    }
)
VOLUMES = FilterSet({"size": search.number(schema.volumes.c.size_gib), "iops": search.number(schema.volumes.c.iops)})
INSTANCES = FilterSet(
    {
        "http-tokens": search.json_text(schema.instances.c.metadata_options, "http_tokens"),
        "hops": search.json_text(schema.instances.c.metadata_options, "http_put_response_hop_limit"),
        "reason": search.json_text(schema.instances.c.state_reason, "message"),
        "volume-id": search.through(
            schema.instances.c.id, schema.attachments.c.instance_id, search.text(schema.attachments.c.volume_id)
        ),
    }
)
MANY_EXAMPLES = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)


def key(n: int, **changes: object) -> KeyPair:
    return make.key_pair(n, **changes)


def image(n: int, **changes: object) -> Image:
    return make.image(n, **{"block_devices": (), "allowed_account_ids": (), **changes})


def found(store: Store, table: str, filters: FilterSet, *asked: Filter) -> list[str]:
    """Return the ids' numbers of the rows that pass."""
    page: Found[KeyPair] = store.read(lambda tx: getattr(tx, table).search(filters, Asked(asked)))
    assert page.after is None
    return [str(int(row.id.rpartition("-")[2], 16)) for row in page.items]


def put(store: Store, insert: Callable[[Tx], object]) -> None:
    def write(tx: Tx) -> None:
        for table in (tx.attachments, tx.instances, tx.volumes, tx.images, tx.key_pairs):
            for row in table.where():
                tx.tags.delete(row.id)
                table.delete(row.id)
        insert(tx)

    store.write(write)


@MANY_EXAMPLES
@given(patterns=st.lists(PATTERNS, min_size=1, max_size=3), texts=st.lists(TEXTS, min_size=1, max_size=5, unique=True))
def test_databases_match_as_patterns_are_defined(store: Store, patterns: list[str], texts: list[str]) -> None:
    rows = [key(n, name=text) for n, text in enumerate(texts)]
    put(store, lambda tx: tx.key_pairs.insert_many(rows))
    expected = [str(n) for n, text in enumerate(texts) if any(naive_matches(one, text) for one in patterns)]
    assert found(store, "key_pairs", KEYS, Filter("key-name", tuple(patterns))) == expected
    for one in patterns:
        alone = [str(n) for n, text in enumerate(texts) if naive_matches(one, text)]
        assert found(store, "key_pairs", KEYS, Filter("key-name", (one,))) == alone
        assert alone == [str(n) for n, text in enumerate(texts) if parse_pattern(one).matches(text)]


@MANY_EXAMPLES
@given(
    tags=st.lists(st.dictionaries(st.sampled_from(["Name", "name", "a.b", "tag:x", "*"]) | TEXTS, TEXTS), max_size=5),
    name=st.sampled_from(["Name", "name", "a.b", "tag:x", "*"]) | TEXTS,
    value=PATTERNS,
)
def test_tags(store: Store, tags: list[dict[str, str]], name: str, value: str) -> None:
    def insert(tx: Tx) -> None:
        tx.key_pairs.insert_many(key(n, name=f"key{n}") for n in range(len(tags)))
        tx.tags.set_many({make.number("key", n): one for n, one in enumerate(tags)})

    put(store, insert)

    def naive(holds: Callable[[str, str], bool]) -> list[str]:
        return [str(n) for n, pairs in enumerate(tags) if any(holds(*pair) for pair in pairs.items())]

    assert found(store, "key_pairs", KEYS, Filter(f"tag:{name}", (value,))) == naive(
        # The key of tag:KEY is no pattern.
        lambda key, text: key == name and naive_matches(value, text)
    )
    assert found(store, "key_pairs", KEYS, Filter("tag-key", (value,))) == naive(lambda k, _: naive_matches(value, k))
    assert found(store, "key_pairs", KEYS, Filter("tag-value", (value,))) == naive(lambda _, v: naive_matches(value, v))


NUMBERS = st.one_of(
    st.integers(-2, 20).map(str),
    st.sampled_from(
        ["1*", "*", "?", "1?", "*0", "01", "+1", " 1", "1.0", "-0", "", "-", "9" * 18, "9" * 30, "٣", "1_0"]
    ),
)


@MANY_EXAMPLES
@given(
    sizes=st.lists(st.tuples(st.integers(1, 20), st.none() | st.integers(1, 20)), max_size=5),
    values=st.lists(NUMBERS, min_size=1, max_size=3),
)
def test_numbers(store: Store, sizes: list[tuple[int, int | None]], values: list[str]) -> None:
    def insert(tx: Tx) -> None:
        if not tx.zones.where():
            tx.zones.insert(make.zone())
            tx.hosts.insert(make.host())
            tx.pools.insert(make.pool())
        tx.volumes.insert_many(make.volume(n, size_gib=size, iops=iops) for n, (size, iops) in enumerate(sizes))

    put(store, insert)
    for name, index in (("size", 0), ("iops", 1)):
        expected = [
            str(n)
            for n, pair in enumerate(sizes)
            if pair[index] is not None and any(naive_matches(one, str(pair[index])) for one in values)
        ]
        assert found(store, "volumes", VOLUMES, Filter(name, tuple(values))) == expected


@MANY_EXAMPLES
@given(
    times=st.lists(st.integers(0, 4_102_444_800_000_000), min_size=1, max_size=4),
    data=st.data(),
)
def test_times(store: Store, times: list[int], data: st.DataObject) -> None:
    put(store, lambda tx: tx.key_pairs.insert_many(key(n, name=f"k{n}", created_us=t) for n, t in enumerate(times)))
    shown = [render_timestamp(to_datetime(one)) for one in times]
    text = data.draw(st.sampled_from(shown))
    cut = data.draw(st.integers(0, len(text)))
    for value in (text, f"{text[:cut]}*", f"*{text[cut:]}", text[:cut] + "?" + text[cut + 1 :], text.lower()):
        expected = {str(n) for n, one in enumerate(shown) if naive_matches(value, one)}
        assert set(found(store, "key_pairs", KEYS, Filter("create-time", (value,)))) == expected


@MANY_EXAMPLES
@given(
    images=st.lists(
        st.builds(
            dict,
            public=st.booleans(),
            description=st.none() | TEXTS,
            allowed_account_ids=st.lists(TEXTS, max_size=3).map(tuple),
            block_devices=st.lists(
                st.builds(BlockDevice, TEXTS, size_gib=st.none() | st.integers(1, 12), encrypted=st.booleans()),
                max_size=3,
            ).map(tuple),
        ),
        max_size=4,
    ),
    value=st.one_of(PATTERNS, st.sampled_from(["true", "false", "True", "*e", "1", "0", "1*", "*", "null", "None"])),
)
def test_members_of_json(store: Store, images: list[dict[str, object]], value: str) -> None:
    rows = [image(n, **one) for n, one in enumerate(images)]
    put(store, lambda tx: tx.images.insert_many(rows))

    def check(name: str, values: Callable[[Image], list[object]]) -> None:
        texts = [
            [str(one).lower() if isinstance(one, bool) else str(one) for one in values(row) if one is not None]
            for row in rows
        ]
        expected = [str(n) for n, some in enumerate(texts) if any(naive_matches(value, text) for text in some)]
        assert found(store, "images", IMAGES, Filter(name, (value,))) == expected

    check("is-public", lambda row: [row.public])
    check("description", lambda row: [row.description])
    check("allowed", lambda row: list(row.allowed_account_ids))
    check("device", lambda row: [one.device_name for one in row.block_devices])
    check("encrypted", lambda row: [one.encrypted for one in row.block_devices])


@pytest.mark.parametrize(
    ("value", "numbers"), [("8", ["0"]), ("1*", ["1", "2"]), ("12", ["2"]), ("x", []), ("*", list("012"))]
)
def test_numbers_in_json(store: Store, value: str, numbers: list[str]) -> None:
    sizes = [(8,), (None, 10), (1, 12), (None,)]
    rows = [
        image(n, name=f"image{n}", block_devices=tuple(BlockDevice(f"d{i}", size_gib=g) for i, g in enumerate(some)))
        for n, some in enumerate(sizes)
    ]
    put(store, lambda tx: tx.images.insert_many(rows))
    assert found(store, "images", IMAGES, Filter("size", (value,))) == numbers


def test_a_json_object_and_other_rows(store: Store) -> None:
    def insert(tx: Tx) -> None:
        tx.zones.insert(make.zone())
        tx.hosts.insert(make.host())
        tx.pools.insert(make.pool())
        required = MetadataOptions(http_tokens="required", http_put_response_hop_limit=12)
        tx.instances.insert_many(
            [make.instance(1), make.instance(2, metadata_options=required), make.instance(3, state_reason=None)]
        )
        tx.volumes.insert_many([make.volume(1), make.volume(2)])
        tx.attachments.insert_many([make.attachment(1), make.attachment(2, instance_id=make.number("i", 3))])

    put(store, insert)

    def check(name: str, value: str, *numbers: str) -> None:
        assert found(store, "instances", INSTANCES, Filter(name, (value,))) == list(numbers)

    check("http-tokens", "required", "2")
    check("http-tokens", "*", "1", "2", "3")
    check("http-tokens", "r?quired?", "2")
    check("hops", "1", "1", "3")
    check("hops", "1*", "1", "2", "3")
    check("reason", "pending", "1", "2")
    check("reason", "*", "1", "2")
    check("volume-id", make.number("vol", 2), "3")
    check("volume-id", "vol-*", "1", "3")


def test_sorts_of_fields(store: Store) -> None:
    rows = [key(1, name="A", key_type="rsa"), key(2, name="a.b", fingerprint="rsa"), key(3, name="c", key_type="dsa")]
    put(store, lambda tx: tx.key_pairs.insert_many(rows))

    def check(name: str, values: list[str], *numbers: str) -> None:
        assert found(store, "key_pairs", KEYS, Filter(name, tuple(values))) == list(numbers)

    check("owner", ["me"], "1", "2", "3")
    check("owner", ["m?"], "1", "2", "3")
    check("owner", ["you", "*"], "1", "2", "3")
    check("owner", ["you"])
    check("color", ["*"])
    check("color", [""])
    check("either", ["rsa"], "1", "2")
    check("upper", ["*"], "1")
    check("joined", ["<c>"], "3")
    check("joined", ["<*>"], "1", "2", "3")
    check("dashed", ["a-b"], "2")
    check("key-name", ["a"])
    check("key-name", ["A", "a.?", "A"], "1", "2")
    # Filters add up.
    assert found(store, "key_pairs", KEYS, Filter("key-name", ("A", "c")), Filter("either", ("rsa",))) == ["1"]


def test_names() -> None:
    assert {"key-name", "tag-key", "tag-value"} < KEYS.names
    assert KEYS.has_tags and KEYS.knows("tag:anything") and KEYS.knows("tag:")
    assert not KEYS.knows("Key-Name") and not KEYS.knows("tag") and not KEYS.knows("Tag:x")
    assert not IMAGES.has_tags and not IMAGES.knows("tag:x") and not IMAGES.knows("tag-key")
    with pytest.raises(KeyError):
        IMAGES.conditions([Filter("tag:x", ("y",))])
    with pytest.raises(KeyError):
        KEYS.conditions([Filter("unknown", ("y",))])


@pytest.mark.parametrize("pattern", ["*a" * 127, "*a" * 127 + "b", "?" * 255, "*?" * 127 + "b", "?a*" * 85, "%_" * 100])
def test_hostile_patterns_are_answered(store: Store, pattern: str) -> None:
    """That they end at all: each of them would take longer than the world lasts if it were tried by going back."""
    texts = {"a" * 255: True, "a" * 254 + "b": True, "%_" * 100: True, "": True}
    put(store, lambda tx: tx.key_pairs.insert_many(key(n, name=text) for n, text in enumerate(texts)))
    expected = [str(n) for n, text in enumerate(texts) if parse_pattern(pattern).matches(text)]
    assert found(store, "key_pairs", KEYS, Filter("key-name", (pattern,))) == expected


CHANGES = st.lists(
    st.tuples(st.sampled_from(["insert", "delete", "retag", "rename"]), st.integers(0, 11)), min_size=0, max_size=4
)


@MANY_EXAMPLES
@given(
    born=st.lists(st.integers(0, 3), max_size=12),
    limit=st.integers(1, 5),
    changes=st.lists(CHANGES, max_size=12),
)
def test_pages_neither_skip_nor_repeat(
    store: Store, born: list[int], limit: int, changes: list[list[tuple[str, int]]]
) -> None:
    """Many rows of one moment, and rows that come, go and change between pages."""
    put(store, lambda tx: tx.key_pairs.insert_many(key(n, name=f"n{n}", created_us=us) for n, us in enumerate(born)))
    whole = [row.id for row in store.read(lambda tx: tx.key_pairs.search(KEYS)).items]
    assert whole == [make.number("key", n) for n, _ in sorted(enumerate(born), key=lambda one: (one[1], one[0]))]
    stayed = set(whole)
    seen: list[str] = []
    after, fresh = None, 100
    waiting = [*changes, *([[]] * 40)]
    while True:
        asked = Asked((Filter("key-name", ("n*", "r*")),), limit, after)
        page = store.read(lambda tx, asked=asked: tx.key_pairs.search(KEYS, asked))
        assert len(page.items) <= limit
        assert page.after is None or len(page.items) == limit
        seen += [row.id for row in page.items]
        if page.after is None:
            break
        after = page.after
        for what, n in waiting.pop(0):
            id_, fresh = make.number("key", n), fresh + 1

            def change(tx: Tx, what: str = what, n: int = n, id_: str = id_, fresh: int = fresh) -> None:
                if what == "insert":
                    tx.key_pairs.insert(key(fresh, name=f"n{fresh}", created_us=n % 5))
                elif what == "delete":
                    tx.key_pairs.delete(id_)
                elif what == "retag":
                    tx.tags.set(id_, {"a": str(fresh)})
                elif tx.key_pairs.get(id_) is not None:
                    tx.key_pairs.update(id_, name=f"r{fresh}")

            store.write(change)
            if what == "delete":
                stayed.discard(id_)
    assert len(seen) == len(set(seen))
    assert stayed <= set(seen)
    # The last page says so itself: where nothing changed, as many pages as rows fill.
    if not any(changes):
        assert seen == whole


def test_a_page_of_everything_has_no_next(store: Store) -> None:
    put(store, lambda tx: tx.key_pairs.insert_many(key(n, name=f"n{n}") for n in range(3)))

    def page(limit: int | None) -> Found[KeyPair]:
        return store.read(lambda tx: tx.key_pairs.search(KEYS, Asked(limit=limit)))

    assert page(None).after is None
    assert page(3).after is None
    assert page(2).after == (make.BORN_US, make.number("key", 1))
    empty = store.read(lambda tx: tx.key_pairs.search(KEYS, Asked(limit=1), id=[]))
    assert empty.items == [] and empty.after is None


def test_only_statements_of_few_values_are_kept_compiled(store: Store) -> None:
    def kept_after(values: int) -> int:
        filters = (Filter("key-name", tuple(f"{n}*x*y*" for n in range(values))),)

        def look(tx: Tx) -> int:
            tx.key_pairs.search(KEYS, Asked(filters))
            find_tags(tx, make.ACCOUNT, make.REGION, Asked((Filter("key", filters[0].values),)))
            return len(tx.connection.engine._compiled_cache or ())

        return store.read(look)

    few = kept_after(search.MAX_REMEMBERED_VALUES)
    assert [kept_after(search.MAX_REMEMBERED_VALUES + more) for more in (1, 2, 3)] == [few] * 3
    assert kept_after(1) == few + 2
