"""The named queries: capacity, addresses, leases and their fences, on both databases."""

from __future__ import annotations

from support import rows

from minicloud.clock import ManualClock
from minicloud.model.resources import EphemeralDisk
from minicloud.model.states import InstanceState, Intent
from minicloud.store import queries
from minicloud.store.queries import HostUsage, PoolUsage
from minicloud.store.store import Store, Tx

H1, H2 = rows.number("h", 1), rows.number("h", 2)


def test_a_host_holds_what_runs_or_was_asked_to(store: Store) -> None:
    ten = (EphemeralDisk("ephemeral0", "/dev/sdb", 10, 3), EphemeralDisk("ephemeral1", "/dev/sdc", 1, 4))
    instances = [
        rows.instance(1, state=InstanceState.RUNNING, ephemeral_disks=ten),
        rows.instance(2, state=InstanceState.PENDING, ephemeral_disks=()),
        rows.instance(3, state=InstanceState.STOPPING, intent=Intent.STOPPED, ephemeral_disks=()),
        rows.instance(4, state=InstanceState.SHUTTING_DOWN, intent=Intent.TERMINATED, ephemeral_disks=()),
        rows.instance(5, state=InstanceState.STOPPED, intent=Intent.RUNNING, ephemeral_disks=ten),
        rows.instance(6, state=InstanceState.STOPPED, intent=Intent.STOPPED, ephemeral_disks=ten),
        rows.instance(7, state=InstanceState.STOPPED, intent=Intent.TERMINATED, ephemeral_disks=ten),
        rows.instance(8, state=InstanceState.TERMINATED, intent=Intent.TERMINATED, ephemeral_disks=ten),
        rows.instance(9, host_id=H2, vcpus=3, memory_mib=7, ephemeral_disks=()),
    ]
    assert store.read(queries.host_usage) == {}
    store.write(lambda tx: tx.instances.insert_many(instances))
    assert store.read(queries.host_usage) == {H1: HostUsage(5, 10, 2560, 22), H2: HostUsage(1, 3, 7, 0)}


def test_a_pool_is_charged_for_what_it_promised(store: Store) -> None:
    def make(tx: Tx) -> None:
        tx.zones.insert(rows.zone())
        tx.hosts.insert(rows.host())
        tx.pools.insert(rows.pool())
        tx.volumes.insert_many([rows.volume(1, size_gib=8), rows.volume(2, size_gib=100)])

    assert store.read(queries.pool_usage) == {}
    store.write(make)
    assert store.read(queries.pool_usage) == {rows.number("pool", 1): PoolUsage(2, 108)}


def test_live_instances_count_against_the_quota(store: Store) -> None:
    states = [*InstanceState]
    store.write(lambda tx: tx.instances.insert_many([rows.instance(n, state=state) for n, state in enumerate(states)]))
    store.write(lambda tx: tx.instances.insert(rows.instance(50, account_id="other")))
    store.write(lambda tx: tx.instances.insert(rows.instance(51, region="other-1")))
    assert store.read(lambda tx: queries.count_live_instances(tx, rows.ACCOUNT, rows.REGION)) == 5


def _network(tx: Tx) -> None:
    tx.zones.insert(rows.zone())
    tx.vpcs.insert_many([rows.vpc(1), rows.vpc(3)])
    tx.subnets.insert_many([rows.subnet(1), rows.subnet(2)])
    tx.instances.insert_many([rows.instance(n) for n in (1, 2, 3, 4)])
    tx.network_interfaces.insert_many(
        [
            rows.network_interface(1, group_ids=("sg-1", "sg-2")),
            rows.network_interface(2, public_ip=None, group_ids=("sg-2",)),
            rows.network_interface(3, subnet_id=rows.number("subnet", 2), group_ids=("sg-3",)),
            rows.network_interface(4, public_ip=None, vpc_id=rows.number("vpc", 3), group_ids=("sg-1",)),
        ]
    )


