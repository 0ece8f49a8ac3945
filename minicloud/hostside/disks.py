"""Makes and removes the disk files of a `directory` pool: qcow2 overlays on raw bases, blank qcow2, sparse raw.

Owns files below a pool's `volumes` and `ephemeral` folders, and nothing else: a path of any other form is refused,
to be made or to be removed. An existing disk is kept whatever is in it, never written over. Called by verbs.py.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence

from minicloud.hostside import codes, files, pools, qcow2
from minicloud.hostside.failures import Failure

# Minicloud's own naming (model/names.py): ids derive every path.
_DISK = re.compile(
    r"(?P<pool>/.+)/(?:volumes/vol-[0-9a-f]{8,17}\.qcow2|ephemeral/i-[0-9a-f]{8,17}-ephemeral[0-9]{1,2}\.raw)"
)
_BASE = re.compile(r"(?P<pool>/.+)/bases/snap-[0-9a-f]{8,17}\.raw")


def ensure_disks(state_folder: str, plans: Sequence[Dict[str, Any]]) -> None:
    """Make every disk of `plans` (DiskPlan as JSON) that does not exist and may be made.

    Raises Failure: MISSING_BASE (permanent: fill the base, then call again), NO_SPACE (permanent), POOL_MISSING
    (transient), INTERNAL for a disk that exists with another format or size than planned, or is missing
    and must not be made anew.
    """
    for pool_folder in sorted({_pool_of(plan["path"]) for plan in plans}):
        pools.ensure_pool(state_folder, pool_folder)
    for plan in plans:
        _ensure_disk(plan)


def ensure_no_disks(paths: Iterable[str]) -> None:
    """Remove disk files, finished or not; absent ones are fine. Refuses all of them if one is not a disk's path."""
    wanted = list(paths)
    for path in wanted:
        _pool_of(path)
    for path in wanted:
        files.remove_file(Path(path))
        files.remove_file(Path(_part(path)))


def _pool_of(path: str) -> str:
    match = _DISK.fullmatch(path)
    if not match or os.path.normpath(path) != path:
        raise Failure(codes.INTERNAL, f"not the path of a disk: {path!r}", transient=False)
    return match.group("pool")


def pool_of_base(path: str) -> str:
    """Return the pool of a base. Raises Failure if `path` is not a base's."""
    match = _BASE.fullmatch(path)
    if not match or os.path.normpath(path) != path:
        raise Failure(codes.INTERNAL, f"not the path of a base: {path!r}", transient=False)
    return match.group("pool")


def _part(path: str) -> str:
    return path + ".part"


def _ensure_disk(plan: Dict[str, Any]) -> None:
    path, disk_format, size_bytes = plan["path"], plan["format"], plan["size_bytes"]
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        if not plan["may_create"]:
            # Its owner's data is gone or elsewhere: an empty disk in its place would hide that.
            raise Failure(codes.INTERNAL, f"{path} should hold a used volume and is missing", transient=False) from None
        _create(path, disk_format, size_bytes, plan["base_path"])
        return
    try:
        _check_existing(fd, path, disk_format, size_bytes)
    finally:
        os.close(fd)


def _check_existing(fd: int, path: str, disk_format: str, size_bytes: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise Failure(codes.INTERNAL, f"{path} is not a file", transient=False)
    size_found = found.st_size if disk_format == "raw" else qcow2.read_size(os.pread(fd, 512, 0))
    if size_found != size_bytes:
        detail = f"{path} exists, but is not {disk_format} of {size_bytes} bytes: its size is {size_found}"
        raise Failure(codes.INTERNAL, detail, transient=False)


def _create(path: str, disk_format: str, size_bytes: int, base_path: Any) -> None:
    pieces: List[Any] = []
    file_bytes = size_bytes
    if disk_format == "qcow2":
        if base_path is not None:
            _check_base(base_path, size_bytes)
        try:
            file_bytes, pieces = qcow2.render_empty(size_bytes, base_path)
        except ValueError as error:
            raise Failure(codes.INTERNAL, f"{path}: {error}", transient=False) from error
    elif disk_format != "raw" or base_path is not None or size_bytes <= 0 or size_bytes % 512:
        raise Failure(codes.INTERNAL, f"{path}: cannot be made: {disk_format}, {size_bytes} bytes", transient=False)
    # One name for every attempt: the fence admits one at a time, and what a dead one left is truncated here.
    part = _part(path)
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(fd, file_bytes)
            for offset, data in pieces:
                os.pwrite(fd, data, offset)
            # Synced, so that a disk under its final name is whole even after a power cut; the rename may be lost.
            os.fdatasync(fd)
        finally:
            os.close(fd)
        # Not os.rename: a disk that appeared meanwhile must not be replaced.
        os.link(part, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            files.remove_file(Path(part))
            raise Failure(codes.NO_SPACE, f"{path}: {os.strerror(error.errno)}", transient=False) from error
        raise Failure(codes.UNAVAILABLE, f"{path}: {error}", transient=True) from error
    files.remove_file(Path(part))


def _check_base(base_path: str, size_bytes: int) -> None:
    pool_of_base(base_path)
    try:
        base = os.stat(base_path)
    except FileNotFoundError:
        raise Failure(codes.MISSING_BASE, f"{base_path} is not on this host", transient=False) from None
    if base.st_size > size_bytes:
        detail = f"{base_path} has {base.st_size} bytes, more than the {size_bytes} of a disk on it"
        raise Failure(codes.INTERNAL, detail, transient=False)
