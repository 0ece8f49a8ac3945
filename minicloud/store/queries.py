"""Named queries: what equality on one table cannot say. Each takes the transaction first and names what it answers.

Owns SQL only; what the answers mean is for cloud/ (capacity, addresses) and controller/ (leases) to decide.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import and_, bindparam, delete, func, literal_column, not_, or_, select, update

from minicloud.model.resources import Instance, NetworkInterface, Task
from minicloud.model.states import InstanceState, Intent
from minicloud.store import schema
from minicloud.store.tables import IN_CHUNK
from minicloud.store.transaction import TASKS, Tx

# Capacity


@dataclass(frozen=True, slots=True)
class HostUsage:
    """What instances hold of a host. Stopped and terminated ones hold nothing, unless a start was asked for."""

    instances: int = 0
    vcpus: int = 0
    memory_mib: int = 0
    ephemeral_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """What volumes were promised of a pool, whether they wrote it or not."""

    volumes: int = 0
    provisioned_gib: int = 0


_instances = schema.instances.c
_HOLDS_CAPACITY = and_(
    _instances.state != InstanceState.TERMINATED.value,
    not_(and_(_instances.state == InstanceState.STOPPED.value, _instances.intent != Intent.RUNNING.value)),
)


def host_usage(tx: Tx) -> dict[str, HostUsage]:
    """Return what is used of every host that is used at all, by host id."""
    sums = select(_instances.host_id, func.count(), func.sum(_instances.vcpus), func.sum(_instances.memory_mib)).where(
        _HOLDS_CAPACITY
    )
    disks = select(_instances.host_id, _instances.ephemeral_disks).where(
        _HOLDS_CAPACITY, _instances.ephemeral_disks != literal_column("'[]'")
    )
    ephemeral: dict[str, int] = {}
    for host_id, text in tx.connection.execute(disks):
        ephemeral[host_id] = ephemeral.get(host_id, 0) + sum(disk["size_bytes"] for disk in json.loads(text))
    return {
        host_id: HostUsage(count, int(vcpus), int(memory_mib), ephemeral.get(host_id, 0))
        for host_id, count, vcpus, memory_mib in tx.connection.execute(sums.group_by(_instances.host_id))
    }


def pool_usage(tx: Tx) -> dict[str, PoolUsage]:
    """Return what is used of every pool that is used at all, by pool id."""
    volumes = schema.volumes.c
    sums = select(volumes.pool_id, func.count(), func.sum(volumes.size_gib)).group_by(volumes.pool_id)
    return {pool_id: PoolUsage(count, int(gib)) for pool_id, count, gib in tx.connection.execute(sums)}


def count_live_instances(tx: Tx, account_id: str, region: str) -> int:
    """Return how many instances of an account count against its quota: all but terminated ones."""
    return tx.connection.execute(
        select(func.count())
        .select_from(schema.instances)
        .where(
            _instances.account_id == account_id,
            _instances.region == region,
            _instances.state != InstanceState.TERMINATED.value,
        )
    ).scalar_one()


# Addresses


def used_private_ips(tx: Tx, subnet_id: str) -> set[str]:
    """Return the private addresses that network interfaces hold in a subnet."""
    interfaces = schema.network_interfaces.c
    return set(tx.connection.execute(select(interfaces.private_ip).where(interfaces.subnet_id == subnet_id)).scalars())


def count_private_ips(tx: Tx, subnet_ids: Collection[str]) -> dict[str, int]:
    """Return how many private addresses are held of subnets, by subnet; one of which none is held is absent."""
    interfaces = schema.network_interfaces.c
    counted = select(interfaces.subnet_id, func.count()).group_by(interfaces.subnet_id)
    wanted = list(subnet_ids)
    found: dict[str, int] = {}
    for start in range(0, len(wanted), IN_CHUNK):
        rows = tx.connection.execute(counted.where(interfaces.subnet_id.in_(wanted[start : start + IN_CHUNK])))
        found.update((subnet_id, count) for subnet_id, count in rows)
    return found


def used_public_ips(tx: Tx) -> set[str]:
    """Return the public addresses that network interfaces hold."""
    interfaces = schema.network_interfaces.c
    held = select(interfaces.public_ip).where(interfaces.public_ip.is_not(None))
    return {ip for ip in tx.connection.execute(held).scalars() if ip is not None}


def used_transit_indexes(tx: Tx) -> set[int]:
    """Return the transit indexes that VPCs hold."""
    return set(tx.connection.execute(select(schema.vpcs.c.transit_index)).scalars())


def group_members(tx: Tx, vpc_id: str, group_ids: Collection[str]) -> list[NetworkInterface]:
    """Return the network interfaces of a VPC that are in any of the groups."""
    wanted = frozenset(group_ids)
    if not wanted:
        return []
    return [row for row in tx.network_interfaces.where(vpc_id=vpc_id) if wanted.intersection(row.group_ids)]


# Old rows


def terminated_before(tx: Tx, before_us: int, limit: int = IN_CHUNK) -> list[Instance]:
    """Return instances that ended before a time, oldest first: they need not be shown any more."""
    ids = tx.connection.execute(
        select(_instances.id)
        .where(_instances.state == InstanceState.TERMINATED.value, _instances.terminated_us < before_us)
        .order_by(_instances.terminated_us, _instances.id)
        .limit(limit)
    ).scalars()
    return tx.instances.where(id=list(ids))


def delete_client_tokens_before(tx: Tx, before_us: int) -> int:
    """Forget client tokens made before a time and return how many they were."""
    tokens = schema.client_tokens
    return tx.connection.execute(delete(tokens).where(tokens.c.created_us < before_us)).rowcount


# Leases: who may run a task, for how long, and how that ends.

_tasks = schema.tasks.c
_other = schema.tasks.alias("other")
_DUE = (
    select(*TASKS.columns)
    .where(
        _tasks.due_us <= bindparam("steady_us"),
        _tasks.lease_holder.is_(None),
        ~select(_other.c.id)
        .where(
            _other.c.lease_group == _tasks.lease_group,
            _other.c.id != _tasks.id,
            or_(
                _other.c.lease_holder.is_not(None),
                and_(
                    _other.c.due_us <= bindparam("steady_us"),
                    or_(
                        _other.c.due_us < _tasks.due_us,
                        and_(_other.c.due_us == _tasks.due_us, _other.c.id < _tasks.id),
                    ),
                ),
            ),
        )
        .exists(),
    )
    .order_by(_tasks.due_us, _tasks.created_us, _tasks.id)
    .limit(bindparam("limit"))
)
_LEASE = (
    update(schema.tasks)
    .where(_tasks.id.in_(bindparam("ids", expanding=True)))
    .values(lease_holder=bindparam("holder"), lease_epoch=_tasks.lease_epoch + 1)
    .returning(*TASKS.columns)
)
_NEXT_DUE = select(func.min(_tasks.due_us)).where(_tasks.lease_holder.is_(None))


def lease_tasks(tx: Tx, holder: str, limit: int, steady_us: int) -> list[Task]:
    """Lease up to `limit` tasks that are due and return them as leased, longest due first.

    Of one lease group only one task is leased at a time; a lease raises the task's epoch, which fences what its
    earlier holders might still commit or tell a host.
    """
    due = [row.id for row in tx.connection.execute(_DUE, {"steady_us": steady_us, "limit": min(limit, IN_CHUNK)})]
    if not due:
        return []
    rows = tx.connection.execute(_LEASE, {"ids": due, "holder": holder})
    leased = {task.id: task for task in map(TASKS.codec.decode, rows)}
    return [leased[id] for id in due]


def release_lease(tx: Tx, task_id: str, epoch: int, due_us: int) -> bool:
    """Give a lease back, so that the task is leased again once due. Returns False if somebody else has it by now."""
    released = (
        update(schema.tasks)
        .where(_tasks.id == task_id, _tasks.lease_epoch == epoch, _tasks.lease_holder.is_not(None))
        .values(lease_holder=None, due_us=due_us)
    )
    return tx.connection.execute(released).rowcount == 1


def void_leases(tx: Tx, holder: str | None = None) -> int:
    """End every lease of a controller that is gone and forget it; None means all of them.

    A daemon that owns its SQLite database alone calls it with None as it starts. Epochs stay, so that what a
    predecessor still does anywhere is refused once the task is leased again. Returns how many leases ended.
    """
    leased = update(schema.tasks).where(_tasks.lease_holder.is_not(None)).values(lease_holder=None, due_us=tx.steady_us)
    controllers = delete(schema.controllers)
    if holder is not None:
        leased = leased.where(_tasks.lease_holder == holder)
        controllers = controllers.where(schema.controllers.c.id == holder)
    tx.connection.execute(controllers)
    return tx.connection.execute(leased).rowcount


def heartbeat(tx: Tx, incarnation: str) -> dict[str, int]:
    """Count one heartbeat of a controller and return those of all that are known or hold a lease, by incarnation.

    Whoever watches a counter stand still for longer than a lease, on its own monotonic clock, voids its leases.
    """
    controllers = schema.controllers
    beaten = update(controllers).where(controllers.c.id == incarnation).values(heartbeat=controllers.c.heartbeat + 1)
    if tx.connection.execute(beaten).rowcount == 0:
        tx.connection.execute(controllers.insert().values(id=incarnation, heartbeat=1, started_us=tx.now_us))
    beats = {
        holder: 0
        for holder in tx.connection.execute(select(_tasks.lease_holder).distinct()).scalars()
        if holder is not None
    }
    beats.update((id, count) for id, count, _ in tx.connection.execute(select(controllers)))
    return beats


def next_due_us(tx: Tx) -> int | None:
    """Return when the first task that nobody leased is due, on the steady clock."""
    return tx.connection.execute(_NEXT_DUE).scalar()


# For operators


@dataclass(frozen=True, slots=True)
class TasksOverview:
    """How work stands. `by_step` counts tasks by (kind, step); `failing` are those whose last step failed."""

    by_step: dict[tuple[str, str], int]
    leased: int
    overdue: int
    oldest_due_us: int | None
    failing: tuple[Task, ...]


def tasks_overview(tx: Tx, limit: int = 20) -> TasksOverview:
    """Return how work stands, with up to `limit` failing tasks, those that failed most often first."""
    counts = select(_tasks.kind, _tasks.step, func.count()).group_by(_tasks.kind, _tasks.step)
    overdue = and_(_tasks.lease_holder.is_(None), _tasks.due_us <= tx.steady_us)
    failing = (
        select(*TASKS.columns)
        .where(_tasks.last_error.is_not(None))
        .order_by(_tasks.attempt.desc(), _tasks.id)
        .limit(limit)
    )
    return TasksOverview(
        by_step={(kind, step): count for kind, step, count in tx.connection.execute(counts)},
        leased=_count(tx, _tasks.lease_holder.is_not(None)),
        overdue=_count(tx, overdue),
        oldest_due_us=tx.connection.execute(select(func.min(_tasks.due_us)).where(overdue)).scalar(),
        failing=tuple(map(TASKS.codec.decode, tx.connection.execute(failing))),
    )


def _count(tx: Tx, condition: object) -> int:
    counted = select(func.count()).select_from(schema.tasks).where(condition)  # type: ignore[arg-type]
    return tx.connection.execute(counted).scalar_one()
