"""The object store in a folder of the controller's machine. Layout and rules of collection: hostside/block_folder.py.

Owns the folder together with the import jobs that write into it, and the secret that signs URLs of blocks
(`secret`, made once). Implements protocol.ObjectStore; made by daemon.py, its URLs are answered by serve.py.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from bisect import bisect_left
from pathlib import Path
from urllib.parse import urlencode

from minicloud.hostside import blocks
from minicloud.hostside.block_folder import BlockFolder
from minicloud.hostside.blocks import CorruptObject
from minicloud.objects.protocol import CorruptSnapshot, MissingSnapshot, StoredSnapshot

URL_PREFIX = "/_objects"

_SECRET_BYTES = 32
_BLOCK_KEY = re.compile(r"blocks/([0-9a-f]{2})/(\1[0-9a-f]{62})\.zst")

log = logging.getLogger(__name__)


class FolderStore:
    """An object store below one folder; safe in any number of threads and processes."""

    def __init__(self, folder: str) -> None:
        """Open the store, making its folders and secret where they are absent. Raises OSError."""
        self._blocks = BlockFolder(folder)
        self._blocks.prepare()
        self._secret = _ensure_secret(Path(folder, "secret"))

    def list_snapshots(self) -> list[str]:
        return self._blocks.snapshot_ids()

    def read_snapshot(self, snapshot_id: str) -> StoredSnapshot:
        try:
            manifest, digest = self._blocks.read_manifest(snapshot_id)
        except KeyError:
            raise MissingSnapshot(f"{snapshot_id}: no such snapshot in the object store") from None
        except CorruptObject as error:
            raise CorruptSnapshot(f"{snapshot_id}: {error}") from error
        return StoredSnapshot(snapshot_id, digest, manifest)

    def read_block(self, snapshot: StoredSnapshot, index: int) -> bytes:
        length = blocks.block_length(snapshot.manifest.size_bytes, index)
        if index < 0 or length <= 0:
            raise IndexError(index)
        listed = snapshot.manifest.blocks
        place = bisect_left(listed, (index, ""))
        if place == len(listed) or listed[place][0] != index:
            return bytes(length)
        return self._read(snapshot.snapshot_id, listed[place][1], length)

    def verify(self, snapshot_id: str) -> StoredSnapshot:
        snapshot = self.read_snapshot(snapshot_id)
        for index, sha256 in snapshot.manifest.blocks:
            self._read(snapshot_id, sha256, blocks.block_length(snapshot.manifest.size_bytes, index))
        return snapshot

    def copy_snapshot(self, source_id: str, target_id: str) -> StoredSnapshot:
        # Inside: no collection can run between our look at the source's blocks and the copy's commit.
        with self._blocks.writing() as writer:
            source = self.read_snapshot(source_id)
            digest = writer.commit(target_id, source.manifest)
        return StoredSnapshot(target_id, digest, source.manifest)

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._blocks.delete_manifest(snapshot_id)
        self.collect()

    def collect(self) -> int | None:
        """Remove blocks that no snapshot needs; return how many, None while a writer is at work (it collects then).

        The daemon calls it at its start: a crash may have left blocks of an import that will not go on.
        """
        try:
            return self._blocks.collect()
        except CorruptObject as error:
            log.error("the object store keeps all its blocks until this is mended: %s", error)
            return 0

    def sign_get(self, key: str, expires_at: int) -> str:
        if not _BLOCK_KEY.fullmatch(key):
            raise ValueError(f"not the key of a block: {key!r}")
        query = urlencode({"expires": expires_at, "signature": self._signature(key, expires_at)})
        return f"{URL_PREFIX}/{key}?{query}"

    def admits(self, key: str, expires_at: int, signature: str, now_seconds: float) -> bool:
        """Say whether `sign_get` gave this signature for this key and time, and the time has not passed."""
        expected = self._signature(key, expires_at)
        return hmac.compare_digest(expected.encode(), signature.encode()) and now_seconds < expires_at

    def stored_block(self, key: str) -> bytes:
        """Return a block as it is stored. Raises KeyError if there is none or `key` is not a block's, CorruptObject."""
        match = _BLOCK_KEY.fullmatch(key)
        if not match:
            raise KeyError(key)
        return self._blocks.read_stored_block(match.group(2))

    def _read(self, snapshot_id: str, sha256: str, length: int) -> bytes:
        try:
            return self._blocks.read_block(sha256, length)
        except KeyError:
            raise CorruptSnapshot(f"{snapshot_id}: block {sha256} is missing") from None
        except CorruptObject as error:
            raise CorruptSnapshot(f"{snapshot_id}: {error}") from error

    def _signature(self, key: str, expires_at: int) -> str:
        return hmac.new(self._secret, f"GET\n{key}\n{expires_at}".encode(), hashlib.sha256).hexdigest()


def _ensure_secret(path: Path) -> bytes:
    """Return the store's secret, made whole or not at all by whoever comes first."""
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
                file.flush()
                os.fsync(fd)
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass  # Somebody else came first.
        finally:
            temporary.unlink()
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise OSError(f"{path} is damaged: remove it, and URLs that were given out end")
    return secret
