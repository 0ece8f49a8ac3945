"""Detached jobs: long work on this host that outlives the session and the controller that asked for it.

Owns `<state folder>/jobs/<name>/`: `request.json`, `process.json` (pid and start time), `state.json` (progress),
`result.json` (the verdict, written once), `log`, and `alive`, a file the job's process keeps locked for as long as it
lives. The kernel drops that lock however the process ends, so a status is true after kill -9 and after a reboot: no
lock and no verdict means JOB_LOST. A job's name belongs to one task: names are fenced by that task's epochs.
Called by verbs.py, which holds the job's fence around `start` and `clean`; the kinds are in base_fill.py and
disk_import.py.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from minicloud.hostside import codes, files
from minicloud.hostside.failures import Failure
from minicloud.hostside.program import program_argv

# A kind is a module, loaded where it is needed, with `check(arguments)`, `run(context, arguments) -> result` and
# `clean(arguments)`. What `check` lets pass, `clean` can clean.
KINDS = {"fill_base": "minicloud.hostside.base_fill", "import_disk": "minicloud.hostside.disk_import"}

CLEAN_SECONDS = 10.0
MAX_ERROR_CHARACTERS = 8000
PROGRESS_SECONDS = 0.2

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass
class Context:
    """What a job is given beside its arguments."""

    state_folder: str
    folder: Path
    _written_at: float = 0.0

    def progress(self, percent: int) -> None:
        """Publish how far the job is; cheap enough to be called for every block."""
        now = time.monotonic()
        if now - self._written_at >= PROGRESS_SECONDS:
            self._written_at = now
            state = json.dumps({"progress_percent": max(0, min(int(percent), 99))})
            files.atomic_write(self.folder / "state.json", state, durable=False)


def start(state_folder: str, name: str, kind: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
    """Start a job unless one of that name exists, whatever became of it; return its status either way.

    Raises Failure for a kind or arguments that are none.
    """
    found = status(state_folder, name)
    if found["state"] != "absent":
        return found
    if kind not in KINDS:
        raise Failure(codes.INTERNAL, f"no such kind of job: {kind!r}", transient=False)
    _module(kind).check(arguments)
    folder = _folder(state_folder, name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Locked before there is a request: whoever finds the request finds the lock held, until the job has ended.
    alive = os.open(folder / "alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)
        request = json.dumps({"kind": kind, "arguments": arguments})
        files.atomic_write(folder / "request.json", request, durable=False)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                program_argv("job", state_folder, name, str(alive)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(alive,),
                start_new_session=True,
            )
        finally:
            os.close(log)
    finally:
        os.close(alive)  # The job has it now, and with it the lock.
    threading.Thread(target=process.wait, name=f"reap-{name}", daemon=True).start()
    return _status("running")


def status(state_folder: str, name: str) -> Dict[str, Any]:
    """Return the status of a job as JobStatus's fields; a failed job's `result` says whether it was {"transient"}."""
    folder = _folder(state_folder, name)
    if not (folder / "request.json").exists():
        return _status("absent")
    verdict = files.read_json(folder / "result.json")
    if verdict is None:
        if _is_alive(folder):
            state = files.read_json(folder / "state.json")
            return _status("running", progress_percent=state["progress_percent"] if state else 0)
        # It may have ended between our two looks.
        verdict = files.read_json(folder / "result.json")
    if verdict is None:
        return _failed(codes.JOB_LOST, "the job ended without a verdict", transient=True)
    return dict(verdict)


def clean(state_folder: str, name: str) -> None:
    """End a job if it runs, remove what it left unfinished, and forget it. Raises a transient Failure if it stays."""
    folder = _folder(state_folder, name)
    if not folder.exists():
        return
    _end(folder)
    request = files.read_json(folder / "request.json")
    if request is not None:
        _module(request["kind"]).clean(request["arguments"])
    # The request goes first: a job that is half removed is absent, and a folder without one is used again.
    files.remove_file(folder / "request.json")
    shutil.rmtree(folder)


def names(state_folder: str) -> List[str]:
    """Return the names of all jobs, whatever became of them."""
    try:
        return sorted(name for name in os.listdir(Path(state_folder, "jobs")) if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []


def main(argv: List[str]) -> int:
    """`job STATE_FOLDER NAME ALIVE_FD`: the process of one job, started by `start`."""
    state_folder, name, alive = argv[0], argv[1], int(argv[2])
    os.set_inheritable(alive, False)
    folder = _folder(state_folder, name)
    process = json.dumps({"pid": os.getpid(), "start_time": _start_time(os.getpid())})
    files.atomic_write(folder / "process.json", process, durable=False)
    request = json.loads((folder / "request.json").read_bytes())
    verdict = _run(Context(state_folder, folder), request["kind"], request["arguments"])
    files.atomic_write(folder / "result.json", json.dumps(verdict), durable=False)
    return 0


def _run(context: Context, kind: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return _status("succeeded", progress_percent=100, result=_module(kind).run(context, arguments))
    except Failure as failure:
        return _failed(failure.code, failure.detail, failure.transient)
    except Exception:
        trace = traceback.format_exc()[-MAX_ERROR_CHARACTERS:]
        sys.stderr.write(trace)
        return _failed(codes.INTERNAL, trace, transient=False)


def _module(kind: str) -> Any:
    return importlib.import_module(KINDS[kind])


def _end(folder: Path) -> None:
    deadline = time.monotonic() + CLEAN_SECONDS
    while _is_alive(folder):
        if time.monotonic() > deadline:
            raise Failure(codes.BUSY, f"{folder.name}: the job does not end", transient=True)
        # Its first act is to state its process; until then there is nobody to end yet.
        process = files.read_json(folder / "process.json")
        if process and _start_time(process["pid"]) == process["start_time"]:
            try:
                os.killpg(process["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def _folder(state_folder: str, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise Failure(codes.INTERNAL, f"not the name of a job: {name!r}", transient=False)
    return Path(state_folder, "jobs", name)


def _is_alive(folder: Path) -> bool:
    try:
        fd = os.open(folder / "alive", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _start_time(pid: int) -> Optional[int]:
    """Return when a process started, in clock ticks since boot (proc(5), stat, field 22); None if there is none."""
    try:
        stat = Path("/proc", str(pid), "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def _status(state: str, progress_percent: int = 0, result: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    return {
        "state": state,
        "progress_percent": progress_percent,
        "result": result or {},
        "error_code": None,
        "error": None,
    }


def _failed(code: str, detail: str, transient: bool) -> Dict[str, Any]:
    return {**_status("failed", result={"transient": transient}), "error_code": code, "error": detail}
