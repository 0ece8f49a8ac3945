"""Rows for tests: each function returns one whole row that is valid on its own; keywords change fields."""

from __future__ import annotations

from typing import Any

from minicloud.model.resources import (
    AccessKey,
    Account,
    Attachment,
    BlockDevice,
    ClientToken,
    EphemeralDisk,
    Host,
    Image,
    ImportTask,
    Instance,
    KeyPair,
    MetadataOptions,
    NetworkInterface,
    Pool,
    SecurityGroup,
    SecurityGroupRule,
    Snapshot,
    StateReason,
    Subnet,
    Task,
    Volume,
    Vpc,
    Zone,
)
from minicloud.model.states import (
    AttachmentState,
    HostState,
    ImageState,
    ImportTaskState,
    InstanceState,
    Intent,
    SnapshotState,
    VolumeState,
)

ACCOUNT = "100000000001"
REGION = "lab-1"
ZONE = "lab-1a"
BORN_US = 1_700_000_000_000_000


def number(prefix: str, n: int) -> str:
    """Return a well-formed id that counts."""
    return f"{prefix}-{n:017x}"


def _row(kind: Any, defaults: dict[str, Any], changes: dict[str, Any]) -> Any:
    return kind(**{**defaults, **changes})


def account(n: int = 1, **changes: Any) -> Account:
    return _row(Account, {"id": f"{100000000000 + n}", "name": f"account{n}", "created_us": BORN_US}, changes)


def access_key(n: int = 1, **changes: Any) -> AccessKey:
    defaults = {"id": f"AKIA{n:016d}", "account_id": ACCOUNT, "secret": "s" * 40, "created_us": BORN_US}
    return _row(AccessKey, defaults, changes)


def zone(n: int = 1, **changes: Any) -> Zone:
    letter = "abcdefgh"[n - 1]
    defaults = {"id": f"{REGION}{letter}", "region": REGION, "zone_id": f"lab1-az{n}", "created_us": BORN_US}
    return _row(Zone, defaults, changes)


def host(n: int = 1, **changes: Any) -> Host:
    defaults = {
        "id": number("h", n), "name": f"host{n}", "zone": ZONE, "address": f"10.0.0.{n}", "ssh_user": "root",
        "ssh_port": 22, "host_key": "ssh-ed25519 AAAA", "state": HostState.UP, "vcpus": 8, "memory_mib": 16384,
        "virt_type": "qemu", "machine_type": "pc-q35-7.2", "uplink": None, "facts": {"vcpus": 8, "nested": [1, "x"]},
        "state_reason": None, "created_us": BORN_US,
    }  # fmt: skip
    return _row(Host, defaults, changes)


def pool(n: int = 1, **changes: Any) -> Pool:
    defaults = {
        "id": number("pool", n), "host_id": number("h", n), "name": "default", "backend": "directory",
        "path": "/var/lib/minicloud/pool", "capacity_bytes": 2**40, "created_us": BORN_US,
    }  # fmt: skip
    return _row(Pool, defaults, changes)


def key_pair(n: int = 1, **changes: Any) -> KeyPair:
    defaults = {
        "id": number("key", n), "account_id": ACCOUNT, "region": REGION, "name": f"key{n}", "key_type": "ed25519",
        "fingerprint": "xx", "public_key": "ssh-ed25519 AAAA", "created_us": BORN_US,
    }  # fmt: skip
    return _row(KeyPair, defaults, changes)


def image(n: int = 1, **changes: Any) -> Image:
    defaults = {
        "id": number("ami", n), "account_id": ACCOUNT, "region": REGION, "name": f"image{n}", "description": None,
        "state": ImageState.AVAILABLE, "state_reason": None, "architecture": "x86_64", "boot_mode": "legacy-bios",
        "root_device_name": "/dev/xvda",
        "block_devices": (BlockDevice("/dev/xvda", number("snap", n), 1), BlockDevice("/dev/sdb", virtual_name="e0")),
        "public": False, "allowed_account_ids": ("200000000002",), "source_image_id": None, "source_region": None,
        "imds_support": None, "ena_support": True, "created_us": BORN_US,
    }  # fmt: skip
    return _row(Image, defaults, changes)


def snapshot(n: int = 1, **changes: Any) -> Snapshot:
    defaults = {
        "id": number("snap", n), "account_id": ACCOUNT, "region": REGION, "description": "",
        "state": SnapshotState.COMPLETED, "state_reason": None, "volume_id": None, "size_gib": 1,
        "virtual_size_bytes": 2**30, "manifest_digest": "d" * 64, "progress_percent": 100, "encrypted": False,
        "created_us": BORN_US, "completed_us": BORN_US,
    }  # fmt: skip
    return _row(Snapshot, defaults, changes)


def import_task(n: int = 1, **changes: Any) -> ImportTask:
    defaults = {
        "id": number("import-snap", n), "account_id": ACCOUNT, "region": REGION, "kind": "snapshot",
        "description": None, "url": "file:///x.qcow2", "path": "/x.qcow2", "format": "qcow2", "remove_source": False,
        "state": ImportTaskState.ACTIVE, "status_message": None, "progress_percent": 0,
        "snapshot_id": number("snap", n), "image_id": None, "architecture": "x86_64", "boot_mode": None,
        "disk_image_size_bytes": 10, "created_us": BORN_US,
    }  # fmt: skip
    return _row(ImportTask, defaults, changes)


