"""Sessions: many calls at once over one link, the truth about failures, and a new link when the old one is lost."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import minicloud
from minicloud.clock import Clock, ManualClock, SystemClock
from minicloud.errors import PermanentError, TransientError
from minicloud.hosts import session as session_module
from minicloud.hosts.bundle import build_bundle
from minicloud.hosts.session import HostSession
from minicloud.hosts.transports import LocalLink, LocalTransport, Log
from minicloud.hostside import frames
from minicloud.hostside.failures import Failure
from minicloud.hostside.session import Session

Handle = Callable[[str, dict[str, Any], float], Any]
# What only a failing test waits for.
LONG = 60.0


class PairLink:
    """A link to a host side in this process."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def receive(self) -> bytes:
        return self._sock.recv(1 << 16)

    def close(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class PairTransport:
    """Runs the host's end of a session in a thread, over a socket pair."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.opened: list[tuple[PairLink, socket.socket]] = []
        self.refuses: OSError | None = None
        self._threads: list[threading.Thread] = []

    def open(self, log: Log) -> PairLink:
        if self.refuses:
            raise self.refuses
        ours, theirs = socket.socketpair()
        link = PairLink(ours)
        self.opened.append((link, theirs))
        thread = threading.Thread(target=self.serve, args=(theirs,), daemon=True)
        thread.start()
        self._threads.append(thread)
        return link

    def serve(self, sock: socket.socket) -> None:
        Session(sock.fileno(), sock.fileno(), self._handle).run({"pid": 1})

    def end(self) -> None:
        for link, _ in self.opened:
            link.close()
        for thread in self._threads:
            thread.join()
        for link, sock in self.opened:
            link._sock.close()
            sock.close()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[HostSession, PairTransport]]]:
    # A verb that hangs ends the process that serves it: here that is the tests' own.
    monkeypatch.setattr("minicloud.hostside.session.GRACE_SECONDS", 10 * LONG)
    made: list[tuple[HostSession, PairTransport]] = []

    def make(handle: Handle, clock: Clock | None = None) -> tuple[HostSession, PairTransport]:
        transport = PairTransport(handle)
        made.append((HostSession("h-1", transport, clock or SystemClock()), transport))
        return made[-1]

    yield make
    for session, transport in made:
        session.close()
        transport.end()


Connect = Callable[..., tuple[HostSession, PairTransport]]


@pytest.fixture
def host_clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The clock by which the host's end of a session counts deadlines."""
    clock = ManualClock()
    monkeypatch.setattr("minicloud.hostside.session.time", types.SimpleNamespace(monotonic=clock.monotonic_seconds))
    return clock


def echo(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
    return {"verb": verb, **arguments}


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in threads at once; return results, or what was raised, in order."""
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        try:
            results[number] = work(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_replies_find_their_callers_whatever_their_order(connect: Connect) -> None:
    everybody = threading.Barrier(16)

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        everybody.wait(LONG)  # All sixteen are in flight at once.
        return arguments["n"] * 2

    session, transport = connect(handle)
    assert in_threads(16, lambda n: session.call("double", {"n": n})) == [n * 2 for n in range(16)]
    assert len(transport.opened) == 1, "callers at once share one connection"


def test_a_slow_verb_holds_nobody_else(connect: Connect) -> None:
    release = threading.Event()

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        return release.wait(LONG) if verb == "slow" else verb

    session, _ = connect(handle)
    slow = threading.Thread(target=session.call, args=("slow", {}))
    slow.start()
    assert session.call("quick", {}) == "quick"
    release.set()
    slow.join()


@pytest.mark.parametrize(("transient", "kind"), [(True, TransientError), (False, PermanentError)])
def test_failures_arrive_as_what_they_are(connect: Connect, transient: bool, kind: type[Exception]) -> None:
    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        raise Failure("missing-base", "it is not there", transient)

    session, _ = connect(handle)
    with pytest.raises(kind, match="it is not there") as caught:
        session.call("ensure", {})
    if isinstance(caught.value, PermanentError):
        assert caught.value.code == "missing-base"


def test_a_bug_over_there_is_logged_whole(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        raise ZeroDivisionError("a bug over there")

    session, _ = connect(handle)
    with pytest.raises(PermanentError) as caught:
        session.call("ensure", {})
    assert caught.value.code == "Server.InternalError"
    for text in (caught.value.detail, caplog.text):
        assert "ZeroDivisionError: a bug over there" in text
        assert "Traceback" in text


def test_a_result_that_is_no_json_is_a_bug_and_the_session_lives(connect: Connect) -> None:
    session, _ = connect(lambda verb, arguments, deadline: b"bytes" if verb == "bad" else "fine")
    with pytest.raises(PermanentError, match="not JSON serializable"):
        session.call("bad", {})
    assert session.call("good", {}) == "fine"


def test_a_call_ends_at_its_deadline_and_its_late_reply_harms_nobody(connect: Connect, host_clock: ManualClock) -> None:
    release, done = threading.Event(), threading.Event()

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        if verb == "slow":
            release.wait(LONG)
            done.set()
        return verb

    # However long the way there takes: over there it is not late.
    session, transport = connect(handle, ManualClock())
    with pytest.raises(TransientError, match="outcome unknown"):
        session.call("slow", {}, timeout_seconds=0.05)
    release.set()
    assert done.wait(LONG)
    assert session.call("quick", {}) == "quick"
    assert len(transport.opened) == 1


def test_the_host_side_is_told_the_deadline(connect: Connect, host_clock: ManualClock) -> None:
    host_clock.advance(1000)
    session, _ = connect(lambda verb, arguments, deadline: deadline, ManualClock())
    assert session.call("left", {}, timeout_seconds=LONG) == 1000 + LONG


def test_a_call_that_waited_too_long_for_a_thread_is_not_begun(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, host_clock: ManualClock
) -> None:
    monkeypatch.setattr("minicloud.hostside.session.THREADS", 1)
    release, taken, begun = threading.Event(), threading.Event(), []
    arrived = threading.Event()

    take = Session._take

    def watched(host_side: Session, message: dict[str, Any]) -> None:
        take(host_side, message)
        if message.get("verb") == "late":
            arrived.set()

    monkeypatch.setattr(Session, "_take", watched)

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        begun.append(verb)
        taken.set()
        return release.wait(LONG)

    session, _ = connect(handle)
    slow = threading.Thread(target=session.call, args=("slow", {}))
    slow.start()
    assert taken.wait(LONG)
    with pytest.raises(TransientError):
        session.call("late", {}, timeout_seconds=0.05)
    assert arrived.wait(LONG)
    host_clock.advance(0.05)
    release.set()
    slow.join()
    assert session.call("next", {})
    assert begun == ["slow", "next"]


def test_too_many_calls_are_refused_not_queued(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicloud.hostside.session.MAX_WAITING", 2)
    release, everybody = threading.Event(), threading.Barrier(3)

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        everybody.wait(LONG)
        return release.wait(LONG)

    session, _ = connect(handle)
    threads = [threading.Thread(target=session.call, args=("slow", {})) for _ in range(2)]
    for thread in threads:
        thread.start()
    everybody.wait(LONG)
    with pytest.raises(TransientError, match="too many"):
        session.call("refused", {})
    release.set()
    for thread in threads:
        thread.join()


def test_a_lost_link_fails_every_call_at_once_and_the_next_one_reconnects(connect: Connect) -> None:
    started = threading.Barrier(5)
    release = threading.Event()

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        if verb == "hang":
            started.wait(LONG)
            release.wait(LONG)
        return verb

    session, transport = connect(handle)

    def lose() -> None:
        started.wait(LONG)
        transport.opened[0][1].shutdown(socket.SHUT_RDWR)

    loser = threading.Thread(target=lose)
    loser.start()
    results = in_threads(4, lambda n: session.call("hang", {}))
    assert [type(result) for result in results] == [TransientError] * 4
    loser.join()
    assert session.call("again", {}) == "again"
    assert len(transport.opened) == 2
    release.set()


def test_an_unreachable_host_is_tried_by_one_and_answered_to_all(connect: Connect) -> None:
    session, transport = connect(echo, ManualClock())
    transport.refuses = ConnectionRefusedError("refused")
    results = in_threads(8, lambda n: session.call("x", {}))
    assert [type(result) for result in results] == [TransientError] * 8
    with pytest.raises(TransientError, match="refused"):
        session.call("x", {})
    transport.refuses = None
    with pytest.raises(TransientError, match="refused"):
        session.call("x", {})  # Within RECONNECT_SECONDS nobody tries again.


def test_reconnecting_resumes_after_its_pause(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "RECONNECT_SECONDS", 0.0)
    session, transport = connect(echo)
    transport.refuses = ConnectionRefusedError("refused")
    with pytest.raises(TransientError):
        session.call("x", {})
    transport.refuses = None
    assert session.call("x", {}) == {"verb": "x"}


def test_a_silent_host_is_given_up_before_the_deadline(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "PING_SECONDS", 0.05)
    monkeypatch.setattr(session_module, "SILENT_SECONDS", 0.2)
    session, transport = connect(echo)

    def greet_and_fall_silent(sock: socket.socket) -> None:
        sock.sendall(frames.encode({"hello": {"protocol": 1}}))
        while sock.recv(100):
            pass

    monkeypatch.setattr(transport, "serve", greet_and_fall_silent)
    # At the deadline it would be that nobody answered in time.
    with pytest.raises(TransientError, match="nothing was heard"):
        session.call("x", {}, timeout_seconds=LONG)


def test_a_host_that_is_only_slow_is_not_given_up(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    # Silence is judged by a clock that goes on only when the last ping was answered: ours, not the machine's.
    clock = ManualClock()
    monkeypatch.setattr(session_module, "PING_SECONDS", 0.02)
    monkeypatch.setattr(session_module, "SILENT_SECONDS", 0.1)
    begun, release = threading.Event(), threading.Event()

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        begun.set()
        return release.wait(10 * LONG)

    session, transport = connect(handle, clock)
    results: list[Any] = []
    caller = threading.Thread(target=lambda: results.extend(in_threads(1, lambda n: session.call("slow", {}, LONG))))
    caller.start()
    assert begun.wait(LONG)
    assert session._connection
    for _ in range(20):
        clock.advance(0.03)
        end = time.monotonic() + LONG
        while session._connection and session._connection._heard_at != clock.monotonic_seconds():
            assert time.monotonic() < end, "no ping was answered"
            time.sleep(0.001)
    release.set()
    caller.join()
    assert results == [True]
    assert len(transport.opened) == 1


@pytest.mark.parametrize("speech", [b"SSH-2.0-OpenSSH\r\n", b"\xff" * 100, b"", frames.encode({"hello": {}})])
def test_whoever_does_not_speak_our_protocol_is_refused(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, speech: bytes
) -> None:
    session, transport = connect(echo)

    def speak(sock: socket.socket) -> None:
        sock.sendall(speech)
        sock.shutdown(socket.SHUT_RDWR)

    monkeypatch.setattr(transport, "serve", speak)
    with pytest.raises((TransientError, PermanentError)):
        session.call("x", {})


def test_nothing_is_called_on_a_closed_session(connect: Connect) -> None:
    session, transport = connect(echo)
    session.close()
    with pytest.raises(TransientError, match="closed"):
        session.call("x", {})
    assert transport.opened == []


def test_closing_ends_the_calls_in_flight(connect: Connect) -> None:
    started, release = threading.Event(), threading.Event()

    def handle(verb: str, arguments: dict[str, Any], deadline: float) -> Any:
        started.set()
        return release.wait(LONG)

    session, _ = connect(handle)
    results: list[Exception] = []

    def call() -> None:
        try:
            session.call("hang", {})
        except TransientError as error:
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    started.wait(LONG)
    session.close()
    thread.join()
    release.set()
    assert len(results) == 1


def test_arguments_above_the_limit_are_refused_here(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = connect(echo)
    session.call("x", {})
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    with pytest.raises(PermanentError, match="limit"):
        session.call("x", {"big": "y" * 100})


# The archive.


def test_the_archive_is_the_same_every_time_and_stands_alone(tmp_path: Path) -> None:
    bundle = build_bundle()
    assert hashlib.sha256(bundle.data).hexdigest() == bundle.digest
    build_bundle.cache_clear()
    assert build_bundle() == bundle
    names = zipfile.ZipFile(io.BytesIO(bundle.data)).namelist()
    assert names == sorted(names)
    assert {name.split("/")[1] for name in names if "/" in name} == {"__init__.py", "hostside"}
    archive = tmp_path / "x.pyz"
    archive.write_bytes(bundle.data)
    done = subprocess.run([sys.executable, "-I", "-S", str(archive), "nonsense"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "minicloud.hostside: no such program: 'nonsense'\n")


# The real thing: a child process that runs the archive with the system's python.


@pytest.fixture
def local(tmp_path: Path) -> Iterator[HostSession]:
    session = HostSession("h-1", LocalTransport(str(tmp_path)), SystemClock())
    yield session
    session.close()


def link_of(session: HostSession) -> LocalLink:
    assert session._connection
    link = session._connection._link
    assert isinstance(link, LocalLink)
    return link


def test_the_archive_is_pushed_once_and_mended_if_damaged(local: HostSession, tmp_path: Path) -> None:
    assert local.call("facts", {})["vcpus"] >= 1
    archive = tmp_path / "hostside" / f"{build_bundle().digest}.pyz"
    pushed = archive.stat().st_ino
    other = HostSession("h-1", LocalTransport(str(tmp_path)), SystemClock())
    other.call("facts", {})
    other.close()
    assert archive.stat().st_ino == pushed
    archive.write_bytes(archive.read_bytes()[:-100])
    third = HostSession("h-1", LocalTransport(str(tmp_path)), SystemClock())
    third.call("facts", {})
    third.close()
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == build_bundle().digest
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]


def test_old_archives_are_forgotten(local: HostSession, tmp_path: Path) -> None:
    folder = tmp_path / "hostside"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:064x}.pyz").touch()
        os.utime(folder / f"{number:064x}.pyz", (number, number))
    local.call("facts", {})
    kept = {path.name for path in folder.iterdir()}
    assert len(kept) <= 9
    assert {f"{build_bundle().digest}.pyz", f"{19:064x}.pyz"} <= kept


def test_a_killed_session_is_transient_and_the_next_call_has_a_new_one(local: HostSession) -> None:
    local.call("facts", {})
    pid = link_of(local).pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + LONG
    while True:
        try:
            local.call("job_status", {"name": "x"})
            break
        except TransientError:
            assert time.monotonic() < deadline
    assert link_of(local).pid != pid


def test_a_session_whose_controller_dies_ends(tmp_path: Path) -> None:
    """kill -9 of the daemon: its sessions see their input end."""
    script = (
        "import sys, time\n"
        "from minicloud.clock import SystemClock\n"
        "from minicloud.hosts.session import HostSession\n"
        "from minicloud.hosts.transports import LocalTransport\n"
        "s = HostSession('h', LocalTransport(sys.argv[1]), SystemClock())\n"
        "s.call('facts', {}); print(s._connection._link.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout
        session_pid = int(daemon.stdout.readline())
        pidfd = os.pidfd_open(session_pid)
        daemon.kill()
    try:
        assert select.select([pidfd], [], [], LONG)[0], "the session outlived its controller"
    finally:
        os.close(pidfd)


def test_closing_ends_the_process(local: HostSession) -> None:
    local.call("facts", {})
    process = link_of(local)._process
    local.close()
    assert process.wait(LONG) == 0


def test_what_verbs_print_is_logged_and_spoils_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A session whose verb table is a noisy one."""
    caplog.set_level(logging.INFO)
    package = tmp_path / "noisy"
    source = Path(minicloud.__file__).parent
    (package / "minicloud" / "hostside").mkdir(parents=True)
    (package / "minicloud" / "__init__.py").touch()
    for path in (source / "hostside").glob("*.py"):
        (package / "minicloud" / "hostside" / path.name).write_bytes(path.read_bytes())
    (package / "minicloud" / "hostside" / "verbs.py").write_text(
        "import os, subprocess\n"
        "def prepare(state_folder): print('preparing')\n"
        "def call(state_folder, verb, arguments, deadline):\n"
        "    print('from python', flush=True)\n"
        "    subprocess.run(['echo', 'from a child'])\n"
        "    return subprocess.run(['cat'], capture_output=True).stdout.decode()\n"
    )
    monkeypatch.setattr("minicloud.hosts.bundle.resources.files", lambda name: package / "minicloud")
    build_bundle.cache_clear()
    try:
        session = HostSession("h-1", LocalTransport(str(tmp_path / "state")), SystemClock())
        assert [session.call("noise", {}) for _ in range(3)] == ["", "", ""]
        process = link_of(session)._process
        session.close()
        process.wait(LONG)
        # Its last lines are in a pipe still, until the thread that reads them has come to the end.
        for thread in threading.enumerate():
            if thread.name == "session-log":
                thread.join(LONG)
    finally:
        build_bundle.cache_clear()
    for text in ("from python", "from a child"):
        assert f"h-1: host side: {text}" in caplog.text


def test_a_host_without_python_is_a_transient_error(tmp_path: Path) -> None:
    for python in ("/nonexistent/python", "/bin/false"):
        session = HostSession("h-1", LocalTransport(str(tmp_path), python), SystemClock())
        with pytest.raises(TransientError, match="cannot start a session"):
            session.call("facts", {})
        session.close()


def test_a_stopped_session_is_given_up_killed_and_replaced(local: HostSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host side that hangs (SIGSTOP stands for it) must not hang its controller, nor stay behind."""
    monkeypatch.setattr(session_module, "PING_SECONDS", 0.1)
    monkeypatch.setattr("minicloud.hosts.transports.REAP_SECONDS", 0.2)
    local.call("facts", {})
    stuck = link_of(local)
    os.kill(stuck.pid, signal.SIGSTOP)
    # Only what is stopped is to be found silent so soon, and no session that is merely slow on a busy machine.
    with monkeypatch.context() as impatient:
        impatient.setattr(session_module, "SILENT_SECONDS", 0.4)
        with pytest.raises(TransientError, match="nothing was heard"):
            local.call("job_status", {"name": "x"})
    assert local.call("job_status", {"name": "x"})["state"] == "absent"
    assert stuck._process.wait(LONG) == -signal.SIGKILL


def test_operators_can_tell_what_runs(local: HostSession, tmp_path: Path) -> None:
    local.call("facts", {})
    archive = tmp_path / "hostside" / f"{build_bundle().digest}.pyz"
    words = Path(f"/proc/{link_of(local).pid}/cmdline").read_text().split("\0")
    assert words[3:] == [str(archive), "session", "--state-folder", str(tmp_path), ""]
