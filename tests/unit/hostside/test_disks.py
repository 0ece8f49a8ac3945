"""Disk files: what is made, what is kept, what is refused."""

from __future__ import annotations

import json
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicloud.hostside import codes, disks, pools, qcow2
from minicloud.hostside.failures import Failure
from minicloud.model import names

GIB = 1024**3
VOLUME = "vol-0123456789abcdef0"
SNAPSHOT = "snap-0123456789abcdef0"
INSTANCE = "i-0123456789abcdef0"


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    pools.ensure_pool(str(tmp_path), str(folder))
    return folder


def plan(
    path: str,
    disk_format: str = "qcow2",
    size_bytes: int = GIB,
    base_path: str | None = None,
    may_create: bool = True,
) -> dict[str, Any]:
    return {
        "id": "x",
        "path": path,
        "format": disk_format,
        "size_bytes": size_bytes,
        "base_path": base_path,
        "may_create": may_create,
    }


def volume(pool: Path) -> str:
    return names.volume_path(str(pool), VOLUME)


def make_base(pool: Path, size_bytes: int = 1024 * 1024) -> str:
    path = Path(names.base_path(str(pool), SNAPSHOT))
    path.write_bytes(b"base" * (size_bytes // 4))
    path.chmod(0o444)
    return str(path)


def read_through_qemu(path: str, length: int) -> bytes:
    """Return the first bytes of a qcow2's disk as QEMU reads them."""
    raw = path + ".read"
    subprocess.run(
        ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={length}", "count=1", f"if={path}", f"of={raw}"],
        check=True,
        capture_output=True,
    )
    return Path(raw).read_bytes()


def test_overlay_shows_its_base_and_is_private(tmp_path: Path, pool: Path) -> None:
    base = make_base(pool)
    disks.ensure_disks(str(tmp_path), [plan(volume(pool), base_path=base)])
    assert stat.S_IMODE(Path(volume(pool)).stat().st_mode) == 0o600
    assert Path(volume(pool)).stat().st_blocks * 512 < 256 * 1024
    assert read_through_qemu(volume(pool), 4096) == b"base" * 1024
    assert not list(pool.glob("volumes/*.part"))


def test_raw_disk_is_sparse_and_of_the_planned_size(tmp_path: Path, pool: Path) -> None:
    path = names.ephemeral_path(str(pool), INSTANCE, "ephemeral0")
    disks.ensure_disks(str(tmp_path), [plan(path, "raw", 75 * 10**9 // 512 * 512)])
    found = Path(path).stat()
    assert found.st_size == 75 * 10**9 // 512 * 512
    assert found.st_blocks == 0


@pytest.mark.parametrize(("disk_format", "virtual_name"), [("qcow2", None), ("raw", "ephemeral3")])
def test_an_existing_disk_is_kept(tmp_path: Path, pool: Path, disk_format: str, virtual_name: str | None) -> None:
    path = names.ephemeral_path(str(pool), INSTANCE, virtual_name) if virtual_name else volume(pool)
    disks.ensure_disks(str(tmp_path), [plan(path, disk_format)])
    with open(path, "r+b") as file:
        file.seek(300_000)
        file.write(b"the guest's")
    before = Path(path).stat()
    disks.ensure_disks(str(tmp_path), [plan(path, disk_format)])
    assert Path(path).stat() == before


@pytest.mark.parametrize("found", [b"", b"something else" * 100, b"QFI\xfb\0\0\0\3" + b"\0" * 500])
def test_a_disk_that_is_something_else_is_refused_and_kept(tmp_path: Path, pool: Path, found: bytes) -> None:
    Path(volume(pool)).write_bytes(found)
    with pytest.raises(Failure) as caught:
        disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    assert (caught.value.code, caught.value.transient) == (codes.INTERNAL, False)
    assert Path(volume(pool)).read_bytes() == found


def test_a_disk_of_another_size_is_refused(tmp_path: Path, pool: Path) -> None:
    disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    with pytest.raises(Failure):
        disks.ensure_disks(str(tmp_path), [plan(volume(pool), size_bytes=2 * GIB)])


def test_a_link_in_place_of_a_disk_is_not_followed(tmp_path: Path, pool: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    Path(volume(pool)).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic"):
        disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    Path(volume(pool) + ".part").symlink_to(elsewhere)
    Path(volume(pool)).unlink()
    with pytest.raises(Failure):
        disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    assert elsewhere.read_bytes() == b"precious"


def test_what_a_dead_attempt_left_is_replaced(tmp_path: Path, pool: Path) -> None:
    Path(volume(pool) + ".part").write_bytes(b"half" * 1_000_000)
    disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    assert [found.name for found in (pool / "volumes").iterdir()] == [f"{VOLUME}.qcow2"]
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", volume(pool)], check=True)


def test_missing_base_says_so_and_makes_nothing(tmp_path: Path, pool: Path) -> None:
    with pytest.raises(Failure) as caught:
        disks.ensure_disks(str(tmp_path), [plan(volume(pool), base_path=names.base_path(str(pool), SNAPSHOT))])
    assert (caught.value.code, caught.value.transient) == ("missing-base", False)
    assert list((pool / "volumes").iterdir()) == []


def test_a_base_larger_than_the_disk_is_refused(tmp_path: Path, pool: Path) -> None:
    base = make_base(pool, 2 * 1024 * 1024)
    with pytest.raises(Failure) as caught:
        disks.ensure_disks(str(tmp_path), [plan(volume(pool), size_bytes=1024 * 1024, base_path=base)])
    assert caught.value.code == codes.INTERNAL


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "volumes/vol-01234567.qcow2",
        "/pool/volumes/vol-01234567.raw",
        "/pool/volumes/../volumes/vol-01234567.qcow2",
        "/pool//volumes/vol-01234567.qcow2",
        "/pool/volumes/vol-01234567.qcow2\n",
        "/pool/volumes/vol-01234567.qcow2.part",
        "/pool/bases/snap-01234567.raw",
        "/pool/ephemeral/i-01234567-root.raw",
        "/pool/ephemeral/i-01234567-ephemeral0.qcow2",
        "/volumes/vol-01234567.qcow2",
    ],
)
def test_paths_that_are_not_disks_are_neither_made_nor_removed(tmp_path: Path, path: str) -> None:
    with pytest.raises(Failure) as caught:
        disks.ensure_disks(str(tmp_path), [plan(path)])
    assert not caught.value.transient
    with pytest.raises(Failure):
        disks.ensure_no_disks([path])


def test_one_foreign_path_spares_them_all(tmp_path: Path, pool: Path) -> None:
    disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    with pytest.raises(Failure):
        disks.ensure_no_disks([volume(pool), "/etc/passwd"])
    assert Path(volume(pool)).exists()


def test_removal_takes_the_unfinished_too_and_repeats(tmp_path: Path, pool: Path) -> None:
    disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    Path(volume(pool) + ".part").touch()
    for _ in range(2):
        disks.ensure_no_disks([volume(pool)])
        assert list((pool / "volumes").iterdir()) == []


@pytest.mark.parametrize("size_bytes", [0, -512, 513, 65 * 1024**4])
def test_sizes_that_are_none_are_refused(tmp_path: Path, pool: Path, size_bytes: int) -> None:
    with pytest.raises(Failure) as caught:
        disks.ensure_disks(str(tmp_path), [plan(volume(pool), size_bytes=size_bytes)])
    assert caught.value.code == codes.INTERNAL
    assert pools.list_disks(str(tmp_path)) == []


@pytest.mark.parametrize("size_bytes", [0, -512, 513])
def test_raw_sizes_that_are_none_are_refused(tmp_path: Path, pool: Path, size_bytes: int) -> None:
    with pytest.raises(Failure) as caught:
        disks.ensure_disks(
            str(tmp_path), [plan(names.ephemeral_path(str(pool), INSTANCE, "ephemeral0"), "raw", size_bytes)]
        )
    assert caught.value.code == codes.INTERNAL
    assert pools.list_disks(str(tmp_path)) == []


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_space_is_capacity_and_leaves_nothing(tmp_path: Path, pool: Path, file_size_limit: None) -> None:
    with pytest.raises(Failure) as caught:
        disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    assert (caught.value.code, caught.value.transient) == ("Server.InsufficientInstanceCapacity", False)
    assert list((pool / "volumes").iterdir()) == []


# The qcow2 header itself, against QEMU.

SIZES = [512, 1024**2, GIB - 512, GIB, GIB + 512, 8 * GIB, 16 * 1024 * GIB, 17 * 1024 * GIB, 64 * 1024 * GIB]


@pytest.mark.parametrize("size_bytes", SIZES)
def test_qemu_agrees_with_the_header(tmp_path: Path, size_bytes: int) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(b"b" * 512)
    for backing in (None, str(base)):
        path = tmp_path / "disk.qcow2"
        file_bytes, pieces = qcow2.render_empty(size_bytes, backing)
        with open(path, "wb") as file:
            file.truncate(file_bytes)
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
        assert qcow2.read_size(path.read_bytes()[:512]) == size_bytes
        check = subprocess.run(
            ["qemu-img", "check", "-f", "qcow2", "--output", "json", str(path)], check=True, capture_output=True
        )
        report = json.loads(check.stdout)
        assert not {"corruptions", "leaks", "check-errors"} & {k for k, v in report.items() if v}
        info = json.loads(
            subprocess.run(
                ["qemu-img", "info", "-f", "qcow2", "--output", "json", str(path)], check=True, capture_output=True
            ).stdout
        )
        assert info["virtual-size"] == size_bytes
        assert info["cluster-size"] == 128 * 1024
        assert info["format-specific"]["data"]["extended-l2"] is True
        assert info["format-specific"]["data"]["refcount-bits"] == 16
        assert info.get("backing-filename") == backing
        assert info.get("backing-filename-format") == (backing and "raw")


@pytest.mark.parametrize("size_bytes", [GIB, 64 * 1024 * GIB])
def test_qemu_writes_anywhere_in_it(tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "disk.qcow2"
    file_bytes, pieces = qcow2.render_empty(size_bytes, None)
    with open(path, "wb") as file:
        file.truncate(file_bytes)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    commands = [f"write -P 7 {offset} 4k" for offset in (0, size_bytes // 2, size_bytes - 4096)]
    reads = [c.replace("write", "read") for c in commands] + [f"read -P 0 {size_bytes // 4} 64k"]
    arguments = [word for command in commands + reads for word in ("-c", command)]
    done = subprocess.run(["qemu-io", "-f", "qcow2", *arguments, str(path)], check=True, capture_output=True, text=True)
    assert "verification failed" not in done.stdout
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(path)], check=True)


@pytest.mark.parametrize("size_bytes", [0, 511, -512, 64 * 1024**4 + 512])
def test_impossible_headers_are_refused(size_bytes: int) -> None:
    with pytest.raises(ValueError, match="size"):
        qcow2.render_empty(size_bytes, None)


def test_a_backing_name_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        qcow2.render_empty(GIB, "/" + "x" * 1023)


def test_a_used_volume_that_is_gone_is_never_made_anew(tmp_path: Path, pool: Path) -> None:
    with pytest.raises(Failure) as caught:
        disks.ensure_disks(str(tmp_path), [plan(volume(pool), may_create=False)])
    assert (caught.value.code, caught.value.transient) == (codes.INTERNAL, False)
    assert not Path(volume(pool)).exists()


def test_a_used_volume_that_is_there_is_fine(tmp_path: Path, pool: Path) -> None:
    disks.ensure_disks(str(tmp_path), [plan(volume(pool))])
    before = Path(volume(pool)).read_bytes()
    disks.ensure_disks(str(tmp_path), [plan(volume(pool), may_create=False)])
    assert Path(volume(pool)).read_bytes() == before
