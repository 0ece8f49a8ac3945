"""Plans: what a host should hold for an instance, as frozen dataclasses that become JSON for the host side. Pure.

The controller renders them from rows; hosts/ turns DomainSpec into XML and ships the others to the host side.
A plan is whole and repeatable: applying it twice changes nothing, and it names everything (see names.py).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """A disk file to make on a host: qcow2 over a raw base, blank qcow2, or sparse raw (instance store).

    `may_create` is False for a volume that a guest has used: if its file is gone that is an error, never a new disk.
    """

    id: str
    path: str
    format: str  # "qcow2" or "raw"
    size_bytes: int
    base_path: str | None = None
    may_create: bool = True


@dataclass(frozen=True, slots=True)
class RulePlan:
    """One security-group rule; `group_id` stands for the members of that group, else `cidr` holds."""

    egress: bool
    protocol: str  # "tcp", "udp", "icmp", "-1"
    from_port: int | None
    to_port: int | None
    cidr: str | None
    group_id: str | None


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A security group with all its rules; `members` are addresses of members on other hosts."""

    id: str
    rules: tuple[RulePlan, ...]
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubnetPlan:
    """A subnet as one host holds it: a bridge in the host's namespace, a veth to the router with the gateway."""

    id: str
    cidr: str
    gateway_ip: str
    bridge: str
    bridge_veth: str
    router_veth: str


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """A VPC's router on one host. `uplink` None: the interface of the host's default route.

    `dns_servers` are handed to guests by DHCP; empty means the router itself forwards to the host's resolvers.
    """

    vpc_id: str
    cidr: str
    netns: str
    transit_veth: str
    router_transit_veth: str
    host_transit_ip: str
    router_transit_ip: str
    uplink: str | None
    mtu: int
    domain_name: str
    dns_servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetadataPlan:
    """What 169.254.169.254 answers one instance.

    `leaves` maps a path below meta-data/ (such as "placement/region") to its text; directories follow from the paths.
    `listings` overrides a directory's listing (public-keys/ lists "0=name"). `identity_document` is JSON text.
    """

    http_endpoint: str
    http_tokens: str
    hop_limit: int
    leaves: dict[str, str]
    listings: dict[str, str]
    identity_document: str
    user_data_base64: str | None


@dataclass(frozen=True, slots=True)
class PortPlan:
    """An ENI on a host: where its tap goes, what it may send, who may reach it, what its guest is told."""

    id: str
    instance_id: str
    tap: str
    mac: str
    private_ip: str
    public_ip: str | None
    hostname: str
    router: RouterPlan
    subnet: SubnetPlan
    groups: tuple[GroupPlan, ...]
    metadata: MetadataPlan


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """Everything the host side makes before a domain can start."""

    instance_id: str
    disks: tuple[DiskPlan, ...]
    ports: tuple[PortPlan, ...]
    console_path: str


@dataclass(frozen=True, slots=True)
class InstanceRemoval:
    """What the host side takes away: ports by id, disk files by path; `console_path` only when the instance ends."""

    instance_id: str
    port_ids: tuple[str, ...]
    disk_paths: tuple[str, ...]
    console_path: str | None


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """A virtio-blk disk of a domain. `alias` becomes `ua-…`; `base_path` spells out the raw backing file."""

    path: str
    format: str
    target: str  # "vda"
    serial: str
    alias: str
    pci_slot: int
    boot_order: int | None = None
    base_path: str | None = None
    iops: int | None = None
    throughput_bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class DomainNic:
    """A virtio NIC of a domain: an isolated port of a bridge."""

    tap: str
    bridge: str
    mac: str
    alias: str
    pci_slot: int
    mtu: int


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """A libvirt domain. `name` is the instance id, `virt_type` "kvm" or "qemu" (TCG).

    `root_ports` is how many pcie-root-ports exist; disks and NICs sit on the port their `pci_slot` numbers (from 0).
    """

    name: str
    uuid: str
    account_id: str
    virt_type: str
    machine_type: str
    boot_mode: str  # "legacy-bios" or "uefi"
    vcpus: int
    memory_mib: int
    disks: tuple[DomainDisk, ...]
    nics: tuple[DomainNic, ...]
    console_path: str
    root_ports: int
    cpu_shares: int | None = None


@dataclass(frozen=True, slots=True)
class DomainStatus:
    """What libvirt says of a domain. `state`: "absent", "shutoff", "running", "paused" or "stopping".

    `reason` when shutoff: "shutdown" (the guest powered off), "destroyed", "crashed", "failed" or "unknown".
    `pid` is QEMU's while it lives; an instance's disks, IP and MAC are free only when it is None.
    """

    state: str
    reason: str = "unknown"
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A detached job on a host: `state` is "absent", "running", "succeeded" or "failed".

    `progress_percent` 0..100; `result` is what a succeeded job returned; `error_code`/`error` why it failed.
    """

    state: str
    progress_percent: int = 0
    result: dict[str, object] = field(default_factory=dict)
    error_code: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host measured of itself."""

    hostname: str
    vcpus: int
    memory_mib: int
    virt_type: str
    virt_type_reason: str
    machine_type: str
    qemu_version: str
    libvirt_version: str
    kernel: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a host holds under minicloud's names: instance ids, ENI ids, file paths, job names."""

    domains: dict[str, DomainStatus]
    ports: tuple[str, ...]
    routers: tuple[str, ...]
    disk_paths: tuple[str, ...]
    jobs: tuple[str, ...]


# HostEvent.detail of a guest that has reset its machine: the one detail that a step waits for.
REBOOTED = "rebooted"


@dataclass(frozen=True, slots=True)
class HostEvent:
    """Something a host reported. `kind`: "domain" (look at `instance_id` again), "connected" or "disconnected".

    `detail` is for logs, but for REBOOTED.
    """

    host_id: str
    kind: str
    instance_id: str | None = None
    detail: str = ""


def to_json(plan: object) -> dict[str, object]:
    """Return a plan as plain dicts and lists, ready for JSON."""
    if not dataclasses.is_dataclass(plan) or isinstance(plan, type):
        raise TypeError(f"not a plan: {plan!r}")
    return dataclasses.asdict(plan)
