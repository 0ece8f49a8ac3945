"""The survey: what a host holds against what rows say. Wakes the tasks whose world differs, reports orphans, deletes
nothing by itself. Called when a host connects, and every few minutes as a safety net for lost events.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from minicloud.hosts.protocol import Host
from minicloud.model import names
from minicloud.model.resources import Instance
from minicloud.model.states import InstanceState
from minicloud.store.store import Store, Tx

log = logging.getLogger(__name__)

ON_STATES = frozenset({"running", "paused", "stopping"})


@dataclass(frozen=True, slots=True)
class Findings:
    """`drifted`: instances whose domain is not what their row says. The rest are names that no row knows."""

    drifted: tuple[str, ...]
    orphan_domains: tuple[str, ...]
    orphan_ports: tuple[str, ...]
    orphan_disk_paths: tuple[str, ...]

    @property
    def orphans(self) -> int:
        """How many things on the host belong to nobody."""
        return len(self.orphan_domains) + len(self.orphan_ports) + len(self.orphan_disk_paths)


def survey_host(store: Store, host: Host) -> Findings:
    """Compare one host with its rows and wake the tasks of drifted instances. Raises what the host raises."""
    inventory = host.inventory()

    def read(tx: Tx) -> tuple[dict[str, Instance], set[str], set[str]]:
        instances = {row.id: row for row in tx.instances.where(host_id=host.host_id)}
        live = [row.id for row in instances.values() if row.state is not InstanceState.TERMINATED]
        ports = {row.id for row in tx.network_interfaces.where(instance_id=live)}
        pools = [pool.id for pool in tx.pools.where(host_id=host.host_id)]
        disks = {row.id for row in tx.volumes.where(pool_id=pools)} | {row.id for row in tx.snapshots.where()}
        return instances, ports, disks

    instances, ports, disks = store.read(read)
    drifted = []
    for instance in instances.values():
        status = inventory.domains.get(instance.id)
        is_on = status is not None and status.state in ON_STATES
        if instance.state is InstanceState.RUNNING and not is_on:
            drifted.append(instance.id)
        if instance.state is InstanceState.STOPPED and is_on:
            drifted.append(instance.id)
    live = {row.id for row in instances.values() if row.state is not InstanceState.TERMINATED}
    owners = disks | live
    findings = Findings(
        drifted=tuple(sorted(drifted)),
        orphan_domains=tuple(sorted(set(inventory.domains) - live)),
        orphan_ports=tuple(sorted(set(inventory.ports) - ports)),
        orphan_disk_paths=tuple(sorted(path for path in inventory.disk_paths if names.owner_of(path) not in owners)),
    )
    if drifted:
        log.warning("host %s: not as their rows say: %s", host.host_id, ", ".join(sorted(drifted)))
        store.write(lambda tx: _wake(tx, drifted))
    if findings.orphans:
        log.warning("host %s holds what no row knows (left alone): %s", host.host_id, findings)
    return findings


def _wake(tx: Tx, instance_ids: list[str]) -> None:
    for instance_id in instance_ids:
        if tx.tasks.get(instance_id) is not None:
            tx.wake(instance_id)
