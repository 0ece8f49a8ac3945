"""How SQLite finds what listings ask for: pages from an index in their order, and few rows by what says which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from minicloud.clock import ManualClock
from minicloud.store.filters.import_tasks import IMPORT_TASKS
from minicloud.store.filters.instances import INSTANCES
from minicloud.store.filters.network_interfaces import NETWORK_INTERFACES, network_interfaces_of
from minicloud.store.filters.snapshots import SNAPSHOTS
from minicloud.store.filters.tags import find_tags
from minicloud.store.filters.volumes import VOLUMES
from minicloud.store.search import Asked, Filter, FilterSet
from minicloud.store.store import Store, Tx

ACCOUNT, REGION = "100000000001", "lab-1"
OWNED = {"account_id": ACCOUNT, "region": REGION}
FIRST = Asked(limit=100)
NEXT = Asked(limit=100, after=(1, "x-0"))
NAMED = "i-00000000000000001"


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Any]:
    """Run something in a transaction and return the steps by which its one statement is answered."""
    store = Store(f"sqlite:///{tmp_path}/minicloud.db", ManualClock())
    store.migrate()
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    def look(run: Any) -> list[str]:
        def decide(tx: Tx) -> list[str]:
            asked.clear()
            event.listen(Engine, "before_cursor_execute", note)
            try:
                run(tx)
            finally:
                event.remove(Engine, "before_cursor_execute", note)
            ((statement, parameters),) = asked
            return [row[-1] for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]

        return store.read(decide)

    yield look
    store.close()


@pytest.mark.parametrize("asked", [FIRST, NEXT], ids=["first", "next"])
@pytest.mark.parametrize(
    ("table", "filters"),
    [("instances", INSTANCES), ("volumes", VOLUMES), ("snapshots", SNAPSHOTS), ("import_tasks", IMPORT_TASKS)],
)
def test_a_page_comes_from_an_index_in_its_order(plan: Any, table: str, filters: FilterSet, asked: Asked) -> None:
    (step,) = plan(lambda tx: getattr(tx, table).search(filters, asked, **OWNED))
    assert f"USING INDEX ix_{table}_account_id_region_created_us_id (account_id=? AND region=?" in step
    assert ("created_us,id)>(?,?)" in step) == (asked is NEXT)


@pytest.mark.parametrize("after", [None, ("eni-0",)])
def test_a_page_of_interfaces_comes_from_an_index_in_its_order(plan: Any, after: tuple[str] | None) -> None:
    owned = network_interfaces_of(ACCOUNT, REGION)
    steps = plan(lambda tx: tx.network_interfaces.search(NETWORK_INTERFACES, Asked((), 100, after), owned))
    assert "USING INDEX ix_network_interfaces_account_id_id (account_id=?" in steps[0]
    assert not any("TEMP B-TREE" in step for step in steps)


def test_a_page_of_tags_goes_on_in_their_key(plan: Any) -> None:
    steps = plan(lambda tx: find_tags(tx, ACCOUNT, REGION, Asked((), 100, (NAMED, "Name"))))
    assert "((resource_id,key)>(?,?))" in steps[0]
    assert not any("TEMP B-TREE" in step for step in steps)


def test_named_instances_are_found_by_their_ids(plan: Any) -> None:
    (step, *_) = plan(lambda tx: tx.instances.search(INSTANCES, Asked(), **OWNED, id=[NAMED]))
    assert "(id=?)" in step


def test_instances_of_a_reservation_are_found_by_it(plan: Any) -> None:
    asked = Asked((Filter("reservation-id", ("r-00000000000000001",)),), 100)
    (step, *_) = plan(lambda tx: tx.instances.search(INSTANCES, asked, **OWNED))
    assert "(reservation_id=?)" in step


def test_interfaces_of_an_instance_are_found_by_it(plan: Any) -> None:
    owned = network_interfaces_of(ACCOUNT, REGION)
    asked = Asked((Filter("attachment.instance-id", (NAMED,)),), 100)
    (step, *_) = plan(lambda tx: tx.network_interfaces.search(NETWORK_INTERFACES, asked, owned))
    assert "(instance_id=?)" in step


@pytest.mark.parametrize("name", ["instance-state-name", "instance-type", "image-id"])
def test_a_page_of_what_many_have_comes_from_an_index_in_its_order(plan: Any, name: str) -> None:
    (step,) = plan(lambda tx: tx.instances.search(INSTANCES, Asked((Filter(name, ("x",)),), 100), **OWNED))
    assert "USING INDEX ix_instances_account_id_region_created_us_id (account_id=? AND region=?" in step


def test_instances_are_counted_for_a_quota_in_an_index(plan: Any) -> None:
    (step,) = plan(lambda tx: tx.instances.count(**OWNED, state=["running", "pending"]))
    assert "USING COVERING INDEX ix_instances_account_id_region_state" in step


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("instance-id", "(id=?)"),
        ("tag:Name", "ix_tags_key_value (key=? AND value=?)"),
        ("tag-key", "ix_tags_key_value (key=?)"),
        ("block-device-mapping.volume-id", "(volume_id=?)"),
        ("network-interface.network-interface-id", "(id=?)"),
        ("vpc-id", "ix_network_interfaces_vpc_id (vpc_id=?)"),
    ],
)
def test_few_instances_are_found_by_what_says_which(plan: Any, name: str, index: str) -> None:
    steps = plan(lambda tx: tx.instances.search(INSTANCES, Asked((Filter(name, ("x", "y")),), 100), **OWNED))
    assert "SEARCH instances USING INDEX sqlite_autoindex_instances_1 (id=?)" in steps[0]
    assert any(index in step for step in steps), steps
    assert not any(step.startswith("SCAN") for step in steps), steps
