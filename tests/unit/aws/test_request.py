from __future__ import annotations

import gzip
import tracemalloc

import pytest

from minicloud.aws.request import MAX_HEADERS, MAX_TARGET_BYTES, Headers, Request
from minicloud.errors import ApiError


def build(body: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None, **more: object) -> Request:
    return Request.build("post", b"/a%20b", b"x=1", headers or [], body, **more)  # type: ignore[arg-type]


def refused(**parts: object) -> tuple[str, int]:
    with pytest.raises(ApiError) as caught:
        build(**parts).inflated_body(1000)  # type: ignore[arg-type]
    return caught.value.code, caught.value.status


def test_parts_are_kept_as_they_were_sent() -> None:
    request = build(b"\x00\xff", [(b"X-Thing", b"caf\xc3\xa9"), (b"x-thing", b"2")])
    assert (request.method, request.path, request.query_string, request.body) == ("POST", "/a%20b", "x=1", b"\x00\xff")
    assert [v.encode("latin-1") for v in request.headers.all("X-THING")] == [b"caf\xc3\xa9", b"2"]


def test_a_header_that_must_be_one() -> None:
    headers = Headers([("A", "1"), ("b", "2"), ("B", "3")])
    assert headers.one("a") == "1"
    assert headers.one("c") is None
    with pytest.raises(ApiError, match="more than once"):
        headers.one("b")


def test_bounds() -> None:
    assert refused(body=b"x" * 11, max_body_bytes=10) == ("RequestEntityTooLarge", 413)
    assert refused(headers=[(b"a", b"b")] * (MAX_HEADERS + 1)) == ("RequestHeaderSectionTooLarge", 431)
    assert refused(headers=[(b"a", b"b" * 70_000)]) == ("RequestHeaderSectionTooLarge", 431)
    with pytest.raises(ApiError) as caught:
        Request.build("GET", b"/", b"q" * MAX_TARGET_BYTES, [], b"")
    assert (caught.value.code, caught.value.status) == ("RequestURITooLong", 414)


def test_bodies_are_inflated() -> None:
    packed = build(gzip.compress(b"Action=X"), [(b"Content-Encoding", b"GZip")])
    assert packed.inflated_body() == b"Action=X"
    assert build(b"Action=X", [(b"content-encoding", b"identity")]).inflated_body() == b"Action=X"


def test_a_bomb_is_not_inflated_beyond_the_bound() -> None:
    bomb = build(gzip.compress(b"\x00" * 50_000_000), [(b"content-encoding", b"gzip")])
    tracemalloc.start()
    try:
        with pytest.raises(ApiError):
            bomb.inflated_body(100_000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("encoding", "body", "answer"),
    [
        (b"gzip", b"not gzip", ("MalformedQueryString", 400)),
        (b"gzip", gzip.compress(b"cut")[:-3], ("MalformedQueryString", 400)),
        (b"gzip", gzip.compress(b"a") + gzip.compress(b"b"), ("MalformedQueryString", 400)),
        (b"gzip", gzip.compress(b"\x00" * 1_000_000), ("RequestEntityTooLarge", 413)),
        (b"br", b"", ("UnsupportedMediaType", 415)),
        (b"gzip, gzip", b"", ("UnsupportedMediaType", 415)),
    ],
)
def test_encoded_bodies_that_are_refused(encoding: bytes, body: bytes, answer: tuple[str, int]) -> None:
    assert refused(body=body, headers=[(b"Content-Encoding", encoding)]) == answer
