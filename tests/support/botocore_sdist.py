"""botocore's source distribution, which has AWS's own test vectors: protocols in and out, Signature Version 4.

It is fetched once by pip, in the version that is installed, and kept unpacked beside other caches. A test that needs it
is skipped by name, with the reason, where it cannot be had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

FETCH_SECONDS = 180
# What of the archive is kept: the vectors and who wrote them.
_KEPT = ("tests/unit/protocols/", "tests/unit/auth/aws4_testsuite/", "LICENSE.txt", "NOTICE")


def botocore_sdist() -> Path:
    """Return the folder of the unpacked sdist of the installed botocore (`tests/unit/protocols/...` below it).

    Skips the test that asks when there is none and pip cannot get it.
    """
    found = _fetch()
    if isinstance(found, str):
        pytest.skip(f"botocore's source distribution cannot be had: {found}")
    return found


@cache
def _fetch() -> Path | str:
    """Return the folder, or why there is none."""
    name = f"botocore-{version('botocore')}"
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache_home / "minicloud" / "botocore-sdist" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and moved: two runs at once never see half of it.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as aside:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--no-binary", "botocore", "--no-build-isolation", "--dest", aside, name.replace("-", "=="),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS)
        except subprocess.TimeoutExpired:
            return f"pip took longer than {FETCH_SECONDS} seconds"
        archive = Path(aside) / f"{name}.tar.gz"
        if done.returncode != 0 or not archive.exists():
            return (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
        unpacked = Path(aside) / name
        with tarfile.open(archive) as packed:
            for member in packed:
                inside = member.name.removeprefix(f"{name}/")
                content = packed.extractfile(member) if member.isreg() and inside.startswith(_KEPT) else None
                if content is not None and ".." not in inside:
                    (unpacked / inside).parent.mkdir(parents=True, exist_ok=True)
                    (unpacked / inside).write_bytes(content.read())
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder
