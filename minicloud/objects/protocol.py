"""What the rest of minicloud may ask of an object store: snapshots as manifests of content-addressed blocks.

Narrow on purpose, so that any S3 endpoint can stand behind it. Nothing is written through it: imports and uploads are
jobs on hosts (hostside/disk_import.py). Called by controller/ (fill, delete, copy) and daemon.py.

`objects` may import minicloud.hostside.blocks and minicloud.hostside.block_folder: the format of blocks and manifests
is one for hosts and controller, and the host side may import nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from minicloud.errors import MinicloudError
from minicloud.hostside.blocks import Manifest


class ObjectError(MinicloudError):
    """The object store does not hold what it should; the message is for operators and logs."""


class MissingSnapshot(ObjectError):
    """No snapshot of that id has been committed."""


class CorruptSnapshot(ObjectError):
    """A manifest or block is not what its name says, or is not there."""


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A committed snapshot: its id, the digest of its manifest, and the manifest."""

    snapshot_id: str
    manifest_digest: str
    manifest: Manifest


class ObjectStore(Protocol):
    """Snapshots by id. Any thread may call any method; every method may be repeated. OSError means the store is ill."""

    def list_snapshots(self) -> list[str]:
        """Return the ids of all committed snapshots."""

    def read_snapshot(self, snapshot_id: str) -> StoredSnapshot:
        """Return a snapshot's manifest, verified against its form. Raises MissingSnapshot, CorruptSnapshot."""

    def read_block(self, snapshot: StoredSnapshot, index: int) -> bytes:
        """Return the plain bytes of one block of a snapshot, verified; zeros where none is stored.

        Raises CorruptSnapshot, and IndexError beyond the disk's end.
        """

    def verify(self, snapshot_id: str) -> StoredSnapshot:
        """Read every block of a snapshot. Raises MissingSnapshot, CorruptSnapshot."""

    def copy_snapshot(self, source_id: str, target_id: str) -> StoredSnapshot:
        """Make another snapshot of the same content; costs no blocks. Raises MissingSnapshot, CorruptSnapshot."""

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Remove a snapshot, and the blocks that no other needs (at once, or when writers at work have ended)."""

    def sign_get(self, key: str, expires_at: int) -> str:
        """Return the path and query by which anybody may GET an object until `expires_at`, Unix seconds.

        To be appended to the endpoint's URL. Raises ValueError for a key that is not a block's.
        """
