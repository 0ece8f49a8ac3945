"""RunInstances: one decision, one transaction. Everything that can refuse a launch is asked before the first row is
written, so a refused launch leaves nothing behind; the controller then makes the rows true.

Owns the rules of RunInstances that are not about one kind of thing (block_devices.py, placement.py, addresses.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minicloud import ids
from minicloud.cloud import tokens
from minicloud.cloud.addresses import allocate_private_ips, allocate_public_ips, claim_private_ip, render_mac
from minicloud.cloud.block_devices import (
    NIC_SLOT,
    DeviceRequest,
    LaunchDisks,
    choose_disks,
    merge_mappings,
)
from minicloud.cloud.context import Caller, Cloud
from minicloud.cloud.image_parameters import resolve_image_id
from minicloud.cloud.images import find_launchable_image
from minicloud.cloud.instance_types import DEFAULT_TYPE, find_type
from minicloud.cloud.keys import find_key_pair
from minicloud.cloud.lookups import (
    INSTANCES,
    NETWORK_INTERFACES,
    SECURITY_GROUPS,
    SNAPSHOTS,
    SUBNETS,
    VOLUMES,
    require,
    require_one,
)
from minicloud.cloud.metadata_options import (
    MetadataRequest,
    check_hop_limit,
    choose_metadata_options,
    find_defaults,
)
from minicloud.cloud.placement import Demand, HostUsage, choose_hosts, host_usages, insufficient_capacity
from minicloud.cloud.security_groups import groups_by_name
from minicloud.cloud.tags import check_metadata_tags, check_tag_specifications
from minicloud.cloud.views import Reservation, group_reservations, view_instances
from minicloud.cloud.vpcs import default_vpc
from minicloud.errors import ApiError
from minicloud.model.plans import GIB
from minicloud.model.resources import (
    Attachment,
    Image,
    Instance,
    InstanceType,
    KeyPair,
    MetadataOptions,
    NetworkInterface,
    SecurityGroup,
    Snapshot,
    Subnet,
    Volume,
    Vpc,
)
from minicloud.model.states import (
    AttachmentState,
    InstanceState,
    Intent,
    SnapshotState,
    VolumeState,
)
from minicloud.store import queries
from minicloud.store.store import Tx

OPERATION = "RunInstances"
TASK_KIND = "instance"
FIRST_STEP = "prepare"
MAX_COUNT = 1000
# EC2 user guide, "Instance user data": 16 KB, in raw form, before it is base64-encoded.
MAX_USER_DATA_BYTES = 16 * 1024
MAX_GROUPS = 5
ENI_ATTACHMENT = "eni-attach"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The parameters of RunInstances that minicloud honours; None means not given. `tags` is by resource type."""

    image_id: str
    min_count: int
    max_count: int
    instance_type: str = DEFAULT_TYPE
    key_name: str | None = None
    group_ids: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    subnet_id: str | None = None
    zone: str | None = None
    zone_id: str | None = None
    private_ip: str | None = None
    associate_public_ip: bool | None = None
    user_data: bytes | None = None
    client_token: str | None = None
    block_devices: tuple[DeviceRequest, ...] = ()
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metadata: MetadataRequest = field(default_factory=MetadataRequest)
    shutdown_behavior: str = "stop"
    disable_api_termination: bool = False
    disable_api_stop: bool = False
    monitoring: bool = False
    ebs_optimized: bool = False


@dataclass(frozen=True, slots=True)
class _Choice:
    """All that was decided about a launch: what each instance shares, then one of each per instance."""

    type: InstanceType
    image: Image
    key: KeyPair | None
    metadata: MetadataOptions
    disks: LaunchDisks
    vpc: Vpc
    subnet: Subnet
    groups: tuple[SecurityGroup, ...]
    hosts: Sequence[HostUsage]
    private_ips: Sequence[str]
    public_ips: Sequence[str | None]


