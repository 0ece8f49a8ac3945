"""The job `import_disk`: turns an image file into a snapshot in the object store of this machine.

Arguments: {"path", "format", "object_folder", "snapshot_id", "max_bytes", "remove_source"}; `path` has no links in it.
Inspects the file before anything else reads it, lets qemu-img convert qcow2 once, cuts the disk into blocks, stores
what the store does not have, commits the manifest. Result: {"virtual_size_bytes", "manifest_digest", "blocks",
"new_blocks"}. A refused image fails with INVALID_IMAGE and a sentence that its owner may be shown. Run by jobs.py, on
the controller's machine.

`remove_source` says the file is an upload of our own, which the controller removes when the import has ended: nobody
else writes it. Any other qcow2 is copied first (a reflink where the file system has it), so that what has been
inspected is what is converted, whatever its owner does to it meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from minicloud.hostside import codes, files, qemu_img
from minicloud.hostside.block_folder import BlockFolder, Writer, manifest_key
from minicloud.hostside.blocks import BLOCK_BYTES, Manifest, block_length, is_zero
from minicloud.hostside.failures import Failure
from minicloud.hostside.inspect import Inspection, Rejected, inspect
from minicloud.hostside.jobs import Context
from minicloud.hostside.sparse import data_blocks

THREADS = 2
MAX_IN_FLIGHT = 8
NICENESS = 10
# Up to this percent the image is being converted, from there on stored.
CONVERTED_PERCENT = 50

# A qcow2 of a full disk is a little larger than the disk.
_SOURCE_OVERHEAD = 1.02
_SOURCE_SLACK_BYTES = 64 * 1024**2
_FICLONE = 0x40049409


_ARGUMENTS = {
    "path": str,
    "format": str,
    "object_folder": str,
    "snapshot_id": str,
    "max_bytes": int,
    "remove_source": bool,
}


def check(arguments: Dict[str, Any]) -> None:
    """Refuse arguments that are none. Raises Failure."""
    if {name: type(value) for name, value in arguments.items()} != _ARGUMENTS:
        raise Failure(codes.INTERNAL, f"not the arguments of an import: {sorted(arguments)}", transient=False)
    try:
        manifest_key(arguments["snapshot_id"])
    except ValueError as error:
        raise Failure(codes.INTERNAL, str(error), transient=False) from error


def run(context: Context, arguments: Dict[str, Any]) -> Dict[str, Any]:
    """Import the file. Raises Failure: INVALID_IMAGE, NO_SPACE, UNAVAILABLE (transient), INTERNAL."""
    os.nice(NICENESS)
    try:
        with contextlib.ExitStack() as stack:
            return _import(context, stack, arguments)
    except Rejected as rejected:
        raise Failure(codes.INVALID_IMAGE, str(rejected), transient=False) from rejected
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Failure(codes.NO_SPACE, str(error), transient=False) from error
        raise Failure(codes.UNAVAILABLE, str(error), transient=True) from error


def clean(arguments: Dict[str, Any]) -> None:
    """Remove scratch files."""
    for path in _scratch_paths(arguments):
        files.remove_file(path)


def _import(context: Context, stack: contextlib.ExitStack, arguments: Dict[str, Any]) -> Dict[str, Any]:
    declared, max_bytes = arguments["format"], arguments["max_bytes"]
    folder = BlockFolder(arguments["object_folder"])
    folder.prepare()
    copy_path, raw_path = _scratch_paths(arguments)
    source_fd = fd = stack.enter_context(_opened_source(arguments["path"], max_bytes))
    inspection = inspect(fd, declared, max_bytes)
    if declared == "qcow2":
        if not arguments["remove_source"]:
            fd = stack.enter_context(_scratch(copy_path))
            _copy(source_fd, fd)
            inspection = inspect(fd, declared, max_bytes)
        qemu_img.cross_check(fd, inspection)
        raw_fd = stack.enter_context(_scratch(raw_path))
        os.ftruncate(raw_fd, inspection.virtual_size_bytes)
        qemu_img.convert_to_raw(
            fd, inspection, raw_fd, lambda percent: context.progress(percent * CONVERTED_PERCENT // 100)
        )
        fd, first_percent = raw_fd, CONVERTED_PERCENT
    else:
        first_percent = 0
    return _store(context, folder, fd, inspection, arguments["snapshot_id"], first_percent)


def _store(
    context: Context, folder: BlockFolder, fd: int, inspection: Inspection, snapshot_id: str, first_percent: int
) -> Dict[str, Any]:
    size_bytes = inspection.virtual_size_bytes
    listed: List[Tuple[int, str]] = []
    new_blocks = 0
    with folder.writing() as writer, ThreadPoolExecutor(THREADS) as pool:
        in_flight: List[Tuple[int, "Future[Optional[Tuple[str, bool]]]"]] = []

        def take_oldest() -> int:
            index, future = in_flight.pop(0)
            stored = future.result()
            context.progress(first_percent + (100 - first_percent) * index * BLOCK_BYTES // size_bytes)
            if stored is None:
                return 0
            listed.append((index, stored[0]))
            return int(stored[1])

        for index in data_blocks(fd, size_bytes):
            if len(in_flight) == MAX_IN_FLIGHT:
                new_blocks += take_oldest()
            in_flight.append((index, pool.submit(_put, writer, fd, index, block_length(size_bytes, index))))
        while in_flight:
            new_blocks += take_oldest()
        manifest_digest = writer.commit(snapshot_id, Manifest(size_bytes, tuple(listed)))
    return {
        "virtual_size_bytes": size_bytes,
        "manifest_digest": manifest_digest,
        "blocks": len(listed),
        "new_blocks": new_blocks,
    }


def _put(writer: Writer, fd: int, index: int, length: int) -> Optional[Tuple[str, bool]]:
    # A raw file may end within its last sector; the disk does not.
    data = os.pread(fd, length, index * BLOCK_BYTES).ljust(length, b"\0")
    return None if is_zero(data) else writer.put_block(data)


def _scratch_paths(arguments: Dict[str, Any]) -> Tuple[Path, Path]:
    incoming = Path(arguments["object_folder"], "incoming")
    return incoming / f"{arguments['snapshot_id']}.source", incoming / f"{arguments['snapshot_id']}.raw"


@contextlib.contextmanager
def _opened_source(path: str, max_bytes: int) -> Iterator[int]:
    try:
        # Not blocking: what is named may be a pipe that nobody writes.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO):
            raise Rejected("The file does not exist, or may not be read.") from error
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Rejected("This is not a regular file.")
        # Whoever may import was asked about this path with every link resolved. Somebody who may write in an import
        # folder can put a link in the place of one of its folders since, and have us read what is root's.
        if os.readlink(f"/proc/self/fd/{fd}") != path:
            raise Rejected("The file was moved, or its path leads over a link.")
        if found.st_size > max_bytes * _SOURCE_OVERHEAD + _SOURCE_SLACK_BYTES:
            raise Rejected(f"The file has {found.st_size} bytes, more than are allowed.")
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[int]:
    """Make a file of our own, opened; gone at the end. A dead attempt's is replaced."""
    files.remove_file(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
        files.remove_file(path)


def _copy(source_fd: int, fd: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _FICLONE, source_fd)
        return
    offset = 0
    while copied := os.sendfile(fd, source_fd, offset, 1 << 30):
        offset += copied
