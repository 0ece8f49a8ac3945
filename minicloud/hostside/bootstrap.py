"""Brings the host side onto a host and starts it: hosts/session.py hands this file's text to `python3 -I -c`.

Arguments: state folder, sha256 and size of the archive, then the archive's own arguments. Writes "+" if the host
holds that archive already, else "-" and then reads it from standard input; then becomes it. It is the only code that
runs before the archive is there, so it imports nothing of minicloud's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from typing import List, Optional

KEPT_ARCHIVES = 8


def digest_of(path: str) -> Optional[str]:
    """Return the sha256 of a file, or None where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return None


def receive(size: int) -> bytes:
    """Read exactly `size` bytes of standard input. Raises EOFError if the other side goes away."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, min(size - len(data), 1 << 20))
        if not chunk:
            raise EOFError("the archive did not arrive whole")
        data += chunk
    return bytes(data)


def install(path: str, data: bytes) -> None:
    """Write the archive under its final name in one rename, so that nobody ever runs half of it."""
    part = f"{path}.{os.getpid()}.part"
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def forget_old_archives(folder: str, kept: str) -> None:
    """Keep the newest few archives: what still runs from an older one has it open by name and would miss it."""

    def age(name: str) -> float:
        return os.stat(os.path.join(folder, name)).st_mtime

    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder), key=age, reverse=True)[KEPT_ARCHIVES:]:
            if name != kept:
                os.unlink(os.path.join(folder, name))


def main(state_folder: str, digest: str, size: int, arguments: List[str]) -> None:
    """Fetch the archive if it is not there, then become it."""
    folder = os.path.join(state_folder, "hostside")
    os.makedirs(folder, mode=0o711, exist_ok=True)
    name = digest + ".pyz"
    path = os.path.join(folder, name)
    if digest_of(path) == digest:
        os.write(1, b"+")
        os.utime(path)
    else:
        os.write(1, b"-")
        data = receive(size)
        if hashlib.sha256(data).hexdigest() != digest:
            raise SystemExit("the archive that arrived is not the one that was announced")
        install(path, data)
        forget_old_archives(folder, name)
    # Anew, so that a list of processes names the archive and its program, not this text.
    os.execv(sys.executable, [sys.executable, "-I", "-S", path, *arguments])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