def run(cloud: Cloud, caller: Caller, request: RunRequest) -> Reservation:
    """Launch as many instances as there is room for, at least `min_count` and at most `max_count`, in one zone.

    The same client token with the same parameters returns the reservation it made, as it is now. Raises ApiError with
    the code that EC2 has for what is wrong, InsufficientInstanceCapacity when too few fit.
    """
    _check(request)
    digest = tokens.parameters_digest(request)

    def decide(tx: Tx) -> Reservation:
        earlier = tokens.find_earlier(tx, caller, OPERATION, request.client_token, digest)
        if earlier is not None:
            return _earlier_reservation(cloud, tx, earlier)
        choice = _choose(cloud, tx, caller, request)
        reservation_id = cloud.make_id(ids.RESERVATION)
        instances = _insert(cloud, tx, caller, request, choice, reservation_id)
        tokens.remember(tx, caller, OPERATION, request.client_token, digest, reservation_id)
        return group_reservations(view_instances(cloud, tx, instances))[0]

    return cloud.store.write(decide)


def _check(request: RunRequest) -> None:
    """Refuse what no state of the cloud could make right."""
    for name, count in (("minCount", request.min_count), ("maxCount", request.max_count)):
        if not 1 <= count <= MAX_COUNT:
            raise ApiError(
                "InvalidParameterValue",
                f"Value ({count}) for parameter {name} is invalid. Expecting a number from 1 to {MAX_COUNT}.",
            )
    if request.max_count < request.min_count:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ({request.max_count}) for parameter maxCount is invalid. It must not be less than minCount "
            f"({request.min_count}).",
        )
    if request.user_data is not None and len(request.user_data) > MAX_USER_DATA_BYTES:
        raise ApiError("InvalidParameterValue", f"User data is limited to {MAX_USER_DATA_BYTES} bytes")
    if request.private_ip is not None and request.max_count > 1:
        raise ApiError(
            "InvalidParameterCombination", "A private IP address can be given to one instance only: MaxCount must be 1."
        )
    if request.zone is not None and request.zone_id is not None:
        raise ApiError("InvalidParameterCombination", "AvailabilityZone and AvailabilityZoneId cannot both be given.")
    check_hop_limit(request.metadata.http_put_response_hop_limit)
    check_tag_specifications(request.tags, [INSTANCES.tag_type, VOLUMES.tag_type, NETWORK_INTERFACES.tag_type])


def _earlier_reservation(cloud: Cloud, tx: Tx, reservation_id: str) -> Reservation:
    rows = tx.instances.where(reservation_id=reservation_id)
    if all(row.state is InstanceState.TERMINATED for row in rows):
        raise ApiError(
            "IdempotentInstanceTerminated",
            "The client token you have provided belongs to an earlier request whose instances are terminated. "
            "Use a different client token.",
        )
    return group_reservations(view_instances(cloud, tx, rows))[0]


def _choose(cloud: Cloud, tx: Tx, caller: Caller, request: RunRequest) -> _Choice:
    type_ = find_type(cloud.types, request.instance_type)
    image = find_launchable_image(tx, caller, resolve_image_id(cloud, tx, caller, request.image_id))
    key = None if request.key_name is None else find_key_pair(tx, caller, request.key_name)
    disks = _choose_disks(tx, caller, request, image, type_)
    subnets = _candidate_subnets(tx, caller, request)
    vpc = require_vpc(tx, subnets[0])
    groups = _choose_groups(tx, caller, request, vpc, subnets[0])
    quota = cloud.config.max_instances_per_account
    allowed = quota - queries.count_live_instances(tx, caller.account_id, caller.region)
    if allowed < request.min_count:
        raise ApiError(
            "InstanceLimitExceeded",
            f"You have requested more instances ({request.min_count}) than your current instance limit of {quota} "
            f"allows: {max(allowed, 0)} more may be launched.",
        )
    subnet, hosts = _choose_zone(cloud, tx, request, subnets, _demand(type_, disks), min(request.max_count, allowed))
    if request.private_ip is not None:
        private_ips = [claim_private_ip(tx, subnet, request.private_ip)]
    else:
        private_ips = allocate_private_ips(tx, subnet, request.min_count, len(hosts))
    public_ips: list[str | None] = [None] * len(private_ips)
    if request.associate_public_ip not in (None, subnet.map_public_ip_on_launch):
        raise ApiError(
            "UnsupportedOperation",
            "AssociatePublicIpAddress must agree with the subnet's MapPublicIpOnLaunch, which is "
            f"{str(subnet.map_public_ip_on_launch).lower()} for '{subnet.id}'.",
        )
    if subnet.map_public_ip_on_launch:
        pools = cloud.config.public_address_pools
        public_ips = [*allocate_public_ips(tx, pools, request.min_count, len(private_ips))]
    return _Choice(
        type=type_,
        image=image,
        key=key,
        metadata=_choose_metadata(tx, caller, request, image),
        disks=disks,
        vpc=vpc,
        subnet=subnet,
        groups=groups,
        hosts=hosts[: len(public_ips)],
        private_ips=private_ips[: len(public_ips)],
        public_ips=public_ips,
    )


