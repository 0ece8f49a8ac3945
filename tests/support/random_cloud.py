"""Clouds full of rows that were drawn by a seed: every kind of resource, in every state it may be shown in, tagged, of
the root account and of others, in this region and another. Rows are inserted as they are; nothing decided about them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from support import front as build
from support import rows as make

from minicloud.cloud.bootstrap import ROOT_ACCOUNT_ID
from minicloud.cloud.context import Cloud
from minicloud.model.resources import BlockDevice, Instance, MetadataOptions, StateReason
from minicloud.model.states import (
    AttachmentState,
    ImageState,
    ImportTaskState,
    InstanceState,
    Intent,
    SnapshotState,
    VolumeState,
)
from minicloud.store.store import Tx

T = TypeVar("T")
# Numbers of ids; those below are the front's own.
_FIRST = 0x100
_ADDED = 0x800
MINE = ROOT_ACCOUNT_ID
OTHER = "200000000002"
HERE = build.REGION
ELSEWHERE = "lab-2"
# What people write, and what some database or language would read otherwise than it is meant.
WORDS = (
    "web", "Web", "db", "a*b", "a?b", "100%", "under_score", "[x]", "it's", "back\\slash", "", " ", "\u00e4\U0001f600",
    "two\nlines", 'quo"te', "<xml>&amp;", "true", "0", "x" * 127,
)  # fmt: skip
KEYS = ("Name", "name", "env", "a:b", "tag:x", "owner*", "\u00e4", "key with spaces")
_STOPPED = StateReason("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
_PRESENT = (AttachmentState.ATTACHING, AttachmentState.ATTACHED, AttachmentState.DETACHING)
_MOMENTS = [make.BORN_US + offset for offset in (0, 0, 1, 999, 1000, 1_234_567, 60_000_000, 86_400_000_000)]


@dataclass(frozen=True)
class _Ground:
    """Where resources of an account stand in a region."""

    account_id: str
    region: str
    zones: list[str]
    subnets: list[Any]
    groups: list[str]


class _Filler:
    def __init__(self, seed: int, most: int, first: int = _FIRST) -> None:
        self._random = random.Random(seed)
        self._most = most
        self._number = first

    def fill(self, tx: Tx) -> None:
        pools = {zone: self._pool(tx, zone) for zone in ("lab-1a", "lab-1b")}
        tx.zones.insert(make.zone(1, id="lab-2a", region=ELSEWHERE, zone_id="lab2-az1"))
        tx.hosts.insert(make.host(50, name="host50", zone="lab-2a"))
        tx.pools.insert(make.pool(50, host_id=make.number("h", 50)))
        pools["lab-2a"] = make.number("pool", 50)
        grounds = [self._ground(tx, MINE, HERE, ["lab-1a", "lab-1b"], default=True)]
        grounds += [
            self._ground(tx, MINE, HERE, ["lab-1b"]),
            self._ground(tx, OTHER, HERE, ["lab-1a"]),
            self._ground(tx, MINE, ELSEWHERE, ["lab-2a"]),
        ]
        for ground in grounds:
            self._settle(tx, ground, pools)

    def add(self, tx: Tx) -> None:
        """More of everything of the root account's, in its default VPC."""
        pools = {zone: self._pool(tx, zone) for zone in ("lab-1a", "lab-1b")}
        self._settle(tx, self._ground(tx, MINE, HERE, ["lab-1a", "lab-1b"], default=True), pools)

    def change(self, tx: Tx) -> None:
        """Change and remove some of the rows that there are."""
        for table in (tx.key_pairs, tx.images, tx.snapshots, tx.import_tasks, tx.security_group_rules):
            for row in table.where():
                if row.id not in (build.IMAGE_ID, build.SNAPSHOT_ID) and self._random.random() < 0.15:
                    tx.tags.delete(row.id)
                    table.delete(row.id)
        for resource_id, tags in tx.tags.all().items():
            for key in tags:
                if self._random.random() < 0.1:
                    tx.tags.delete(resource_id, [key])
                elif self._random.random() < 0.1:
                    tx.tags.set(resource_id, {key: self._word()})
        attached = {one.volume_id for one in tx.attachments.where()}
        for volume in tx.volumes.where():
            if volume.id not in attached and self._random.random() < 0.2:
                tx.tags.delete(volume.id)
                tx.volumes.delete(volume.id)
        for instance in tx.instances.where():
            if self._random.random() < 0.2:
                self._end(tx, instance)

    def _end(self, tx: Tx, instance: Instance) -> None:
        """Stop an instance, or remove every trace of it."""
        if self._coin():
            tx.instances.update(instance.id, intent=Intent.STOPPED)
            return
        for port in tx.network_interfaces.where(instance_id=instance.id):
            tx.tags.delete(port.id)
            tx.network_interfaces.delete(port.id)
        for one in tx.attachments.where(instance_id=instance.id):
            tx.attachments.delete(one.id)
            tx.tags.delete(one.volume_id)
            tx.volumes.delete(one.volume_id)
        tx.tags.delete(instance.id)
        tx.instances.delete(instance.id)

    def _settle(self, tx: Tx, ground: _Ground, pools: dict[str, str]) -> None:
        self._key_pairs(tx, ground)
        snapshots = self._snapshots(tx, ground)
        images = self._images(tx, ground, snapshots)
        self._import_tasks(tx, ground, snapshots)
        self._volumes(tx, ground, pools, snapshots)
        self._instances(tx, ground, pools, [build.IMAGE_ID, *images])

    def _pool(self, tx: Tx, zone: str) -> str:
        (host,) = tx.hosts.where(zone=zone)
        return tx.pools.where(host_id=host.id)[0].id

    def _count(self) -> range:
        return range(self._random.choice((0, 1, 2, self._random.randint(0, self._most), self._most)))

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _one(self, values: Sequence[T]) -> T:
        return self._random.choice(values)

    def _coin(self) -> bool:
        return self._random.random() < 0.5

    def _word(self) -> str:
        return self._one(WORDS)

    def _moment(self) -> int:
        return self._one(_MOMENTS)

    def _tag(self, tx: Tx, resource_id: str) -> None:
        keys = self._random.sample(KEYS, self._one((0, 0, 1, 2, len(KEYS))))
        if keys:
            tx.tags.set(resource_id, {key: self._word() for key in keys})

    def _ground(self, tx: Tx, account_id: str, region: str, zones: list[str], default: bool = False) -> _Ground:
        if default:
            (vpc,) = tx.vpcs.where(account_id=account_id, region=region, is_default=True)
            subnets = tx.subnets.where(vpc_id=vpc.id)
        else:
            n = self._next()
            vpc = make.vpc(
                n, account_id=account_id, region=region, cidr=f"10.{n % 256}.0.0/16", is_default=False,
                created_us=self._moment(),
            )  # fmt: skip
            tx.vpcs.insert(vpc)
            subnets = [
                make.subnet(
                    self._next(), account_id=account_id, vpc_id=vpc.id, zone=zone, is_default=False,
                    cidr=f"10.{n % 256}.{16 * index}.0/20", map_public_ip_on_launch=self._coin(),
                    created_us=self._moment(),
                )
                for index, zone in enumerate(zones * 2)
            ]  # fmt: skip
            tx.subnets.insert_many(subnets)
        groups = [group.id for group in tx.security_groups.where(vpc_id=vpc.id)]
        for _ in range(self._random.randint(0, 4)):
            n = self._next()
            group = make.security_group(
                n, account_id=account_id, vpc_id=vpc.id, name=f"{self._word()}{n}", description=self._word(),
                created_us=self._moment(),
            )  # fmt: skip
            tx.security_groups.insert(group)
            groups.append(group.id)
        for group_id in groups:
            self._rules(tx, account_id, group_id, groups)
        for resource_id in (vpc.id, *groups, *(subnet.id for subnet in subnets)):
            self._tag(tx, resource_id)
        return _Ground(account_id, region, zones, subnets, groups)

    def _rules(self, tx: Tx, account_id: str, group_id: str, groups: list[str]) -> None:
        for _ in range(self._random.randint(0, 4)):
            protocol = self._one(("tcp", "udp", "icmp", "-1"))
            ports = (None, None)
            if protocol != "-1":
                ports = self._one(((22, 22), (80, 443), (0, 65535))) if protocol != "icmp" else (-1, -1)
            source = self._one(groups) if self._coin() else None
            rule = make.security_group_rule(
                self._next(), account_id=account_id, group_id=group_id, egress=self._coin(), protocol=protocol,
                from_port=ports[0], to_port=ports[1], source_group_id=source,
                cidr=None if source else self._one(("0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32")),
                description=self._one((None, *WORDS)),
            )  # fmt: skip
            tx.security_group_rules.insert(rule)
            self._tag(tx, rule.id)

    def _key_pairs(self, tx: Tx, ground: _Ground) -> None:
        for _ in self._count():
            n = self._next()
            row = make.key_pair(
                n, account_id=ground.account_id, region=ground.region, name=f"{self._word()}{n}"[:255],
                key_type=self._one(("rsa", "ed25519")), fingerprint=f"{n:02x}:ab:{self._random.randint(0, 9)}",
                created_us=self._moment(),
            )  # fmt: skip
            tx.key_pairs.insert(row)
            self._tag(tx, row.id)

    def _snapshots(self, tx: Tx, ground: _Ground) -> list[str]:
        found = []
        for _ in self._count():
            n = self._next()
            state = self._one([*SnapshotState])
            row = make.snapshot(
                n, account_id=ground.account_id, region=ground.region, description=self._word(), state=state,
                state_reason=self._word() if state is SnapshotState.ERROR else None,
                volume_id=make.number("vol", self._random.randint(1, 5)) if self._coin() else None,
                size_gib=self._random.randint(1, 12), progress_percent=self._one((0, 7, 100)),
                created_us=self._moment(),
                completed_us=self._moment() if state is SnapshotState.COMPLETED else None,
            )  # fmt: skip
            tx.snapshots.insert(row)
            self._tag(tx, row.id)
            found.append(row.id)
        return found

    def _images(self, tx: Tx, ground: _Ground, snapshots: list[str]) -> list[str]:
        found = []
        for _ in self._count():
            n = self._next()
            state = self._one([*ImageState])
            devices = [
                BlockDevice(
                    f"/dev/sd{letter}", self._one(snapshots) if snapshots and self._coin() else None,
                    self._random.randint(1, 12) if self._coin() else None, self._one(("gp3", "gp2", "io1", "standard")),
                    self._coin(), encrypted=False, iops=self._one((None, 3000)),
                )
                for letter in "abc"[: self._random.randint(1, 3)]
            ]  # fmt: skip
            devices = [
                BlockDevice(one.device_name, None, 8) if one.snapshot_id is None and one.size_gib is None else one
                for one in devices
            ]
            if self._coin():
                devices.append(BlockDevice("/dev/sdh", virtual_name="ephemeral0"))
            copied = self._coin()
            row = make.image(
                n, account_id=ground.account_id, region=ground.region, name=f"{self._word()} {n}"[:128],
                description=self._one((None, *WORDS)), state=state,
                state_reason=self._word() or "why" if state is ImageState.FAILED else None,
                architecture=self._one(("x86_64", "arm64")), boot_mode=self._one(("legacy-bios", "uefi")),
                root_device_name="/dev/sda", block_devices=tuple(devices), public=self._random.random() < 0.3,
                allowed_account_ids=tuple(self._random.sample((MINE, OTHER, "300000000003"), self._one((0, 1, 2)))),
                source_image_id=make.number("ami", 7) if copied else None,
                source_region=self._one((HERE, ELSEWHERE)) if copied else None,
                imds_support=self._one((None, "v2.0")), ena_support=self._coin(), created_us=self._moment(),
                deregistered_us=self._moment() if state is ImageState.DEREGISTERED else None,
            )  # fmt: skip
            tx.images.insert(row)
            self._tag(tx, row.id)
            found.append(row.id)
        return found

    def _import_tasks(self, tx: Tx, ground: _Ground, snapshots: list[str]) -> None:
        for _ in self._count():
            n = self._next()
            kind = self._one(("snapshot", "image"))
            prefix = {"snapshot": "import-snap", "image": "import-ami"}[kind]
            row = make.import_task(
                n, id=make.number(prefix, n), account_id=ground.account_id, region=ground.region, kind=kind,
                description=self._one((None, *WORDS)), state=self._one([*ImportTaskState]),
                status_message=self._one((None, "working")), progress_percent=self._one((0, 50, 100)),
                snapshot_id=self._one(snapshots) if snapshots else make.number("snap", n),
                image_id=make.number("ami", n) if kind == "image" else None, created_us=self._moment(),
            )  # fmt: skip
            tx.import_tasks.insert(row)
            self._tag(tx, row.id)

    def _volume(self, ground: _Ground, pools: dict[str, str], snapshots: list[str], **changes: Any) -> Any:
        kind = self._one(("gp3", "gp2", "io1", "standard"))
        zone = self._one(ground.zones)
        return make.volume(
            self._next(),
            **{
                "account_id": ground.account_id, "region": ground.region, "zone": zone, "pool_id": pools[zone],
                "size_gib": self._random.randint(1, 12), "volume_type": kind,
                "iops": {"gp3": 3000, "gp2": 100, "io1": 500}.get(kind),
                "throughput_mibps": 125 if kind == "gp3" else None, "created_us": self._moment(),
                "snapshot_id": self._one(snapshots) if snapshots and self._coin() else None, **changes,
            },
        )  # fmt: skip

    def _volumes(self, tx: Tx, ground: _Ground, pools: dict[str, str], snapshots: list[str]) -> None:
        states = (VolumeState.CREATING, VolumeState.AVAILABLE, VolumeState.DELETING, VolumeState.ERROR)
        for _ in self._count():
            row = self._volume(ground, pools, snapshots, state=self._one(states))
            tx.volumes.insert(row)
            self._tag(tx, row.id)

    def _instances(self, tx: Tx, ground: _Ground, pools: dict[str, str], images: list[str]) -> None:
        reservation, launch_index, born = self._next(), 0, self._moment()
        for _ in self._count():
            if self._coin():
                reservation, launch_index, born = self._next(), 0, self._moment()
            self._instance(tx, ground, pools, images, reservation, launch_index, born)
            launch_index += 1

    def _instance(
        self, tx: Tx, ground: _Ground, pools: dict[str, str], images: list[str], reservation: int, index: int, born: int
    ) -> None:
        n = self._next()
        subnet = self._one(ground.subnets)
        state = self._one([*InstanceState])
        intent = Intent.TERMINATED if state is InstanceState.TERMINATED else self._one([*Intent])
        row = make.instance(
            n, account_id=ground.account_id, region=ground.region, zone=subnet.zone,
            reservation_id=make.number("r", reservation), launch_index=index,
            client_token=self._one((None, "token", "Token*")), state=state, intent=intent,
            state_reason=self._one((None, _STOPPED, StateReason("Server.InternalError", "Server.InternalError: *"))),
            transition_reason=self._one(("", "User initiated (2024-01-01 00:00:00 GMT)")),
            instance_type=self._one(("t3.nano", "m5.large", "m5d.large", "gone.large")),
            image_id=self._one([*images, make.number("ami", 9999)]), architecture=self._one(("x86_64", "arm64")),
            boot_mode=self._one(("legacy-bios", "uefi")), key_name=self._one((None, "key", *WORDS)),
            root_device_name=self._one(("/dev/sda1", "/dev/xvda")), monitoring=self._coin(), ebs_optimized=self._coin(),
            disable_api_termination=self._random.random() < 0.2, disable_api_stop=self._random.random() < 0.2,
            metadata_options=MetadataOptions(
                self._one(("enabled", "disabled")), self._one(("optional", "required")), self._one((1, 2, 12, 64)),
                self._one(("enabled", "disabled")), self._one(("pending", "applied")),
            ),
            vpc_id=subnet.vpc_id, subnet_id=subnet.id, impaired=self._coin(), launched_us=self._moment(),
            created_us=born, terminated_us=self._moment() if state is InstanceState.TERMINATED else None,
        )  # fmt: skip
        tx.instances.insert(row)
        self._tag(tx, row.id)
        if state is InstanceState.TERMINATED:
            return
        third = subnet.cidr.split("/")[0].split(".")
        port = make.network_interface(
            n, account_id=ground.account_id, vpc_id=subnet.vpc_id, subnet_id=subnet.id, zone=subnet.zone,
            instance_id=row.id, mac=f"02:00:00:00:{n // 256:02x}:{n % 256:02x}",
            private_ip=f"{third[0]}.{third[1]}.{int(third[2]) + n // 250}.{n % 250 + 4}",
            public_ip=f"10.200.{n // 250}.{n % 250 + 1}" if self._coin() else None,
            group_ids=tuple(self._random.sample(ground.groups, min(len(ground.groups), self._one((1, 1, 2))))),
            delete_on_termination=self._coin(), attached_us=self._moment(),
        )  # fmt: skip
        tx.network_interfaces.insert(port)
        self._tag(tx, port.id)
        for slot in range(self._random.randint(0, 2)):
            volume = self._volume(
                ground, pools, [], zone=subnet.zone, pool_id=pools[subnet.zone], state=VolumeState.IN_USE
            )
            tx.volumes.insert(volume)
            self._tag(tx, volume.id)
            tx.attachments.insert(
                make.attachment(
                    self._next(), volume_id=volume.id, instance_id=row.id, device_name=f"/dev/sd{'ab'[slot]}",
                    pci_slot=slot, state=self._one(_PRESENT),
                    delete_on_termination=self._coin(), attached_us=self._moment(),
                )
            )  # fmt: skip


def fill_cloud(cloud: Cloud, seed: int, most: int = 12) -> None:
    """Insert random resources: of every kind at most `most` per account and region."""
    cloud.store.write(_Filler(seed, most).fill)


def add_resources(cloud: Cloud, seed: int, most: int = 3) -> None:
    """Insert some more. Once per cloud."""
    cloud.store.write(_Filler(seed, most, _ADDED).add)


def change_resources(cloud: Cloud, seed: int) -> None:
    """Change some rows and delete others."""
    cloud.store.write(_Filler(seed, 0).change)
