"""The object store in a folder: blocks and manifests as files, written, read, collected.

Owns `blocks/<first two digits>/<sha256>.zst`, `manifests/<snapshot id>.zst`, `tmp/`, `incoming/` (scratch of imports),
`lock` and `garbage` below one root. Never trusts a name: what is read is verified, and a stored block is verified
before it is used again for another snapshot, since a crash may have left it half written. Used by disk_import.py on
the controller's machine and by minicloud/objects.

Durability: a manifest is the commit. Blocks are written without syncs; one syncfs before the manifest covers them all,
also blocks that another writer has just written.

Garbage: a block may go when no manifest names it. Writers hold `lock` shared from their first look for a block to
their manifest; a collection takes it exclusively or not at all, so it never sees a half-written snapshot and never
makes anybody wait for an import. What it could not do then is noted in `garbage` and done by the last writer to end,
or by the next collection. A manifest that cannot be read stops every collection: nothing is deleted on a guess.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import os
import re
from pathlib import Path
from typing import Iterator, List, Optional, Set, Tuple

from minicloud.hostside import files
from minicloud.hostside.blocks import (
    BLOCK_BYTES,
    MAX_MANIFEST_BYTES,
    CorruptObject,
    Manifest,
    compress,
    decode_block,
    decode_manifest,
    decompress,
    digest,
    encode_manifest,
    is_digest,
    max_stored_bytes,
)

_SNAPSHOT = re.compile(r"snap-[0-9a-f]{8,17}")
_temporary_numbers = itertools.count()


def block_key(sha256: str) -> str:
    """Return the key of a block: its path below the root. Raises ValueError if it is not a digest."""
    if not is_digest(sha256):
        raise ValueError(f"not a digest: {sha256!r}")
    return f"blocks/{sha256[:2]}/{sha256}.zst"


def manifest_key(snapshot_id: str) -> str:
    """Return the key of a snapshot's manifest. Raises ValueError if that is not a snapshot's id."""
    if not _SNAPSHOT.fullmatch(snapshot_id):
        raise ValueError(f"not a snapshot id: {snapshot_id!r}")
    return f"manifests/{snapshot_id}.zst"


class BlockFolder:
    """One root folder of blocks and manifests. Safe in any number of threads and processes."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def prepare(self) -> None:
        """Make the folders; images are nobody else's business, so only their owner may enter."""
        files.ensure_folder(self.root, 0o700)
        for name in ("blocks", "manifests", "tmp", "incoming"):
            files.ensure_folder(self.root / name, 0o700)

    @contextlib.contextmanager
    def writing(self) -> Iterator["Writer"]:
        """Hold off collections while blocks are put and their manifest is committed; then do what was held off."""
        self.prepare()
        fd = self._open_lock()
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield Writer(self)
        finally:
            os.close(fd)
        if (self.root / "garbage").exists():
            with contextlib.suppress(CorruptObject):  # The daemon's own collections report it.
                self.collect()

    def read_block(self, sha256: str, length: int) -> bytes:
        """Return a block's plain bytes, verified. Raises KeyError if there is none, CorruptObject."""
        return decode_block(self.read_stored_block(sha256), sha256, length)

    def read_stored_block(self, sha256: str) -> bytes:
        """Return a block as it is stored, unverified: who receives it verifies it. Raises KeyError, CorruptObject."""
        return self._read(block_key(sha256), max_stored_bytes(BLOCK_BYTES))

    def read_manifest(self, snapshot_id: str) -> Tuple[Manifest, str]:
        """Return a snapshot's manifest and its digest. Raises KeyError if there is none, CorruptObject."""
        plain = decompress(self._read(manifest_key(snapshot_id), MAX_MANIFEST_BYTES), MAX_MANIFEST_BYTES)
        return decode_manifest(plain), digest(plain)

    def snapshot_ids(self) -> List[str]:
        """Return the ids of all committed snapshots."""
        try:
            names = os.listdir(self.root / "manifests")
        except FileNotFoundError:
            return []
        return sorted(name[:-4] for name in names if name.endswith(".zst") and _SNAPSHOT.fullmatch(name[:-4]))

    def delete_manifest(self, snapshot_id: str) -> None:
        """Remove a snapshot; absent is fine. Its blocks stay until `collect`."""
        path = self.root / manifest_key(snapshot_id)
        if path.exists():
            self.note_garbage()
            files.remove_file(path)
            files.sync_folder(path.parent)

    def note_garbage(self) -> None:
        """Remember that blocks may have become unreferenced."""
        (self.root / "garbage").touch()

    def collect(self) -> Optional[int]:
        """Remove blocks that no manifest names, and leftovers of dead writers; return how many blocks.

        None: a writer is at work; it will collect when it ends. Raises CorruptObject, having removed nothing, if a
        manifest cannot be read.
        """
        self.prepare()
        fd = self._open_lock()
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.note_garbage()
                return None
            # First, so that a deletion during our sweep leaves its note.
            files.remove_file(self.root / "garbage")
            try:
                return self._sweep(self._referenced())
            except BaseException:
                self.note_garbage()
                raise
        finally:
            os.close(fd)

    def _referenced(self) -> Set[bytes]:
        referenced: Set[bytes] = set()
        for snapshot_id in self.snapshot_ids():
            with contextlib.suppress(KeyError):  # Deleted meanwhile.
                manifest, _ = self.read_manifest(snapshot_id)
                referenced.update(bytes.fromhex(sha256) for _, sha256 in manifest.blocks)
        return referenced

    def _sweep(self, referenced: Set[bytes]) -> int:
        removed = 0
        for folder in os.scandir(self.root / "blocks"):
            for entry in os.scandir(folder.path):
                sha256 = entry.name[:-4]
                if entry.name.endswith(".zst") and is_digest(sha256) and bytes.fromhex(sha256) not in referenced:
                    os.unlink(entry.path)
                    removed += 1
        for entry in os.scandir(self.root / "tmp"):
            os.unlink(entry.path)
        return removed

    def _open_lock(self) -> int:
        return os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _read(self, key: str, max_bytes: int) -> bytes:
        try:
            with open(self.root / key, "rb") as file:
                data = file.read(max_bytes + 1)
        except FileNotFoundError:
            raise KeyError(key) from None
        if len(data) > max_bytes:
            raise CorruptObject(f"{key} is larger than it can be")
        return data


