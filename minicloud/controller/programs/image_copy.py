"""The life of a copied image: its snapshots get manifests of their own, on the same blocks; then it is available.

Owns ImageState and SnapshotState of what CopyImage made. Refuses to copy bytes: blocks are shared by their content.
"""

from __future__ import annotations

from minicloud.controller.context import Context
from minicloud.controller.verdicts import Done, Verdict
from minicloud.model.resources import Task
from minicloud.model.states import ImageState, SnapshotState
from minicloud.store.store import Tx


class ImageCopyProgram:
    """Program of kind "image_copy"; a task's id is the new image's. Facts: {"sources": {new snapshot: its source}}."""

    kind = "image_copy"
    steps = ("copy",)

    def run(self, context: Context, task: Task) -> Verdict:
        """Copy the manifests; each may be copied again. A pending image cannot be deregistered, so its row is there."""
        sources = _sources(task)
        for snapshot_id, source_id in sources.items():
            context.copy_snapshot(source_id, snapshot_id)
        now_us = context.clock.now_us()

        def writes(tx: Tx) -> None:
            for snapshot_id in sources:
                tx.snapshots.update(
                    snapshot_id, state=SnapshotState.COMPLETED, progress_percent=100, completed_us=now_us
                )
            tx.images.update(task.id, state=ImageState.AVAILABLE)

        return Done(writes)

    def fail(self, context: Context, task: Task, code: str, detail: str) -> Verdict:
        """A source that the object store does not hold ends the copy as `failed`, which its owner may deregister."""
        sources = _sources(task)

        def writes(tx: Tx) -> None:
            for snapshot_id in sources:
                tx.snapshots.update(snapshot_id, state=SnapshotState.ERROR, state_reason=code)
            tx.images.update(task.id, state=ImageState.FAILED, state_reason=code)

        return Done(writes)


def _sources(task: Task) -> dict[str, str]:
    sources = task.facts["sources"]
    if not isinstance(sources, dict):
        raise TypeError(f"task {task.id}: sources are {sources!r}")
    return {str(snapshot_id): str(source_id) for snapshot_id, source_id in sources.items()}
