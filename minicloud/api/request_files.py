"""The request log on disk: a ring of files of JSON lines, each line with a number one higher than the last.

A full file is followed by a new one, and the oldest goes: what is kept is bounded in bytes, not in days. Nothing is
flushed to the disk by force: a killed daemon loses nothing that was appended, a machine without power loses the last
seconds. A line that was torn is skipped by readers and harms no other. Refuses to lock: one writer is the caller's
business (request_log.py); any number may read meanwhile.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 4 << 20
MAX_FILES = 16
BLOCK_BYTES = 256 << 10

_NAME = re.compile(r"requests-(\d{16})\.jsonl").fullmatch
_SEQUENCE = re.compile(rb'\{"Sequence":(\d{1,18})[,}]').match


class RequestFiles:
    """The files below `folder`, whose parent must exist when something is appended."""

    def __init__(self, folder: Path, max_file_bytes: int = MAX_FILE_BYTES, max_files: int = MAX_FILES) -> None:
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._max_files = max_files
        self._last: int | None = None

    @property
    def last_sequence(self) -> int:
        """The number of the newest line, 0 when there is none. Survives restarts."""
        if self._last is None:
            files = self._files()
            # A file is named after its first line, so even one that holds nothing legible tells something.
            at_least = files[-1][0] - 1 if files else 0
            self._last = max(at_least, next((sequence for sequence, _ in self.newest_first()), 0))
        return self._last

    def append(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Write documents as lines, in order, after giving each its `Sequence`. Raises OSError: none was written."""
        last = self.last_sequence
        lines = b"".join(_line(last + number, one) for number, one in enumerate(documents, start=1))
        if not self._folder.is_dir():
            # Not its parents: where the state folder is missing there is nothing to keep a log of.
            self._folder.mkdir(mode=0o700)
        files = self._files()
        path = files[-1][1] if files else None
        if path is None or path.stat().st_size >= self._max_file_bytes:
            path = self._folder / f"requests-{last + 1:016d}.jsonl"
            for _, old in files[: max(0, len(files) + 1 - self._max_files)]:
                old.unlink(missing_ok=True)
        _append(path, lines)
        self._last = last + len(documents)

    def newest_first(self, before: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Yield numbers and lines from the newest back, only those numbered below `before`. Raises OSError."""
        for first, path in reversed(self._files()):
            if before is not None and first >= before:
                continue
            try:
                for line in _lines_backwards(path):
                    match = _SEQUENCE(line)
                    if match and (before is None or int(match[1]) < before):
                        yield int(match[1]), line
            except FileNotFoundError:  # the ring went on while we read
                return

    def _files(self) -> list[tuple[int, Path]]:
        """Every file with the number of its first line, the oldest first."""
        try:
            paths = list(self._folder.iterdir())
        except FileNotFoundError:
            return []
        return sorted((int(match[1]), path) for path in paths if (match := _NAME(path.name)))


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return a line's document, None for one that was torn."""
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _line(sequence: int, document: Mapping[str, Any]) -> bytes:
    # ASCII only: whatever a client put into a value, a line stays one line.
    return json.dumps({"Sequence": sequence, **document}, separators=(",", ":")).encode() + b"\n"


def _append(path: Path, lines: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines  # the last one was torn, and must not take ours with it
        if os.write(descriptor, lines) != len(lines):
            os.ftruncate(descriptor, size)
            raise OSError("the disk is full")
    finally:
        os.close(descriptor)


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        rest = b""
        while position:
            size = min(BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            yield from reversed(lines)
        yield rest
