"""Finds out whether guests run under KVM here, by running one. A /dev/kvm that opens proves nothing.

There are machines whose KVM starts a guest and then runs it an instruction at a time, or only runs kernels written for
it. So two guests are tried, each with a deadline: a program of our own that does in 64-bit kernel mode what every
kernel does (page tables, faults, two hundred million instructions), then, where the host has one in /boot, a stock
Linux kernel until it panics for want of a root disk. What was found is remembered until the host boots again.
Owns `<state folder>/kvm-probe.json`. Called by verbs.py, and by `minicloud doctor` on this machine.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from minicloud.hostside import commands, files
from minicloud.hostside.failures import Failure

DEVICE = "/dev/kvm"
BOOT_FOLDER = "/boot"
QEMU_PATHS = ("/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm")

# A tenth of a second each where KVM works; the rest is for hosts that are busy.
PROGRAM_SECONDS = 4.0
KERNEL_SECONDS = 14.0
# Raised when the probe changes: what an older one remembered is then asked again.
REVISION = 1

# QEMU's isa-debug-exit device ends it with 2 * value + 1.
_EXIT_PORT_DEVICE = "isa-debug-exit,iobase=0xf4,iosize=4"
_EXIT_STATUS = 2 * 0x10 + 1
_SAID = b"K"
_PANIC = b"Kernel panic - not syncing"
# How far Linux gets with neither disk nor initramfs: drivers are up, and it looks for something to mount or to run.
_DEEP = (b"not syncing: VFS:", b"not syncing: No working init found", b"not syncing: Requested init")

# Loaded at 0x100000 by QEMU as a Multiboot kernel, entered in 32-bit protected mode at 0x100020.
_PROGRAM = """
02b0ad1b                 | Multiboot header: magic
00000100                 | addresses follow
fe4f51e4                 | checksum
00001000                 | header address
00001000                 | load address
24011000                 | end of what to load
00000000                 | no bss
20001000                 | entry
fa                       | cli
bf00002000               | mov edi,0x200000          ; three empty page tables
31c0                     | xor eax,eax
b9000c0000               | mov ecx,0xc00
f3ab                     | rep stosd
c7050000200003102000     | mov dword [0x200000],0x201003
c7050010200003202000     | mov dword [0x201000],0x202003
bf00202000               | mov edi,0x202000          ; map 1 GiB onto itself, 2 MiB a page
b883000000               | mov eax,0x83
b900020000               | mov ecx,0x200
8907                     | page: mov [edi],eax
0500002000               | add eax,0x200000
83c708                   | add edi,0x8
49                       | dec ecx
75f3                     | jne page
b800002000               | mov eax,0x200000
0f22d8                   | mov cr3,eax
0f20e0                   | mov eax,cr4               ; PAE
83c820                   | or eax,0x20
0f22e0                   | mov cr4,eax
b9800000c0               | mov ecx,0xc0000080        ; EFER.LME
0f32                     | rdmsr
0d00010000               | or eax,0x100
0f30                     | wrmsr
0f20c0                   | mov eax,cr0               ; paging: long mode is on
0d01000080               | or eax,0x80000001
0f22c0                   | mov cr0,eax
0f011510011000           | lgdt [gdtr]
ea970010000800           | jmp 0x8:long
bc00001800               | long: mov esp,0x180000
b810000000               | mov eax,0x10
8ed0                     | mov ss,eax
c7042560002100f0000000   | mov dword [0x210060],0xf0 ; gate 6, undefined instruction
66c70425620021000800     | mov word [0x210062],0x8
c7042564002100008e1000   | mov dword [0x210064],0x108e00
0f011c251a011000         | lidt [idtr]
bbe8030000               | mov ebx,1000
0f0b                     | fault: ud2
ffcb                     | dec ebx
75fa                     | jne fault
b900c2eb0b               | mov ecx,200000000
ffc9                     | spin: dec ecx
75fc                     | jne spin
66baf803                 | mov dx,0x3f8              ; say K on the serial port
b04b                     | mov al,0x4b
ee                       | out dx,al
66baf400                 | mov dx,0xf4               ; end QEMU
b010                     | mov al,0x10
ee                       | out dx,al
f4                       | halt: hlt
ebfd                     | jmp halt
4883042402               | undefined: add qword [rsp],2
48cf                     | iretq
90                       | align 8
0000000000000000         | gdt: null
ffff0000009aaf00         | 64-bit code
ffff00000092cf00         | data
1700f800100000000000     | gdtr
6f000000210000000000     | idtr
"""


def probe(
    state_folder: str,
    boot_id: str,
    run: Callable[..., bytes] = commands.run,
    device: str = DEVICE,
    boot_folder: str = BOOT_FOLDER,
    qemu_paths: Tuple[str, ...] = QEMU_PATHS,
) -> Dict[str, str]:
    """Return {"virt_type": "kvm" or "qemu", "reason": a sentence}; takes up to 20 s once per boot of the host."""
    path = Path(state_folder) / "kvm-probe.json"
    files.ensure_folder(path.parent)
    with files.locked(path.with_name("kvm-probe.lock")):
        known = files.read_json(path)
        if isinstance(known, dict) and known.get("boot_id") == boot_id and known.get("revision") == REVISION:
            return {"virt_type": known["virt_type"], "reason": known["reason"]}
        usable, reason = _try_kvm(run, device, boot_folder, qemu_paths)
        found = {"virt_type": "kvm" if usable else "qemu", "reason": reason}
        files.atomic_write(path, json.dumps({"boot_id": boot_id, "revision": REVISION, **found}))
        return found


def render_program() -> bytes:
    """Return the Multiboot image of the program above. Pure."""
    return bytes.fromhex("".join(line.partition("|")[0].strip() for line in _PROGRAM.splitlines()))


def choose_kernel(boot_folder: str) -> Optional[str]:
    """Return the newest kernel in `boot_folder`, or None."""
    try:
        kernels = [entry for entry in os.scandir(boot_folder) if entry.name.startswith("vmlinuz") and entry.is_file()]
        return max(kernels, key=lambda entry: entry.stat().st_mtime).path if kernels else None
    except OSError:
        return None


def _try_kvm(run: Callable[..., bytes], device: str, boot_folder: str, qemu_paths: Tuple[str, ...]) -> Tuple[bool, str]:
    if not os.path.exists(device):
        return False, f"{device} does not exist"
    if not os.access(device, os.R_OK | os.W_OK):
        return False, f"{device} may not be opened"
    qemu = next((each for each in qemu_paths if os.path.exists(each)), None)
    if qemu is None:
        return False, "QEMU is not installed"
    failure = _try_program(run, qemu)
    if failure:
        return False, failure
    kernel = choose_kernel(boot_folder)
    if kernel is None:
        return True, "a test program ran under KVM (no kernel in /boot to try)"
    failure = _try_kernel(run, qemu, kernel)
    return (False, failure) if failure else (True, f"{kernel} booted under KVM")


def _try_program(run: Callable[..., bytes], qemu: str) -> str:
    """Run the test program; return what went wrong, or nothing."""
    with tempfile.TemporaryDirectory(prefix="minicloud-kvm-") as folder:
        image = os.path.join(folder, "program")
        with open(image, "wb") as file:
            file.write(render_program())
        argv = [*_qemu_argv(qemu), "-device", _EXIT_PORT_DEVICE, "-kernel", image]
        try:
            said = run(argv, timeout_seconds=PROGRAM_SECONDS, accepted=(_EXIT_STATUS,))
        except Failure as failure:
            return _explain(failure, "a test program", PROGRAM_SECONDS)
    return "" if said.endswith(_SAID) else "a test program ran under KVM but did not answer"


def _try_kernel(run: Callable[..., bytes], qemu: str, kernel: str) -> str:
    """Boot a kernel until it misses its root disk; return what went wrong, or nothing."""
    # panic=-1: it reboots at once, which ends a QEMU that may not.
    argv = [*_qemu_argv(qemu), "-kernel", kernel, "-append", "console=ttyS0 panic=-1"]
    try:
        said = run(argv, timeout_seconds=KERNEL_SECONDS)
    except Failure as failure:
        return _explain(failure, kernel, KERNEL_SECONDS)
    if any(each in said for each in _DEEP):
        return ""
    if _PANIC in said:
        return f"{kernel} crashed under KVM"
    return f"{kernel} stopped early under KVM"


def _qemu_argv(qemu: str) -> List[str]:
    machine = ["-machine", "q35,accel=kvm", "-cpu", "host", "-m", "256"]
    quiet = ["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-serial", "stdio"]
    return [qemu, *machine, *quiet, "-no-reboot"]


def _explain(failure: Failure, guest: str, seconds: float) -> str:
    if failure.code == "command-timeout":
        return f"{guest} did not come to its end within {seconds:g} s under KVM"
    return f"{guest} failed under KVM: {failure.detail[-300:]}"
