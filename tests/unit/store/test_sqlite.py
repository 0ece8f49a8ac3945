"""SQLite's own promises: a private file, one daemon, and clear errors from a disk that is full, gone or broken."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from support import rows

from minicloud.clock import ManualClock
from minicloud.errors import (
    StoreBusyError,
    StoreFullError,
    StoreLockedError,
    StoreUnavailableError,
    StoreVersionError,
)
from minicloud.store import sqlite as backend
from minicloud.store.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "minicloud.db"


@pytest.fixture
def store(path: Path, clock: ManualClock) -> Iterator[Store]:
    store = Store(f"sqlite:///{path}", clock)
    store.migrate()
    yield store
    store.close()


def pragma(store: Store, name: str) -> object:
    return store.read(lambda tx: tx.connection.execute(text(f"PRAGMA {name}")).scalar())


def test_the_file_and_its_folder_are_private(store: Store, path: Path) -> None:
    store.write(lambda tx: tx.accounts.insert(rows.account()))
    assert {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {
        f"minicloud.db{ending}": 0o600 for ending in ("", "-wal", "-shm", ".lock")
    }
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_commits_are_durable_and_keys_are_checked(store: Store) -> None:
    assert (pragma(store, "journal_mode"), pragma(store, "synchronous"), pragma(store, "foreign_keys")) == ("wal", 2, 1)


def test_a_missing_file_is_an_error_and_not_an_empty_cloud(tmp_path: Path, clock: ManualClock) -> None:
    store = Store(f"sqlite:///{tmp_path}/none.db", clock)
    with pytest.raises(StoreUnavailableError, match="minicloud init"):
        store.read(lambda tx: tx.accounts.count())
    assert not (tmp_path / "none.db").exists()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailableError, match="cannot be created"):
        Store(f"sqlite:///{tmp_path}/file/x/minicloud.db", clock).migrate()


def test_a_file_deleted_under_the_daemon_is_noticed_and_a_restored_one_is_used(store: Store, path: Path) -> None:
    store.write(lambda tx: tx.accounts.insert(rows.account(1)))
    backup = path.with_name("backup.db")
    with sqlite3.connect(path) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    source.close()
    target.close()
    for name in ("minicloud.db", "minicloud.db-wal", "minicloud.db-shm"):
        (path.parent / name).unlink(missing_ok=True)
    for use in (store.read, store.write):
        with pytest.raises(StoreUnavailableError, match="restore it"):
            use(lambda tx: tx.accounts.count())
    shutil.copy(backup, path)
    assert store.read(lambda tx: tx.accounts.where()) == [rows.account(1)]
    store.write(lambda tx: tx.accounts.insert(rows.account(2)))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM accounts").fetchone() == (2,)
    connection.close()


def test_a_restored_database_of_another_version_is_refused(store: Store, path: Path) -> None:
    store.write(lambda tx: tx.accounts.insert(rows.account(1)))
    backup = path.with_name("backup.db")
    with sqlite3.connect(backup) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0000')")
    connection.close()
    backup.replace(path)
    # SQLite would play the old log into the new file.
    with pytest.raises(StoreUnavailableError, match="-wal is still its predecessor's"):
        store.read(lambda tx: tx.accounts.count())
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink()
    with pytest.raises(StoreVersionError, match="0000"):
        store.read(lambda tx: tx.accounts.count())


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "minicloud.db"
    path.write_bytes(b"this is not a database, and it is long enough to tell" * 100)
    with pytest.raises(StoreUnavailableError, match="NOTADB"):
        Store(f"sqlite:///{path}", clock).migrate()
    assert path.read_bytes().startswith(b"this is not")


def test_a_database_held_by_another_process_is_waited_for_and_then_refused(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    fresh = Store(f"sqlite:///{path}", ManualClock())
    with pytest.raises(StoreBusyError):
        fresh.write(lambda tx: tx.accounts.insert(rows.account()))
    assert fresh.read(lambda tx: tx.accounts.count()) == 0
    other.execute("ROLLBACK")
    other.close()
    fresh.write(lambda tx: tx.accounts.insert(rows.account()))
    assert fresh.read(lambda tx: tx.accounts.count()) == 1
    fresh.close()


@pytest.fixture
def no_room() -> Iterator[None]:
    """Files of this process may not grow past 400 KiB: what a full disk looks like to SQLite's writes."""
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400 * 1024, old_limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_handler)


