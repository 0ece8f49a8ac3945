"""What came over HTTP, as a plain value: bounded, and independent of the web framework.

Owns the bounds on a request's size and shape, and inflating its body. Refuses to know what any of it means.
Made by the front door (api/), read by dispatch, sigv4 and query.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from minicloud.errors import ApiError

# AWS bounds a PutMetricData body at 1 MB, the largest of the operations served here.
MAX_BODY_BYTES = 1 << 20
MAX_TARGET_BYTES = 64 << 10  # path and query string
MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 << 10  # all together


class Headers:
    """Header fields in the order they came; names without regard to case, a name may come more than once."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields = tuple((name.lower(), value) for name, value in fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def all(self, name: str) -> list[str]:
        """Every value of the field, in order."""
        name = name.lower()
        return [value for field, value in self._fields if field == name]

    def one(self, name: str) -> str | None:
        """The field's value, None when absent. Raises ApiError when it came twice: neither is to be believed."""
        values = self.all(name)
        if len(values) > 1:
            raise ApiError("InvalidRequest", f"The header {name} has been specified more than once")
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `path` and `query_string` are as on the wire (percent-encoded, no `?`); header values are
    Latin-1 readings of the wire's bytes, so that encoding them back gives those bytes."""

    method: str
    path: str
    query_string: str
    headers: Headers
    body: bytes

    @classmethod
    def build(
        cls,
        method: str,
        raw_path: bytes,
        query_string: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> Request:
        """Take an ASGI scope's parts. Raises ApiError (413, 414, 431) past the bounds.

        The body must already be bounded while it was read; the check here is for callers that had it whole.
        """
        if len(raw_path) + len(query_string) > MAX_TARGET_BYTES:
            raise ApiError("RequestURITooLong", "The request's address is too long.", 414)
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        if len(fields) > MAX_HEADERS or sum(len(n) + len(v) for n, v in fields) > MAX_HEADER_BYTES:
            raise ApiError("RequestHeaderSectionTooLarge", "The request's headers are too large.", 431)
        if len(body) > max_body_bytes:
            raise body_too_large(max_body_bytes)
        return cls(
            method=method.upper(),
            path=raw_path.decode("latin-1") or "/",
            query_string=query_string.decode("latin-1"),
            headers=Headers(fields),
            body=body,
        )

    def inflated_body(self, max_body_bytes: int = MAX_BODY_BYTES) -> bytes:
        """The body without its Content-Encoding (identity or gzip). Raises ApiError: 415, 413 or malformed."""
        encoding = (self.headers.one("content-encoding") or "identity").strip().lower()
        if encoding in ("identity", ""):
            return self.body
        if encoding != "gzip":
            raise ApiError("UnsupportedMediaType", "The request's Content-Encoding is not supported.", 415)
        inflater = zlib.decompressobj(wbits=31)
        try:
            plain = inflater.decompress(self.body, max_body_bytes + 1)
        except zlib.error:
            raise _bad_gzip() from None
        if len(plain) > max_body_bytes:
            raise body_too_large(max_body_bytes)
        if not inflater.eof or inflater.unused_data:
            raise _bad_gzip()
        return plain


def body_too_large(max_body_bytes: int) -> ApiError:
    """The answer to a body past the bound; for the front door, which finds out while reading."""
    return ApiError("RequestEntityTooLarge", f"The request's body is larger than {max_body_bytes} bytes.", 413)


def _bad_gzip() -> ApiError:
    return ApiError("MalformedQueryString", "The request's body is not valid gzip.")
