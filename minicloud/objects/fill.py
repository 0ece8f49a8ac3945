"""Arguments of the host job `fill_base` (hostside/base_fill.py) for a snapshot of an object store. Pure but for reads.

Called by controller/ when a host answers `missing-base`.
"""

from __future__ import annotations

from minicloud.hostside.block_folder import block_key
from minicloud.objects.protocol import CorruptSnapshot, ObjectStore


def render_fill_arguments(
    store: ObjectStore,
    snapshot_id: str,
    manifest_digest: str,
    base_path: str,
    endpoint_url: str,
    expires_at: int,
    certificate_sha256: str | None = None,
) -> dict[str, object]:
    """Return what makes `fill_base` bring a snapshot to `base_path` on a host that reaches us at `endpoint_url`.

    `manifest_digest` is what the snapshot's row says: another one means the store was tampered with or mixed up.
    `expires_at` (Unix seconds) ends the permission to fetch blocks. `certificate_sha256` pins the endpoint's
    certificate; None leaves it to the host to judge one. Raises MissingSnapshot, CorruptSnapshot.
    """
    snapshot = store.read_snapshot(snapshot_id)
    if snapshot.manifest_digest != manifest_digest:
        raise CorruptSnapshot(f"{snapshot_id}: the manifest's digest is not {manifest_digest}")
    endpoint = endpoint_url.rstrip("/")
    listed = [
        [index, sha256, endpoint + store.sign_get(block_key(sha256), expires_at)]
        for index, sha256 in snapshot.manifest.blocks
    ]
    return {
        "path": base_path,
        "size_bytes": snapshot.manifest.size_bytes,
        "blocks": listed,
        "certificate_sha256": certificate_sha256,
    }
