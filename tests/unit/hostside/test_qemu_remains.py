from __future__ import annotations

from pathlib import Path

import pytest

from minicloud.hostside.failures import Failure
from minicloud.hostside.qemu_remains import ensure_no_remains

NAME = "i-0123456789abcdef0"
OTHER = "i-0123456789abcdef1"


def remove(folder: Path, name: str = NAME) -> None:
    ensure_no_remains(name, str(folder / "log"), str(folder / "run"), str(folder / "state"))


def fill(folder: Path, name: str) -> None:
    for file in (f"log/{name}.log", f"log/{name}.log.0", f"log/{name}.log.12", f"run/{name}.pid", f"run/{name}.xml"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    for made in (f"state/domain-3-{name}", f"state/domain-14-{name}", f"state/channel/target/domain-3-{name}"):
        (folder / made).mkdir(parents=True)
        (folder / made / "master-key.aes").touch()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if "i-0" in path.name}


def test_everything_of_the_domain_goes_and_nothing_of_another(tmp_path: Path) -> None:
    fill(tmp_path, OTHER)
    (tmp_path / "log" / f"{NAME}0.log").touch()
    before = left(tmp_path)
    fill(tmp_path, NAME)
    for _ in range(2):
        remove(tmp_path)
    # The status file is libvirt's word that the domain is active: not ours to touch.
    assert left(tmp_path) == before | {f"{NAME}.xml"}


def test_a_host_without_these_folders_has_no_remains(tmp_path: Path) -> None:
    remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "i-0123456789abcdeg0", "../i-0123456789abcdef0", ".*"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure):
        remove(tmp_path, name)
