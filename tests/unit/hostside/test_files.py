"""Whole files, and locks that end with their holder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minicloud.hostside import codes, files
from minicloud.hostside.failures import Failure


@pytest.mark.parametrize("durable", [True, False])
def test_atomic_write_replaces_the_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    files.atomic_write(path, "old" * 1000, durable=durable)
    files.atomic_write(path, b"new", mode=0o644, durable=durable)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_and_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.atomic_write(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_write_if_changed_says_whether(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.write_if_changed(path, "a")
    before = path.stat()
    assert not files.write_if_changed(path, "a")
    assert path.stat().st_ino == before.st_ino
    assert files.write_if_changed(path, "b")


def test_read_json(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.read_json(path) is None
    for text, value in (('{"a": 1}', {"a": 1}), ('{"a', None), ("", None), ("\xff", None)):
        path.write_text(text, encoding="latin-1")
        assert files.read_json(path) == value


def test_debris_of_the_dead_goes_and_work_of_the_living_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = [f".a.json.{dead.pid}.1.tmp", f".a.json.{os.getpid()}.1.tmp", "a.json", ".tmp", "x.1.1.tmp"]
    for name in names:
        (tmp_path / name).touch()
    files.remove_debris(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(names[1:])
    files.remove_debris(tmp_path / "absent")


def test_ensure_folder_sets_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for mode in (0o711, 0o700, 0o700):
        assert files.ensure_folder(folder, mode) == folder
        assert folder.stat().st_mode & 0o777 == mode


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path):
        with pytest.raises(Failure) as raised, files.locked(path, 0.01):
            pass
        assert (raised.value.code, raised.value.transient) == (codes.BUSY, True)
    assert not path.exists()
    with files.locked(path, 0.01):
        pass


def test_many_threads_take_turns(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with files.locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80 and max(most) == 1


def test_a_lock_ends_with_a_killed_holder_but_not_before_its_programs(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import os, subprocess, sys\nfrom pathlib import Path\nfrom minicloud.hostside import files\n"
        "with files.locked(Path(sys.argv[1])) as lock:\n"
        "    child = subprocess.Popen(['sleep', '100'], pass_fds=(lock,), stdout=-3, stderr=-3)\n"
        "    print(child.pid, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    holder = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60)
    child = int(holder.stdout)
    with pytest.raises(Failure), files.locked(path, 0.05):
        pass
    os.kill(child, 9)
    with files.locked(path):
        pass
    assert not path.exists()
