"""What is written down of a lab comes back, and a process is never mistaken for a later one of its number."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from _lab import state, teardown
from _lab.state import Folders, LabError, LabState, Process


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "run", tmp_path / "data", Path("/project"))


def test_state_comes_back_as_it_was_saved(folders: Folders) -> None:
    saved = LabState(state.make_plan(folders, "a", 97, 3), ready=True, cloud={"environment": {"X": "y"}})
    saved.processes = {"host1": (Process(10, 20), Process(11, 21)), "host2": (Process(12, 22), None)}
    state.save(saved)
    assert state.load(folders, "a") == saved
    assert state.load(folders, "b") is None
    assert state.list_labs(folders) == ["a"]


def test_a_process_is_told_from_another_of_the_same_number() -> None:
    me = Process.of(os.getpid())
    assert me.is_alive()
    assert not Process(me.pid, me.start_ticks + 1).is_alive()


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    process = Process(child.pid, state.read_start_ticks(child.pid) or 0)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()
    assert not process.is_alive()
    child.wait()
    with pytest.raises(ProcessLookupError):
        Process.of(child.pid)


def test_a_lab_is_whole_only_while_all_of_it_lives(folders: Folders) -> None:
    me = Process.of(os.getpid())
    lab = LabState(state.make_plan(folders, "a", 97, 1), {"controller": (me, me), "host1": (me, me)}, ready=True)
    assert lab.is_whole()
    lab.processes["host1"] = (me, Process(me.pid, me.start_ticks + 1))
    assert not lab.is_whole()
    with pytest.raises(LabError, match="host1 of lab a is dead"):
        lab.process_one("host1")
    with pytest.raises(LabError, match="has no host7; it has controller, host1"):
        lab.process_one("host7")


def test_the_lock_follows_the_folder_when_the_last_lab_removed_it(folders: Folders) -> None:
    with state.locked(folders):
        first = (folders.runtime / "lock").stat().st_ino
        teardown.remove_folders(folders, "never-was")
        assert not folders.runtime.exists()
    with state.locked(folders):
        assert (folders.runtime / "lock").exists(), first


def test_what_labs_share_stays_until_the_last_of_them_is_down(folders: Folders, tmp_path: Path) -> None:
    shared = tmp_path / "etc" / "minicloud"
    shared.mkdir(parents=True)
    for name, index in (("a", 99), ("b", 98)):
        state.save(LabState(state.make_plan(folders, name, index, 1)))
        (folders.data / name / "host1").mkdir(parents=True)
    state.add_shared(folders, str(shared.parent))
    state.add_shared(folders, str(shared))
    teardown.remove_folders(folders, "a")
    assert shared.is_dir() and (folders.data / "b").is_dir()
    assert not (folders.data / "a").exists()
    teardown.remove_folders(folders, "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_a_shared_folder_somebody_else_uses_by_now_is_left(folders: Folders, tmp_path: Path) -> None:
    shared = tmp_path / "minicloud"
    shared.mkdir()
    (shared / "theirs").touch()
    state.save(LabState(state.make_plan(folders, "a", 99, 1)))
    state.add_shared(folders, str(shared))
    teardown.remove_folders(folders, "a")
    assert (shared / "theirs").exists()
    assert not (folders.runtime / "a").exists()
