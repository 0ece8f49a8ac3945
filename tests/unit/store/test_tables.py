"""Every kind of row comes back as it went in, and the generic statements mean what they say, on both databases."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from sqlalchemy import event
from support import rows

from minicloud.errors import StoreConflictError
from minicloud.model.resources import StateReason
from minicloud.model.states import InstanceState, Intent
from minicloud.store.store import Store, Tx

# In the order that a cloud would make them.
EVERY_KIND: dict[str, Any] = {
    "accounts": rows.account(),
    "access_keys": rows.access_key(),
    "zones": rows.zone(),
    "hosts": rows.host(),
    "pools": rows.pool(),
    "key_pairs": rows.key_pair(),
    "images": rows.image(),
    "snapshots": rows.snapshot(),
    "import_tasks": rows.import_task(),
    "vpcs": rows.vpc(),
    "subnets": rows.subnet(),
    "security_groups": rows.security_group(),
    "security_group_rules": rows.security_group_rule(),
    "instances": rows.instance(),
    "volumes": rows.volume(),
    "attachments": rows.attachment(),
    "network_interfaces": rows.network_interface(),
    "client_tokens": rows.client_token(),
    "tasks": rows.task(),
}


def insert_all(tx: Tx) -> None:
    # Backwards: foreign keys are a matter of the commit, not of the order inside a transaction.
    for name, row in reversed(EVERY_KIND.items()):
        getattr(tx, name).insert(row)


def test_every_kind_of_row_comes_back_as_it_went_in(store: Store) -> None:
    store.write(insert_all)
    for name, row in EVERY_KIND.items():
        found = store.read(lambda tx, name=name: getattr(tx, name).where())
        assert found == [row], name
        assert [type(getattr(found[0], f.name)) for f in dataclasses.fields(row)] == [
            type(getattr(row, f.name)) for f in dataclasses.fields(row)
        ]


def test_get_returns_the_row_or_none(store: Store) -> None:
    store.write(insert_all)
    assert store.read(lambda tx: tx.instances.get(rows.number("i", 1))) == rows.instance()
    assert store.read(lambda tx: tx.instances.get("i-other")) is None


def test_update_returns_the_new_row_and_keeps_the_rest(store: Store) -> None:
    store.write(insert_all)
    reason = StateReason("Server.InternalError", "Server.InternalError: Internal error")
    changed = store.write(
        lambda tx: tx.instances.update(
            rows.number("i", 1), state=InstanceState.RUNNING, intent=Intent.STOPPED, state_reason=reason, user_data=None
        )
    )
    expected = rows.instance(state=InstanceState.RUNNING, intent=Intent.STOPPED, state_reason=reason, user_data=None)
    assert changed == expected
    assert store.read(lambda tx: tx.instances.get(changed.id)) == expected


def test_update_of_an_absent_row_is_a_key_error_and_changes_nothing(store: Store) -> None:
    store.write(insert_all)
    with pytest.raises(KeyError, match="i-other"):
        store.write(
            lambda tx: (tx.pools.update(rows.number("pool", 1), name="x"), tx.instances.update("i-other", vcpus=1))
        )
    assert store.read(lambda tx: tx.pools.where()) == [rows.pool()]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tx: tx.instances.update("x", nothing=1),
        lambda tx: tx.instances.update("x"),
        lambda tx: tx.instances.where(nothing=1),
        lambda tx: tx.images.where(block_devices=()),
        lambda tx: tx.client_tokens.delete_where(),
    ],
)
def test_what_makes_no_sense_is_a_type_error(store: Store, wrong: Any) -> None:
    with pytest.raises(TypeError):
        store.write(wrong)


def test_a_text_that_is_no_state_never_reaches_the_database(store: Store) -> None:
    store.write(insert_all)
    with pytest.raises(ValueError, match="dancing"):
        store.write(lambda tx: tx.instances.update(rows.number("i", 1), state="dancing"))


def test_where_takes_values_none_and_collections(store: Store) -> None:
    many = [rows.key_pair(n, region="lab-2" if n % 2 else "lab-1") for n in range(1, 7)]
    store.write(lambda tx: tx.key_pairs.insert_many(many))

    def found(**equals: object) -> list[str]:
        return store.read(lambda tx: [row.name for row in tx.key_pairs.where(**equals)])

    assert found(region="lab-2") == ["key1", "key3", "key5"]
    assert found(region=["lab-1", "lab-2", "lab-2"]) == [f"key{n}" for n in range(1, 7)]
    assert found(region="lab-2", name={"key1", "key2"}) == ["key1"]
    assert found(region=()) == []
    assert store.read(lambda tx: tx.key_pairs.count(region=frozenset({"lab-2"}))) == 3
    assert store.read(lambda tx: tx.key_pairs.count(region=[])) == 0
    assert store.read(lambda tx: tx.key_pairs.count()) == 6
    store.write(lambda tx: tx.images.insert_many([rows.image(1), rows.image(2, deregistered_us=5)]))
    assert store.read(lambda tx: [row.name for row in tx.images.where(deregistered_us=None)]) == ["image1"]
    assert store.read(lambda tx: tx.images.count(deregistered_us=None)) == 1


def test_where_orders_by_birth_then_id_also_past_one_chunk(store: Store) -> None:
    many = [rows.key_pair(n, created_us=rows.BORN_US + (n * 7919) % 2500) for n in range(2500)]
    many.append(rows.key_pair(9_000_000, created_us=rows.BORN_US))
    store.write(lambda tx: tx.key_pairs.insert_many(many))
    expected = sorted(many, key=lambda row: (row.created_us, row.id))
    assert store.read(lambda tx: tx.key_pairs.where()) == expected
    assert store.read(lambda tx: tx.key_pairs.where(id=[row.id for row in many])) == expected
    assert store.read(lambda tx: tx.key_pairs.count(id=[row.id for row in many])) == 2501
    assert store.write(lambda tx: tx.key_pairs.delete_where(id=[row.id for row in many])) == 2501


def test_delete_takes_the_row_and_an_absent_one_is_fine(store: Store) -> None:
    store.write(lambda tx: tx.key_pairs.insert_many([rows.key_pair(1), rows.key_pair(2)]))
    store.write(lambda tx: (tx.key_pairs.delete(rows.number("key", 1)), tx.key_pairs.delete("key-other")))
    assert store.read(lambda tx: tx.key_pairs.where()) == [rows.key_pair(2)]


def test_text_survives_whatever_it_is(store: Store) -> None:
    odd = "日本 \U0001f600 '\"; -- \\ \n\t%s ?"
    store.write(lambda tx: tx.key_pairs.insert(rows.key_pair(1, name=odd)))
    assert store.read(lambda tx: tx.key_pairs.where(name=odd))[0].name == odd
    store.write(lambda tx: tx.import_tasks.insert(rows.import_task(1, description=odd)))
    assert store.read(lambda tx: tx.import_tasks.where(description=odd))[0].description == odd


I1 = rows.number("i", 1)
V1, V2 = rows.number("vol", 1), rows.number("vol", 2)
CONFLICTS: dict[str, tuple[str, Any]] = {
    "a key pair's name, per account and region": ("key_pairs", rows.key_pair(2, name="key1")),
    "an image's name, per account and region": ("images", rows.image(2, name="image1")),
    "a client token, per account, region and operation": ("client_tokens", rows.client_token(1, resource_id="r-2")),
    "a private address, per subnet": (
        "network_interfaces",
        rows.network_interface(2, instance_id=I1, device_index=1, private_ip="172.31.16.4"),
    ),
    "a public address": (
        "network_interfaces",
        rows.network_interface(2, instance_id=I1, device_index=1, public_ip="10.200.0.1"),
    ),
    "a MAC": (
        "network_interfaces",
        rows.network_interface(2, instance_id=I1, device_index=1, mac="02:00:00:00:00:01"),
    ),
    "an instance's interface, per index": ("network_interfaces", rows.network_interface(2, instance_id=I1)),
    "the default VPC, per account and region": ("vpcs", rows.vpc(2, is_default=True)),
    "a VPC's transit index": ("vpcs", rows.vpc(2, transit_index=1)),
    "the default subnet of a zone": ("subnets", rows.subnet(2, is_default=True)),
    "a subnet's CIDR, per VPC": ("subnets", rows.subnet(2, cidr="172.31.16.0/20")),
    "a group's name, per VPC": ("security_groups", rows.security_group(2, name="group1")),
    "a volume's attachment": (
        "attachments",
        rows.attachment(2, volume_id=V1, instance_id=I1, device_name="/dev/sdf", pci_slot=4),
    ),
    "an instance's device name": (
        "attachments",
        rows.attachment(2, volume_id=V2, instance_id=I1, pci_slot=4),
    ),
    "an instance's PCI slot": (
        "attachments",
        rows.attachment(2, volume_id=V2, instance_id=I1, device_name="/dev/sdf"),
    ),
    "a domain's uuid": ("instances", rows.instance(2, domain_uuid=rows.instance(1).domain_uuid)),
    "a host's name": ("hosts", rows.host(2, name="host1")),
    "a pool's name, per host": ("pools", rows.pool(2, host_id=rows.number("h", 1))),
    "an id": ("accounts", rows.account(1, name="other")),
    "a parent that exists": ("volumes", rows.volume(3, pool_id="pool-none")),
}  # fmt: skip


@pytest.mark.parametrize("what", CONFLICTS)
def test_the_database_itself_refuses_two_of(store: Store, what: str) -> None:
    store.write(insert_all)
    store.write(lambda tx: tx.volumes.insert(rows.volume(2)))
    table, row = CONFLICTS[what]
    before = store.read(lambda tx: getattr(tx, table).where())
    with pytest.raises(StoreConflictError):
        store.write(lambda tx: getattr(tx, table).insert(row))
    assert store.read(lambda tx: getattr(tx, table).where()) == before


def test_history_does_not_stand_in_the_way(store: Store) -> None:
    """A name, a volume or a device is free again once what held it is deregistered or detached."""
    store.write(insert_all)

    def again(tx: Tx) -> None:
        tx.images.update(rows.number("ami", 1), state="deregistered", deregistered_us=5)
        tx.images.insert(rows.image(2, name="image1"))
        tx.attachments.update(rows.number("attach", 1), state="detached")
        tx.attachments.insert(rows.attachment(2, volume_id=rows.number("vol", 1), instance_id=rows.number("i", 1)))

    store.write(again)


def test_a_parent_cannot_go_while_its_children_stand(store: Store) -> None:
    store.write(insert_all)
    for table, id in (("pools", rows.pool().id), ("vpcs", rows.vpc().id), ("instances", rows.instance().id)):
        with pytest.raises(StoreConflictError):
            store.write(lambda tx, table=table, id=id: getattr(tx, table).delete(id))


def test_tags_are_set_replaced_removed_and_found(store: Store) -> None:
    def change(tx: Tx) -> None:
        tx.tags.set("i-1", {"Name": "a", "Role": "b"})
        tx.tags.set("i-2", {"Name": "c"})
        tx.tags.set("i-1", {"Name": "A"})
        tx.tags.set("i-3", {})

    store.write(change)
    assert store.read(lambda tx: tx.tags.of(["i-1", "i-1", "i-9"])) == {"i-1": {"Name": "A", "Role": "b"}}
    assert store.read(lambda tx: tx.tags.all()) == {"i-1": {"Name": "A", "Role": "b"}, "i-2": {"Name": "c"}}
    store.write(lambda tx: tx.tags.delete("i-1", ["Role", "Other"]))
    assert store.read(lambda tx: tx.tags.of(["i-1"])) == {"i-1": {"Name": "A"}}
    store.write(lambda tx: tx.tags.delete("i-1", None))
    assert store.read(lambda tx: tx.tags.all()) == {"i-2": {"Name": "c"}}
    ids = [f"i-{n}" for n in range(2500)]
    store.write(lambda tx: tx.tags.set_many({id: {"n": id} for id in ids}))
    assert len(store.read(lambda tx: tx.tags.of(ids))) == 2500


def test_a_thousand_instances_are_written_and_read_quickly(store: Store) -> None:
    """RunInstances and DescribeInstances of 1,000: in statements, for seconds would measure the machine. As many as
    there are batches, and none per row."""
    many = [rows.instance(n) for n in range(1000)]
    statements: list[str] = []
    engine = store._backend._engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *of: statements.append(of[2]))

    def launch(tx: Tx) -> None:
        tx.instances.insert_many(many)
        tx.tags.set_many({row.id: {"Name": "x"} for row in many})
        for row in many:
            tx.add_task(row.id, "instance", "prepare")

    store.write(launch)
    assert store.read(lambda tx: tx.instances.where(id=[row.id for row in many])) == many
    assert store.read(lambda tx: tx.tasks.count()) == 1000
    assert len(statements) < 20
