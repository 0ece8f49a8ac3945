"""From the rows of one instance to the plans its host carries out: disks, port, domain; and what to take away.

The same rows always give the same plan: a domain is rebuilt from them at every start. Called by the controller in its
read transactions. Refuses to guess: rows that must exist and do not are a bug (KeyError, LookupError).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import replace
from typing import TypeVar

from minicloud.cloud.block_devices import ATTACH_QUOTA
from minicloud.cloud.metadata import InstanceRows, private_dns_domain, private_hostname, render_metadata
from minicloud.config import Config
from minicloud.model import names
from minicloud.model.plans import (
    GIB,
    DiskPlan,
    DomainDisk,
    DomainNic,
    DomainSpec,
    GroupPlan,
    InstancePlan,
    InstanceRemoval,
    PortPlan,
    RouterPlan,
    RulePlan,
    SubnetPlan,
    to_json,
)
from minicloud.model.resources import Attachment, Host, Instance, NetworkInterface, Pool, Subnet, Volume, Vpc
from minicloud.model.states import AttachmentState, VolumeState
from minicloud.store.store import Tx

# Leaves room for VXLAN between hosts on an ordinary 1500-byte network.
MTU = 1450
MIB = 1024**2
# q35 hot-plugs one device per free root port: what may be attached later, and two more for what is being replaced.
SPARE_ROOT_PORTS = ATTACH_QUOTA + 2
Row = TypeVar("Row")
DISK_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def instance_plan(tx: Tx, config: Config, instance: Instance) -> InstancePlan:
    """Return what the host must hold before the instance's domain can start."""
    host = _required(tx.hosts.get(instance.host_id), instance.host_id)
    disks = [_volume_plan(volume, pool) for _, volume, pool in _volumes(tx, instance)]
    pool = _host_pool(tx, host)
    disks += [
        DiskPlan(
            id=f"{instance.id}-{disk.virtual_name}",
            path=names.ephemeral_path(pool.path, instance.id, disk.virtual_name),
            format="raw",
            size_bytes=disk.size_bytes,
        )
        for disk in instance.ephemeral_disks
    ]
    return InstancePlan(
        instance_id=instance.id,
        disks=tuple(disks),
        ports=tuple(_port_plan(tx, config, host, instance, port) for port in _ports(tx, instance)),
        console_path=names.console_path(instance.id),
    )


