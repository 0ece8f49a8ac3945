"""Detached jobs: started once, alive without us, and a status that is true however they end.

A job to watch is a fill_base of no blocks whose base is locked by the test: it waits until the test lets it go.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minicloud.hostside import codes, files, jobs, pools
from minicloud.hostside.failures import Failure

NAME = "fill-i-0123456789abcdef0"


class Gate:
    """Holds a job back until it is opened."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._lock = files.locked(Path(f"{base}.lock"))
        self._lock.__enter__()
        self._is_open = False

    def open(self) -> None:
        if not self._is_open:
            self._is_open = True
            self._lock.__exit__(None, None, None)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path)
    for name in jobs.names(str(tmp_path)):
        jobs.clean(str(tmp_path), name)


@pytest.fixture
def gate(state: str, tmp_path: Path) -> Iterator[Gate]:
    pools.ensure_pool(state, str(tmp_path / "pool"))
    made = Gate(tmp_path / "pool" / "bases" / "snap-01234567.raw")
    yield made
    made.open()


def arguments(gate: Gate, size_bytes: int = 4096) -> dict[str, Any]:
    return {"path": str(gate.base), "size_bytes": size_bytes, "blocks": [], "certificate_sha256": None}


def await_that(condition: Callable[[], Any]) -> Any:
    """Poll for what another process does."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def await_end(state: str, name: str = NAME) -> dict[str, Any]:
    return await_that(lambda: (s := jobs.status(state, name))["state"] != "running" and s)


def pid_of(state: str, name: str = NAME) -> int:
    return int(await_that(lambda: files.read_json(Path(state, "jobs", name, "process.json")))["pid"])


def is_running(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_no_job_is_absent(state: str) -> None:
    assert jobs.status(state, NAME)["state"] == "absent"
    assert jobs.names(state) == []
    jobs.clean(state, NAME)


def test_a_job_runs_to_its_result(state: str, gate: Gate) -> None:
    assert jobs.start(state, NAME, "fill_base", arguments(gate))["state"] == "running"
    assert jobs.status(state, NAME)["state"] == "running"
    gate.open()
    assert await_end(state) == {
        "state": "succeeded",
        "progress_percent": 100,
        "result": {"fetched_blocks": 0},
        "error_code": None,
        "error": None,
    }
    assert gate.base.stat().st_size == 4096
    assert jobs.names(state) == [NAME]
    jobs.clean(state, NAME)
    assert jobs.names(state) == []
    assert gate.base.exists(), "what succeeded is kept"


def test_starting_again_changes_nothing(state: str, gate: Gate) -> None:
    jobs.start(state, NAME, "fill_base", arguments(gate))
    pid = pid_of(state)
    assert jobs.start(state, NAME, "fill_base", arguments(gate))["state"] == "running"
    assert pid_of(state) == pid
    gate.open()
    await_end(state)
    assert jobs.start(state, NAME, "fill_base", arguments(gate))["state"] == "succeeded"


def test_a_failure_is_told_with_its_code(state: str, gate: Gate) -> None:
    gate.open()
    # A limit that jobs inherit: what a file system refuses differs (tmpfs takes 2**62).
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, hard))
    try:
        jobs.start(state, NAME, "fill_base", arguments(gate, size_bytes=2**31))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    status = await_end(state)
    assert (status["state"], status["error_code"], status["result"]) == (
        "failed",
        codes.NO_SPACE,
        {"transient": False},
    )
    assert str(gate.base) in status["error"]


@pytest.mark.parametrize(
    "change",
    [{"path": "/etc/passwd"}, {"size_bytes": 0}, {"size_bytes": "1"}, {"blocks": [[0, "x", "y"]]}, {"more": 1}],
)
def test_arguments_that_are_none_start_nothing(state: str, gate: Gate, change: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        jobs.start(state, NAME, "fill_base", {**arguments(gate), **change})
    assert (caught.value.code, caught.value.transient) == (codes.INTERNAL, False)
    assert jobs.names(state) == []


def test_a_bug_in_a_job_is_told_with_its_traceback(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = types.ModuleType("buggy")
    kind.run = lambda context, arguments: 1 // 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "buggy", kind)
    monkeypatch.setitem(jobs.KINDS, "buggy", "buggy")
    status = jobs._run(jobs.Context(state, tmp_path), "buggy", {})
    assert (status["state"], status["error_code"]) == ("failed", codes.INTERNAL)
    assert "ZeroDivisionError" in status["error"]
    assert "Traceback" in capsys.readouterr().err, "into the job's log"


def test_a_killed_job_is_lost_and_may_be_started_again(state: str, gate: Gate) -> None:
    jobs.start(state, NAME, "fill_base", arguments(gate))
    os.kill(pid_of(state), signal.SIGKILL)
    status = await_end(state)
    assert (status["state"], status["error_code"], status["result"]) == (
        "failed",
        codes.JOB_LOST,
        {"transient": True},
    )
    jobs.clean(state, NAME)
    gate.open()
    jobs.start(state, NAME, "fill_base", arguments(gate))
    assert await_end(state)["state"] == "succeeded"


def test_a_job_whose_host_restarted_is_lost(state: str) -> None:
    """All that is left of it then is its folder; the pid may be somebody else's by now."""
    folder = Path(state, "jobs", NAME)
    folder.mkdir(parents=True)
    (folder / "alive").touch()
    (folder / "request.json").write_text(
        json.dumps({"kind": "fill_base", "arguments": {"path": "/p/bases/snap-01234567.raw"}})
    )
    (folder / "process.json").write_text(json.dumps({"pid": os.getpid(), "start_time": 1}))
    (folder / "state.json").write_text(json.dumps({"progress_percent": 40}))
    assert jobs.status(state, NAME)["error_code"] == codes.JOB_LOST
    jobs.clean(state, NAME)
    assert jobs.status(state, NAME)["state"] == "absent"