def _choose_disks(tx: Tx, caller: Caller, request: RunRequest, image: Image, type_: InstanceType) -> LaunchDisks:
    mappings = merge_mappings(image.root_device_name, image.block_devices, request.block_devices)
    own = {one.snapshot_id for one in image.block_devices if one.snapshot_id is not None}
    wanted = {one.snapshot_id for one in mappings if one.snapshot_id is not None}
    # An image's own snapshots come with the image, whoever owns them; others must be the caller's.
    snapshots: dict[str, Snapshot] = {row.id: row for row in tx.snapshots.where(id=own & wanted)}
    snapshots |= {row.id: row for row in require(tx, caller, SNAPSHOTS, sorted(wanted - snapshots.keys()))}
    for snapshot in snapshots.values():
        if snapshot.state is not SnapshotState.COMPLETED:
            raise ApiError("IncorrectState", f"Snapshot '{snapshot.id}' is not completed: it is {snapshot.state}.")
    return choose_disks(image.root_device_name, mappings, type_, snapshots)


def _demand(type_: InstanceType, disks: LaunchDisks) -> Demand:
    volumes = sum(volume.size_gib for volume in disks.volumes) * GIB
    return Demand(type_.vcpus, type_.memory_mib, volumes + sum(disk.size_bytes for disk in disks.ephemeral))


def _candidate_subnets(tx: Tx, caller: Caller, request: RunRequest) -> list[Subnet]:
    """Return the subnets that a launch may go to: the one named, or the default ones of the zones that fit."""
    zones = tx.zones.where(region=caller.region)
    for wanted, known in ((request.zone, {one.id for one in zones}), (request.zone_id, {one.zone_id for one in zones})):
        if wanted is not None and wanted not in known:
            raise ApiError("InvalidParameterValue", f"Invalid availability zone: [{wanted[:100]}]")
    allowed = [one.id for one in zones if request.zone in (None, one.id) and request.zone_id in (None, one.zone_id)]
    if request.subnet_id is not None:
        subnet = require_one(tx, caller, SUBNETS, request.subnet_id)
        if subnet.zone not in allowed:
            raise ApiError(
                "InvalidParameterCombination",
                f"The subnet '{subnet.id}' is in zone {subnet.zone}, which is not the zone requested.",
            )
        return [subnet]
    vpc = default_vpc(tx, caller)
    subnets = sorted(tx.subnets.where(vpc_id=vpc.id, is_default=True, zone=allowed), key=lambda row: row.zone)
    if not subnets:
        raise ApiError("MissingInput", f"No subnets found for the default VPC '{vpc.id}'. Please specify a subnet.")
    return subnets


def require_vpc(tx: Tx, subnet: Subnet) -> Vpc:
    """Return the VPC of a subnet; its absence is a bug."""
    vpc = tx.vpcs.get(subnet.vpc_id)
    if vpc is None:
        raise LookupError(f"{subnet.id} has no VPC {subnet.vpc_id}")
    return vpc