def ports_digest(plan: InstancePlan) -> str:
    """Return what tells whether a host that was told of a plan's ports holds these: a digest of all they say."""
    said = json.dumps([to_json(port) for port in plan.ports], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def domain_spec(tx: Tx, config: Config, instance: Instance) -> DomainSpec:
    """Return the instance's domain. Disks are named by slot, as the guest will number them: vda is the root."""
    del config
    host = _required(tx.hosts.get(instance.host_id), instance.host_id)
    pool = _host_pool(tx, host)
    by_slot: dict[int, DomainDisk] = {}
    for attachment, volume, volume_pool in _volumes(tx, instance):
        is_root = attachment.device_name == instance.root_device_name
        by_slot[attachment.pci_slot] = DomainDisk(
            path=names.volume_path(volume_pool.path, volume.id),
            format="qcow2",
            target="",
            serial=names.volume_serial(volume.id),
            alias=volume.id,
            pci_slot=attachment.pci_slot,
            boot_order=1 if is_root else None,
            base_path=_base_path(volume, volume_pool),
            # Only what the owner asked for; a type's own defaults are enforced when volumes can be modified.
            iops=volume.iops,
            throughput_bytes_per_second=None if volume.throughput_mibps is None else volume.throughput_mibps * MIB,
        )
    for ephemeral in instance.ephemeral_disks:
        by_slot[ephemeral.pci_slot] = DomainDisk(
            path=names.ephemeral_path(pool.path, instance.id, ephemeral.virtual_name),
            format="raw",
            target="",
            serial=ephemeral.virtual_name,
            alias=ephemeral.virtual_name,
            pci_slot=ephemeral.pci_slot,
        )
    nics = tuple(_nic(port) for port in _ports(tx, instance))
    return DomainSpec(
        name=instance.id,
        uuid=instance.domain_uuid,
        account_id=instance.account_id,
        virt_type=host.virt_type,
        machine_type=instance.machine_type,
        boot_mode=instance.boot_mode,
        vcpus=instance.vcpus,
        memory_mib=instance.memory_mib,
        disks=tuple(
            replace(by_slot[slot], target=f"vd{DISK_LETTERS[index]}") for index, slot in enumerate(sorted(by_slot))
        ),
        nics=nics,
        console_path=names.console_path(instance.id),
        root_ports=max([*by_slot, *(nic.pci_slot for nic in nics)]) + 1 + SPARE_ROOT_PORTS,
    )


def removal(tx: Tx, instance: Instance, final: bool) -> InstanceRemoval:
    """Return what to take off the host: ports and instance store at a stop; at the end (`final`) also the console, the
    volumes that end with their instance, and those of a launch that never came to run.
    """
    paths = []
    pools = tx.pools.where(host_id=instance.host_id)
    for pool in pools:
        paths += [names.ephemeral_path(pool.path, instance.id, disk.virtual_name) for disk in instance.ephemeral_disks]
    if final:
        paths += [
            names.volume_path(pool.path, volume.id)
            for attachment, volume, pool in _volumes(tx, instance)
            if attachment.delete_on_termination or volume.state is VolumeState.CREATING
        ]
    return InstanceRemoval(
        instance_id=instance.id,
        port_ids=tuple(port.id for port in _ports(tx, instance)),
        disk_paths=tuple(paths),
        console_path=names.console_path(instance.id) if final else None,
    )


def _ports(tx: Tx, instance: Instance) -> list[NetworkInterface]:
    return sorted(tx.network_interfaces.where(instance_id=instance.id), key=lambda port: port.device_index)


def _volumes(tx: Tx, instance: Instance) -> list[tuple[Attachment, Volume, Pool]]:
    """Return the volumes of an instance by slot."""
    attachments = [
        one for one in tx.attachments.where(instance_id=instance.id) if one.state is not AttachmentState.DETACHED
    ]
    volumes = {volume.id: volume for volume in tx.volumes.where(id=[one.volume_id for one in attachments])}
    pools = {pool.id: pool for pool in tx.pools.where(id={volume.pool_id for volume in volumes.values()})}
    found = [(one, volumes[one.volume_id], pools[volumes[one.volume_id].pool_id]) for one in attachments]
    return sorted(found, key=lambda item: item[0].pci_slot)


def _host_pool(tx: Tx, host: Host) -> Pool:
    return tx.pools.where(host_id=host.id)[0]


def _base_path(volume: Volume, pool: Pool) -> str | None:
    return None if volume.snapshot_id is None else names.base_path(pool.path, volume.snapshot_id)


def _volume_plan(volume: Volume, pool: Pool) -> DiskPlan:
    return DiskPlan(
        id=volume.id,
        path=names.volume_path(pool.path, volume.id),
        format="qcow2",
        size_bytes=volume.size_gib * GIB,
        base_path=_base_path(volume, pool),
        may_create=volume.state is VolumeState.CREATING,
    )


def _nic(port: NetworkInterface) -> DomainNic:
    return DomainNic(
        tap=names.tap(port.id),
        bridge=names.bridge(port.subnet_id),
        mac=port.mac,
        alias=port.id,
        pci_slot=port.pci_slot,
        mtu=MTU,
    )


def _port_plan(tx: Tx, config: Config, host: Host, instance: Instance, port: NetworkInterface) -> PortPlan:
    vpc = _required(tx.vpcs.get(port.vpc_id), port.vpc_id)
    subnet = _required(tx.subnets.get(port.subnet_id), port.subnet_id)
    groups = {group.id: group for group in tx.security_groups.where(id=port.group_ids)}
    rows = InstanceRows(
        instance=instance,
        zone=_required(tx.zones.get(instance.zone), instance.zone),
        vpc=vpc,
        subnet=subnet,
        port=port,
        groups=tuple(groups[group_id] for group_id in port.group_ids),
        attachments=tuple(attachment for attachment, _, _ in _volumes(tx, instance)),
        tags=tx.tags.of([instance.id]).get(instance.id, {}),
    )
    return PortPlan(
        id=port.id,
        instance_id=instance.id,
        tap=names.tap(port.id),
        mac=port.mac,
        private_ip=port.private_ip,
        public_ip=port.public_ip,
        hostname=private_hostname(port.private_ip),
        router=_router_plan(config, host, vpc, instance.region),
        subnet=_subnet_plan(subnet),
        groups=_group_plans(tx, port),
        metadata=render_metadata(rows),
    )


def _router_plan(config: Config, host: Host, vpc: Vpc, region: str) -> RouterPlan:
    # A /31 per VPC: the even address is the host's, the odd one the router's. Hosts may all use the same pair, because
    # the link never leaves the host.
    transit = ipaddress.IPv4Network(config.transit_cidr)[2 * vpc.transit_index]
    return RouterPlan(
        vpc_id=vpc.id,
        cidr=vpc.cidr,
        netns=names.router(vpc.id),
        transit_veth=names.transit_veth(vpc.id),
        router_transit_veth=names.router_transit_veth(vpc.id),
        host_transit_ip=str(transit),
        router_transit_ip=str(transit + 1),
        uplink=host.uplink,
        mtu=MTU,
        domain_name=private_dns_domain(region),
        dns_servers=config.dns_servers,
    )


def _subnet_plan(subnet: Subnet) -> SubnetPlan:
    return SubnetPlan(
        id=subnet.id,
        cidr=subnet.cidr,
        gateway_ip=str(ipaddress.IPv4Network(subnet.cidr)[1]),
        bridge=names.bridge(subnet.id),
        bridge_veth=names.bridge_veth(subnet.id),
        router_veth=names.router_veth(subnet.id),
    )


def _group_plans(tx: Tx, port: NetworkInterface) -> tuple[GroupPlan, ...]:
    """Return the groups of a port with their rules. Members on the same host are the host side's to derive; private
    addresses of other hosts cannot arrive before hosts are joined, so none are listed.
    """
    rules = sorted(tx.security_group_rules.where(group_id=port.group_ids), key=lambda rule: rule.id)
    return tuple(
        GroupPlan(
            id=group_id,
            rules=tuple(
                RulePlan(
                    egress=rule.egress,
                    protocol=rule.protocol,
                    from_port=rule.from_port,
                    to_port=rule.to_port,
                    cidr=rule.cidr,
                    group_id=rule.source_group_id,
                )
                for rule in rules
                if rule.group_id == group_id
            ),
        )
        for group_id in port.group_ids
    )


def _required(row: Row | None, id: str) -> Row:
    if row is None:
        raise LookupError(f"{id} has no row")
    return row
