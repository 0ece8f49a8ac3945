"""Asks this host's supervisor for a router's servers, and starts or replaces the supervisor itself.

The client of supervisor.py: messages are single JSON packets over `<state folder>/supervisor.sock`. Called by
network.py (a router came, changed or went) and by sessions as they open.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from minicloud.hostside import codes, commands, files
from minicloud.hostside.failures import Failure
from minicloud.hostside.program import program_argv

CALL_SECONDS = 15.0
MAX_MESSAGE_BYTES = 4096


def ensure_running(state_folder: Path) -> None:
    """Have a supervisor of this very version running; raises Failure (transient) if it will not start."""
    if _version_of(state_folder) == version():
        return
    with files.locked(state_folder / "supervisor-start.lock"):
        running = _version_of(state_folder)
        if running == version():
            return
        if running is not None:
            retire(state_folder)
        commands.run(program_argv("supervisor", str(state_folder)))
        if _version_of(state_folder) != version():
            raise Failure("no-supervisor", "the supervisor does not answer after its start", transient=True)


def ensure_router(state_folder: Path, router: str) -> None:
    """Have DHCP, DNS and metadata of a router running on what its folder says now. Raises Failure (transient)."""
    message = {"operation": "ensure", "router": router, "version": version()}
    reply = _call(state_folder, message)
    if reply is None or reply.get("version") != version():
        ensure_running(state_folder)
        reply = _call(state_folder, message)
    if reply is None or "error" in reply:
        reason = reply["error"] if reply else "it went away"
        raise Failure("no-supervisor", f"the supervisor cannot serve {router}: {reason}", transient=True)


def ensure_no_router(state_folder: Path, router: str) -> None:
    """End a router's servers for good; without a supervisor there is nobody to start them again."""
    _call(state_folder, {"operation": "forget", "router": router})


def retire(state_folder: Path) -> None:
    """End the supervisor and its twin; the servers stay, for the next supervisor to take over."""
    _call(state_folder, {"operation": "retire"})


@lru_cache(maxsize=None)
def version() -> str:
    """Return what tells the code this process runs from other versions of it; archives are named by their content."""
    root = program_argv("supervisor")[-2]
    if os.path.isfile(root):
        return root
    here = Path(__file__).parent
    stamps = sorted((path.name, path.stat().st_mtime_ns) for path in here.glob("*.py"))
    return hashlib.sha256(repr(stamps).encode()).hexdigest()


@contextmanager
def socket_path(state_folder: Path) -> Iterator[str]:
    """Yield a short name of the supervisor's socket: the kernel takes 107 bytes, folders may be deeper."""
    descriptor = os.open(state_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/supervisor.sock"
    finally:
        os.close(descriptor)


def _version_of(state_folder: Path) -> Optional[str]:
    reply = _call(state_folder, {"operation": "version"})
    return None if reply is None else str(reply.get("version"))


def _call(state_folder: Path, message: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the supervisor's reply; None where there is none running, or it ended before it replied."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link, socket_path(state_folder) as path:
        link.settimeout(CALL_SECONDS)
        try:
            link.connect(path)
            link.send(json.dumps(message).encode())
            data = link.recv(MAX_MESSAGE_BYTES)
        except (FileNotFoundError, ConnectionError):
            return None
        except socket.timeout as error:
            raise Failure(codes.BUSY, "the supervisor does not answer", transient=True) from error
    return dict(json.loads(data)) if data else None
