"""CopyImage's task: snapshots get a name of their own in the object store, then the image is available."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from support.bare_cloud import IMAGE_ID, ROOT, SNAPSHOT_ID, BareCloud

from minicloud.cloud.images import CopyRequest, copy_image
from minicloud.controller.context import Context
from minicloud.controller.engine import Engine
from minicloud.controller.programs.image_copy import ImageCopyProgram
from minicloud.controller.signals import EventSignals
from minicloud.errors import PermanentError, TransientError
from minicloud.model.resources import Image
from minicloud.model.states import ImageState, SnapshotState


@pytest.fixture
def bare() -> Iterator[BareCloud]:
    with closing(BareCloud()) as cloud:
        yield cloud


def engine_of(bare: BareCloud, copy: Callable[[str, str], None]) -> Engine:
    nothing = cast(Any, None)
    context = Context(
        store=bare.store,
        hosts=nothing,
        jobs=nothing,
        signals=EventSignals(),
        config=bare.cloud.config,
        clock=bare.clock,
        incarnation="one",
        fill_arguments=nothing,
        copy_snapshot=copy,
    )
    return Engine(context, [ImageCopyProgram()])


def copied(bare: BareCloud) -> tuple[Image, str]:
    image = copy_image(bare.cloud, ROOT, CopyRequest(name="second", source_image_id=IMAGE_ID, source_region="lab-1"))
    (device,) = image.block_devices
    assert device.snapshot_id is not None
    return image, device.snapshot_id


def run(engine: Engine) -> None:
    for task in engine.lease(10):
        engine.advance(task)


def states(bare: BareCloud, image: Image, snapshot_id: str) -> tuple[ImageState, SnapshotState]:
    found = bare.store.read(lambda tx: (tx.images.get(image.id), tx.snapshots.get(snapshot_id)))
    assert found[0] is not None
    assert found[1] is not None
    return found[0].state, found[1].state


def test_content_gets_a_second_name_before_the_image_is_available(bare: BareCloud) -> None:
    asked = []
    image, snapshot_id = copied(bare)
    assert states(bare, image, snapshot_id) == (ImageState.PENDING, SnapshotState.PENDING)
    run(engine_of(bare, lambda source, target: asked.append((source, target))))
    assert asked == [(SNAPSHOT_ID, snapshot_id)]
    assert states(bare, image, snapshot_id) == (ImageState.AVAILABLE, SnapshotState.COMPLETED)
    assert bare.store.read(lambda tx: tx.tasks.get(image.id)) is None


def test_an_object_store_that_is_away_is_tried_again(bare: BareCloud) -> None:
    answers: list[Exception | None] = [TransientError("away"), None]

    def copy(source: str, target: str) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    image, snapshot_id = copied(bare)
    engine = engine_of(bare, copy)
    run(engine)
    assert states(bare, image, snapshot_id) == (ImageState.PENDING, SnapshotState.PENDING)
    bare.clock.advance(1)
    run(engine)
    assert states(bare, image, snapshot_id) == (ImageState.AVAILABLE, SnapshotState.COMPLETED)


def test_a_source_that_is_gone_fails_the_copy(bare: BareCloud) -> None:
    def copy(source: str, target: str) -> None:
        raise PermanentError("Server.InternalError", "no such snapshot")

    image, snapshot_id = copied(bare)
    run(engine_of(bare, copy))
    assert states(bare, image, snapshot_id) == (ImageState.FAILED, SnapshotState.ERROR)
    assert bare.store.read(lambda tx: tx.tasks.get(image.id)) is None
