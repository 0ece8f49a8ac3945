"""KVM hosts and their storage pools as rows: registered, listed, drained, removed.

Refuses to touch a host: whoever registers one has measured it already (HostFacts). Called by `minicloud host …` through
the front door; the controller alone says that a host is down.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from minicloud import ids
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.placement import HostUsage, host_usages
from minicloud.errors import ApiError
from minicloud.model.names import DEFAULT_POOL_FOLDER
from minicloud.model.plans import HostFacts
from minicloud.model.resources import Host, Pool
from minicloud.model.states import HostState, InstanceState
from minicloud.store.store import Tx

LIVE_STATES = frozenset(InstanceState) - {InstanceState.TERMINATED}
DEFAULT_POOL_NAME = "default"


@dataclass(frozen=True, slots=True)
class NewHost:
    """A host to register. `address` is "local" or an SSH address; `pool_capacity_bytes` is its pool's file system."""

    name: str
    zone: str
    address: str
    ssh_user: str
    ssh_port: int
    host_key: str | None
    uplink: str | None
    facts: HostFacts
    pool_capacity_bytes: int
    pool_path: str = DEFAULT_POOL_FOLDER


def register_host(cloud: Cloud, caller: Caller, new: NewHost) -> Host:
    """Make the rows of a host and its pool, or take over new facts for a host of the same name, zone and address.

    Raises InvalidParameterValue for a bad name or zone, HostAlreadyExists for a name or address of another host.
    """
    if not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,62}[a-zA-Z0-9])?", new.name):
        raise ApiError("InvalidParameterValue", f"'{new.name[:100]}' is not a host name.")

    def decide(tx: Tx) -> Host:
        zone = tx.zones.get(new.zone)
        if zone is None or zone.region != caller.region:
            raise ApiError("InvalidParameterValue", f"Invalid availability zone: [{new.zone[:100]}]")
        measured: dict[str, object] = {
            "vcpus": new.facts.vcpus,
            "memory_mib": new.facts.memory_mib,
            "virt_type": new.facts.virt_type,
            "machine_type": new.facts.machine_type,
            "facts": asdict(new.facts),
            "host_key": new.host_key,
            "uplink": new.uplink,
            "ssh_user": new.ssh_user,
            "ssh_port": new.ssh_port,
        }
        for other in tx.hosts.where():
            same_place = (other.address, other.ssh_port) == (new.address, new.ssh_port)
            if other.name == new.name and other.zone == new.zone and same_place:
                for pool in tx.pools.where(host_id=other.id, name=DEFAULT_POOL_NAME):
                    if pool.path != new.pool_path:
                        raise ApiError("InvalidParameterValue", f"Host {other.name} keeps its disks in {pool.path}.")
                    tx.pools.update(pool.id, capacity_bytes=new.pool_capacity_bytes)
                if other.state is HostState.DOWN:
                    measured |= {"state": HostState.UP, "state_reason": None}
                return tx.hosts.update(other.id, **measured)
            if other.name == new.name or same_place:
                raise ApiError(
                    "HostAlreadyExists",
                    f"Host {other.name} ({other.address}, zone {other.zone}) is registered already; "
                    "remove it first or choose another name.",
                )
        host = Host(
            id=cloud.make_id(ids.HOST),
            name=new.name,
            zone=new.zone,
            address=new.address,
            state=HostState.UP,
            state_reason=None,
            created_us=tx.now_us,
            **measured,  # type: ignore[arg-type]
        )
        tx.hosts.insert(host)
        tx.pools.insert(
            Pool(
                id=cloud.make_id(ids.POOL),
                host_id=host.id,
                name=DEFAULT_POOL_NAME,
                backend="directory",
                path=new.pool_path,
                capacity_bytes=new.pool_capacity_bytes,
                created_us=tx.now_us,
            )
        )
        return host

    return cloud.store.write(decide)


def remove_host(cloud: Cloud, caller: Caller, name: str) -> Host:
    """Delete a host's rows and return what it was. Raises DependencyViolation while instances or volumes are on it."""
    del caller

    def decide(tx: Tx) -> Host:
        host = _require_host(tx, name)
        pools = tx.pools.where(host_id=host.id)
        instances = tx.instances.where(host_id=host.id, state=LIVE_STATES)
        if instances:
            raise ApiError(
                "DependencyViolation",
                f"Host {host.name} has {len(instances)} instance(s), such as {instances[0].id}: terminate them first.",
            )
        volumes = tx.volumes.where(pool_id=[pool.id for pool in pools])
        if volumes:
            raise ApiError(
                "DependencyViolation",
                f"Host {host.name} holds {len(volumes)} volume(s), such as {volumes[0].id}: delete them first.",
            )
        for pool in pools:
            tx.pools.delete(pool.id)
        tx.hosts.delete(host.id)
        return host

    return cloud.store.write(decide)


def set_host_draining(cloud: Cloud, caller: Caller, name: str, draining: bool) -> Host:
    """Keep new instances off a host, or let them on again. A host that is down is marked when it is back up."""
    del caller

    def decide(tx: Tx) -> Host:
        host = _require_host(tx, name)
        if host.state is HostState.DOWN:
            raise ApiError("IncorrectState", f"Host {host.name} is down: {host.state_reason or 'it does not answer'}.")
        return tx.hosts.update(host.id, state=HostState.DRAINING if draining else HostState.UP)

    return cloud.store.write(decide)


def describe_hosts(cloud: Cloud, caller: Caller) -> list[HostUsage]:
    """Return every host of the region with what its instances use, by zone and name."""

    def look(tx: Tx) -> list[HostUsage]:
        zones = [zone.id for zone in tx.zones.where(region=caller.region)]
        hosts = tx.hosts.where(zone=zones)
        return sorted(host_usages(tx, cloud.config, hosts), key=lambda usage: (usage.host.zone, usage.host.name))

    return cloud.store.read(look)


def _require_host(tx: Tx, name: str) -> Host:
    """Find a host by name or id."""
    found = tx.hosts.where(name=name) or tx.hosts.where(id=name)
    if not found:
        raise ApiError("InvalidHostID.NotFound", f"There is no host '{name[:100]}'.")
    return found[0]
