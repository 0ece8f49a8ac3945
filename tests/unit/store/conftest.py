"""Every test of the store that takes `url` or `store` runs on SQLite and on a PostgreSQL cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgresql import Cluster, cluster

from minicloud.clock import ManualClock
from minicloud.store.schema import metadata
from minicloud.store.store import Store

__all__ = ["cluster"]


@pytest.fixture
def own_postgresql_url(cluster: Cluster) -> Iterator[str]:
    """A migrated database of the test's own, for what changes more than rows. Costs a tenth of a second and more."""
    cluster.execute("CREATE DATABASE own TEMPLATE template_minicloud")
    yield cluster.url("own")
    cluster.execute("DROP DATABASE own WITH (FORCE)")


@pytest.fixture(scope="session")
def shared_database(cluster: Cluster) -> str:
    cluster.execute("CREATE DATABASE shared TEMPLATE template_minicloud")
    return "shared"


@pytest.fixture
def postgresql_url(cluster: Cluster, shared_database: str) -> str:
    """A migrated database without a row."""
    names = ", ".join(table.name for table in metadata.sorted_tables)
    cluster.execute(f"TRUNCATE {names}", shared_database)
    return cluster.url(shared_database)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path}/minicloud.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def own_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("own_postgresql_url"))
    return f"sqlite:///{tmp_path}/minicloud.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(url: str, clock: ManualClock) -> Iterator[Store]:
    store = Store(url, clock)
    store.migrate()
    yield store
    store.close()
