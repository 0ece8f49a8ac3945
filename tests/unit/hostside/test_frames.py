"""Frames: whatever pieces the stream comes in, the same messages come out; anything else ends the connection."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicloud.hostside import frames

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
messages = st.lists(st.dictionaries(st.text(), json_values), max_size=3)


@settings(max_examples=50, deadline=None)
@given(messages, st.integers(1, 50))
def test_messages_come_out_as_they_went_in(sent: list[dict[str, object]], piece: int) -> None:
    stream = b"".join(frames.encode(message) for message in sent)
    decoder = frames.Decoder()
    received = [
        message for start in range(0, len(stream), piece) for message in decoder.feed(stream[start : start + piece])
    ]
    assert received == sent
    assert decoder.is_empty


@given(st.binary(max_size=200))
def test_noise_gives_messages_or_a_frame_error(noise: bytes) -> None:
    try:
        for message in frames.Decoder().feed(noise):
            assert isinstance(message, dict)
    except frames.FrameError:
        pass


@pytest.mark.parametrize("body", [b"[]", b"1", b"", b"{", b"\xff\xfe", b"[" * 200_000])
def test_bodies_that_are_no_objects(body: bytes) -> None:
    with pytest.raises(frames.FrameError):
        list(frames.Decoder().feed(struct.pack(">I", len(body)) + body))


def test_a_frame_above_the_limit_is_refused_before_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(frames.FrameError, match="limit"):
        list(frames.Decoder().feed(struct.pack(">I", frames.MAX_FRAME_BYTES + 1)))
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    with pytest.raises(frames.FrameError, match="limit"):
        frames.encode({"x": "y" * 100})


def test_what_is_not_json_is_not_sent() -> None:
    with pytest.raises(TypeError):
        frames.encode({"x": b"bytes"})
    with pytest.raises(ValueError, match="JSON"):
        frames.encode({"x": float("nan")})
