"""Decides where the first cloud lives: on this machine's own libvirt, or in a lab of one host.

`choose_place` is pure; `read_facts` looks. Called by main.py.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

LIBVIRT_SECONDS = 60


@dataclass(frozen=True)
class Facts:
    """What decides. `libvirt_trouble` is why the machine's own libvirt cannot be used, empty if it answers."""

    systemd_runs: bool
    libvirt_trouble: str = ""


@dataclass(frozen=True)
class Choice:
    """`place` is "machine" or "lab", `reason` one sentence for people."""

    place: str
    reason: str


def choose_place(facts: Facts) -> Choice:
    """Take the machine's own libvirt where systemd keeps it running and it answers, a lab everywhere else."""
    if not facts.systemd_runs:
        return Choice(
            "lab", "systemd does not run here, so nothing keeps a libvirtd: one host made of namespaces it is"
        )
    if facts.libvirt_trouble:
        return Choice(
            "lab", f"this machine's libvirt cannot be used ({facts.libvirt_trouble}): a lab of one host it is"
        )
    return Choice("machine", "systemd runs this machine's libvirt, and it answers: the machine itself is the host")


def read_facts(systemd_folder: Path = Path("/run/systemd/system")) -> Facts:
    """Look whether systemd runs, and whether libvirt answers (its socket unit starts it when asked)."""
    if not systemd_folder.is_dir():
        return Facts(systemd_runs=False)
    try:
        asked = subprocess.run(
            ["virsh", "-q", "-c", "qemu:///system", "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIBVIRT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Facts(True, f"it did not answer within {LIBVIRT_SECONDS} s")
    except OSError as error:
        return Facts(True, f"virsh: {error.strerror}")
    said = " ".join(asked.stderr.split()).removeprefix("error: ")
    return Facts(True, "" if asked.returncode == 0 else said or f"virsh ended with {asked.returncode}")
