"""Measures the host: cores, memory, kernel, boot, versions. What libvirt knows of it is asked by hosts/. Read only."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Any, Dict

from minicloud.hostside import commands
from minicloud.hostside.failures import Failure


def measure_host() -> Dict[str, Any]:
    """Return the facts of this host; `qemu_version` is empty where QEMU is missing."""
    return {
        "hostname": socket.gethostname(),
        "vcpus": len(os.sched_getaffinity(0)),
        "memory_mib": parse_memory_mib(Path("/proc/meminfo").read_text("ascii")),
        "kernel": os.uname().release,
        "architecture": os.uname().machine,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip(),
        "python": sys.version.split()[0],
        "qemu_version": _qemu_version(),
    }


def parse_memory_mib(meminfo: str) -> int:
    """Return MemTotal of /proc/meminfo in MiB."""
    match = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    if not match:
        raise Failure("Server.InternalError", "/proc/meminfo states no MemTotal", transient=False)
    return int(match.group(1)) // 1024


def _qemu_version() -> str:
    try:
        output = commands.run(["qemu-img", "--version"])
    except Failure:
        return ""
    match = re.search(rb"version (\d+(?:\.\d+)+)", output)
    return match.group(1).decode() if match else ""
