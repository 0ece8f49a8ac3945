"""The folder store as the controller sees it: snapshots read, verified, copied, deleted, and URLs signed."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from minicloud.hostside.block_folder import BlockFolder, block_key, manifest_key
from minicloud.hostside.blocks import BLOCK_BYTES, Manifest
from minicloud.objects.fill import render_fill_arguments
from minicloud.objects.folder import FolderStore
from minicloud.objects.protocol import CorruptSnapshot, MissingSnapshot, ObjectStore

ONE, TWO = "snap-00000001", "snap-00000002"
DATA = random.Random(1).randbytes(BLOCK_BYTES)
TAIL = b"tail".ljust(512, b"\1")
SIZE = 3 * BLOCK_BYTES + 512


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(str(tmp_path / "objects"))


@pytest.fixture
def filled(store: FolderStore, tmp_path: Path) -> FolderStore:
    """A store with one snapshot: data, zeros, the same data, a short tail."""
    with BlockFolder(str(tmp_path / "objects")).writing() as writer:
        data, tail = writer.put_block(DATA)[0], writer.put_block(TAIL)[0]
        writer.commit(ONE, Manifest(SIZE, ((0, data), (2, data), (3, tail))))
    return store


def block_path(tmp_path: Path, store: FolderStore, place: int) -> Path:
    return tmp_path / "objects" / block_key(store.read_snapshot(ONE).manifest.blocks[place][1])


def test_it_is_an_object_store(store: FolderStore) -> None:
    checked: ObjectStore = store
    assert checked.list_snapshots() == []


def test_blocks_are_read_by_their_place(filled: FolderStore) -> None:
    snapshot = filled.read_snapshot(ONE)
    assert [filled.read_block(snapshot, n) for n in range(4)] == [DATA, bytes(BLOCK_BYTES), DATA, TAIL]
    for index in (-1, 4, 10**9):
        with pytest.raises(IndexError):
            filled.read_block(snapshot, index)
    assert filled.verify(ONE) == snapshot


def test_what_is_not_there_is_missing(store: FolderStore) -> None:
    for attempt in (store.read_snapshot, store.verify, lambda one: store.copy_snapshot(one, TWO)):
        with pytest.raises(MissingSnapshot):
            attempt(ONE)
    store.delete_snapshot(ONE)
    assert store.list_snapshots() == []


@pytest.mark.parametrize("damage", ["missing", "exchanged", "garbage"])
def test_verification_finds_damage(filled: FolderStore, tmp_path: Path, damage: str) -> None:
    path = block_path(tmp_path, filled, 2)
    if damage == "missing":
        path.unlink()
    elif damage == "exchanged":
        path.write_bytes(block_path(tmp_path, filled, 0).read_bytes())
    else:
        path.write_bytes(b"garbage")
    with pytest.raises(CorruptSnapshot, match=ONE):
        filled.verify(ONE)
    with pytest.raises(CorruptSnapshot):
        filled.read_block(filled.read_snapshot(ONE), 3)


def test_a_damaged_manifest_is_corrupt(filled: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "objects" / manifest_key(ONE)).write_bytes(b"garbage")
    with pytest.raises(CorruptSnapshot):
        filled.read_snapshot(ONE)


def test_copies_share_blocks_and_outlive_their_source(filled: FolderStore) -> None:
    source = filled.read_snapshot(ONE)
    for _ in range(2):
        copy = filled.copy_snapshot(ONE, TWO)
        assert (copy.snapshot_id, copy.manifest_digest) == (TWO, source.manifest_digest)
    assert filled.list_snapshots() == [ONE, TWO]
    filled.delete_snapshot(ONE)
    filled.verify(TWO)
    assert filled.list_snapshots() == [TWO]


def test_deletion_takes_the_blocks_and_repeats(filled: FolderStore, tmp_path: Path) -> None:
    for _ in range(2):
        filled.delete_snapshot(ONE)
        assert filled.list_snapshots() == []
        assert list((tmp_path / "objects" / "blocks").glob("*/*")) == []


def test_deletion_while_an_import_runs_waits_for_nobody(filled: FolderStore, tmp_path: Path) -> None:
    with BlockFolder(str(tmp_path / "objects")).writing():
        filled.delete_snapshot(ONE)
        assert filled.list_snapshots() == []
        assert filled.collect() is None
    assert list((tmp_path / "objects" / "blocks").glob("*/*")) == []


def test_a_damaged_manifest_keeps_every_block_and_says_so(
    filled: FolderStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled.copy_snapshot(ONE, TWO)
    (tmp_path / "objects" / manifest_key(TWO)).write_bytes(b"garbage")
    filled.delete_snapshot(ONE)
    assert len(list((tmp_path / "objects" / "blocks").glob("*/*"))) == 2
    assert "keeps all its blocks" in caplog.text


def test_the_secret_is_made_once_and_private(store: FolderStore, tmp_path: Path) -> None:
    path = tmp_path / "objects" / "secret"
    assert path.stat().st_mode & 0o777 == 0o600
    key = block_key("a" * 64)
    assert FolderStore(str(tmp_path / "objects")).sign_get(key, 1) == store.sign_get(key, 1)
    assert FolderStore(str(tmp_path / "other")).sign_get(key, 1) != store.sign_get(key, 1)


def test_openers_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    signed: list[str] = []

    def open_store() -> None:
        signed.append(FolderStore(str(tmp_path / "objects")).sign_get(block_key("a" * 64), 1))

    threads = [threading.Thread(target=open_store) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signed) == 8
    assert len(set(signed)) == 1
    assert [path.name for path in (tmp_path / "objects").iterdir() if path.name.startswith("secret")] == ["secret"]


def test_a_damaged_secret_is_not_signed_with(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "objects" / "secret").write_bytes(b"")
    with pytest.raises(OSError, match="damaged"):
        FolderStore(str(tmp_path / "objects"))


@pytest.mark.parametrize("key", ["", "secret", "manifests/snap-00000001.zst", "blocks/aa/" + "b" * 64 + ".zst"])
def test_only_blocks_are_signed_and_served(store: FolderStore, key: str) -> None:
    with pytest.raises(ValueError, match="block"):
        store.sign_get(key, 1)
    with pytest.raises(KeyError):
        store.stored_block(key)


def test_a_signature_is_for_one_key_and_one_time(store: FolderStore) -> None:
    key, other = block_key("a" * 64), block_key("b" * 64)
    signature = store.sign_get(key, 100).rsplit("=", 1)[1]
    assert store.admits(key, 100, signature, 99.9)
    assert not store.admits(key, 100, signature, 100.0)
    assert not store.admits(key, 101, signature, 0.0)
    assert not store.admits(other, 100, signature, 0.0)
    assert not store.admits(key, 100, "", 0.0)
    assert not store.admits(key, 100, "é", 0.0)


def test_fill_arguments_name_every_block_by_a_signed_url(filled: FolderStore) -> None:
    snapshot = filled.read_snapshot(ONE)
    arguments = render_fill_arguments(filled, ONE, snapshot.manifest_digest, "/pool/bases/x", "http://c:1/", 100)
    assert arguments == {
        "path": "/pool/bases/x",
        "size_bytes": SIZE,
        "blocks": [
            [index, sha256, "http://c:1" + filled.sign_get(block_key(sha256), 100)]
            for index, sha256 in snapshot.manifest.blocks
        ],
        "certificate_sha256": None,
    }
