from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minicloud.hostside import processes

# Of this run: other runs of the tests on the same machine are seen, too.
NAME = f"i-{os.getpid():017x}"
OTHER = f"i-f{os.getpid():016x}"


@contextmanager
def qemu(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run something that looks like a QEMU of libvirt's."""
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    argv = ["/usr/bin/qemu-system-x86_64", "-c", code, "-name", f"guest={name},debug-threads=on"]
    with subprocess.Popen(argv, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/usr/bin/qemu-system-x86_64", "-name", "guest=i-1,debug-threads=on", "-S"], "i-1"),
        (["/usr/libexec/qemu-kvm", "-S", "-name", "debug-threads=on,guest=i-1"], "i-1"),
        (["/usr/bin/kvm", "-name", "guest=i-1"], "i-1"),
        (["/usr/bin/qemu-system-x86_64", "-machine", "none"], None),
        (["/usr/bin/qemu-system-x86_64", "-name"], None),
        (["/usr/bin/vi", "-name", "guest=i-1"], None),
        ([""], None),
    ],
)
def test_guest_names_are_read_from_arguments(argv: list[str], name: str | None) -> None:
    assert processes.parse_guest_name("\0".join([*argv, ""]).encode()) == name


def test_a_living_qemu_is_found_by_its_guests_name() -> None:
    with qemu(NAME) as process:
        assert processes.find_qemu([NAME]) == {NAME: process.pid}
        assert processes.find_qemu()[NAME] == process.pid
        assert processes.find_qemu([OTHER]) == {}
    assert processes.find_qemu([NAME]) == {}


def test_a_zombie_is_not_alive() -> None:
    with qemu(NAME) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert processes.find_qemu([NAME]) == {}


def test_the_pid_file_counts_only_while_its_process_is_that_guest(tmp_path: Path) -> None:
    file = tmp_path / f"{NAME}.pid"

    def found() -> int | None:
        return processes.find_by_pid_file(NAME, pid_folder=str(tmp_path))

    assert found() is None
    file.write_text("not a number")
    assert found() is None
    file.write_text(str(os.getpid()))
    assert found() is None
    with qemu(NAME) as process:
        file.write_text(f"{process.pid}")
        assert found() == process.pid
    assert found() is None


def test_a_lost_qemu_is_ended_and_no_other() -> None:
    with qemu(NAME) as lost, qemu(OTHER) as other:
        assert processes.end_qemu(NAME, 60.0)
        assert lost.wait(60) == -9
        assert other.poll() is None
    assert processes.end_qemu(NAME, 0.0)