def test_used_addresses_and_members(store: Store) -> None:
    store.write(_network)
    assert store.read(lambda tx: queries.used_private_ips(tx, rows.number("subnet", 1))) == {
        "172.31.16.4", "172.31.16.5", "172.31.16.7",
    }  # fmt: skip
    assert store.read(queries.used_public_ips) == {"10.200.0.1", "10.200.0.3"}
    assert store.read(queries.used_transit_indexes) == {1, 3}

    def members(*groups: str) -> list[str]:
        found = store.read(lambda tx: queries.group_members(tx, rows.number("vpc", 1), groups))
        return [row.id for row in found]

    assert members("sg-1") == [rows.number("eni", 1)]
    assert sorted(members("sg-2", "sg-3")) == [rows.number("eni", n) for n in (1, 2, 3)]
    assert members() == []


def test_old_terminated_instances_are_found_oldest_first(store: Store) -> None:
    gone = InstanceState.TERMINATED
    store.write(
        lambda tx: tx.instances.insert_many(
            [
                rows.instance(1, state=gone, terminated_us=30),
                rows.instance(2, state=gone, terminated_us=10),
                rows.instance(3, state=gone, terminated_us=99),
                rows.instance(4),
            ]
        )
    )
    found = store.read(lambda tx: queries.terminated_before(tx, 99))
    assert {row.id for row in found} == {rows.number("i", 1), rows.number("i", 2)}
    assert [row.id for row in store.read(lambda tx: queries.terminated_before(tx, 99, limit=1))] == [
        rows.number("i", 2)
    ]


def test_old_client_tokens_are_forgotten(store: Store) -> None:
    store.write(lambda tx: tx.client_tokens.insert_many([rows.client_token(n, created_us=n) for n in (1, 2, 3)]))
    assert store.write(lambda tx: queries.delete_client_tokens_before(tx, 3)) == 2
    assert store.read(lambda tx: [row.token for row in tx.client_tokens.where()]) == ["token3"]


# Leases


def lease(store: Store, limit: int = 10, holder: str = "me", now_us: int = rows.BORN_US) -> list[str]:
    return [task.id for task in store.write(lambda tx: queries.lease_tasks(tx, holder, limit, now_us))]


def test_due_tasks_are_leased_once_longest_due_first(store: Store) -> None:
    due = [rows.task(n, due_us=rows.BORN_US - n) for n in (1, 2, 3)]
    later = rows.task(4, due_us=rows.BORN_US + 1)
    store.write(lambda tx: tx.tasks.insert_many([*due, later]))
    assert lease(store, limit=2) == [rows.number("i", 3), rows.number("i", 2)]
    assert lease(store) == [rows.number("i", 1)]
    assert lease(store) == []
    assert lease(store, now_us=rows.BORN_US + 1) == [later.id]
    task = store.read(lambda tx: tx.tasks.get(rows.number("i", 3)))
    assert task == rows.task(3, due_us=rows.BORN_US - 3, lease_holder="me", lease_epoch=1)


def test_a_lease_returns_the_task_as_leased(store: Store) -> None:
    store.write(lambda tx: tx.tasks.insert(rows.task(1, lease_epoch=7)))
    leased = store.write(lambda tx: queries.lease_tasks(tx, "me", 5, rows.BORN_US))
    assert leased == [rows.task(1, lease_holder="me", lease_epoch=8)]


def test_one_task_of_a_group_is_leased_at_a_time(store: Store) -> None:
    store.write(
        lambda tx: tx.tasks.insert_many(
            [rows.task(n, lease_group="g", due_us=rows.BORN_US - n) for n in (1, 2)] + [rows.task(3)]
        )
    )
    assert lease(store) == [rows.number("i", 2), rows.number("i", 3)]
    assert lease(store) == []
    store.write(lambda tx: queries.release_lease(tx, rows.number("i", 2), 1, rows.BORN_US + 5))
    assert lease(store) == [rows.number("i", 1)]


