"""Directory pools on a file system that is really full: a small tmpfs in a mount namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

SCRIPT = """
import os, sys
from minicloud.hostside import codes, disks, pools
from minicloud.hostside.failures import Failure

state, pool = sys.argv[1], sys.argv[2]
pools.ensure_pool(state, pool)
capacity, free = pools.pool_usage(pool)
assert 0 < free <= capacity <= 1024 * 1024, (capacity, free)

def plan(number):
    path = f"{pool}/volumes/vol-{number:08x}.qcow2"
    return {"id": "x", "path": path, "format": "qcow2", "size_bytes": 1024**3, "base_path": None, "may_create": True}

made = []
for number in range(1000):
    try:
        disks.ensure_disks(state, [plan(number)])
        made.append(plan(number))
    except Failure as failure:
        assert (failure.code, failure.transient) == (codes.NO_SPACE, False), failure
        break
else:
    raise AssertionError("it never became full")
assert made
# What is there is whole, what failed left nothing, and what exists is kept on a full disk.
assert pools.list_disks(state) == [one["path"] for one in made]
disks.ensure_disks(state, made)
# Removal works on a full disk, and makes room again.
disks.ensure_no_disks([made[0]["path"]])
disks.ensure_disks(state, [plan(number)])
print("held", len(made))
"""


def test_a_full_pool_refuses_keeps_and_recovers(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    mount = 'mount -t tmpfs -o size=1m,mode=755 none "$1" && shift && exec "$@"'
    inner = ["sh", "-c", mount, "sh", pool, sys.executable, tmp_path / "script.py", tmp_path, pool]
    done = subprocess.run(["unshare", "-m", *inner], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("held ")
    assert list(pool.iterdir()) == []
