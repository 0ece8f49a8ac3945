"""Console logs: the end of what the guest said, across virtlogd's rotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicloud.hostside import console
from minicloud.hostside.failures import Failure


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "console").mkdir()
    return str(tmp_path / "console" / "i-0123456789abcdef0.log")


def test_no_console_is_empty(path: str) -> None:
    assert console.read_console(path, 100) == b""
    console.ensure_no_console(path)


def test_the_last_bytes_come_in_order_across_rotations(path: str) -> None:
    Path(path + ".1").write_bytes(b"oldest ")
    Path(path + ".0").write_bytes(b"older ")
    Path(path).write_bytes(b"new")
    assert console.read_console(path, 1000) == b"oldest older new"
    assert console.read_console(path, 5) == b"r new"
    assert console.read_console(path, 3) == b"new"
    assert console.read_console(path, 0) == b""
    assert console.read_console(path, -1) == b""


def test_a_file_missing_during_rotation_hides_nothing_else(path: str) -> None:
    Path(path + ".0").write_bytes(b"older ")
    assert console.read_console(path, 1000) == b"older "


def test_reading_is_bounded(path: str) -> None:
    Path(path).write_bytes(b"x" * (console.MAX_BYTES + 10))
    assert len(console.read_console(path, 10**12)) == console.MAX_BYTES


def test_removal_takes_the_rotations(path: str) -> None:
    for name in (path, path + ".0", path + ".2"):
        Path(name).touch()
    console.ensure_no_console(path)
    assert list(Path(path).parent.iterdir()) == []


def test_links_are_not_followed(path: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    Path(path).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        console.read_console(path, 100)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "/x/console/../i-01234567.log", "/x/console/i-1.log", "i-01234567.log"]
)
def test_other_paths_are_refused(name: str) -> None:
    for attempt in (console.ensure_console_folder, console.ensure_no_console):
        with pytest.raises(Failure):
            attempt(name)
    with pytest.raises(Failure):
        console.read_console(name, 1)


def test_its_folder_is_made(tmp_path: Path) -> None:
    console.ensure_console_folder(str(tmp_path / "a" / "console" / "i-01234567.log"))
    assert (tmp_path / "a" / "console").is_dir()
