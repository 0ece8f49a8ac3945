"""The life of an import: a local disk file becomes a snapshot in the object store and, for ImportImage, an image.

Owns ImportTask.state and what the import made: its Snapshot and Image rows. The bytes are read by a detached job on
the controller's machine, so a daemon that dies loses nothing. Refuses to touch a source file that was not uploaded
to our own spool.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from minicloud.controller.context import Context
from minicloud.controller.engine import retry_seconds
from minicloud.controller.verdicts import Done, Hop, Nap, Verdict
from minicloud.errors import TransientError
from minicloud.model.plans import GIB, JobStatus
from minicloud.model.resources import ImportTask, Task
from minicloud.model.states import ImageState, ImportTaskState, SnapshotState
from minicloud.store.store import Tx

INVALID_IMAGE = "invalid-image"
POLL_SECONDS = 0.2
MAX_RETRIES = 5

log = logging.getLogger(__name__)


class ImportProgram:
    """Program of kind "import"; a task's id is its import task's."""

    kind = "import"
    steps = ("start", "await_job", "cleanup")

    def run(self, context: Context, task: Task) -> Verdict:
        """Run one step. An import whose row is gone needs nothing any more."""
        row = context.read(lambda tx: tx.import_tasks.get(task.id))
        if row is None:
            return Done()
        if task.step == "start":
            return self._start(context, task, row)
        if task.step == "await_job":
            return self._await_job(context, task, row)
        return self._cleanup(context, task, row)

    def fail(self, context: Context, task: Task, code: str, detail: str) -> Verdict:
        """An import that cannot succeed ends as EC2's do: `deleted`, with a message."""
        if task.step == "cleanup":
            raise TransientError(f"{code}: {detail}")
        return self._failed(context, task.id, f"ServerError: an internal error ended the import ({code})")

    def _start(self, context: Context, task: Task, row: ImportTask) -> Verdict:
        context.jobs.start_job(
            _job(row),
            "import_disk",
            {
                "path": row.path,
                "format": row.format,
                "object_folder": context.config.object_folder,
                "snapshot_id": row.snapshot_id,
                "max_bytes": context.config.max_import_bytes,
                "remove_source": row.remove_source,
            },
            task.lease_epoch,
        )
        return Hop("await_job")

    def _await_job(self, context: Context, task: Task, row: ImportTask) -> Verdict:
        status = context.jobs.job_status(_job(row))
        if status.state == "absent":
            return Hop("start")
        if status.state == "failed":
            if status.error_code == INVALID_IMAGE:
                return self._failed(context, row.id, f"ClientError: {status.error}")
            # Killed, out of space, or the machine went down: what was uploaded is kept by its content, so start again.
            # Counted in facts: an attempt ends with the step, and a job that is started again is another step.
            failures = int(str(task.facts.get("failures", 0))) + 1
            log.warning("import %s: job failed (%d): %s: %s", row.id, failures, status.error_code, status.error)
            if failures > MAX_RETRIES:
                return self._failed(context, row.id, "ServerError: the import failed repeatedly")
            context.jobs.clean_job(_job(row), task.lease_epoch)
            return Nap(retry_seconds(failures), facts={**task.facts, "failures": failures})
        if status.state == "succeeded":
            return Hop("cleanup", writes=lambda tx: _completed(tx, row, status, context.clock.now_us()))
        return Nap(POLL_SECONDS, writes=lambda tx: _progress(tx, row, status.progress_percent))

    def _failed(self, context: Context, task_id: str, message: str) -> Verdict:
        now_us = context.clock.now_us()

        def writes(tx: Tx) -> None:
            row = tx.import_tasks.get(task_id)
            if row is None:
                return
            tx.import_tasks.update(task_id, state=ImportTaskState.DELETED, status_message=message, ended_us=now_us)
            if tx.snapshots.get(row.snapshot_id):
                tx.snapshots.delete(row.snapshot_id)
            if row.image_id and tx.images.get(row.image_id):
                tx.images.delete(row.image_id)
            for id in filter(None, (row.snapshot_id, row.image_id)):
                tx.tags.delete(id, None)

        return Hop("cleanup", writes=writes)

    def _cleanup(self, context: Context, task: Task, row: ImportTask) -> Verdict:
        context.jobs.clean_job(_job(row), task.lease_epoch)
        spool = os.path.realpath(context.config.spool_folder)
        if row.remove_source and os.path.realpath(row.path).startswith(spool + os.sep):
            Path(row.path).unlink(missing_ok=True)
        return Done()


def _job(row: ImportTask) -> str:
    return f"import-{row.id}"


def _progress(tx: Tx, row: ImportTask, percent: int) -> None:
    if percent != row.progress_percent:
        tx.import_tasks.update(row.id, progress_percent=percent, status_message="converting")
        tx.snapshots.update(row.snapshot_id, progress_percent=percent)


def _completed(tx: Tx, row: ImportTask, status: JobStatus, now_us: int) -> None:
    virtual_size_bytes = int(str(status.result["virtual_size_bytes"]))
    size_gib = max(1, -(-virtual_size_bytes // GIB))
    tx.snapshots.update(
        row.snapshot_id,
        state=SnapshotState.COMPLETED,
        progress_percent=100,
        virtual_size_bytes=virtual_size_bytes,
        size_gib=size_gib,
        manifest_digest=str(status.result["manifest_digest"]),
        completed_us=now_us,
    )
    if row.image_id:
        image = tx.images.get(row.image_id)
        if image is not None:
            tx.images.update(image.id, state=ImageState.AVAILABLE)
    tx.import_tasks.update(
        row.id, state=ImportTaskState.COMPLETED, status_message=None, progress_percent=100, ended_us=now_us
    )
