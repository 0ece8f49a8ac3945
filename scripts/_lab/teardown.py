"""Takes a lab away: its processes, namespaces, cables and folders, whatever of them exists. Repeatable.

Ends only processes that are in the lab: those recorded at `up` (by number and start time) and those inside its network
namespaces. Called by main.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from _lab import machines
from _lab import plan as plans
from _lab import state as states
from _lab.state import LabError

GONE_SECONDS = 120.0
POLL_SECONDS = 0.01
NAMESPACES = Path("/run/netns")


def take_down(folders: states.Folders, name: str) -> bool:
    """Remove a lab; return False if there was none. The caller holds the lock."""
    state = states.load(folders, name)
    if state is None:
        # An `up` that died before it wrote its state made at most these empty folders.
        existed = (folders.runtime / name).is_dir() or (folders.data / name).is_dir()
        remove_folders(folders, name)
        return existed
    end_processes(state)
    remove_network(state.plan)
    remove_folders(folders, name)
    return True


def end_processes(state: states.LabState) -> None:
    """Kill every machine and wait until nothing of it is left."""
    # `unshare --fork` ignores SIGTERM; its death kills process 1, and with it the whole PID namespace.
    recorded = [process for pair in state.processes.values() for process in pair if process is not None]
    for process in recorded:
        if process.is_alive():
            kill(process.pid)
    deadline = time.monotonic() + GONE_SECONDS
    while True:
        left = {process.pid for process in recorded if process.is_alive()}
        for machine in state.plan.machines:
            left |= set(pids_in_namespace(machine.namespace))
        if not left:
            return
        if time.monotonic() > deadline:
            raise LabError(f"processes that would not die: {sorted(left)}")
        for pid in left:
            kill(pid)
        time.sleep(POLL_SECONDS)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def pids_in_namespace(namespace: str) -> list[int]:
    """Return the processes whose network namespace is this one."""
    try:
        wanted = (NAMESPACES / namespace).stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                of_process = (entry / "ns" / "net").stat()
            except OSError:
                continue
            if (of_process.st_dev, of_process.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(int(entry.name))
    return found


def remove_network(plan: plans.LabPlan) -> None:
    if Path("/sys/class/net", plan.leg).exists():
        run_ip(["link", "delete", plan.leg])
    for machine in plan.machines:
        if (NAMESPACES / machine.namespace).exists():
            run_ip(["netns", "delete", machine.namespace])


def run_ip(arguments: list[str]) -> None:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        raise LabError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")


def remove_folders(folders: states.Folders, name: str) -> None:
    """Remove the lab's folders, and with the last lab everything the labs shared."""
    for folder in (folders.data / name, folders.runtime / name):
        refuse_mounts_below(folder)
        if folder.is_dir():
            shutil.rmtree(folder)
    if states.list_labs(folders):
        return
    left = False
    for entry in reversed(states.read_shared(folders)):
        left |= not remove_shared(entry)
    remove_if_empty(folders.data)
    if not left:
        shutil.rmtree(folders.runtime)


def remove_shared(entry: str) -> bool:
    """Remove something `up` had to make on the machine itself. False if somebody else uses it by now."""
    if entry == str(NAMESPACES):
        if machines.is_mount_point(entry) and not any(NAMESPACES.iterdir()):
            subprocess.run(["umount", entry], check=True)
        return True
    return remove_if_empty(Path(entry))


def remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return not folder.is_dir()
    return True


def refuse_mounts_below(folder: Path) -> None:
    """Raise LabError if something is mounted below: removing the folder would empty what is mounted there."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        below = [line.split()[4] for line in lines if line.split()[4].startswith(f"{folder}/")]
    if below:
        raise LabError(f"mounts below {folder}, which the lab never makes: {', '.join(below)}")
