"""Finds the QEMU processes of libvirt's guests on this host, and ends one that libvirt has lost.

The truth about whether a disk, an address or a MAC is still in use: libvirt can report a guest destroyed while its QEMU
lives (libvirt 9.0 does so when the process does not die in time), and knows nothing of one it started just before it
was killed. Read only, but for `end_qemu`, which ends nothing but a QEMU of the exact name. Called by verbs.py.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Dict, List, Optional, Sequence

PROC = "/proc"
PID_FOLDER = "/run/libvirt/qemu"


def find_qemu(names: Optional[Sequence[str]] = None, proc: str = PROC) -> Dict[str, int]:
    """Return the process id of every living QEMU by its guest's name; of those in `names` only, unless that is None.

    Zombies are not alive: they hold no file, tap or address any more.
    """
    wanted = None if names is None else frozenset(names)
    found: Dict[str, int] = {}
    for entry in os.listdir(proc):
        if entry.isdigit():
            name = _guest_name(proc, int(entry))
            if name is not None and (wanted is None or name in wanted):
                found[name] = int(entry)
    return found


def find_by_pid_file(name: str, proc: str = PROC, pid_folder: str = PID_FOLDER) -> Optional[int]:
    """Return the process id of a guest's QEMU if libvirt's pid file names it and it lives; a few microseconds.

    None says little: libvirt removes the file also where the process survived it. `find_qemu` knows.
    """
    try:
        with open(os.path.join(pid_folder, name + ".pid"), "rb") as file:
            pid = int(file.read(32))
    except (OSError, ValueError):
        return None
    return pid if _guest_name(proc, pid) == name else None


def end_qemu(name: str, timeout_seconds: float, proc: str = PROC) -> bool:
    """Kill the QEMU of a guest and wait until it is gone; True if there is none any more."""
    pid = find_qemu([name], proc).get(name)
    if pid is None:
        return True
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The descriptor stays with one process: if it is the right one now, no other can get the signal.
        if _guest_name(proc, pid) != name:
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(timeout_seconds, 0.0) * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def parse_guest_name(cmdline: bytes) -> Optional[str]:
    """Return the guest's name from the NUL-separated arguments of a process; None if it is not a QEMU of libvirt's."""
    program = cmdline.partition(b"\0")[0].rpartition(b"/")[2]
    if b"qemu" not in program and program != b"kvm":
        return None
    arguments: List[bytes] = cmdline.split(b"\0")
    for index, argument in enumerate(arguments[:-1]):
        if argument == b"-name":
            for part in arguments[index + 1].split(b","):
                if part.startswith(b"guest="):
                    return part[len(b"guest=") :].decode("utf-8", "replace")
    return None


def _guest_name(proc: str, pid: int) -> Optional[str]:
    # Plain system calls: a host has hundreds of processes, and open() costs four times as much.
    try:
        descriptor = os.open("%s/%d/cmdline" % (proc, pid), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # A QEMU's arguments are longer than this, but its name is among the first.
        cmdline = os.read(descriptor, 4096)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return parse_guest_name(cmdline)
