"""The check-up of `minicloud doctor`: what each finding says, and that what is wrong says how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicloud.hosts import checkup


def unreachable() -> str:
    raise OSError("qemu:///system does not answer")


def test_every_finding_that_is_not_ok_says_how_to_mend_it(tmp_path: Path) -> None:
    checks = checkup.check_up(lambda: ("qemu", "no answer"), unreachable, str(tmp_path))
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    assert {"kvm", "nested kvm", "libvirt", "qemu", "nftables", "dnsmasq", "lvm", "disk space", "reaping init"} <= set(
        names
    )
    assert "clock" in names
    for check in checks:
        assert check.status in (checkup.OK, checkup.WARN, checkup.FAIL)
        assert bool(check.mend) == (check.status != checkup.OK), check


def test_libvirt_answers_or_not() -> None:
    assert checkup.check_libvirt(lambda: "libvirt 9.0.0").found == "libvirt 9.0.0"
    silent = checkup.check_libvirt(unreachable)
    assert (silent.status, silent.found) == (checkup.FAIL, "qemu:///system does not answer")
    assert "libvirt-daemon-system" in silent.mend


@pytest.mark.parametrize(("text", "status"), [("Y\n", checkup.OK), ("1\n", checkup.OK), ("N\n", checkup.WARN)])
def test_nested_kvm_is_what_the_module_says(tmp_path: Path, text: str, status: str) -> None:
    parameters = tmp_path / "kvm_amd" / "parameters"
    parameters.mkdir(parents=True)
    (parameters / "nested").write_text(text)
    check = checkup.check_nested(tmp_path)
    assert check.status == status
    assert "kvm_amd" in check.found


def test_a_missing_program_names_its_package() -> None:
    check = checkup.check_program("thing", "no-such-program-anywhere", "thing-package", checkup.FAIL)
    assert (check.status, check.mend) == (checkup.FAIL, "apt install thing-package")


def test_disk_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(tmp_path) in checkup.check_disk_space(str(tmp_path / "not" / "yet")).found
    monkeypatch.setattr(checkup, "LEAST_FREE_BYTES", 1 << 62)
    assert checkup.check_disk_space(str(tmp_path)).status == checkup.FAIL
