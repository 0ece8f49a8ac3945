"""Reads and removes serial console logs: the file that virtlogd writes, and its rotations `.0` (newest), `.1`, ….

Owns files of the form `…/console/<instance id>.log`; refuses every other path. Called by verbs.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import List

from minicloud.hostside import codes, files
from minicloud.hostside.failures import Failure

MAX_BYTES = 4 * 1024 * 1024

# virtlogd keeps 3 by default (virtlogd.conf, max_backups); an operator may have asked for more.
_MAX_ROTATIONS = 16
_CONSOLE = re.compile(r"/.+/console/i-[0-9a-f]{8,17}\.log")


def ensure_console_folder(path: str) -> None:
    """Make the folder that a console's log will be in."""
    _check(path)
    files.ensure_folder(Path(path).parent)


def read_console(path: str, max_bytes: int) -> bytes:
    """Return the last `max_bytes` (MAX_BYTES at most) of a console, rotations included; empty if there is none."""
    _check(path)
    wanted = min(max_bytes, MAX_BYTES)
    pieces = []
    for name in _files_newest_first(path):
        if wanted <= 0:
            break
        try:
            piece = _tail(name, wanted)
        except FileNotFoundError:
            continue  # While virtlogd rotates, any one of them may be missing.
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(reversed(pieces))


def ensure_no_console(path: str) -> None:
    """Remove a console and its rotations; absent ones are fine."""
    _check(path)
    for name in _files_newest_first(path):
        files.remove_file(Path(name))


def _check(path: str) -> None:
    if not _CONSOLE.fullmatch(path) or os.path.normpath(path) != path:
        raise Failure(codes.INTERNAL, f"not the path of a console: {path!r}", transient=False)


def _files_newest_first(path: str) -> List[str]:
    return [path, *(f"{path}.{number}" for number in range(_MAX_ROTATIONS))]


def _tail(path: str, max_bytes: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        return os.pread(fd, max_bytes, max(size - max_bytes, 0))
    finally:
        os.close(fd)