def test_a_disk_that_refuses_writes_leaves_nothing_half_done_and_heals(
    store: Store, request: pytest.FixtureRequest
) -> None:
    store.write(lambda tx: tx.accounts.insert(rows.account(1)))
    many = [rows.key_pair(n, public_key="x" * 10_000) for n in range(200)]
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.getfixturevalue("no_room")
    with pytest.raises((StoreFullError, StoreUnavailableError), match=r"minicloud\.db"):
        store.write(lambda tx: (tx.accounts.insert(rows.account(2)), tx.key_pairs.insert_many(many)))
    assert store.read(lambda tx: (tx.accounts.where(), tx.key_pairs.count())) == ([rows.account(1)], 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    store.write(lambda tx: (tx.accounts.insert(rows.account(2)), tx.key_pairs.insert_many(many)))
    assert store.read(lambda tx: (tx.accounts.count(), tx.key_pairs.count())) == (2, 200)


def test_a_full_database_is_named_so_and_heals(store: Store) -> None:
    """SQLITE_FULL itself, which is what ENOSPC becomes; by a page limit, so that no file system must be filled."""
    pages = pragma(store, "page_count")
    limit = store.write(lambda tx: tx.connection.execute(text(f"PRAGMA max_page_count = {pages}")).scalar())
    assert limit == pages
    many = [rows.key_pair(n, public_key="x" * 10_000) for n in range(20)]
    with pytest.raises(StoreFullError, match="make room"):
        store.write(lambda tx: tx.key_pairs.insert_many(many))
    assert store.read(lambda tx: tx.key_pairs.count()) == 0
    store.write(lambda tx: tx.connection.execute(text("PRAGMA max_page_count = 1000000")).scalar())
    store.write(lambda tx: tx.key_pairs.insert_many(many))
    assert store.read(lambda tx: tx.key_pairs.count()) == 20


def test_a_second_daemon_is_refused_and_the_lock_dies_with_its_holder(store: Store, path: Path) -> None:
    store.lock_exclusively()
    store.lock_exclusively()
    second = Store(f"sqlite:///{path}", ManualClock())
    with pytest.raises(StoreLockedError, match=rf"process {os.getpid()}\b"):
        second.lock_exclusively()
    assert (path.parent / "minicloud.db.lock").stat().st_mode & 0o777 == 0o600
    store.close()
    second.lock_exclusively()
    second.close()


def test_a_killed_daemon_leaves_no_lock_and_no_half_transaction(store: Store, path: Path) -> None:
    """SIGKILL in the middle of a transaction, after its rows were written and before its commit."""
    code = (
        "import os, signal\nfrom minicloud.clock import SystemClock\nfrom minicloud.store.store import Store\n"
        "from minicloud.model.resources import Account\n"
        f"store = Store('sqlite:///{path}', SystemClock())\nstore.lock_exclusively()\n"
        "store.write(lambda tx: tx.accounts.insert(Account('1', 'kept', 1)))\n"
        "def die(tx):\n"
        "    tx.accounts.insert_many([Account(str(n), 'lost' * 1000, 1) for n in range(2, 500)])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.write(die)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], timeout=180)
    assert result.returncode == -signal.SIGKILL
    store.lock_exclusively()
    assert [row.name for row in store.read(lambda tx: tx.accounts.where())] == ["kept"]


def test_a_child_process_does_not_inherit_the_lock(store: Store, path: Path) -> None:
    store.lock_exclusively()
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        store.close()
        second = Store(f"sqlite:///{path}", ManualClock())
        second.lock_exclusively()
        second.close()
    finally:
        child.kill()
        child.wait()


def test_a_read_that_would_never_end_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with monkeypatch.context() as quick:
        quick.setattr("minicloud.store.sqlite.READ_SECONDS", 0.05)
        with pytest.raises(StoreBusyError, match="took longer"):
            store.read(lambda tx: tx.connection.execute(text(endless)).scalar())
    # What it left behind is neither a transaction nor a limit of the next ones.
    store.write(lambda tx: tx.accounts.insert(rows.account(7)))
    assert store.read(lambda tx: tx.accounts.count(id=rows.account(7).id)) == 1
