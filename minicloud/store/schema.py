"""The tables, one per dataclass of model/resources.py, column names being field names. Owns every index and constraint.

Refuses to hold logic: codec.py turns rows into dataclasses, tables.py runs statements, migrations/ makes these tables.
Texts of any length are Text; times and byte counts are BigInteger; nested dataclasses, tuples and dicts are JSON text.
Foreign keys are checked at commit, so rows that belong together may be inserted in any order.

A constraint here is the second line: cloud/ decides in the same transaction and answers EC2's error. What a constraint
catches is a bug.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _text(name: str, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _integer(name: str, nullable: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=nullable)


def _big(name: str, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _boolean(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _json(name: str, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _owned_by(name: str, parent: str, nullable: bool = False) -> Column[str]:
    """A parent that cannot go while this row stands."""
    return Column(name, Text, ForeignKey(f"{parent}.id", deferrable=True, initially="DEFERRED"), nullable=nullable)


def _unique_where(name: str, condition: str, *columns: str) -> Index:
    """Uniqueness among the rows for which `condition` holds."""
    where: dict[str, Any] = {f"{dialect}_where": text(condition) for dialect in ("sqlite", "postgresql")}
    return Index(name, *columns, unique=True, **where)


accounts = Table("accounts", metadata, _id(), _text("name"), _big("created_us"))

access_keys = Table(
    "access_keys", metadata, _id(), _owned_by("account_id", "accounts"), _text("secret"), _big("created_us")
)

# Keys that this cloud made for itself; the newest of a purpose is in use, older ones still open what they sealed.
secrets = Table("secrets", metadata, _id(), _text("purpose"), _text("value"), _big("created_us"))

zones = Table(
    "zones",
    metadata,
    _id(),
    _text("region"),
    _text("zone_id"),
    _big("created_us"),
    UniqueConstraint("region", "zone_id"),
)

hosts = Table(
    "hosts",
    metadata,
    _id(),
    _text("name"),
    _owned_by("zone", "zones"),
    _text("address"),
    _text("ssh_user"),
    _integer("ssh_port"),
    _text("host_key", nullable=True),
    _text("state"),
    _integer("vcpus"),
    _big("memory_mib"),
    _text("virt_type"),
    _text("machine_type"),
    _text("uplink", nullable=True),
    _json("facts"),
    _text("state_reason", nullable=True),
    _big("created_us"),
    UniqueConstraint("name"),
)

pools = Table(
    "pools",
    metadata,
    _id(),
    _owned_by("host_id", "hosts"),
    _text("name"),
    _text("backend"),
    _text("path"),
    _big("capacity_bytes"),
    _big("created_us"),
    UniqueConstraint("host_id", "name"),
)

key_pairs = Table(
    "key_pairs",
    metadata,
    _id(),
    _text("account_id"),
    _text("region"),
    _text("name"),
    _text("key_type"),
    _text("fingerprint"),
    _text("public_key"),
    _big("created_us"),
    UniqueConstraint("account_id", "region", "name"),
)

images = Table(
    "images",
    metadata,
    _id(),
    _text("account_id"),
    _text("region"),
    _text("name"),
    _text("description", nullable=True),
    _text("state"),
    _text("state_reason", nullable=True),
    _text("architecture"),
    _text("boot_mode"),
    _text("root_device_name"),
    _json("block_devices"),
    _boolean("public"),
    _json("allowed_account_ids"),
    _text("source_image_id", nullable=True),
    _text("source_region", nullable=True),
    _text("imds_support", nullable=True),
    _boolean("ena_support"),
    _big("created_us"),
    _big("deregistered_us", nullable=True),
    Index(None, "account_id", "region", "created_us", "id"),
    _unique_where(
        "uq_images_account_id_region_name", "state IN ('pending', 'available')", "account_id", "region", "name"
    ),
)

snapshots = Table(
    "snapshots",
    metadata,
    _id(),
    _text("account_id"),
    _text("region"),
    _text("description"),
    _text("state"),
    _text("state_reason", nullable=True),
    _text("volume_id", nullable=True),
    _integer("size_gib"),
    _big("virtual_size_bytes"),
    _text("manifest_digest", nullable=True),
    _integer("progress_percent"),
    _boolean("encrypted"),
    _big("created_us"),
    _big("completed_us", nullable=True),
    Index(None, "account_id", "region", "created_us", "id"),
)

import_tasks = Table(
    "import_tasks",
    metadata,
    _id(),
    _text("account_id"),
    _text("region"),
    _text("kind"),
    _text("description", nullable=True),
    _text("url"),
    _text("path"),
    _text("format"),
    _boolean("remove_source"),
    _text("state"),
    _text("status_message", nullable=True),
    _integer("progress_percent"),
    _text("snapshot_id"),
    _text("image_id", nullable=True),
    _text("architecture"),
    _text("boot_mode", nullable=True),
    _big("disk_image_size_bytes"),
    _big("created_us"),
    _big("ended_us", nullable=True),
    Index(None, "account_id", "region", "created_us", "id"),
    Index(None, "snapshot_id"),
)

instances = Table(
    "instances",
    metadata,
    _id(),
    _text("account_id"),
    _text("region"),
    _text("zone"),
    _text("host_id"),
    _text("reservation_id"),
    _integer("launch_index"),
    _text("client_token", nullable=True),
    _text("state"),
    _text("intent"),
    _boolean("stop_forced"),
    _integer("reboot_requested"),
    _integer("reboot_done"),
    _json("state_reason", nullable=True),
    _text("transition_reason"),
    _text("instance_type"),
    _integer("vcpus"),
    _big("memory_mib"),
    _text("image_id"),
    _text("architecture"),
    _text("boot_mode"),
    _text("key_name", nullable=True),
    _text("public_key", nullable=True),
    Column("user_data", LargeBinary, nullable=True),
    _text("root_device_name"),
    _text("shutdown_behavior"),
    _boolean("disable_api_termination"),
    _boolean("disable_api_stop"),
    _boolean("monitoring"),
    _boolean("ebs_optimized"),
    _json("metadata_options"),
    _text("machine_type"),
    _text("domain_uuid"),
    _text("vpc_id"),
    _text("subnet_id"),
    _boolean("impaired"),
    _big("launched_us"),
    _big("created_us"),
    _big("terminated_us", nullable=True),
    _json("ephemeral_disks"),
    UniqueConstraint("domain_uuid"),
    UniqueConstraint("reservation_id", "launch_index"),
    Index(None, "account_id", "region", "created_us", "id"),
    # What placement and quotas sum up is read from these alone.
    Index(None, "host_id", "state", "intent", "vcpus", "memory_mib"),
    Index(
        "ix_instances_ephemeral_disks",
        "host_id",
        sqlite_where=text("ephemeral_disks <> '[]'"),
        postgresql_where=text("ephemeral_disks <> '[]'"),
    ),
    Index(None, "account_id", "region", "state"),
    Index(None, "image_id"),
    Index(None, "state", "terminated_us"),
)

volumes = Table(
    "volumes",
    metadata,
    _id(),
    _text("account_id"),
    _text("region"),
    _text("zone"),
    _owned_by("pool_id", "pools"),
    _text("state"),
    _integer("size_gib"),
    _text("volume_type"),
    _integer("iops", nullable=True),
    _integer("throughput_mibps", nullable=True),
    _boolean("encrypted"),
    _text("snapshot_id", nullable=True),
    _big("created_us"),
    Index(None, "account_id", "region", "created_us", "id"),
    Index(None, "pool_id", "size_gib"),
    Index(None, "snapshot_id"),
)

attachments = Table(
    "attachments",
    metadata,
    _id(),
    _owned_by("volume_id", "volumes"),
    _owned_by("instance_id", "instances"),
    _text("device_name"),
    _integer("pci_slot"),
    _text("state"),
    _boolean("delete_on_termination"),
    _big("attached_us"),
    Index(None, "instance_id"),
    Index(None, "volume_id"),
    # One writer of a volume, one device of a name, one device of a slot; a detached row is history.
    _unique_where("uq_attachments_volume_id", "state <> 'detached'", "volume_id"),
    _unique_where("uq_attachments_instance_id_device_name", "state <> 'detached'", "instance_id", "device_name"),
    _unique_where("uq_attachments_instance_id_pci_slot", "state <> 'detached'", "instance_id", "pci_slot"),
)

vpcs = Table(
    "vpcs",
    metadata,
    _id(),
    _text("account_id"),
    _text("region"),
    _text("cidr"),
    _boolean("is_default"),
    _integer("transit_index"),
    _big("created_us"),
    UniqueConstraint("transit_index"),
    _unique_where("uq_vpcs_default", "is_default", "account_id", "region"),
)

subnets = Table(
    "subnets",
    metadata,
    _id(),
    _text("account_id"),
    _owned_by("vpc_id", "vpcs"),
    _owned_by("zone", "zones"),
    _text("cidr"),
    _boolean("is_default"),
    _boolean("map_public_ip_on_launch"),
    _big("created_us"),
    UniqueConstraint("vpc_id", "cidr"),
    _unique_where("uq_subnets_default", "is_default", "account_id", "zone"),
)

security_groups = Table(
    "security_groups",
    metadata,
    _id(),
    _text("account_id"),
    _owned_by("vpc_id", "vpcs"),
    _text("name"),
    _text("description"),
    _big("created_us"),
    UniqueConstraint("vpc_id", "name"),
)

security_group_rules = Table(
    "security_group_rules",
    metadata,
    _id(),
    _owned_by("group_id", "security_groups"),
    _text("account_id"),
    _boolean("egress"),
    _text("protocol"),
    _integer("from_port", nullable=True),
    _integer("to_port", nullable=True),
    _text("cidr", nullable=True),
    _owned_by("source_group_id", "security_groups", nullable=True),
    _text("description", nullable=True),
    Index(None, "group_id"),
    Index(None, "source_group_id"),
)

network_interfaces = Table(
    "network_interfaces",
    metadata,
    _id(),
    _text("account_id"),
    _text("vpc_id"),
    _owned_by("subnet_id", "subnets"),
    _text("zone"),
    _owned_by("instance_id", "instances"),
    _integer("device_index"),
    _text("mac"),
    _text("private_ip"),
    _text("public_ip", nullable=True),
    _json("group_ids"),
    _integer("pci_slot"),
    _boolean("delete_on_termination"),
    _big("attached_us"),
    _text("attachment_id"),
    UniqueConstraint("subnet_id", "private_ip"),
    UniqueConstraint("public_ip"),
    UniqueConstraint("mac"),
    UniqueConstraint("instance_id", "device_index"),
    Index(None, "account_id", "id"),
    Index(None, "private_ip"),
    Index(None, "vpc_id"),
)

metadata_defaults = Table(
    "metadata_defaults",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("region", Text, primary_key=True),
    _text("http_endpoint", nullable=True),
    _text("http_tokens", nullable=True),
    _integer("http_put_response_hop_limit", nullable=True),
    _text("instance_metadata_tags", nullable=True),
    _text("http_tokens_enforced", nullable=True),
)

tags = Table(
    "tags",
    metadata,
    Column("resource_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    _text("value"),
    Index(None, "key", "value"),
)

client_tokens = Table(
    "client_tokens",
    metadata,
    Column("account_id", Text, primary_key=True),
    Column("region", Text, primary_key=True),
    Column("operation", Text, primary_key=True),
    Column("token", Text, primary_key=True),
    _text("parameters_digest"),
    _text("resource_id"),
    _big("created_us"),
    Index(None, "created_us"),
)

tasks = Table(
    "tasks",
    metadata,
    _id(),
    _text("kind"),
    _text("step"),
    _json("facts"),
    _integer("attempt"),
    _big("due_us"),
    _text("lease_group"),
    _text("lease_holder", nullable=True),
    _big("lease_epoch"),
    _big("wake_count"),
    _big("step_started_us"),
    _text("last_error", nullable=True),
    _big("created_us"),
    Index(None, "due_us"),
    Index(None, "lease_group"),
    Index(None, "lease_holder"),
)

# Controllers that are alive count `heartbeat` up; who holds a lease without counting is dead (see queries.py).
controllers = Table("controllers", metadata, _id(), _big("heartbeat"), _big("started_us"))