class Writer:
    """Puts blocks and commits manifests; exists only inside `BlockFolder.writing`. Any thread may use it."""

    def __init__(self, folder: BlockFolder) -> None:
        self._folder = folder

    def put_block(self, plain: bytes) -> Tuple[str, bool]:
        """Store a block unless it is there, whole; return its name and whether it was new. Raises OSError."""
        sha256 = digest(plain)
        try:
            self._folder.read_block(sha256, len(plain))
            return sha256, False
        except (KeyError, CorruptObject):
            self._put(block_key(sha256), compress(plain))
            return sha256, True

    def commit(self, snapshot_id: str, manifest: Manifest) -> str:
        """Make everything put so far durable, then the manifest, which makes the snapshot exist; return its digest."""
        plain = encode_manifest(manifest)
        if len(plain) > MAX_MANIFEST_BYTES:
            raise ValueError("the disk has more blocks than a manifest may list")
        path = self._folder.root / manifest_key(snapshot_id)
        if path.exists():
            self._folder.note_garbage()
        _sync_file_system(self._folder.root)
        files.atomic_write(path, compress(plain))
        return digest(plain)

    def _put(self, key: str, data: bytes) -> None:
        path = self._folder.root / key
        temporary = self._folder.root / "tmp" / f"{os.getpid()}.{next(_temporary_numbers)}"
        try:
            temporary.write_bytes(data)
            try:
                os.replace(temporary, path)
            except FileNotFoundError:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                os.replace(temporary, path)
        except BaseException:
            files.remove_file(temporary)
            raise


def _sync_file_system(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(fd):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(folder))
    finally:
        os.close(fd)
