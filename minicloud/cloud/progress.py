"""How far things have come: states with the step that the controller is at, for people who wait and watch.

Beside what EC2 shows, this names minicloud's own steps; so it is for `minicloud … --wait` and not part of the AWS API.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.lookups import (
    IMAGES,
    IMPORT_IMAGE_TASKS,
    IMPORT_SNAPSHOT_TASKS,
    INSTANCES,
    SNAPSHOTS,
    Kind,
    kind_of,
    require_one,
)
from minicloud.errors import ApiError
from minicloud.model.resources import Image, ImportTask, Instance, Snapshot, Task
from minicloud.store import queries
from minicloud.store.store import Tx

Watched = Instance | ImportTask | Image | Snapshot
WATCHED: tuple[Kind[Any], ...] = (INSTANCES, IMPORT_SNAPSHOT_TASKS, IMPORT_IMAGE_TASKS, IMAGES, SNAPSHOTS)


@dataclass(frozen=True, slots=True)
class Progress:
    """One resource: its state, and the step and failed attempts of its task where it has one."""

    id: str
    state: str
    step: str | None
    attempt: int
    progress_percent: int | None
    reason: str | None


def describe_progress(cloud: Cloud, caller: Caller, ids: Iterable[str]) -> list[Progress]:
    """Return the progress of instances, imports, images and snapshots, in order. Raises *.NotFound, InvalidID."""
    wanted = list(dict.fromkeys(ids))

    def look(tx: Tx) -> list[Progress]:
        tasks = {task.id: task for task in tx.tasks.where(id=wanted)}
        rows: list[Watched] = [require_one(tx, caller, _watched_kind(one), one) for one in wanted]
        return [_progress(row, tasks.get(row.id)) for row in rows]

    return cloud.store.read(look)


def _watched_kind(resource_id: str) -> Kind[Any]:
    kind = kind_of(resource_id)
    if kind is not None and kind in WATCHED:
        return kind
    raise ApiError("InvalidID", f"The ID '{resource_id[:255]}' is not of a kind that can be waited for")


def _progress(row: Watched, task: Task | None) -> Progress:
    percent, reason = None, None
    if isinstance(row, Instance):
        state = row.shown_state.value
        reason = row.state_reason.message if row.state_reason else None
    else:
        state = row.state.value
        reason = row.status_message if isinstance(row, ImportTask) else row.state_reason
        percent = None if isinstance(row, Image) else row.progress_percent
    return Progress(row.id, state, task.step if task else None, task.attempt if task else 0, percent, reason)


def describe_work(cloud: Cloud) -> queries.TasksOverview:
    """Return how the controller's work stands as a whole, for operators."""
    return cloud.store.read(queries.tasks_overview)
