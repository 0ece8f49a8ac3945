"""Which version of the tables a database has, and how it gets to this one's. Alembic does the work; it is imported
only when there is work, because the daemon would carry it in memory for nothing.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from minicloud.errors import StoreVersionError

__all__ = ["HEAD", "Connection", "current", "require_current", "upgrade"]

# The newest revision in migrations/versions; a test holds the two together.
HEAD = "0003"
FOLDER = Path(__file__).parent / "migrations"


def current(connection: Connection) -> str | None:
    """Return the database's revision, or None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def require_current(connection: Connection) -> None:
    """Raise StoreVersionError unless the database has exactly this version's tables."""
    found = current(connection)
    if found is None:
        raise StoreVersionError("the database is empty; run `minicloud init`")
    if found != HEAD:
        raise _other(found)


def upgrade(connection: Connection) -> None:
    """Bring the database to HEAD inside the caller's transaction. Raises StoreVersionError if it is newer."""
    found = current(connection)
    if found == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise _other(found)
    command.upgrade(config, "head")


def _other(found: str) -> StoreVersionError:
    return StoreVersionError(
        f"the database has revision {found} and this minicloud works with {HEAD}; "
        "if it is older, start the daemon to migrate it; if it is newer, install the newer minicloud"
    )
