"""The object store's folder: commits, deduplication, and a collection that never takes what is needed."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from minicloud.hostside import block_folder
from minicloud.hostside.block_folder import BlockFolder
from minicloud.hostside.blocks import BLOCK_BYTES, CorruptObject, Manifest, compress, digest

ONE, TWO = "snap-00000001", "snap-00000002"


@pytest.fixture
def folder(tmp_path: Path) -> BlockFolder:
    made = BlockFolder(str(tmp_path / "objects"))
    made.prepare()
    return made


def content(*seeds: int) -> list[bytes]:
    return [random.Random(seed).randbytes(1000).ljust(BLOCK_BYTES, b"\1") for seed in seeds]


def commit(folder: BlockFolder, snapshot_id: str, datas: list[bytes]) -> str:
    with folder.writing() as writer:
        listed = tuple((index, writer.put_block(data)[0]) for index, data in enumerate(datas))
        return writer.commit(snapshot_id, Manifest(len(datas) * BLOCK_BYTES, listed))


def stored(folder: BlockFolder) -> set[str]:
    return {path.stem for path in folder.root.glob("blocks/*/*.zst")}


def test_what_is_committed_is_read_back(folder: BlockFolder) -> None:
    datas = content(1, 2)
    committed = commit(folder, ONE, datas)
    manifest, found = folder.read_manifest(ONE)
    assert found == committed
    assert [folder.read_block(sha256, BLOCK_BYTES) for _, sha256 in manifest.blocks] == datas
    assert folder.snapshot_ids() == [ONE]
    assert list((folder.root / "tmp").iterdir()) == []


def test_nobody_else_may_look_in(folder: BlockFolder) -> None:
    assert folder.root.stat().st_mode & 0o777 == 0o700


def test_equal_blocks_are_stored_once(folder: BlockFolder) -> None:
    data = content(1)[0]
    with folder.writing() as writer:
        assert writer.put_block(data) == (digest(data), True)
        assert writer.put_block(data) == (digest(data), False)


@pytest.mark.parametrize("damage", [b"", b"half a frame", compress(b"another content")])
def test_a_damaged_block_is_not_trusted_but_written_again(folder: BlockFolder, damage: bytes) -> None:
    """What a crash may leave: blocks are not synced one by one."""
    data = content(1)[0]
    commit(folder, ONE, [data])
    path = folder.root / block_folder.block_key(digest(data))
    path.write_bytes(damage)
    with pytest.raises(CorruptObject):
        folder.read_block(digest(data), BLOCK_BYTES)
    commit(folder, TWO, [data])
    assert folder.read_block(digest(data), BLOCK_BYTES) == data


def test_an_oversized_block_file_is_not_read_whole(folder: BlockFolder) -> None:
    data = content(1)[0]
    commit(folder, ONE, [data])
    os.truncate(folder.root / block_folder.block_key(digest(data)), 10**10)
    with pytest.raises(CorruptObject, match="larger"):
        folder.read_block(digest(data), BLOCK_BYTES)


def test_collection_takes_exactly_what_no_snapshot_needs(folder: BlockFolder) -> None:
    shared, first, second = content(0, 1, 2)
    commit(folder, ONE, [shared, first])
    commit(folder, TWO, [shared, second])
    assert folder.collect() == 0
    folder.delete_manifest(ONE)
    folder.delete_manifest(ONE)
    assert folder.collect() == 1
    assert stored(folder) == {digest(shared), digest(second)}
    folder.delete_manifest(TWO)
    assert folder.collect() == 2
    assert stored(folder) == set()
    assert not (folder.root / "garbage").exists()


def test_a_writer_at_work_is_never_collected_from(folder: BlockFolder) -> None:
    commit(folder, ONE, content(1))
    with folder.writing() as writer:
        sha256, _ = writer.put_block(content(2)[0])
        reused, new = writer.put_block(content(1)[0])
        assert not new
        folder.delete_manifest(ONE)
        assert folder.collect() is None, "the reused block must survive its snapshot"
        writer.commit(TWO, Manifest(2 * BLOCK_BYTES, ((0, sha256), (1, reused))))
    assert stored(folder) == {sha256, reused}
    assert not (folder.root / "garbage").exists(), "the writer has collected on its way out"


def test_a_dead_writer_leaves_only_garbage(folder: BlockFolder) -> None:
    with pytest.raises(RuntimeError), folder.writing() as writer:
        writer.put_block(content(1)[0])
        (folder.root / "tmp" / "1.1").write_bytes(b"half")
        raise RuntimeError("killed")
    assert folder.snapshot_ids() == []
    assert folder.collect() == 1
    assert stored(folder) == set()
    assert list((folder.root / "tmp").iterdir()) == []


def test_a_manifest_that_cannot_be_read_stops_collection(folder: BlockFolder) -> None:
    commit(folder, ONE, content(1))
    commit(folder, TWO, content(2))
    (folder.root / block_folder.manifest_key(ONE)).write_bytes(b"damaged")
    folder.delete_manifest(TWO)
    with pytest.raises(CorruptObject):
        folder.collect()
    assert stored(folder) == {digest(data) for data in content(1, 2)}
    assert (folder.root / "garbage").exists(), "to be done once it is mended"


def test_writers_are_not_hindered_by_a_damaged_manifest(folder: BlockFolder) -> None:
    commit(folder, ONE, content(1))
    (folder.root / block_folder.manifest_key(ONE)).write_bytes(b"damaged")
    folder.note_garbage()
    commit(folder, TWO, content(2))
    assert folder.read_manifest(TWO)[0].blocks


def test_committing_again_replaces_and_notes_garbage(folder: BlockFolder) -> None:
    commit(folder, ONE, content(1))
    commit(folder, ONE, content(2))
    assert stored(folder) == {digest(content(2)[0])}


def test_foreign_files_are_left_alone(folder: BlockFolder) -> None:
    (folder.root / "blocks" / "zz").mkdir()
    (folder.root / "blocks" / "zz" / "README").write_text("mine")
    (folder.root / "manifests" / "notes.txt").write_text("mine")
    assert folder.collect() == 0
    assert folder.snapshot_ids() == []
    assert (folder.root / "blocks" / "zz" / "README").exists()


@pytest.mark.parametrize("name", ["", "snap-1", "../secret", "snap-00000001/../x", "vol-00000001", "snap-0000000G"])
def test_names_that_are_not_snapshots(folder: BlockFolder, name: str) -> None:
    with pytest.raises(ValueError, match="snapshot"):
        folder.read_manifest(name)
    with pytest.raises(ValueError, match="snapshot"):
        folder.delete_manifest(name)


@pytest.mark.parametrize("name", ["", "../x", "A" * 64, "a" * 63])
def test_names_that_are_not_digests(name: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        block_folder.block_key(name)


def test_absent_things_are_key_errors(folder: BlockFolder) -> None:
    with pytest.raises(KeyError):
        folder.read_manifest(ONE)
    with pytest.raises(KeyError):
        folder.read_block("a" * 64, 1)


def test_writers_deletions_and_collections_at_once(folder: BlockFolder) -> None:
    """Blocks shared by snapshots that come and go: every snapshot that is there is whole at every moment."""
    pool = content(*range(6))
    errors: list[BaseException] = []
    stop = threading.Event()

    def write(number: int) -> None:
        rng = random.Random(number)
        snapshot_id = f"snap-0000000{number}"
        try:
            for _ in range(15):
                datas = rng.sample(pool, 3)
                commit(folder, snapshot_id, datas)
                manifest, _ = folder.read_manifest(snapshot_id)
                assert [folder.read_block(sha, BLOCK_BYTES) for _, sha in manifest.blocks] == datas
                folder.delete_manifest(snapshot_id)
        except BaseException as error:
            errors.append(error)

    def collect() -> None:
        try:
            while not stop.is_set():
                folder.collect()
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(n,)) for n in (1, 2, 3)]
    collector = threading.Thread(target=collect)
    for thread in [collector, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    collector.join()
    assert errors == []
    folder.collect()
    assert stored(folder) == set()
