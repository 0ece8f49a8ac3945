"""What is remembered of the labs of this machine: one folder each below /run, a lock, and what they share.

Owns the files below the base folders and nothing else. The names inside a lab follow from its plan (plan.py);
written down is only what cannot be derived: the network's index, processes with their start times, the cloud.
Called by main.py, machines.py, teardown.py and cloud.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _lab import plan as plans


class LabError(Exception):
    """Something a person can act upon; shown without a traceback."""


@dataclass(frozen=True)
class Folders:
    """`runtime` for state and logs (gone at boot), `data` for what is big: guests' disks. `project`: the checkout."""

    runtime: Path
    data: Path
    project: Path

    @staticmethod
    def default() -> Folders:
        runtime = Path("/run") if os.access("/run", os.W_OK) else Path("/tmp")
        project = Path(__file__).resolve().parents[2]
        return Folders(runtime / "minicloud-lab", Path("/var/tmp/minicloud-lab"), project)


@dataclass(frozen=True)
class Process:
    """A process, told from a later one of the same number by its start time (clock ticks since boot)."""

    pid: int
    start_ticks: int

    @staticmethod
    def of(pid: int) -> Process:
        """Raise ProcessLookupError if there is none."""
        ticks = read_start_ticks(pid)
        if ticks is None:
            raise ProcessLookupError(pid)
        return Process(pid, ticks)

    def is_alive(self) -> bool:
        return read_start_ticks(self.pid) == self.start_ticks


@dataclass
class LabState:
    """`processes` maps a machine's name to (its unshare process, its process 1 or None while it starts)."""

    plan: plans.LabPlan
    processes: dict[str, tuple[Process, Process | None]] = field(default_factory=dict)
    ready: bool = False
    cloud: dict[str, Any] = field(default_factory=dict)

    def process_one(self, machine_name: str) -> Process:
        """Return the machine's process 1; LabError if the machine is not of the lab or not alive."""
        if machine_name not in self.processes:
            raise LabError(f"lab {self.plan.name} has no {machine_name}; it has {', '.join(self.processes)}")
        first = self.processes[machine_name][1]
        if first is None or not first.is_alive():
            raise LabError(f"{machine_name} of lab {self.plan.name} is dead; its log: {self.plan.runtime}")
        return first

    def is_whole(self) -> bool:
        return self.ready and all(
            first is not None and first.is_alive() and outer.is_alive() for outer, first in self.processes.values()
        )


def read_start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; after it come the state and 18 more fields before the time.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


@contextlib.contextmanager
def locked(folders: Folders) -> Iterator[int]:
    """Hold the lock of all labs of this machine: one `up` or `down` at a time. Give its descriptor."""
    path = folders.runtime / "lock"
    while True:
        folders.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The last `down` removes the folder with the lock in it: what we locked may be nobody's lock by now.
        try:
            current = path.stat().st_ino
        except FileNotFoundError:
            current = None
        if current == os.fstat(descriptor).st_ino:
            break
        os.close(descriptor)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def list_labs(folders: Folders) -> list[str]:
    if not folders.runtime.is_dir():
        return []
    return sorted(path.name for path in folders.runtime.iterdir() if (path / "state.json").is_file())


def load(folders: Folders, name: str) -> LabState | None:
    """Return what is known of a lab, None if there is none of that name."""
    try:
        data = json.loads((folders.runtime / name / "state.json").read_text())
    except FileNotFoundError:
        return None
    plan = make_plan(folders, name, data["index"], data["host_count"])
    processes = {
        machine: (Process(*outer), Process(*first) if first else None)
        for machine, (outer, first) in data["processes"].items()
    }
    return LabState(plan, processes, data["ready"], data["cloud"])


def make_plan(folders: Folders, name: str, index: int, host_count: int) -> plans.LabPlan:
    return plans.LabPlan(name, index, host_count, folders.runtime / name, folders.data / name, folders.project)


def save(state: LabState) -> None:
    def encoded(process: Process | None) -> list[int] | None:
        return [process.pid, process.start_ticks] if process else None

    path = state.plan.runtime / "state.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = {
        "index": state.plan.index,
        "host_count": state.plan.host_count,
        "ready": state.ready,
        "cloud": state.cloud,
        "processes": {name: [encoded(outer), encoded(first)] for name, (outer, first) in state.processes.items()},
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1) + "\n")
    part.replace(path)


# Mount points that had to be made on the machine itself (a folder can only be covered where one is) are shared by all
# labs, and so is the list of them. The last `down` takes them away again.


def read_shared(folders: Folders) -> list[str]:
    try:
        return (folders.runtime / "made-on-the-machine").read_text().splitlines()
    except FileNotFoundError:
        return []


def add_shared(folders: Folders, entry: str) -> None:
    with (folders.runtime / "made-on-the-machine").open("a") as file:
        file.write(entry + "\n")