def instance(n: int = 1, **changes: Any) -> Instance:
    defaults = {
        "id": number("i", n), "account_id": ACCOUNT, "region": REGION, "zone": ZONE, "host_id": number("h", 1),
        "reservation_id": number("r", n), "launch_index": 0, "client_token": None, "state": InstanceState.PENDING,
        "intent": Intent.RUNNING, "stop_forced": False, "reboot_requested": 0, "reboot_done": 0,
        "state_reason": StateReason("pending", "pending"), "transition_reason": "", "instance_type": "t3.nano",
        "vcpus": 2, "memory_mib": 512, "image_id": number("ami", 1), "architecture": "x86_64",
        "boot_mode": "legacy-bios", "key_name": "key1", "public_key": "ssh-ed25519 AAAA", "user_data": b"\x00\xff",
        "root_device_name": "/dev/xvda", "shutdown_behavior": "stop", "disable_api_termination": False,
        "disable_api_stop": False, "monitoring": False, "ebs_optimized": False, "metadata_options": MetadataOptions(),
        "machine_type": "pc-q35-7.2", "domain_uuid": f"ec2{n:05x}-0000-4000-8000-000000000000",
        "vpc_id": number("vpc", 1), "subnet_id": number("subnet", 1), "impaired": False, "launched_us": BORN_US,
        "created_us": BORN_US, "ephemeral_disks": (EphemeralDisk("ephemeral0", "/dev/sdb", 4 * 10**9, 3),),
    }  # fmt: skip
    return _row(Instance, defaults, changes)


def volume(n: int = 1, **changes: Any) -> Volume:
    defaults = {
        "id": number("vol", n), "account_id": ACCOUNT, "region": REGION, "zone": ZONE, "pool_id": number("pool", 1),
        "state": VolumeState.CREATING, "size_gib": 1, "volume_type": "gp3", "iops": 3000, "throughput_mibps": 125,
        "encrypted": False, "snapshot_id": number("snap", 1), "created_us": BORN_US,
    }  # fmt: skip
    return _row(Volume, defaults, changes)


def attachment(n: int = 1, **changes: Any) -> Attachment:
    defaults = {
        "id": number("attach", n), "volume_id": number("vol", n), "instance_id": number("i", n),
        "device_name": "/dev/xvda", "pci_slot": 0, "state": AttachmentState.ATTACHING, "delete_on_termination": True,
        "attached_us": BORN_US,
    }  # fmt: skip
    return _row(Attachment, defaults, changes)


def vpc(n: int = 1, **changes: Any) -> Vpc:
    defaults = {
        "id": number("vpc", n), "account_id": ACCOUNT, "region": REGION, "cidr": "172.31.0.0/16", "is_default": n == 1,
        "transit_index": n, "created_us": BORN_US,
    }  # fmt: skip
    return _row(Vpc, defaults, changes)


def subnet(n: int = 1, **changes: Any) -> Subnet:
    defaults = {
        "id": number("subnet", n), "account_id": ACCOUNT, "vpc_id": number("vpc", 1), "zone": ZONE,
        "cidr": f"172.31.{n * 16}.0/20", "is_default": n == 1, "map_public_ip_on_launch": True, "created_us": BORN_US,
    }  # fmt: skip
    return _row(Subnet, defaults, changes)


def security_group(n: int = 1, **changes: Any) -> SecurityGroup:
    defaults = {
        "id": number("sg", n), "account_id": ACCOUNT, "vpc_id": number("vpc", 1), "name": f"group{n}",
        "description": "for tests", "created_us": BORN_US,
    }  # fmt: skip
    return _row(SecurityGroup, defaults, changes)


def security_group_rule(n: int = 1, **changes: Any) -> SecurityGroupRule:
    defaults = {
        "id": number("sgr", n), "group_id": number("sg", 1), "account_id": ACCOUNT, "egress": False, "protocol": "tcp",
        "from_port": 22, "to_port": 22, "cidr": "0.0.0.0/0", "source_group_id": None, "description": None,
    }  # fmt: skip
    return _row(SecurityGroupRule, defaults, changes)


def network_interface(n: int = 1, **changes: Any) -> NetworkInterface:
    defaults = {
        "id": number("eni", n), "account_id": ACCOUNT, "vpc_id": number("vpc", 1), "subnet_id": number("subnet", 1),
        "zone": ZONE, "instance_id": number("i", n), "device_index": 0,
        "mac": f"02:00:00:00:{n // 256:02x}:{n % 256:02x}",
        "private_ip": f"172.31.16.{n + 3}", "public_ip": f"10.200.0.{n}", "group_ids": (number("sg", 1),),
        "pci_slot": 1, "delete_on_termination": True, "attached_us": BORN_US, "attachment_id": number("eni-attach", n),
    }  # fmt: skip
    return _row(NetworkInterface, defaults, changes)


def client_token(n: int = 1, **changes: Any) -> ClientToken:
    defaults = {
        "account_id": ACCOUNT, "region": REGION, "token": f"token{n}", "operation": "RunInstances",
        "parameters_digest": "d" * 64, "resource_id": number("r", n), "created_us": BORN_US,
    }  # fmt: skip
    return _row(ClientToken, defaults, changes)


def task(n: int = 1, **changes: Any) -> Task:
    defaults = {
        "id": number("i", n), "kind": "instance", "step": "prepare", "facts": {"deadline_us": 5, "list": [1]},
        "attempt": 0, "due_us": BORN_US, "lease_group": number("i", n), "lease_holder": None, "lease_epoch": 0,
        "wake_count": 0, "step_started_us": BORN_US, "last_error": None, "created_us": BORN_US,
    }  # fmt: skip
    return _row(Task, defaults, changes)
