"""Where built images are kept: named by the hash of the recipe that made them, one builder at a time.

Called by `images/build`. Refuses to publish a file that is not whole: a build writes a temporary file in the same
folder, and a rename makes it visible.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def default_cache_dir(environment: dict[str, str], home: Path) -> Path:
    """${XDG_CACHE_HOME:-~/.cache}/minicloud/images"""
    base = environment.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path there is invalid and is to be ignored.
    root = Path(base) if base.startswith("/") else home / ".cache"
    return root / "minicloud" / "images"


def recipe_hash(images_dir: Path, name: str) -> str:
    """Sixteen hex digits over every file that shapes image `name`: its folder, the shared parts and the builder."""
    digest = hashlib.sha256()
    roots = [images_dir / name, images_dir / "imagebuild"]
    files = [path for root in roots for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in sorted([*files, images_dir / "build"]):
        executable = os.access(path, os.X_OK)
        digest.update(f"{path.relative_to(images_dir)}\0{executable}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def exclusive(lock_file: Path) -> Iterator[bool]:
    """Hold `lock_file` for the length of the block; yields whether it had to wait for another builder."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as stream:
        waited = False
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield waited


@contextlib.contextmanager
def work_folder(cache_dir: Path, name: str) -> Iterator[Path]:
    """A folder for one build, removed with all it holds however the build ends."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache_dir))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(built: Path, target: Path) -> None:
    """Make `built` appear as `target`, whole or not at all, surviving a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if built.stat().st_dev != target.parent.stat().st_dev:
        nearby = target.with_name(f".{target.name}.part")
        shutil.copyfile(built, nearby)
        built = nearby
    built.chmod(0o644)
    with built.open("rb") as stream:
        os.fsync(stream.fileno())
    built.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
