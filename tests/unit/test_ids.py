"""ids.py: EC2's forms."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from minicloud import ids
from minicloud.model import names


def test_made_ids_have_ec2s_long_form_and_differ() -> None:
    made = {ids.make_id(ids.INSTANCE) for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"i-[0-9a-f]{17}", one) for one in made)
    assert all(ids.is_well_formed(one, ids.INSTANCE) for one in made)


def test_short_and_long_forms_are_well_formed_and_nothing_else() -> None:
    assert ids.is_well_formed("i-12345678", ids.INSTANCE)
    for bad in ("i-1234567", "i-123456789", "vol-12345678", "i-1234567g", "i-12345678\n", "", "i-", "I-12345678"):
        assert not ids.is_well_formed(bad, ids.INSTANCE)


@given(st.text())
def test_any_text_may_be_asked_about(text: str) -> None:
    assert ids.is_well_formed(text, ids.VOLUME) == bool(re.fullmatch(r"vol-([0-9a-f]{8}|[0-9a-f]{17})\Z", text))


def test_derived_ids_depend_on_every_part() -> None:
    assert ids.derived_id("eni", "a", "b") == ids.derived_id("eni", "a", "b")
    assert ids.derived_id("eni", "a", "b") != ids.derived_id("eni", "ab", "")
    assert ids.is_well_formed(ids.derived_id("eni", "a"), "eni")


def test_kernel_names_fit_into_fifteen_bytes() -> None:
    for make in (names.tap, names.bridge, names.bridge_veth, names.router_veth, names.transit_veth):
        assert len(make(ids.make_id("subnet"))) <= 15
    assert len(names.router_transit_veth(ids.make_id("vpc"))) <= 15


def test_serials_fit_into_virtio_blks_twenty_bytes() -> None:
    assert len(names.volume_serial(ids.make_id(ids.VOLUME))) == 20


def test_owner_of_a_disk_file_is_in_its_name() -> None:
    pool = names.DEFAULT_POOL_FOLDER
    assert names.owner_of(names.volume_path(pool, "vol-0123456789abcdef0")) == "vol-0123456789abcdef0"
    assert names.owner_of(names.base_path(pool, "snap-0123456789abcdef0")) == "snap-0123456789abcdef0"
    assert names.owner_of(names.ephemeral_path(pool, "i-0123456789abcdef0", "ephemeral1")) == "i-0123456789abcdef0"
