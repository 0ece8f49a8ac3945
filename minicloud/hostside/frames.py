"""The frames that a controller and its host-side session exchange: four bytes of length, then one JSON object.

Owns the coding of both directions and its bound; knows nothing of verbs, files or processes. Called by
hostside/session.py on the host and by hosts/session.py in the controller. Standard library only.

A request is {"id", "verb", "arguments", "deadline_seconds"}; its reply {"id", "result"}, {"id", "failure": {"code",
"detail", "transient"}} or {"id", "bug": traceback}. {"ping": n} is answered by {"pong": n} at once, from the thread
that reads. The session's first frame is {"hello": {"protocol": PROTOCOL, ...}}.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Dict, Iterator

PROTOCOL = 1
MAX_FRAME_BYTES = 64 * 1024 * 1024

_LENGTH = struct.Struct(">I")


class FrameError(Exception):
    """The other side does not speak frames, or one is too large: the connection is of no more use."""


def encode(message: Dict[str, Any]) -> bytes:
    """Return a message as one frame. Raises FrameError if it is too large, TypeError if it is not JSON."""
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is above the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Turns a stream of bytes, in pieces of any size, back into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Dict[str, Any]]:
        """Take more bytes and yield every message that is now whole. Raises FrameError."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {size} bytes is above the limit of {MAX_FRAME_BYTES}")
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                message = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise FrameError(f"a frame does not hold JSON: {body[:200]!r}") from error
            if not isinstance(message, dict):
                raise FrameError(f"a frame does not hold an object: {body[:200]!r}")
            yield message

    @property
    def is_empty(self) -> bool:
        """Whether the stream may end here: no message has arrived in part."""
        return not self._buffer
