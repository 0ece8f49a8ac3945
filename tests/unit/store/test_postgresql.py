"""PostgreSQL away and back, and what its errors become."""

from __future__ import annotations

import pytest
from support import rows
from support.postgresql import Cluster

from minicloud.clock import ManualClock
from minicloud.errors import StoreBusyError, StoreUnavailableError
from minicloud.store.store import Store


def test_a_server_that_was_restarted_is_used_again(cluster: Cluster, postgresql_url: str, clock: ManualClock) -> None:
    store = Store(postgresql_url, clock)
    store.write(lambda tx: tx.accounts.insert(rows.account(1)))
    cluster.stop()
    try:
        for use in (store.read, store.write):
            with pytest.raises(StoreUnavailableError):
                use(lambda tx: tx.accounts.count())
    finally:
        cluster.start()
    assert store.read(lambda tx: tx.accounts.where()) == [rows.account(1)]
    store.write(lambda tx: tx.accounts.insert(rows.account(2)))
    store.close()


def test_a_database_that_does_not_exist_is_a_clear_error_without_the_password(
    postgresql_url: str, clock: ManualClock
) -> None:
    folder = postgresql_url.partition("?")[2]
    url = f"postgresql://test:sesame@/none?{folder}"
    store = Store(url, clock)
    with pytest.raises(StoreUnavailableError, match="none") as caught:
        store.migrate()
    assert "sesame" not in str(caught.value)
    store.close()


def test_endless_conflicts_end_as_busy(postgresql_url: str, clock: ManualClock) -> None:
    first, second = Store(postgresql_url, clock), Store(postgresql_url, clock)
    first.write(lambda tx: tx.accounts.insert(rows.account(1, name="0")))
    runs: list[int] = []

    def lose(tx: object) -> None:
        runs.append(1)
        row = tx.accounts.get(rows.account(1).id)  # type: ignore[attr-defined]
        second.write(lambda other: other.accounts.update(row.id, name=f"{len(runs)}"))
        tx.accounts.update(row.id, name="mine")  # type: ignore[attr-defined]

    with pytest.raises(StoreBusyError):
        first.write(lose)
    assert len(runs) == 10
    assert first.read(lambda tx: tx.accounts.where())[0].name == "10"
    first.close()
    second.close()
