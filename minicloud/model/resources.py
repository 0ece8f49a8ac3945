"""The rows of the cloud as frozen dataclasses, one per table of store/schema.py. Pure data; no I/O, no SQL.

Times are UTC microseconds (`_us`); sizes name their unit; tuples stand for ordered lists. A field that is another row's
id ends in `_id`. JSON columns hold plain dicts and lists and are typed here by the dataclass they rebuild.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minicloud.model.states import (
    AttachmentState,
    HostState,
    ImageState,
    ImportTaskState,
    InstanceState,
    Intent,
    SnapshotState,
    VolumeState,
    shown_instance_state,
)


@dataclass(frozen=True, slots=True)
class Account:
    """The owner of resources; 12 digits, as AWS account ids are."""

    id: str
    name: str
    created_us: int


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key pair for SigV4. The secret is needed in clear to verify signatures, so the database file is private."""

    id: str
    account_id: str
    secret: str
    created_us: int


@dataclass(frozen=True, slots=True)
class Secret:
    """A key that this cloud made for itself, such as the one that seals tokens; the newest of a purpose is in use."""

    id: str
    purpose: str
    value: str
    created_us: int


@dataclass(frozen=True, slots=True)
class Zone:
    """An availability zone: `lab-1a` in region `lab-1`; `zone_id` is its EC2 ZoneId (such as `lab1-az1`)."""

    id: str
    region: str
    zone_id: str
    created_us: int


@dataclass(frozen=True, slots=True)
class Host:
    """A KVM host. `address` is "local" or an SSH destination's address; `uri` is libvirt's connection URI.

    `facts` is what the host-side session last measured: {"vcpus", "memory_mib", "virt_type", "qemu_version",
    "machine_type", "hostname", ...}. `host_key` pins the SSH server ("ssh-ed25519 AAAA...").
    """

    id: str
    name: str
    zone: str
    address: str
    ssh_user: str
    ssh_port: int
    host_key: str | None
    state: HostState
    vcpus: int
    memory_mib: int
    virt_type: str
    machine_type: str
    uplink: str | None
    facts: dict[str, object]
    state_reason: str | None
    created_us: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Storage of one host. `backend` is `directory` (later also `lvm-thin`); `path` is its folder on the host."""

    id: str
    host_id: str
    name: str
    backend: str
    path: str
    capacity_bytes: int
    created_us: int


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An SSH public key instances are born with. `fingerprint` as EC2 computes it for the key's kind and origin."""

    id: str
    account_id: str
    region: str
    name: str
    key_type: str
    fingerprint: str
    public_key: str
    created_us: int


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """One entry of a block device mapping: an EBS volume, an instance-store disk (`ephemeralN`) or a suppression."""

    device_name: str
    snapshot_id: str | None = None
    size_gib: int | None = None
    volume_type: str = "gp3"
    delete_on_termination: bool = True
    iops: int | None = None
    throughput_mibps: int | None = None
    encrypted: bool = False
    virtual_name: str | None = None
    no_device: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """An AMI: snapshots plus launch metadata. `allowed_account_ids` and `public` are its launch permissions."""

    id: str
    account_id: str
    region: str
    name: str
    description: str | None
    state: ImageState
    state_reason: str | None
    architecture: str
    boot_mode: str
    root_device_name: str
    block_devices: tuple[BlockDevice, ...]
    public: bool
    allowed_account_ids: tuple[str, ...]
    source_image_id: str | None
    source_region: str | None
    imds_support: str | None
    ena_support: bool
    created_us: int
    deregistered_us: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A point-in-time content of a disk: a manifest of blocks in the object store, addressed by `manifest_digest`."""

    id: str
    account_id: str
    region: str
    description: str
    state: SnapshotState
    state_reason: str | None
    volume_id: str | None
    size_gib: int
    virtual_size_bytes: int
    manifest_digest: str | None
    progress_percent: int
    encrypted: bool
    created_us: int
    completed_us: int | None = None


@dataclass(frozen=True, slots=True)
class ImportTask:
    """ImportSnapshot (`kind` "snapshot") or ImportImage ("image") at work; ends with a snapshot, and an image.

    `path` is the local file (never shown), `url` what the caller gave, `format` "qcow2" or "raw" as declared.
    `remove_source` marks an upload of our own spool that goes away with the task.
    """

    id: str
    account_id: str
    region: str
    kind: str
    description: str | None
    url: str
    path: str
    format: str
    remove_source: bool
    state: ImportTaskState
    status_message: str | None
    progress_percent: int
    snapshot_id: str
    image_id: str | None
    architecture: str
    boot_mode: str | None
    disk_image_size_bytes: int
    created_us: int
    ended_us: int | None = None


@dataclass(frozen=True, slots=True)
class StateReason:
    """Why an instance is where it is: code such as `Client.UserInitiatedShutdown`, and its sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class MetadataOptions:
    """Instance metadata options (EC2 API reference, InstanceMetadataOptionsResponse).

    `state` is "pending" from a change until the host answers the guest by it or there is no guest, else "applied".
    """

    http_endpoint: str = "enabled"
    http_tokens: str = "optional"
    http_put_response_hop_limit: int = 1
    instance_metadata_tags: str = "disabled"
    state: str = "applied"


@dataclass(frozen=True, slots=True)
class MetadataDefaults:
    """Account-level defaults of metadata options in one region; None means no preference."""

    account_id: str
    region: str
    http_endpoint: str | None = None
    http_tokens: str | None = None
    http_put_response_hop_limit: int | None = None
    instance_metadata_tags: str | None = None
    http_tokens_enforced: str | None = None


