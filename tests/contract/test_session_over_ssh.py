"""Sessions through a real SSH server on loopback: the pinned key decides, and a lost connection is noticed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from minicloud.clock import SystemClock
from minicloud.errors import TransientError
from minicloud.hosts.bundle import build_bundle
from minicloud.hosts.session import HostSession
from minicloud.hosts.ssh import SshTarget, SshTransport, read_host_key

pytestmark = pytest.mark.lab


@dataclass
class Server:
    """An sshd of our own that admits one key."""

    folder: Path
    process: subprocess.Popen[bytes]
    target: SshTarget

    def children(self) -> list[int]:
        """Return the processes that serve connections."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]


def make_key(path: Path, kind: str) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@pytest.fixture(params=["ed25519", "rsa", "ecdsa"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    host_key = make_key(tmp_path / "host", request.param)
    make_key(tmp_path / "user", "ed25519")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    (tmp_path / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"PermitRootLogin prohibit-password\nPasswordAuthentication no\nAuthorizedKeysFile {tmp_path}/user.pub\n"
    )
    log = tmp_path / "log"
    with subprocess.Popen(["/usr/sbin/sshd", "-D", "-E", log, "-f", tmp_path / "config"]) as process:
        while not log.exists() or "Server listening" not in log.read_text():
            assert process.poll() is None, "sshd did not start"
        target = SshTarget("127.0.0.1", host_key, str(tmp_path / "user"), "root", port)
        try:
            yield Server(tmp_path, process, target)
        finally:
            process.terminate()


def connect(server: Server, target: SshTarget | None = None) -> HostSession:
    transport = SshTransport(target or server.target, str(server.folder / "state"))
    return HostSession("h-1", transport, SystemClock())


def test_verbs_answer_and_the_archive_is_pushed(server: Server) -> None:
    session = connect(server)
    try:
        assert session.call("facts", {})["vcpus"] >= 1
        assert (server.folder / "state" / "hostside" / f"{build_bundle().digest}.pyz").exists()
        assert session.call("job_status", {"name": "x"})["state"] == "absent"
    finally:
        session.close()


def test_the_server_s_key_can_be_read_to_be_pinned(server: Server) -> None:
    found = read_host_key("127.0.0.1", server.target.port)
    kinds = {"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"}
    assert found == server.target.host_key
    assert found.split()[0] in kinds


def test_another_host_key_is_refused_before_we_log_in(server: Server, tmp_path: Path) -> None:
    kind = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(server.target.host_key.split()[0], "ecdsa")
    same_kind, other_kind = make_key(tmp_path / "x", kind), make_key(tmp_path / "y", "ed25519")
    for pinned in (same_kind, other_kind, "", "nonsense"):
        session = connect(server, replace(server.target, host_key=pinned))
        with pytest.raises(TransientError):
            session.call("facts", {})
        session.close()
    assert not (server.folder / "state").exists()


def test_another_user_key_is_refused(server: Server, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger", "ed25519")
    for path in (tmp_path / "stranger", tmp_path / "missing", tmp_path / "config"):
        session = connect(server, replace(server.target, key_path=str(path)))
        with pytest.raises(TransientError, match="cannot start a session"):
            session.call("facts", {})
        session.close()


def test_a_killed_connection_is_lost_and_made_again(server: Server) -> None:
    session = connect(server)
    try:
        session.call("facts", {})
        for pid in server.children():
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 120
        while True:
            try:
                session.call("job_status", {"name": "x"})
                break
            except TransientError:
                assert time.monotonic() < deadline
    finally:
        session.close()


def test_a_closed_session_ends_on_the_host(server: Server) -> None:
    session = connect(server)
    session.call("facts", {})
    session.close()
    deadline = time.monotonic() + 120
    while server.children():
        assert time.monotonic() < deadline


def test_a_server_that_never_speaks_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicloud.hosts.ssh.CONNECT_SECONDS", 0.5)
    make_key(tmp_path / "user", "ed25519")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = SshTarget("127.0.0.1", "ssh-ed25519 AAAA", str(tmp_path / "user"), "root", silent.getsockname()[1])
        session = HostSession("h-1", SshTransport(target), SystemClock())
        started = time.monotonic()
        with pytest.raises(TransientError):
            session.call("facts", {})
        assert time.monotonic() - started < 10
        session.close()


def test_another_user_than_root_goes_through_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []

    def refuse(target: SshTarget, command: str, log: object) -> None:
        commands.append(command)
        raise ConnectionError("enough")

    monkeypatch.setattr("minicloud.hosts.ssh._connect", refuse)
    for user in ("root", "debian"):
        with pytest.raises(ConnectionError):
            SshTransport(SshTarget("x", "ssh-ed25519 AAAA", "/key", user)).open(print)
    assert commands[0].startswith("/usr/bin/python3 -I -S -c ")
    assert commands[1] == f"sudo -n {commands[0]}"
