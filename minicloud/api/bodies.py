"""Reading a request's body: bounded in size and in time, before anything of it is believed.

A body that is too large is refused without being kept. Up to DRAIN_BYTES of it are read and thrown away first, for most
clients only look at an answer after they have sent what they had to send.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from minicloud.errors import ApiError

READ_SECONDS = 60.0
DRAIN_BYTES = 32 << 20


class BodyTooLargeError(Exception):
    """The body is larger than was allowed."""


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body. Raises BodyTooLargeError, ClientDisconnect, ApiError (RequestTimeout)."""
    declared = content_length(request)
    if declared is not None and declared > max(max_bytes, DRAIN_BYTES):
        raise BodyTooLargeError
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= max_bytes:
                    chunks.append(chunk)
                else:
                    chunks.clear()
                if size > max(max_bytes, DRAIN_BYTES):
                    raise BodyTooLargeError
    except TimeoutError:
        raise ApiError("RequestTimeout", "The request's body did not arrive in time.", 408) from None
    if size > max_bytes:
        raise BodyTooLargeError
    return b"".join(chunks)


async def stream_body(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body piece by piece, each within READ_SECONDS of the last. Raises as `read_body`."""
    declared = content_length(request)
    if declared is not None and declared > max_bytes:
        raise BodyTooLargeError
    size = 0
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(READ_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            break
        except TimeoutError:
            raise ApiError("RequestTimeout", "The request's body did not arrive in time.", 408) from None
        size += len(chunk)
        if size > max_bytes:
            raise BodyTooLargeError
        yield chunk
    if declared is not None and size != declared:
        raise ClientDisconnect


def content_length(request: Request) -> int | None:
    """Return the declared length, None where there is none or none that can be read."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
