"""A failed import leaves nothing of what it would have made."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from support.world import World

from minicloud.controller.programs.image_import import INVALID_IMAGE
from minicloud.hosts.fake_faults import NO_FAULTS
from minicloud.model.states import ImportTaskState


def test_tags_of_an_image_that_never_came_go_with_it(tmp_path: Path) -> None:
    with closing(World(faults=NO_FAULTS, spool_folder=tmp_path / "spool")) as world:
        world.fail_jobs(INVALID_IMAGE)
        task_id = world.import_disk(tmp_path / "spool")
        row = world.import_task(task_id)
        assert row.image_id is not None
        made = [row.snapshot_id, row.image_id]
        world.store.write(lambda tx: [tx.tags.set(id, {"a": "b"}) for id in made])
        world.rest()
        assert world.import_task(task_id).state is ImportTaskState.DELETED
        assert world.store.read(
            lambda tx: (tx.tags.of(made), tx.snapshots.where(id=made), tx.images.where(id=made))
        ) == (
            {},
            [],
            [],
        )
