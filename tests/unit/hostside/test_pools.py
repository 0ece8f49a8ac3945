"""Directory pools: registered once, and refused while their file system is away."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from minicloud.hostside import codes, disks, pools
from minicloud.hostside.failures import Failure


def test_a_pool_is_made_for_qemu_to_pass_and_nobody_to_list(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    for _ in range(2):
        pools.ensure_pool(str(tmp_path), str(folder))
    for one in (folder, folder / "volumes", folder / "ephemeral", folder / "bases"):
        assert stat.S_IMODE(one.stat().st_mode) == 0o711
    assert pools.pool_folders(str(tmp_path)) == [str(folder)]


def test_a_pool_that_is_not_mounted_is_refused_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    pools.ensure_pool(str(tmp_path), str(folder))
    folder.rename(tmp_path / "away")
    folder.mkdir()
    plan = {
        "path": f"{folder}/volumes/vol-01234567.qcow2",
        "format": "qcow2",
        "size_bytes": 1024**3,
        "base_path": None,
        "may_create": True,
    }
    for attempt in (
        lambda: pools.ensure_pool(str(tmp_path), str(folder)),
        lambda: disks.ensure_disks(str(tmp_path), [plan]),
    ):
        with pytest.raises(Failure) as caught:
            attempt()
        assert (caught.value.code, caught.value.transient) == (codes.POOL_MISSING, True)
    assert list(folder.iterdir()) == []
    folder.rmdir()
    (tmp_path / "away").rename(folder)
    pools.ensure_pool(str(tmp_path), str(folder))


def test_a_marked_folder_of_another_state_folder_is_adopted(tmp_path: Path) -> None:
    """A host that lost its state folder, or a pool moved to another host."""
    folder = tmp_path / "pool"
    for state in ("old", "new"):
        (tmp_path / state).mkdir()
        pools.ensure_pool(str(tmp_path / state), str(folder))
    assert pools.pool_folders(str(tmp_path / "new")) == [str(folder)]


@pytest.mark.parametrize("folder", ["", "/", "pool", "/a/../b", "/a/", "/a//b"])
def test_folders_that_cannot_be_pools(tmp_path: Path, folder: str) -> None:
    with pytest.raises(Failure):
        pools.ensure_pool(str(tmp_path), folder)


def test_disks_are_listed_also_unfinished_ones_and_bases_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    assert pools.list_disks(str(tmp_path)) == []
    pools.ensure_pool(str(tmp_path), str(folder))
    wanted = ["ephemeral/i-01234567-ephemeral0.raw", "volumes/vol-01234567.qcow2", "volumes/vol-89abcdef.qcow2.part"]
    for name in [*wanted, "bases/snap-01234567.raw"]:
        (folder / name).touch()
    assert pools.list_disks(str(tmp_path)) == [str(folder / name) for name in wanted]


def test_usage_is_of_the_file_system(tmp_path: Path) -> None:
    capacity, free = pools.pool_usage(str(tmp_path))
    assert 0 < free <= capacity
