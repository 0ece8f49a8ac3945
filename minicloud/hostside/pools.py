"""Directory pools: folders that hold minicloud's disks on this host, and the proof that they are really there.

Owns `<state folder>/pools.json` (which folders are pools) and `<pool>/.minicloud-pool`, a marker written once. A
registered pool whose marker is missing is a file system that is not mounted: making disks in the bare folder would
give guests fresh disks in place of theirs, so everything is refused until it is back. Called by verbs.py and disks.py.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import List, Tuple

from minicloud.hostside import codes, files
from minicloud.hostside.failures import Failure

VOLUMES = "volumes"
EPHEMERAL = "ephemeral"
BASES = "bases"

_MARKER = ".minicloud-pool"


def ensure_pool(state_folder: str, pool_folder: str) -> None:
    """Make a pool's folders and remember it. Raises a transient Failure if a known pool's file system is missing."""
    if not os.path.isabs(pool_folder) or os.path.normpath(pool_folder) != pool_folder or pool_folder == "/":
        raise Failure(codes.INTERNAL, f"not a pool folder: {pool_folder!r}", transient=False)
    marker = Path(pool_folder, _MARKER)
    registered = pool_folder in pool_folders(state_folder)
    if registered and not marker.exists():
        raise Failure(codes.POOL_MISSING, f"{pool_folder}: the pool's file system is not mounted", transient=True)
    # QEMU runs as another user: it must reach files whose names it is told, and need not list them.
    files.ensure_folder(Path(pool_folder))
    for name in (VOLUMES, EPHEMERAL, BASES):
        files.ensure_folder(Path(pool_folder, name))
    if registered:
        return
    registry = Path(state_folder, "pools.json")
    with files.locked(registry.with_suffix(".lock")):
        if not marker.exists():
            files.atomic_write(marker, "This folder belongs to minicloud.\n", 0o644)
        folders = sorted({*pool_folders(state_folder), pool_folder})
        files.atomic_write(registry, json.dumps(folders))


def pool_folders(state_folder: str) -> List[str]:
    """Return the folders of every pool of this host."""
    folders = files.read_json(Path(state_folder, "pools.json"))
    return [folder for folder in folders if isinstance(folder, str)] if isinstance(folders, list) else []


def pool_usage(pool_folder: str) -> Tuple[int, int]:
    """Return (capacity, free) bytes of the file system that holds a pool."""
    usage = os.statvfs(pool_folder)
    return usage.f_blocks * usage.f_frsize, usage.f_bavail * usage.f_frsize


def list_disks(state_folder: str) -> List[str]:
    """Return the paths of all volumes and instance-store disks, also unfinished ones; bases are a cache, not listed."""
    paths = []
    for pool_folder in pool_folders(state_folder):
        for name in (VOLUMES, EPHEMERAL):
            folder = os.path.join(pool_folder, name)
            try:
                entries = list(os.scandir(folder))
            except FileNotFoundError:
                continue
            paths += [entry.path for entry in entries if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)]
    return sorted(paths)