def _choose_groups(tx: Tx, caller: Caller, request: RunRequest, vpc: Vpc, subnet: Subnet) -> tuple[SecurityGroup, ...]:
    if request.group_names and not vpc.is_default:
        raise ApiError(
            "InvalidParameterCombination",
            "The parameter groupName cannot be used with the parameter subnet of a VPC that is not the default one.",
        )
    groups = require(tx, caller, SECURITY_GROUPS, request.group_ids)
    groups += [group for group in groups_by_name(tx, caller, dict.fromkeys(request.group_names)) if group not in groups]
    if not groups:
        groups = tx.security_groups.where(vpc_id=vpc.id, name="default")
    for group in groups:
        if group.vpc_id != vpc.id:
            raise ApiError(
                "InvalidParameter",
                f"Security group {group.id} and subnet {subnet.id} belong to different networks.",
            )
    if len(groups) > MAX_GROUPS:
        raise ApiError(
            "SecurityGroupsPerInterfaceLimitExceeded",
            f"The maximum number of security groups per interface ({MAX_GROUPS}) has been reached.",
        )
    return tuple(groups)


def _choose_zone(
    cloud: Cloud, tx: Tx, request: RunRequest, subnets: list[Subnet], demand: Demand, max_count: int
) -> tuple[Subnet, list[HostUsage]]:
    """Return the subnet whose zone takes the most of the instances, the emptiest of equals, and their hosts."""
    usages = host_usages(tx, cloud.config, tx.hosts.where(zone=[subnet.zone for subnet in subnets]))
    best: tuple[Subnet, list[HostUsage]] = (subnets[0], [])
    best_rank = (0, 0.0)
    for subnet in subnets:
        hosts = choose_hosts([usage for usage in usages if usage.host.zone == subnet.zone], demand, max_count)
        rank = (len(hosts), -hosts[0].load() if hosts else 0.0)
        if rank > best_rank or not best[1]:
            best, best_rank = (subnet, hosts), rank
    if len(best[1]) < request.min_count:
        raise insufficient_capacity(request.instance_type, subnets[0].zone if len(subnets) == 1 else None)
    return best


def _choose_metadata(tx: Tx, caller: Caller, request: RunRequest, image: Image) -> MetadataOptions:
    options = choose_metadata_options(request.metadata, find_defaults(tx, caller), image)
    if options.instance_metadata_tags == "enabled":
        check_metadata_tags(request.tags.get(INSTANCES.tag_type, {}))
    return options


def render_domain_uuid(instance_id: str) -> str:
    """Return an instance's domain UUID. It begins with ec2: cloud-init refuses EC2's metadata otherwise."""
    digits = hashlib.sha256(instance_id.encode()).hexdigest()
    return f"ec2{digits[3:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def _insert(
    cloud: Cloud, tx: Tx, caller: Caller, request: RunRequest, choice: _Choice, reservation_id: str
) -> list[Instance]:
    """Write the rows of every instance, and its task."""
    instances: list[Instance] = []
    ports: list[NetworkInterface] = []
    volumes: list[Volume] = []
    attachments: list[Attachment] = []
    places = zip(choice.hosts, choice.private_ips, choice.public_ips, strict=True)
    for index, (place, private_ip, public_ip) in enumerate(places):
        instance = _instance(cloud, tx, caller, request, choice, reservation_id, index, place)
        instances.append(instance)
        ports.append(_port(cloud, tx, caller, choice, instance, private_ip, public_ip))
        for one in choice.disks.volumes:
            volume = Volume(
                id=cloud.make_id(ids.VOLUME),
                account_id=caller.account_id,
                region=caller.region,
                zone=instance.zone,
                pool_id=place.pool.id,
                state=VolumeState.CREATING,
                size_gib=one.size_gib,
                volume_type=one.volume_type,
                iops=one.iops,
                throughput_mibps=one.throughput_mibps,
                encrypted=False,
                snapshot_id=one.snapshot_id,
                created_us=tx.now_us,
            )
            volumes.append(volume)
            attachments.append(
                Attachment(
                    id=cloud.make_id(ids.ATTACHMENT),
                    volume_id=volume.id,
                    instance_id=instance.id,
                    device_name=one.device_name,
                    pci_slot=one.pci_slot,
                    state=AttachmentState.ATTACHING,
                    delete_on_termination=one.delete_on_termination,
                    attached_us=tx.now_us,
                )
            )
    tx.instances.insert_many(instances)
    tx.volumes.insert_many(volumes)
    tx.attachments.insert_many(attachments)
    tx.network_interfaces.insert_many(ports)
    tagged: tuple[tuple[str, Sequence[Instance | Volume | NetworkInterface]], ...] = (
        (INSTANCES.tag_type, instances),
        (VOLUMES.tag_type, volumes),
        (NETWORK_INTERFACES.tag_type, ports),
    )
    for tag_type, rows in tagged:
        if request.tags.get(tag_type):
            tx.tags.set_many({row.id: request.tags[tag_type] for row in rows})
    for instance in instances:
        tx.add_task(instance.id, TASK_KIND, FIRST_STEP)
    return instances


