"""Disk files on the controller: which ones may be imported, and the spool that uploads go to.

Owns the only file paths that a client may name. A path counts as what it is with every link resolved, and must lie in a
folder of `image_import_folders` or in the spool; nothing is said of files elsewhere, not even whether they exist.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from minicloud.api.gate import Gate
from minicloud.cloud.imports import DiskSource
from minicloud.config import Config
from minicloud.errors import ApiError

WRITE_BYTES = 1 << 20


def resolve_source(config: Config, url: str) -> DiskSource:
    """Return the file that a file:// URL names. Raises InvalidParameterValue for one that may not be imported."""
    path = _local_path(url)
    spool = os.path.realpath(config.spool_folder)
    folders = [spool, *(os.path.realpath(folder) for folder in config.image_import_folders)]
    real = os.path.realpath(path)
    if not any(_is_below(real, folder) for folder in folders):
        raise _refused("it is not in a folder that the operator allows imports from (image_import_folders)")
    try:
        found = os.lstat(real)
    except OSError:
        raise _refused("the file cannot be read") from None
    if not stat.S_ISREG(found.st_mode):
        raise _refused("it is not a file")
    if not 0 < found.st_size <= config.max_import_bytes:
        raise _refused(f"the file must have 1 to {config.max_import_bytes} bytes")
    return DiskSource(url=url, path=real, size_bytes=found.st_size, remove_when_done=_is_below(real, spool))


def _local_path(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refused("it is not a URL") from None
    try:
        path = unquote(parts.path, errors="strict")
    except UnicodeDecodeError:
        raise _refused("its path is not UTF-8") from None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise _refused("only file:// URLs of this server are supported")
    if not path.startswith("/") or "\0" in path or len(path) > 4096 or parts.query or parts.fragment:
        raise _refused("it is not an absolute path")
    return path


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _refused(why: str) -> ApiError:
    # The URL itself is not repeated: it may hold secrets where it names another kind of server.
    return ApiError("InvalidParameterValue", f"The URL of the disk image cannot be used: {why}.")


async def receive_upload(config: Config, gate: Gate, name: str, chunks: AsyncIterator[bytes]) -> DiskSource:
    """Write an upload to the spool and return it. Whatever goes wrong, nothing of it stays behind.

    Raises what `chunks` raises; ApiError InsufficientStorage when the disk is full.
    """
    folder = Path(config.spool_folder)
    path = folder / name
    try:
        await gate.run(lambda: folder.mkdir(mode=0o700, parents=True, exist_ok=True))
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                size_bytes = await _write_all(gate, file, chunks)
            if not size_bytes:
                # No import would take it, and only an import's end takes a file out of the spool.
                raise _refused(f"the file must have 1 to {config.max_import_bytes} bytes")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApiError("InsufficientStorage", "The server has no space left for this upload.", 507) from None
        raise
    return DiskSource(url="file://" + quote(str(path)), path=str(path), size_bytes=size_bytes, remove_when_done=True)


async def _write_all(gate: Gate, file: BinaryIO, chunks: AsyncIterator[bytes]) -> int:
    """Write chunks to a file, a megabyte at a time: a thread per network packet would cost more than the disk."""
    size_bytes = 0
    pending = bytearray()
    async for chunk in chunks:
        pending += chunk
        if len(pending) >= WRITE_BYTES:
            size_bytes += len(pending)
            block, pending = bytes(pending), bytearray()
            await gate.run(lambda block=block: _write(file, block))  # type: ignore[misc]
    size_bytes += len(pending)
    last = bytes(pending)
    await gate.run(lambda: _write(file, last))
    return size_bytes


def _write(file: BinaryIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def clear_spool(config: Config, in_use: Collection[str]) -> int:
    """Delete uploads that no import will fetch, and return how many: the daemon calls it before it listens."""
    removed = 0
    folder = Path(config.spool_folder)
    if not folder.is_dir():
        return 0
    wanted = {os.path.realpath(path) for path in in_use}
    for entry in folder.iterdir():
        if entry.is_file() and os.path.realpath(entry) not in wanted:
            entry.unlink(missing_ok=True)
            removed += 1
    return removed
