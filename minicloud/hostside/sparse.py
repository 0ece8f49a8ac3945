"""Where a sparse file holds data, in blocks. Reads only; used by base_fill.py and disk_import.py."""

from __future__ import annotations

import errno
import os
from typing import Iterator

from minicloud.hostside.blocks import BLOCK_BYTES


def data_blocks(fd: int, size_bytes: int) -> Iterator[int]:
    """Yield the indexes of the blocks of a file that may hold anything but zeros, rising (lseek(2), SEEK_DATA)."""
    offset, next_index = 0, 0
    while offset < size_bytes:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # Nothing but a hole up to the end.
                return
            raise
        offset = min(os.lseek(fd, start, os.SEEK_HOLE), size_bytes)
        end_index = -(-offset // BLOCK_BYTES)
        yield from range(max(start // BLOCK_BYTES, next_index), end_index)
        next_index = max(next_index, end_index)