@dataclass(frozen=True, slots=True)
class EphemeralDisk:
    """An instance-store disk of an instance: `virtual_name` ephemeralN at `device_name`, on root port `pci_slot`."""

    virtual_name: str
    device_name: str
    size_bytes: int
    pci_slot: int


@dataclass(frozen=True, slots=True)
class Instance:
    """A virtual machine. Users write `intent` and `reboot_requested`; only the controller writes `state`.

    `machine_type` and `domain_uuid` are fixed at launch: the domain's XML is rebuilt from this row at every start.
    `reboot_requested` counts requests, `reboot_done` those acted upon.
    """

    id: str
    account_id: str
    region: str
    zone: str
    host_id: str
    reservation_id: str
    launch_index: int
    client_token: str | None
    state: InstanceState
    intent: Intent
    stop_forced: bool
    reboot_requested: int
    reboot_done: int
    state_reason: StateReason | None
    transition_reason: str
    instance_type: str
    vcpus: int
    memory_mib: int
    image_id: str
    architecture: str
    boot_mode: str
    key_name: str | None
    public_key: str | None
    user_data: bytes | None
    root_device_name: str
    shutdown_behavior: str
    disable_api_termination: bool
    disable_api_stop: bool
    monitoring: bool
    ebs_optimized: bool
    metadata_options: MetadataOptions
    machine_type: str
    domain_uuid: str
    vpc_id: str
    subnet_id: str
    impaired: bool
    launched_us: int
    created_us: int
    terminated_us: int | None = None
    ephemeral_disks: tuple[EphemeralDisk, ...] = ()

    @property
    def shown_state(self) -> InstanceState:
        """The state that API clients see: the row's state seen through the owner's intent."""
        return shown_instance_state(self.state, self.intent)


@dataclass(frozen=True, slots=True)
class Volume:
    """An EBS volume: lives in a zone, on one pool; outlives instances unless its attachment says otherwise."""

    id: str
    account_id: str
    region: str
    zone: str
    pool_id: str
    state: VolumeState
    size_gib: int
    volume_type: str
    iops: int | None
    throughput_mibps: int | None
    encrypted: bool
    snapshot_id: str | None
    created_us: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """A volume on an instance, as `device_name`; `pci_slot` is its root port and never changes while attached."""

    id: str
    volume_id: str
    instance_id: str
    device_name: str
    pci_slot: int
    state: AttachmentState
    delete_on_termination: bool
    attached_us: int


@dataclass(frozen=True, slots=True)
class Vpc:
    """A routed network. `transit_index` is unique and numbers the /31 that links its router to each host."""

    id: str
    account_id: str
    region: str
    cidr: str
    is_default: bool
    transit_index: int
    created_us: int


@dataclass(frozen=True, slots=True)
class Subnet:
    """Part of a VPC in one zone. The first four and the last address are reserved, as in EC2."""

    id: str
    account_id: str
    vpc_id: str
    zone: str
    cidr: str
    is_default: bool
    map_public_ip_on_launch: bool
    created_us: int


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A security group; its rules are rows of their own."""

    id: str
    account_id: str
    vpc_id: str
    name: str
    description: str
    created_us: int


@dataclass(frozen=True, slots=True)
class SecurityGroupRule:
    """One rule. `protocol` is tcp, udp, icmp or -1 (all); exactly one of `cidr` and `source_group_id` is set."""

    id: str
    group_id: str
    account_id: str
    egress: bool
    protocol: str
    from_port: int | None
    to_port: int | None
    cidr: str | None
    source_group_id: str | None
    description: str | None


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """An ENI: the port of an instance. `public_ip` is set only while the instance holds a public address."""

    id: str
    account_id: str
    vpc_id: str
    subnet_id: str
    zone: str
    instance_id: str
    device_index: int
    mac: str
    private_ip: str
    public_ip: str | None
    group_ids: tuple[str, ...]
    pci_slot: int
    delete_on_termination: bool
    attached_us: int
    attachment_id: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of any resource."""

    resource_id: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class ClientToken:
    """Makes a call idempotent: the same token with the same parameters gives the same resource."""

    account_id: str
    region: str
    token: str
    operation: str
    parameters_digest: str
    resource_id: str
    created_us: int


@dataclass(frozen=True, slots=True)
class InstanceType:
    """An entry of instance-types.yaml; `instance_store` lists the sizes of its ephemeral disks in GB (10^9)."""

    name: str
    vcpus: int
    memory_mib: int
    instance_store_gb: tuple[int, ...] = ()
    cores: int = 1
    threads_per_core: int = 2
    clock_ghz: float | None = None
    burstable: bool = False
    current_generation: bool = True
    network_performance: str = "Up to 5 Gigabit"
    free_tier: bool = False
    extra: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """A durable program counter: one per resource, for life; its id is the resource's.

    `lease_holder` names a controller incarnation, `lease_epoch` grows with every lease and fences commits and host
    verbs, `wake_count` lets a wake-up that arrives during a step be seen when the step's nap is committed.
    """

    id: str
    kind: str
    step: str
    facts: dict[str, object]
    attempt: int
    due_us: int
    lease_group: str
    lease_holder: str | None
    lease_epoch: int
    wake_count: int
    step_started_us: int
    last_error: str | None
    created_us: int
