"""Fences: one lock per resource on this host, and the newest lease epoch that was seen for it.

A controller that lost its lease may have calls on the way still; whoever took the lease over calls with a higher
epoch, and from then on this host refuses the older ones. Owns `<state folder>/fences/<resource id>`: one line,
"<epoch> live" or "<epoch> ended", which is also the file that is locked. Called by verbs.py around every verb that
changes the world.

A fence outlives its resource by KEPT_SECONDS ("ended"): a late call that would make an ended instance's disks again
is refused for that long, which no call on the way can exceed, and the folder stays bounded by what lives plus one
week of what ended. Records are not synced to disk: no call that was on the way survives the loss of a running kernel.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import threading
import time
from typing import Dict, Iterator, List, Optional, Tuple

from minicloud.hostside import codes
from minicloud.hostside.failures import Failure

LOCK_SECONDS = 20.0
KEPT_SECONDS = 7 * 24 * 3600.0

_POLL_SECONDS = 0.02
_RECORD_BYTES = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Fence:
    """A resource's fence while it is held."""

    def __init__(self, fd: int, epoch: int) -> None:
        self._fd = fd
        self._epoch = epoch

    def end(self) -> None:
        """Note that the resource is gone for good: its fence may be forgotten after KEPT_SECONDS."""
        _write_record(self._fd, self._epoch, "ended")


class _Mutexes:
    """Locks between the threads of this process by name, kept only while somebody wants them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: Dict[str, Tuple[threading.Lock, List[int]]] = {}

    @contextlib.contextmanager
    def held(self, name: str, timeout_seconds: float) -> Iterator[None]:
        with self._guard:
            lock, users = self._entries.setdefault(name, (threading.Lock(), [0]))
            users[0] += 1
        try:
            if not lock.acquire(timeout=max(timeout_seconds, 0.0)):
                raise Failure(codes.BUSY, f"{name} is still at work for another call", transient=True)
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                users[0] -= 1
                if not users[0]:
                    del self._entries[name]


_mutexes = _Mutexes()


@contextlib.contextmanager
def fenced(state_folder: str, resource_id: str, epoch: int, lock_seconds: float = LOCK_SECONDS) -> Iterator[Fence]:
    """Hold the lock of a resource and admit `epoch`, or refuse it for good.

    Raises a transient Failure: "stale-epoch" for an epoch older than one seen before, "busy" if another call (of this
    session or any other) holds the resource for `lock_seconds`.
    """
    if not _NAME.fullmatch(resource_id):
        raise Failure(codes.INTERNAL, f"not a resource id: {resource_id!r}", transient=False)
    if type(epoch) is not int or not 0 <= epoch < 2**63:
        raise Failure(codes.INTERNAL, f"not an epoch: {epoch!r}", transient=False)
    path = os.path.join(folder_of(state_folder), resource_id)
    deadline = time.monotonic() + lock_seconds
    with _mutexes.held(path, lock_seconds):
        fd = _lock(path, deadline)
        try:
            seen = _read_epoch(fd)
            if seen is not None and epoch < seen:
                raise Failure(
                    codes.STALE_EPOCH, f"{resource_id}: epoch {epoch} is older than {seen}, seen before", transient=True
                )
            # Also where the epoch is the one seen: a resource that ended and is asked for again is live.
            _write_record(fd, epoch, "live")
            yield Fence(fd, epoch)
        finally:
            os.close(fd)


def forget_ended(state_folder: str, now_seconds: float) -> int:
    """Remove fences of resources that ended more than KEPT_SECONDS before `now_seconds` (Unix); return how many."""
    removed = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder_of(state_folder)):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                if entry.stat().st_mtime < now_seconds - KEPT_SECONDS:
                    removed += _forget_if_ended(entry.path)
    return removed


def folder_of(state_folder: str) -> str:
    """Return the folder of the fences."""
    return os.path.join(state_folder, "fences")


def _forget_if_ended(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.pread(fd, _RECORD_BYTES, 0).split()[1:] != [b"ended"] or not _is_still_at(fd, path):
            return 0
        os.unlink(path)
        return 1
    finally:
        os.close(fd)


def _lock(path: str, deadline: float) -> int:
    """Open and lock the fence at `path`; sessions other than ours are waited for by polling, which is rare."""
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still_at(fd, path):
                return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                name = os.path.basename(path)
                raise Failure(codes.BUSY, f"{name} is still at work for another session", transient=True) from None
            time.sleep(_POLL_SECONDS)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _is_still_at(fd: int, path: str) -> bool:
    """Say whether the locked file is the one that others find: it may have been forgotten while we waited."""
    try:
        mine, found = os.fstat(fd), os.stat(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return (mine.st_dev, mine.st_ino) == (found.st_dev, found.st_ino)


def _read_epoch(fd: int) -> Optional[int]:
    words = os.pread(fd, _RECORD_BYTES, 0).split()
    return int(words[0]) if words else None


def _write_record(fd: int, epoch: int, state: str) -> None:
    # One write of constant length: a process that dies leaves the old record or the new one.
    os.pwrite(fd, f"{epoch} {state}".ljust(_RECORD_BYTES - 1).encode() + b"\n", 0)
