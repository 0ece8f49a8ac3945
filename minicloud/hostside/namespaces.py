"""Network namespaces of a host: making, entering, listing and ending those that are routers.

Owns the mounts below /run/netns that `ip netns` makes, for names it is handed. It refuses to know what lives in one.
Called by network.py and supervisor.py.

Entering costs a thread, not a process: only the calling thread of setns(2) moves, and what it starts (programs,
sockets, reads of /proc/sys/net) belongs to the namespace.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, TypeVar

from minicloud.hostside import commands, files
from minicloud.hostside.failures import Failure

Result = TypeVar("Result")

FOLDER = Path("/run/netns")
END_SECONDS = 5.0

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ensure_namespace(name: str, lock: int) -> bool:
    """Make a namespace unless there is one, under a lock (files.locked); True if it was made."""
    if inode(name) is not None:
        return False
    # What a killed `ip netns add` or an unclean shutdown left: a plain file, which `add` would refuse.
    files.remove_file(FOLDER / name)
    commands.run(["ip", "netns", "add", name], keep=(lock,))
    return True


def ensure_no_namespace(name: str, lock: int) -> None:
    """End a namespace and every process in it, under a lock; the kernel takes its links away some time later."""
    number = inode(name)
    if number is not None:
        end_processes(number)
        commands.run(["ip", "netns", "delete", name], keep=(lock,))
        end_processes(number)
    else:
        files.remove_file(FOLDER / name)


def inode(name: str) -> Optional[int]:
    """Return the number of a namespace as /proc/PID/ns/net shows it; None where there is no such namespace."""
    try:
        found = (FOLDER / name).stat()
    except FileNotFoundError:
        return None
    return found.st_ino if found.st_dev == os.stat("/proc/self/ns/net").st_dev else None


def inode_of(process: int) -> Optional[int]:
    """Return the number of a process's namespace; None where there is no such process."""
    try:
        return os.stat(f"/proc/{process}/ns/net").st_ino
    except OSError:
        return None


def names(prefix: str) -> List[str]:
    """Return the names of namespaces that begin with `prefix`, sorted."""
    try:
        return sorted(name for name in os.listdir(FOLDER) if name.startswith(prefix) and inode(name) is not None)
    except FileNotFoundError:
        return []


def inside(name: str, work: Callable[[], Result]) -> Result:
    """Run `work` on a thread of its own inside a namespace; return what it returns, raise what it raises.

    Raises Failure `no-namespace` (transient) where there is none.
    """
    results: List[Result] = []
    errors: List[BaseException] = []

    def body() -> None:
        try:
            enter(name)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, name="inside " + name)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def enter(name: str) -> None:
    """Move the calling thread, for good, into a namespace. Raises Failure `no-namespace` (transient)."""
    try:
        descriptor = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Failure("no-namespace", f"there is no network namespace {name}", transient=True) from None
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise Failure("no-namespace", f"cannot enter network namespace {name}: {reason}", transient=True)
    finally:
        os.close(descriptor)


def processes_by_inode() -> Dict[int, List[int]]:
    """Return the ids of all processes, grouped by the number of their network namespace."""
    found: Dict[int, List[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                link = os.readlink(f"/proc/{entry}/ns/net")
            except OSError:
                continue
            found.setdefault(int(link[len("net:[") : -1]), []).append(int(entry))
    return found


def end_processes(number: int) -> None:
    """Kill whatever runs in the namespace of that number, and return when it is gone.

    Raises Failure `undead` (transient) if something outlives SIGKILL for END_SECONDS.
    """
    deadline = time.monotonic() + END_SECONDS
    while True:
        living = processes_by_inode().get(number, [])
        if not living:
            return
        if time.monotonic() > deadline:
            raise Failure("undead", f"processes {living} outlive SIGKILL", transient=True)
        for process in living:
            _kill(process, number, deadline)


def _kill(process: int, number: int, deadline: float) -> None:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        # The id may have passed to somebody else before the pidfd was open: only now it names one process for sure.
        if inode_of(process) != number:
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
