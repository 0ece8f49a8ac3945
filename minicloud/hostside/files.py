"""Files of the host side: written whole or not at all, and locks that end with their holder.

It knows no meaning of any file. Every host-side module that keeps state calls it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple, Union

from minicloud.hostside import codes
from minicloud.hostside.failures import Failure

LOCK_SECONDS = 25.0
LOCK_POLL_SECONDS = 0.002

_TEMPORARY = re.compile(r"\..+\.([0-9]+)\.[0-9]+\.tmp")

# Who of this process's threads is next for a lock, by its path, and how many want it: they wait for each other by
# event, and for other processes, which is rare, by asking.
_turns: Dict[str, Tuple[threading.Lock, List[None]]] = {}
_turns_guard = threading.Lock()


def atomic_write(path: Path, data: Union[bytes, str], mode: int = 0o600, durable: bool = True) -> None:
    """Put `data` at `path` so that readers see the old or the new content, never a part.

    `durable` also syncs the file and its folder (some milliseconds): for what must outlive a power cut.
    """
    content = data.encode() if isinstance(data, str) else data
    # Several threads and processes may write the same path: each needs a temporary name of its own.
    temporary = path.with_name(".%s.%d.%d.tmp" % (path.name, os.getpid(), time.monotonic_ns()))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(content)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        remove_file(temporary)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_if_changed(path: Path, data: str, mode: int = 0o600) -> bool:
    """Write a file that can be derived again (so it is not synced), unless it holds `data` already; True if written."""
    try:
        if path.read_bytes() == data.encode():
            return False
    except FileNotFoundError:
        pass
    atomic_write(path, data, mode, durable=False)
    return True


def read_json(path: Path) -> Any:
    """Return a file's JSON value, or None where the file is absent or, after a power cut, incomplete."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def ensure_folder(path: Path, mode: int = 0o711) -> Path:
    """Make a folder and its parents, with exactly this mode on the last one; return it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        path.mkdir(parents=True, exist_ok=True)
        status = path.stat()
    if stat.S_IMODE(status.st_mode) != mode:
        path.chmod(mode)
    return path


def remove_file(path: Path) -> bool:
    """Remove a file; False where there was none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def remove_debris(folder: Path) -> None:
    """Remove what killed processes left of `atomic_write` in a folder; what living ones are writing stays."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        writer = _TEMPORARY.fullmatch(name)
        if writer is not None and not os.path.exists(f"/proc/{writer.group(1)}"):
            remove_file(folder / name)


@contextmanager
def locked(path: Path, timeout_seconds: float = LOCK_SECONDS) -> Iterator[int]:
    """Hold an exclusive lock named by `path`, among threads and processes; it ends with its holder, even by SIGKILL.

    Yields a descriptor: programs started under the lock should inherit it (`commands.run(keep=...)`), so that where
    their parent is killed the lock ends no sooner than they do. The lock's file goes with the lock's end, so that locks
    leave nothing. Raises Failure `busy` (transient) when somebody else holds it for longer than `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    with _turn(path, timeout_seconds):
        descriptor = _lock(path, deadline)
        try:
            yield descriptor
        finally:
            # Removed while held: whoever waits on this file notices (see _lock) and starts over on a new one.
            remove_file(path)
            os.close(descriptor)


@contextmanager
def _turn(path: Path, timeout_seconds: float) -> Iterator[None]:
    name = str(path)
    with _turns_guard:
        turn, waiting = _turns.setdefault(name, (threading.Lock(), []))
        waiting.append(None)
    try:
        if not turn.acquire(timeout=max(0.0, timeout_seconds)):
            raise _busy(path)
        try:
            yield
        finally:
            turn.release()
    finally:
        with _turns_guard:
            waiting.pop()
            if not waiting:
                del _turns[name]


def _busy(path: Path) -> Failure:
    return Failure(codes.BUSY, f"{path} is held by somebody else", transient=True)


def _lock(path: Path, deadline: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _flock(descriptor, path, deadline)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, path: Path, deadline: float) -> None:
    # flock(2) has no timeout. Waiting threads may not take a signal for it, so they ask again at short intervals.
    pause = LOCK_POLL_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _busy(path) from None
            time.sleep(pause)
            pause = min(pause * 1.3, 0.02)


def _is_at(descriptor: int, path: Path) -> bool:
    ours = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
