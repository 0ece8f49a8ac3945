from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from minicloud.hostside import kvm_probe
from minicloud.hostside.failures import Failure

DEEP = b"Linux version 6.1\n...\nKernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"


class Machine:
    """A host with /dev/kvm and a QEMU; `program` and `kernel` are what the two guests print, or how they fail."""

    def __init__(self, folder: Path, program: bytes | Failure = b"K", kernel: bytes | Failure | None = None) -> None:
        self.folder = folder
        self.program = program
        self.kernel = kernel
        self.runs: list[list[str]] = []
        self.device = folder / "kvm"
        self.device.touch()
        self.qemu = folder / "qemu-system-x86_64"
        self.qemu.touch()
        self.boot = folder / "boot"
        self.boot.mkdir()
        if kernel is not None:
            (self.boot / "vmlinuz-6.1").touch()

    def run(self, argv: Sequence[str], timeout_seconds: float, accepted: tuple[int, ...] = (0,)) -> bytes:
        self.runs.append(list(argv))
        image = argv[argv.index("-kernel") + 1]
        said = self.kernel if image.startswith(str(self.boot)) else self.program
        assert said is not None
        if isinstance(said, Failure):
            raise said
        return said

    def probe(self, boot_id: str = "boot-1") -> tuple[str, str]:
        found = kvm_probe.probe(
            str(self.folder / "state"),
            boot_id,
            run=self.run,
            device=str(self.device),
            boot_folder=str(self.boot),
            qemu_paths=(str(self.qemu),),
        )
        return found["virt_type"], found["reason"]


TIMEOUT = Failure("command-timeout", "qemu took over 4 s", transient=True)
BROKEN = Failure("command-failed", "qemu ended with status 1: failed to initialize kvm", transient=True)


@pytest.mark.parametrize(
    ("program", "kernel", "virt_type", "words"),
    [
        (b"K", None, "kvm", "no kernel in /boot"),
        (b"SeaBIOS\r\nK", DEEP, "kvm", "booted under KVM"),
        (TIMEOUT, DEEP, "qemu", "a test program did not come to its end within 4 s"),
        (BROKEN, DEEP, "qemu", "failed to initialize kvm"),
        (b"", DEEP, "qemu", "did not answer"),
        (b"K", TIMEOUT, "qemu", "vmlinuz-6.1 did not come to its end within 14 s"),
        (b"K", b"Kernel panic - not syncing: Fatal exception", "qemu", "vmlinuz-6.1 crashed"),
        (b"K", b"Probing EDD... ok", "qemu", "vmlinuz-6.1 stopped early"),
    ],
)
def test_guests_that_ran_decide(
    tmp_path: Path, program: bytes | Failure, kernel: bytes | Failure | None, virt_type: str, words: str
) -> None:
    found, reason = Machine(tmp_path, program, kernel).probe()
    assert found == virt_type
    assert words in reason


def remove_device(machine: Machine) -> None:
    machine.device.unlink()


def remove_qemu(machine: Machine) -> None:
    machine.qemu.unlink()


@pytest.mark.parametrize(("break_it", "words"), [(remove_device, "does not exist"), (remove_qemu, "not installed")])
def test_nothing_is_run_where_nothing_can(tmp_path: Path, break_it: Callable[[Machine], None], words: str) -> None:
    machine = Machine(tmp_path)
    break_it(machine)
    found, reason = machine.probe()
    assert found == "qemu"
    assert words in reason
    assert machine.runs == []


def test_what_was_found_is_remembered_until_the_host_boots_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path, b"K", DEEP)
    first = machine.probe()
    assert machine.probe() == first
    assert len(machine.runs) == 2
    machine.kernel = TIMEOUT
    assert machine.probe("boot-2")[0] == "qemu"


def test_a_memory_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.probe()
    (tmp_path / "state" / "kvm-probe.json").write_text('{"boot_id": "boot-1"')
    assert machine.probe()[0] == "kvm"
    assert len(machine.runs) == 2


def test_the_newest_kernel_is_chosen(tmp_path: Path) -> None:
    for number, name in enumerate(["vmlinuz-6.1", "vmlinuz-5.10", "initrd.img-6.1"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (number, number))
    assert kvm_probe.choose_kernel(str(tmp_path)) == str(tmp_path / "vmlinuz-5.10")
    assert kvm_probe.choose_kernel(str(tmp_path / "absent")) is None


def test_the_program_is_a_multiboot_image_that_names_its_own_end() -> None:
    image = kvm_probe.render_program()
    magic, flags, checksum = (int.from_bytes(image[at : at + 4], "little") for at in (0, 4, 8))
    assert (magic + flags + checksum) % 2**32 == 0
    assert int.from_bytes(image[20:24], "little") - 0x100000 == len(image)