def test_a_full_group_does_not_starve_the_others(store: Store) -> None:
    """The limit counts what can be leased, not what a group keeps waiting."""
    grouped = [rows.task(n, lease_group="g", due_us=rows.BORN_US - 100 + n) for n in range(1, 21)]
    store.write(lambda tx: tx.tasks.insert_many([*grouped, rows.task(50), rows.task(51)]))
    assert lease(store, limit=3) == [rows.number("i", 1), rows.number("i", 50), rows.number("i", 51)]


def test_releasing_needs_the_lease(store: Store) -> None:
    store.write(lambda tx: tx.tasks.insert(rows.task(1)))
    lease(store)
    assert store.write(lambda tx: queries.release_lease(tx, rows.number("i", 1), 0, 5)) is False
    assert store.write(lambda tx: queries.release_lease(tx, rows.number("i", 1), 1, 5)) is True
    assert store.write(lambda tx: queries.release_lease(tx, rows.number("i", 1), 1, 6)) is False
    assert store.read(lambda tx: tx.tasks.get(rows.number("i", 1))) == rows.task(1, due_us=5, lease_epoch=1)


def test_void_leases_are_due_at_once_and_epochs_stay(store: Store, clock: ManualClock) -> None:
    store.write(lambda tx: tx.tasks.insert_many([rows.task(n) for n in (1, 2, 3)]))
    lease(store, 1, "dead")
    lease(store, 1, "alive")
    store.write(lambda tx: (queries.heartbeat(tx, "dead"), queries.heartbeat(tx, "alive")))
    assert store.write(lambda tx: queries.void_leases(tx, "dead")) == 1
    task = store.read(lambda tx: tx.tasks.get(rows.number("i", 1)))
    assert task == rows.task(1, lease_epoch=1, due_us=clock.now_us())
    assert store.write(lambda tx: queries.heartbeat(tx, "alive")) == {"alive": 2}
    assert store.write(queries.void_leases) == 1
    assert store.read(lambda tx: tx.tasks.count(lease_holder=None)) == 3


def test_heartbeats_count_and_name_every_holder(store: Store) -> None:
    store.write(lambda tx: tx.tasks.insert(rows.task(1)))
    lease(store, 1, "silent")
    assert store.write(lambda tx: queries.heartbeat(tx, "a")) == {"a": 1, "silent": 0}
    assert store.write(lambda tx: queries.heartbeat(tx, "a")) == {"a": 2, "silent": 0}
    assert store.write(lambda tx: queries.heartbeat(tx, "b")) == {"a": 2, "b": 1, "silent": 0}


def test_next_due_ignores_what_is_leased(store: Store) -> None:
    assert store.read(queries.next_due_us) is None
    store.write(lambda tx: tx.tasks.insert_many([rows.task(1), rows.task(2, due_us=rows.BORN_US + 50)]))
    assert store.read(queries.next_due_us) == rows.BORN_US
    lease(store)
    assert store.read(queries.next_due_us) == rows.BORN_US + 50


def test_the_overview_shows_where_work_stands(store: Store, clock: ManualClock) -> None:
    now = clock.now_us()
    failing = [
        rows.task(1, attempt=2, last_error="x", due_us=now - 5),
        rows.task(2, attempt=9, last_error="y", due_us=now + 5),
    ]
    other = rows.task(3, kind="import", step="start", lease_holder="me", due_us=now - 50)
    store.write(lambda tx: tx.tasks.insert_many([*failing, other]))
    overview = store.read(queries.tasks_overview)
    assert overview.by_step == {("instance", "prepare"): 2, ("import", "start"): 1}
    assert (overview.leased, overview.overdue, overview.oldest_due_us) == (1, 1, now - 5)
    assert overview.failing == (failing[1], failing[0])
    assert store.read(lambda tx: queries.tasks_overview(tx, 1)).failing == (failing[1],)
