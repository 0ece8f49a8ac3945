"""Where a new instance goes: the host. Choosing is pure; `host_usages` reads what the choice is made from.

Capacity is what a host has times the over-commit ratio of the configuration. A stopped instance uses no vCPU and no
memory, but its volumes stay in its host's pool, so starting it again asks that host for room.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from minicloud.config import Config
from minicloud.errors import ApiError
from minicloud.model.plans import GIB
from minicloud.model.resources import Host, Pool
from minicloud.model.states import HostState
from minicloud.store import queries
from minicloud.store.store import Tx


@dataclass(frozen=True, slots=True)
class Demand:
    """What one instance needs of a host: volumes and instance store together in `disk_bytes`."""

    vcpus: int
    memory_mib: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class HostUsage:
    """A host, its pool, what may be promised of it in all, and what has been promised."""

    host: Host
    pool: Pool
    total: Demand
    used: Demand
    instances: int

    def fits(self, demand: Demand) -> bool:
        """Say whether the host can take one more instance of this size."""
        return (
            self.host.state is HostState.UP
            and self.used.vcpus + demand.vcpus <= self.total.vcpus
            and self.used.memory_mib + demand.memory_mib <= self.total.memory_mib
            and self.used.disk_bytes + demand.disk_bytes <= self.total.disk_bytes
        )

    def with_one_more(self, demand: Demand) -> HostUsage:
        """Return the usage after one more instance."""
        used = Demand(
            self.used.vcpus + demand.vcpus,
            self.used.memory_mib + demand.memory_mib,
            self.used.disk_bytes + demand.disk_bytes,
        )
        return replace(self, used=used, instances=self.instances + 1)

    def load(self) -> float:
        """Return how full the host is by its scarcest resource but disk, 0.0 to 1.0: spreading goes by it."""
        return max(
            self.used.vcpus / max(self.total.vcpus, 1),
            self.used.memory_mib / max(self.total.memory_mib, 1),
        )


def choose_hosts(usages: Iterable[HostUsage], demand: Demand, max_count: int) -> list[HostUsage]:
    """Return a host for each instance, as many as fit but at most `max_count`, spread over the hosts.

    Each goes where it leaves the host least loaded, given the ones before it.
    """
    heap = [(*_rank(usage, demand), usage) for usage in usages if usage.fits(demand)]
    heapq.heapify(heap)
    chosen: list[HostUsage] = []
    while heap and len(chosen) < max_count:
        usage = heap[0][-1]
        chosen.append(usage)
        usage = usage.with_one_more(demand)
        if usage.fits(demand):
            heapq.heapreplace(heap, (*_rank(usage, demand), usage))
        else:
            heapq.heappop(heap)
    return chosen


def _rank(usage: HostUsage, demand: Demand) -> tuple[float, int, str]:
    """Order hosts by how loaded they are with one more instance. Names are unique, so no two are equal."""
    return (usage.with_one_more(demand).load(), usage.instances, usage.host.name)


def host_usages(tx: Tx, config: Config, hosts: Iterable[Host]) -> list[HostUsage]:
    """Return the usage of hosts in the order given. Every host has one pool."""
    hosts = list(hosts)
    pools = {pool.host_id: pool for pool in tx.pools.where(host_id=[host.id for host in hosts])}
    running, stored = queries.host_usage(tx), queries.pool_usage(tx)
    return [_usage(config, host, pools[host.id], running, stored) for host in hosts]


def _usage(
    config: Config,
    host: Host,
    pool: Pool,
    running: Mapping[str, queries.HostUsage],
    stored: Mapping[str, queries.PoolUsage],
) -> HostUsage:
    compute = running.get(host.id, queries.HostUsage())
    volumes_gib = stored.get(pool.id, queries.PoolUsage()).provisioned_gib
    return HostUsage(
        host=host,
        pool=pool,
        total=Demand(
            int(host.vcpus * config.vcpu_overcommit_ratio),
            int(max(host.memory_mib - config.reserved_memory_mib, 0) * config.memory_overcommit_ratio),
            int(pool.capacity_bytes * config.disk_overcommit_ratio),
        ),
        used=Demand(compute.vcpus, compute.memory_mib, compute.ephemeral_bytes + volumes_gib * GIB),
        instances=compute.instances,
    )


def insufficient_capacity(type_name: str, zone: str | None) -> ApiError:
    """Return EC2's answer to a launch or a start for which there is no room."""
    where = f"in the Availability Zone you requested ({zone})" if zone else "in any Availability Zone"
    return ApiError(
        "InsufficientInstanceCapacity", f"We currently do not have sufficient {type_name} capacity {where}.", 500
    )
