"""Which files of the controller may be imported: the only paths that a client can name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicloud.api.import_files import clear_spool, resolve_source
from minicloud.config import Config
from minicloud.errors import ApiError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that imports are allowed from, with a disk in it; a secret lies outside."""
    allowed = tmp_path / "disks"
    allowed.mkdir()
    (allowed / "a.qcow2").write_bytes(b"QFI\xfb")
    (allowed / "below").mkdir()
    (allowed / "below" / "b.raw").write_bytes(b"raw")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "disks-of-others").mkdir()
    (tmp_path / "disks-of-others" / "c.raw").write_bytes(b"raw")
    (tmp_path / "state" / "spool").mkdir(parents=True)
    (tmp_path / "state" / "spool" / "upload").write_bytes(b"upload")
    return allowed


@pytest.fixture
def config(folder: Path) -> Config:
    return Config(image_import_folders=(str(folder),), state_folder=str(folder.parent / "state"), max_import_bytes=100)


def test_a_file_of_an_allowed_folder(config: Config, folder: Path) -> None:
    found = resolve_source(config, f"file://{folder}/a.qcow2")
    assert (found.url, found.path) == (f"file://{folder}/a.qcow2", f"{folder}/a.qcow2")
    assert (found.size_bytes, found.remove_when_done) == (4, False)


@pytest.mark.parametrize(
    "form",
    [
        "file://{}/a.qcow2",
        "file:{}/a.qcow2",
        "file://localhost{}/a.qcow2",
        "FILE://{}/a.qcow2",
        "file://{}/%61.qcow2",
        "file://{}//a.qcow2",
        "file://{}/./below/../a.qcow2",
    ],
)
def test_forms_of_one_file(config: Config, folder: Path, form: str) -> None:
    assert resolve_source(config, form.format(folder)).path == f"{folder}/a.qcow2"


def test_folders_below_are_allowed_and_so_are_links_within(config: Config, folder: Path) -> None:
    (folder / "link").symlink_to("below/b.raw")
    (folder / "way").symlink_to("below")
    for name in ("below/b.raw", "link", "way/b.raw"):
        assert resolve_source(config, f"file://{folder}/{name}").path == f"{folder}/below/b.raw"


def test_an_allowed_folder_may_be_a_link_itself(folder: Path) -> None:
    (folder.parent / "alias").symlink_to(folder)
    config = Config(image_import_folders=(f"{folder.parent}/alias/",), state_folder="/nonexistent")
    assert resolve_source(config, f"file://{folder.parent}/alias/a.qcow2").path == f"{folder}/a.qcow2"


def test_uploads_in_the_spool_go_with_their_import(config: Config, folder: Path) -> None:
    assert resolve_source(config, f"file://{folder.parent}/state/spool/upload").remove_when_done is True


def test_a_link_out_of_the_folder_leads_nowhere(config: Config, folder: Path) -> None:
    (folder / "escape").symlink_to("../secret")
    (folder / "up").symlink_to("..")
    (folder / "dangling").symlink_to("../absent")
    for name in ("escape", "up/secret", "dangling", "../secret", "below/../../secret", "%2e%2e/secret"):
        with pytest.raises(ApiError, match=r"^InvalidParameterValue: .*not in a folder that the operator allows"):
            resolve_source(config, f"file://{folder}/{name}")


@pytest.mark.parametrize("name", ["secret", "absent", "disks-of-others/c.raw", "disks", ""])
def test_nothing_is_said_of_files_elsewhere(config: Config, folder: Path, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        resolve_source(config, f"file://{folder.parent}/{name}")
    assert caught.value.message == (
        "The URL of the disk image cannot be used: it is not in a folder that the operator allows imports from "
        "(image_import_folders)."
    )


def test_by_default_no_folder_is_allowed(folder: Path) -> None:
    with pytest.raises(ApiError, match="not in a folder"):
        resolve_source(Config(state_folder="/nonexistent"), f"file://{folder}/a.qcow2")


def test_what_is_no_file(config: Config, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    for name, why in (("absent", "cannot be read"), ("below", "not a file"), ("pipe", "not a file"), ("loop", "not a")):
        with pytest.raises(ApiError, match=f"^InvalidParameterValue: .*{why}"):
            resolve_source(config, f"file://{folder}/{name}")


def test_sizes(config: Config, folder: Path) -> None:
    (folder / "empty").touch()
    (folder / "most").write_bytes(b"x" * 100)
    (folder / "more").write_bytes(b"x" * 101)
    assert resolve_source(config, f"file://{folder}/most").size_bytes == 100
    for name in ("empty", "more"):
        with pytest.raises(ApiError, match="1 to 100 bytes"):
            resolve_source(config, f"file://{folder}/{name}")


@pytest.mark.parametrize(
    "url",
    [
        "", "a.qcow2", "/etc/passwd", "http://host/a.qcow2", "s3://bucket/key", "https://user:password@host/a",
        "file://otherhost/a.qcow2", "file://a.qcow2", "file:a.qcow2", "file:///a?b", "file:///a#b", "file:///a%00b",
        "file:///" + "x" * 5000, "file://[/a", "file://", "\x00",
    ],
    ids=lambda url: repr(url[:30]),
)  # fmt: skip
def test_other_urls_are_refused_and_not_repeated(config: Config, url: str) -> None:
    with pytest.raises(ApiError) as caught:
        resolve_source(config, url)
    assert caught.value.code == "InvalidParameterValue"
    assert "password" not in caught.value.message
    assert "passwd" not in caught.value.message


def test_the_spool_is_cleared_of_what_nobody_needs(config: Config, folder: Path) -> None:
    spool = folder.parent / "state" / "spool"
    (spool / "needed").touch()
    assert clear_spool(config, [str(spool / "needed")]) == 1
    assert [entry.name for entry in spool.iterdir()] == ["needed"]
    assert clear_spool(Config(state_folder="/nonexistent"), []) == 0


def test_a_path_that_no_row_could_hold_is_refused(config: Config, folder: Path) -> None:
    file = os.fsencode(folder) + b"/\xff.qcow2"
    with open(file, "wb") as disk:
        disk.write(b"QFI\xfb")
    with pytest.raises(ApiError, match="UTF-8"):
        resolve_source(config, f"file://{folder}/%FF.qcow2")