def test_a_start_that_died_before_its_job_is_no_job(state: str, gate: Gate) -> None:
    folder = Path(state, "jobs", NAME)
    folder.mkdir(parents=True)
    (folder / "alive").touch()
    assert jobs.status(state, NAME)["state"] == "absent"
    gate.open()
    jobs.start(state, NAME, "fill_base", arguments(gate))
    assert await_end(state)["state"] == "succeeded"


def test_cleaning_ends_a_running_job(state: str, gate: Gate) -> None:
    jobs.start(state, NAME, "fill_base", arguments(gate))
    jobs.clean(state, NAME)
    assert jobs.status(state, NAME)["state"] == "absent"
    assert jobs.names(state) == []


def test_cleaning_a_job_that_has_only_just_started(state: str, gate: Gate) -> None:
    for _ in range(5):
        jobs.start(state, NAME, "fill_base", arguments(gate))
        pid = files.read_json(Path(state, "jobs", NAME, "process.json"))
        jobs.clean(state, NAME)
        # Its lock goes a moment before it does.
        await_that(lambda pid=pid: pid is None or not is_running(pid["pid"]))


def test_a_job_survives_the_session_that_started_it(state: str, gate: Gate) -> None:
    """The session and its whole process group are killed, as a closed SSH connection or a service restart would."""
    script = (
        "import json, sys, time; from minicloud.hostside import jobs\n"
        "jobs.start(sys.argv[1], sys.argv[2], 'fill_base', json.loads(sys.argv[3]))\n"
        "print('started', flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", script, state, NAME, json.dumps(arguments(gate))]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as session:
        assert session.stdout and session.stdout.readline() == b"started\n"
        pid = pid_of(state)
        os.killpg(session.pid, signal.SIGKILL)
    assert is_running(pid)
    assert jobs.status(state, NAME)["state"] == "running"
    gate.open()
    assert await_end(state)["state"] == "succeeded"


def test_a_verdict_counts_while_the_process_is_still_ending(state: str, gate: Gate) -> None:
    jobs.start(state, NAME, "fill_base", arguments(gate))
    verdict = jobs._status("succeeded", 100, {"x": 1})
    files.atomic_write(Path(state, "jobs", NAME, "result.json"), json.dumps(verdict), durable=False)
    assert jobs.status(state, NAME) == verdict


def test_progress_is_seen_while_the_job_runs(state: str, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.start(state, NAME, "fill_base", arguments(gate))
    assert jobs.status(state, NAME)["progress_percent"] == 0
    context = jobs.Context(state, Path(state, "jobs", NAME))
    context.progress(42)
    assert jobs.status(state, NAME)["progress_percent"] == 42
    with monkeypatch.context() as soon:
        soon.setattr(jobs, "PROGRESS_SECONDS", 1e9)
        context.progress(43)
    assert jobs.status(state, NAME)["progress_percent"] == 42, "not written for every block"
    for percent, shown in ((1000, 99), (-5, 0)):
        jobs.Context(state, Path(state, "jobs", NAME)).progress(percent)
        assert jobs.status(state, NAME)["progress_percent"] == shown


def test_unknown_kinds_and_names_are_refused(state: str) -> None:
    with pytest.raises(Failure, match="kind"):
        jobs.start(state, NAME, "rm", {})
    for name in ("", "..", "a/b", ".x"):
        with pytest.raises(Failure, match="name"):
            jobs.start(state, name, "fill_base", {})
        with pytest.raises(Failure, match="name"):
            jobs.status(state, name)
    assert jobs.names(state) == []


def test_a_job_does_not_inherit_what_its_session_holds_open(state: str, gate: Gate, tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as held:
        jobs.start(state, NAME, "fill_base", arguments(gate))
        pid = pid_of(state)

        def links() -> list[str]:
            """Return what it has open, once it waits for the gate: until then it opens and closes its own files."""
            found = []
            for path in Path("/proc", str(pid), "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found.append(str(path.readlink()))
            return found if f"{gate.base}.lock" in found else []

        assert str(tmp_path / "secret") not in await_that(links)
        assert os.getsid(pid) == pid, "a session of its own"
        assert held
