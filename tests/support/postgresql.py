"""A PostgreSQL server of the tests' own: a temporary cluster reached by a unix socket, where the server is installed.

Import the fixture `cluster` into a conftest. Tests that use it are skipped, by name, where there is no server.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from minicloud.clock import ManualClock
from minicloud.store.store import Store

START_SECONDS = 120.0


def _programs() -> Path | None:
    """Return the folder of the newest PostgreSQL server programs; Debian keeps them out of the PATH."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3].split(".")[0])
    )
    if folders:
        return folders[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Cluster:
    """A PostgreSQL server in a temporary folder, reached by a unix socket only."""

    def __init__(self, programs: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mcpg", dir="/tmp"))
        self._programs = programs
        # PostgreSQL refuses to run as root.
        self._as: list[str] = []
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = [
                "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig=QUIT",
            ]  # fmt: skip
        self._server: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync")

    def url(self, database: str) -> str:
        return f"postgresql://test@/{database}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        with psycopg.connect(f"host={self.folder} user=test dbname={database}", autocommit=True) as connection:
            connection.execute(statement.encode())

    def start(self) -> None:
        log = (self.folder / "log").open("ab")
        self._server = subprocess.Popen(
            [
                *self._as, str(self._programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder),
                "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=150",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._server.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(START_SECONDS)
            self._server = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as, str(self._programs / program), *arguments],
            check=True, capture_output=True, stdin=subprocess.DEVNULL, cwd=self.folder, timeout=300,
        )  # fmt: skip


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server (Debian: postgresql) is not installed")
    cluster = Cluster(programs)
    try:
        cluster.start()
        cluster.execute("CREATE DATABASE template_minicloud")
        store = Store(cluster.url("template_minicloud"), ManualClock())
        store.migrate()
        store.close()
        yield cluster
    finally:
        cluster.remove()
