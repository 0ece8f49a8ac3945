"""Writes the header of an empty qcow2 image, as `qemu-img create` does, without a process of its own.

Pure: bytes in, bytes out. Layout (QEMU's docs/interop/qcow2.txt): one cluster each for header, refcount table and
refcount block, then the L1 table; clusters of 128 KiB with extended L2 entries (32 subclusters of 4 KiB), which is
what keeps a copy-on-write of an overlay at 4 KiB. Called by disks.py; reading is inspect.py's business.
"""

from __future__ import annotations

import struct
from typing import List, Optional, Tuple

CLUSTER_BYTES = 128 * 1024
MAX_SIZE_BYTES = 64 * 1024**4

_CLUSTER_BITS = 17
_L2_ENTRY_BYTES = 16
_L2_COVERS = CLUSTER_BYTES // _L2_ENTRY_BYTES * CLUSTER_BYTES
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII8x")
_VERSION = 3
_HEADER_BYTES = 112
_INCOMPATIBLE_EXTENDED_L2 = 1 << 4
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_REFCOUNT_ORDER = 4
_MAX_BACKING_NAME_BYTES = 1023

assert _HEADER.size == _HEADER_BYTES


def render_empty(size_bytes: int, backing_path: Optional[str]) -> Tuple[int, List[Tuple[int, bytes]]]:
    """Return an empty image as (file size, [(offset, bytes), ...]); what lies between is zeros.

    `size_bytes` is a whole number of sectors; `backing_path` names a raw file. Raises ValueError.
    """
    if size_bytes % 512 or not 0 < size_bytes <= MAX_SIZE_BYTES:
        raise ValueError(f"not a size of a disk: {size_bytes}")
    name = backing_path.encode() if backing_path else b""
    if len(name) > _MAX_BACKING_NAME_BYTES:
        raise ValueError("the name of the base is too long for a qcow2 header")
    extensions = _extension(_EXTENSION_BACKING_FORMAT, b"raw") if name else b""
    extensions += _extension(0, b"")
    l1_entries = -(-size_bytes // _L2_COVERS)
    l1_clusters = -(-l1_entries * 8 // CLUSTER_BYTES)
    header = _HEADER.pack(
        b"QFI\xfb",
        _VERSION,
        _HEADER_BYTES + len(extensions) if name else 0,
        len(name),
        _CLUSTER_BITS,
        size_bytes,
        0,  # no encryption
        l1_entries,
        3 * CLUSTER_BYTES,
        CLUSTER_BYTES,
        1,
        0,  # no internal snapshots
        0,
        _INCOMPATIBLE_EXTENDED_L2,
        0,
        0,
        _REFCOUNT_ORDER,
        _HEADER_BYTES,
    )
    clusters = 3 + l1_clusters
    pieces = [
        (0, header + extensions + name),
        (CLUSTER_BYTES, struct.pack(">Q", 2 * CLUSTER_BYTES)),
        (2 * CLUSTER_BYTES, b"\x00\x01" * clusters),
    ]
    return clusters * CLUSTER_BYTES, pieces


def read_size(head: bytes) -> Optional[int]:
    """Return the virtual size that the first bytes of a qcow2 v3 image state; None if they are not one."""
    if len(head) < _HEADER_BYTES or head[:8] != struct.pack(">4sI", b"QFI\xfb", _VERSION):
        return None
    (size_bytes,) = struct.unpack_from(">Q", head, 24)
    return int(size_bytes)


def _extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)
