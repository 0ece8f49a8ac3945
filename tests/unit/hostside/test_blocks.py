"""The block format: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicloud.hostside import blocks
from minicloud.hostside.blocks import BLOCK_BYTES, CorruptObject, Manifest

A, B = "a" * 64, "b" * 64


def test_any_zstd_reads_what_we_compress() -> None:
    plain = b"minicloud" * 1000
    done = subprocess.run(["zstd", "-dc"], input=blocks.compress(plain), check=True, capture_output=True)
    assert done.stdout == plain


@given(st.binary(max_size=5000))
def test_compression_is_undone(plain: bytes) -> None:
    stored = blocks.compress(plain)
    assert blocks.decompress(stored, len(plain)) == plain
    assert len(stored) <= blocks.max_stored_bytes(len(plain))


@given(st.binary(max_size=500))
def test_bytes_that_are_no_frame_are_corrupt(data: bytes) -> None:
    try:
        blocks.decompress(data, 100)
    except CorruptObject:
        pass


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_damage_is_noticed(place: int, value: int) -> None:
    plain = bytes(range(256)) * 50
    stored = bytearray(blocks.compress(plain))
    stored[place % len(stored)] = value
    try:
        assert blocks.decode_block(bytes(stored), blocks.digest(plain), len(plain)) == plain
    except CorruptObject:
        pass


def test_a_bomb_is_not_unpacked() -> None:
    bomb = subprocess.run(["zstd", "-c"], input=bytes(50_000_000), check=True, capture_output=True).stdout
    assert len(bomb) < 10_000
    with pytest.raises(CorruptObject):
        blocks.decompress(bomb, BLOCK_BYTES)
    stated = blocks.compress(bytes(50_000_000))
    with pytest.raises(CorruptObject):
        blocks.decompress(stated, BLOCK_BYTES)


def test_two_frames_are_not_one_block() -> None:
    frame = blocks.compress(b"x" * 100)
    with pytest.raises(CorruptObject):
        blocks.decompress(frame + frame, BLOCK_BYTES)


@pytest.mark.parametrize(("sha256", "length"), [(A, 4), (blocks.digest(b"data"), 5), (blocks.digest(b"data"), 3)])
def test_a_block_is_what_its_name_says(sha256: str, length: int) -> None:
    with pytest.raises(CorruptObject):
        blocks.decode_block(blocks.compress(b"data"), sha256, length)


def test_zeros() -> None:
    assert blocks.is_zero(bytes(BLOCK_BYTES))
    assert blocks.is_zero(bytes(512))
    assert not blocks.is_zero(bytes(BLOCK_BYTES - 1) + b"\1")
    assert not blocks.is_zero(b"\1" + bytes(511))


def test_the_last_block_is_shorter() -> None:
    assert [blocks.block_length(BLOCK_BYTES + 512, index) for index in (0, 1)] == [BLOCK_BYTES, 512]


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    size_bytes = draw(st.integers(1, 40 * BLOCK_BYTES))
    indexes = draw(st.sets(st.integers(0, -(-size_bytes // BLOCK_BYTES) - 1)))
    return Manifest(size_bytes, tuple((i, hashlib.sha256(bytes([i])).hexdigest()) for i in sorted(indexes)))


@given(manifests())
def test_manifests_come_back(manifest: Manifest) -> None:
    assert blocks.decode_manifest(blocks.encode_manifest(manifest)) == manifest


def test_the_manifest_format_is_fixed() -> None:
    """Stored manifests and their digests outlive versions of minicloud."""
    manifest = Manifest(BLOCK_BYTES + 512, ((0, A), (1, B)))
    expected = f'{{"version":1,"size_bytes":524800,"block_bytes":524288,"blocks":[[0,"{A}"],[1,"{B}"]]}}'
    assert blocks.encode_manifest(manifest) == expected.encode()


GOOD = {"version": 1, "size_bytes": 2 * BLOCK_BYTES, "block_bytes": BLOCK_BYTES, "blocks": [[0, A], [1, B]]}


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"block_bytes": 4096},
        {"size_bytes": 0},
        {"size_bytes": -1},
        {"size_bytes": True},
        {"size_bytes": "1"},
        {"blocks": {}},
        {"blocks": [[1, A], [0, B]]},
        {"blocks": [[0, A], [0, B]]},
        {"blocks": [[2, A]]},
        {"blocks": [[-1, A]]},
        {"blocks": [[0, "../../etc/passwd"]]},
        {"blocks": [[0, A.upper()]]},
        {"blocks": [[0, A, "x"]]},
        {"blocks": [["0", A]]},
        {"blocks": ["ab"]},
        {"extra": 1},
    ],
)
def test_other_manifests_are_corrupt(change: dict[str, object]) -> None:
    with pytest.raises(CorruptObject):
        blocks.decode_manifest(json.dumps({**GOOD, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_manifest_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptObject):
        blocks.decode_manifest(data)
