"""Migrations and the tables of schema.py agree, and a database of another version is refused, not damaged."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from minicloud.clock import ManualClock
from minicloud.errors import StoreLockedError, StoreVersionError
from minicloud.store import revisions, schema
from minicloud.store.store import Store


def test_migrations_make_exactly_the_tables_of_the_schema(url: str, clock: ManualClock) -> None:
    store = Store(url, clock)
    store.migrate()
    store.close()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, schema.metadata) == []
        # Which alembic does not compare: conditions of partial indexes, and foreign keys checked at commit.
        inspector = inspect(connection)
        for table in schema.metadata.sorted_tables:
            found = {index["name"]: index for index in inspector.get_indexes(table.name)}
            for index in table.indexes:
                where = index.dialect_options[engine.dialect.name]["where"]
                condition = found[index.name].get("dialect_options", {}).get(f"{engine.dialect.name}_where")
                assert (condition is not None) == (where is not None), index.name
            for key in inspector.get_foreign_keys(table.name):
                assert key["options"].get("initially") == "DEFERRED", (table.name, key)
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(revisions.FOLDER))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [revisions.HEAD]
    numbers = [int(each.revision) for each in script.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True)


def test_migrating_again_changes_nothing_and_imports_no_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/minicloud.db"
    first = Store(url, ManualClock())
    first.migrate()
    first.close()
    code = (
        "import sys\nfrom minicloud.clock import SystemClock\nfrom minicloud.store.store import Store\n"
        f"store = Store({url!r}, SystemClock())\nstore.migrate()\nstore.read(lambda tx: tx.accounts.count())\n"
        "assert 'alembic' not in sys.modules and 'psycopg' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=180)


def test_a_newer_database_is_refused_untouched(own_url: str, clock: ManualClock) -> None:
    store = Store(own_url, clock)
    store.migrate()
    store.write(lambda tx: tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    store.close()
    newer = Store(own_url, clock)
    with pytest.raises(StoreVersionError, match="9999"):
        newer.migrate()
    with pytest.raises(StoreVersionError, match="newer"):
        newer.read(lambda tx: tx.accounts.count())
    newer.close()


def test_a_database_that_was_never_initialised_says_so(clock: ManualClock, tmp_path: Path) -> None:
    (tmp_path / "minicloud.db").touch()
    store = Store(f"sqlite:///{tmp_path}/minicloud.db", clock)
    with pytest.raises(StoreVersionError, match="minicloud init"):
        store.write(lambda tx: tx.accounts.count())
    store.migrate()
    assert store.write(lambda tx: tx.accounts.count()) == 0
    store.close()


def test_a_database_that_another_daemon_works_with_is_not_migrated_under_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/minicloud.db"
    (tmp_path / "minicloud.db").touch()
    daemon, newcomer = Store(url, ManualClock()), Store(url, ManualClock())
    daemon.lock_exclusively()
    with pytest.raises(StoreLockedError):
        newcomer.migrate()
    daemon.migrate()
    # With nothing to migrate there is nothing to refuse: `minicloud init` may run beside the daemon.
    newcomer.migrate()
    with pytest.raises(StoreLockedError):
        newcomer.lock_exclusively()
    daemon.close()
    newcomer.lock_exclusively()
    newcomer.close()


def test_migrations_import_nothing_of_minicloud() -> None:
    """What a migration does must not change when the code does."""
    for path in (revisions.FOLDER / "versions").glob("r*.py"):
        tree = ast.parse(path.read_text())
        modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [name for name in modules if name and name.startswith("minicloud")], path
        assert importlib.util.spec_from_file_location("revision", path) is not None