def _instance(
    cloud: Cloud,
    tx: Tx,
    caller: Caller,
    request: RunRequest,
    choice: _Choice,
    reservation_id: str,
    index: int,
    place: HostUsage,
) -> Instance:
    instance_id = cloud.make_id(ids.INSTANCE)
    return Instance(
        id=instance_id,
        account_id=caller.account_id,
        region=caller.region,
        zone=choice.subnet.zone,
        host_id=place.host.id,
        reservation_id=reservation_id,
        launch_index=index,
        client_token=request.client_token,
        state=InstanceState.PENDING,
        intent=Intent.RUNNING,
        stop_forced=False,
        reboot_requested=0,
        reboot_done=0,
        state_reason=None,
        transition_reason="",
        instance_type=choice.type.name,
        vcpus=choice.type.vcpus,
        memory_mib=choice.type.memory_mib,
        image_id=choice.image.id,
        architecture=choice.image.architecture,
        boot_mode="legacy-bios" if choice.image.boot_mode == "legacy-bios" else "uefi",
        key_name=None if choice.key is None else choice.key.name,
        public_key=None if choice.key is None else choice.key.public_key,
        user_data=request.user_data,
        root_device_name=choice.image.root_device_name,
        shutdown_behavior=request.shutdown_behavior,
        disable_api_termination=request.disable_api_termination,
        disable_api_stop=request.disable_api_stop,
        monitoring=request.monitoring,
        ebs_optimized=request.ebs_optimized,
        metadata_options=choice.metadata,
        machine_type=place.host.machine_type,
        domain_uuid=render_domain_uuid(instance_id),
        vpc_id=choice.vpc.id,
        subnet_id=choice.subnet.id,
        impaired=False,
        launched_us=tx.now_us,
        created_us=tx.now_us,
        ephemeral_disks=choice.disks.ephemeral,
    )


def _port(
    cloud: Cloud,
    tx: Tx,
    caller: Caller,
    choice: _Choice,
    instance: Instance,
    private_ip: str,
    public_ip: str | None,
) -> NetworkInterface:
    return NetworkInterface(
        id=cloud.make_id(ids.NETWORK_INTERFACE),
        account_id=caller.account_id,
        vpc_id=choice.vpc.id,
        subnet_id=choice.subnet.id,
        zone=choice.subnet.zone,
        instance_id=instance.id,
        device_index=0,
        mac=render_mac(choice.vpc, private_ip),
        private_ip=private_ip,
        public_ip=public_ip,
        group_ids=tuple(group.id for group in choice.groups),
        pci_slot=NIC_SLOT,
        delete_on_termination=True,
        attached_us=tx.now_us,
        attachment_id=cloud.make_id(ENI_ATTACHMENT),
    )
