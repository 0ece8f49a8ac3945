"""The block format of snapshots: how plain bytes become content-addressed blocks, and disks become manifests.

Pure but for the library it loads: libzstd through ctypes, because Python's standard library of the hosts has none.
Nothing here touches files. Used on hosts (base_fill.py, disk_import.py, block_folder.py) and by minicloud/objects.

A disk is cut into blocks of 512 KiB (the block size of the EBS direct APIs); the last may be shorter. A block is named
by the sha256 of its plain bytes and stored as one zstd frame; blocks of zeros are not stored. A manifest is JSON,
{"version": 1, "size_bytes", "block_bytes", "blocks": [[index, sha256], ...]} with rising indexes, stored as one zstd
frame; its digest is the sha256 of the plain JSON.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import threading
from dataclasses import dataclass
from typing import Any, Optional, Tuple

BLOCK_BYTES = 512 * 1024
VERSION = 1
MAX_MANIFEST_BYTES = 256 * 1024 * 1024
COMPRESSION_LEVEL = 3

_ZEROS = bytes(BLOCK_BYTES)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class CorruptObject(Exception):
    """Stored or received bytes are not what their name or format says."""


@dataclass(frozen=True)
class Manifest:
    """A disk's content: its size and, by index, the sha256 of every block that is not zeros."""

    size_bytes: int
    blocks: Tuple[Tuple[int, str], ...]


def block_length(size_bytes: int, index: int) -> int:
    """Return how long a block of a disk of `size_bytes` is: BLOCK_BYTES, or less for the last one."""
    return min(BLOCK_BYTES, size_bytes - index * BLOCK_BYTES)


def digest(data: bytes) -> str:
    """Return the name of a block, or the digest of a manifest."""
    return hashlib.sha256(data).hexdigest()


def is_digest(text: object) -> bool:
    """Say whether `text` has the form of a digest."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def is_zero(data: bytes) -> bool:
    """Say whether a block holds nothing but zeros."""
    return data == (_ZEROS if len(data) == BLOCK_BYTES else bytes(len(data)))


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the plain bytes of a manifest; the same content always gives the same bytes."""
    document = {
        "version": VERSION,
        "size_bytes": manifest.size_bytes,
        "block_bytes": BLOCK_BYTES,
        "blocks": manifest.blocks,
    }
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def decode_manifest(data: bytes) -> Manifest:
    """Return what `encode_manifest` was given. Raises CorruptObject on anything else."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptObject("a manifest is not JSON") from error
    if not isinstance(document, dict) or set(document) != {"version", "size_bytes", "block_bytes", "blocks"}:
        raise CorruptObject("a manifest has other fields than it should")
    if document["version"] != VERSION or document["block_bytes"] != BLOCK_BYTES:
        raise CorruptObject("a manifest is of an unknown version")
    size_bytes, listed = document["size_bytes"], document["blocks"]
    if type(size_bytes) is not int or size_bytes <= 0 or not isinstance(listed, list):
        raise CorruptObject("a manifest states no size or no blocks")
    return Manifest(size_bytes, _checked_blocks(size_bytes, listed))


def _checked_blocks(size_bytes: int, listed: "list[Any]") -> Tuple[Tuple[int, str], ...]:
    count = -(-size_bytes // BLOCK_BYTES)
    previous = -1
    for entry in listed:
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not int or not is_digest(entry[1]):
            raise CorruptObject("a manifest lists something that is not a block")
        if not previous < entry[0] < count:
            raise CorruptObject("a manifest lists blocks out of order or beyond the disk's end")
        previous = entry[0]
    return tuple((index, sha256) for index, sha256 in listed)


class _Zstd:
    """The few functions of libzstd that are needed (zstd.h, "Simple API"); ctypes releases the GIL around each."""

    def __init__(self) -> None:
        library = ctypes.CDLL("libzstd.so.1")
        size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
        self.bound = library.ZSTD_compressBound
        self.bound.restype, self.bound.argtypes = size_t, [size_t]
        self.compress = library.ZSTD_compress
        self.compress.restype, self.compress.argtypes = size_t, [pointer, size_t, pointer, size_t, ctypes.c_int]
        self.decompress = library.ZSTD_decompress
        self.decompress.restype, self.decompress.argtypes = size_t, [pointer, size_t, pointer, size_t]
        self.content_size = library.ZSTD_getFrameContentSize
        self.content_size.restype, self.content_size.argtypes = ctypes.c_ulonglong, [pointer, size_t]
        self.is_error = library.ZSTD_isError
        self.is_error.restype, self.is_error.argtypes = ctypes.c_uint, [size_t]


_load_lock = threading.Lock()
_loaded: Optional[_Zstd] = None


def _zstd() -> _Zstd:
    global _loaded
    with _load_lock:
        if _loaded is None:
            _loaded = _Zstd()
        return _loaded


def compress(data: bytes) -> bytes:
    """Return `data` as one zstd frame."""
    zstd = _zstd()
    capacity = zstd.bound(len(data))
    buffer = ctypes.create_string_buffer(capacity)
    size = zstd.compress(buffer, capacity, data, len(data), COMPRESSION_LEVEL)
    if zstd.is_error(size):
        raise MemoryError("libzstd could not compress")  # Its only cause with a large enough buffer (zstd.h).
    return ctypes.string_at(buffer, size)


def decompress(data: bytes, max_bytes: int) -> bytes:
    """Return the plain bytes of a zstd frame. Raises CorruptObject, also if they are more than `max_bytes`."""
    zstd = _zstd()
    # What the frame states bounds the buffer; "unknown" and "not a frame" are the two highest values.
    stated = zstd.content_size(data, len(data))
    if stated > max_bytes:
        raise CorruptObject(f"not a zstd frame of at most {max_bytes} bytes")
    buffer = ctypes.create_string_buffer(max(stated, 1))
    size = zstd.decompress(buffer, stated, data, len(data))
    if zstd.is_error(size):
        raise CorruptObject("a zstd frame is damaged")
    return ctypes.string_at(buffer, size)


def max_stored_bytes(plain_bytes: int) -> int:
    """Return the most bytes that storing `plain_bytes` may take: more than that need not be read."""
    return int(_zstd().bound(plain_bytes))


def decode_block(data: bytes, sha256: str, length: int) -> bytes:
    """Return the plain bytes of a stored block after checking them. Raises CorruptObject."""
    plain = decompress(data, length)
    if len(plain) != length or digest(plain) != sha256:
        raise CorruptObject(f"block {sha256} holds something else")
    return plain
