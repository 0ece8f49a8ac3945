"""Secrets that the cloud makes for itself; indexes for listings page by page, for filters on tags, for what is attached
to an instance, and for the sums of placement and quotas.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PAGED = ("import_tasks", "instances", "snapshots", "volumes")
# SQLite takes it that an account has nine rows, as long as nobody tells it otherwise, and would rather walk all of them
# than look up the few that a filter found. These figures (rows of the table, then of each value of an index's first
# column, of its first two, …) are no counts but what is planned for, so plans never change by themselves.
_MANY = "100000"
_PLANNED_FOR = {
    **{
        (table, f"ix_{table}_account_id_region_created_us_id"): f"{_MANY} {_MANY} {_MANY} 1 1"
        for table in ("images", *_PAGED)
    },
    ("instances", "ix_instances_account_id_region_state"): f"{_MANY} {_MANY} {_MANY} 50000",
    ("instances", "ix_instances_image_id"): f"{_MANY} 20000",
    ("network_interfaces", "ix_network_interfaces_account_id_id"): f"{_MANY} {_MANY} 1",
    ("network_interfaces", "ix_network_interfaces_vpc_id"): f"{_MANY} 20000",
}


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_secrets")),
    )
    for table in _PAGED:
        op.drop_index(op.f(f"ix_{table}_account_id_region"), table_name=table)
    for table in ("images", *_PAGED):
        op.create_index(
            op.f(f"ix_{table}_account_id_region_created_us_id"), table, ["account_id", "region", "created_us", "id"]
        )
    op.create_index(op.f("ix_network_interfaces_account_id_id"), "network_interfaces", ["account_id", "id"])
    op.create_index(op.f("ix_network_interfaces_private_ip"), "network_interfaces", ["private_ip"])
    op.create_index(op.f("ix_tags_key_value"), "tags", ["key", "value"])
    op.create_index(op.f("ix_attachments_instance_id"), "attachments", ["instance_id"])
    op.create_index(op.f("ix_attachments_volume_id"), "attachments", ["volume_id"])
    op.drop_index(op.f("ix_instances_host_id"), table_name="instances")
    op.create_index(
        op.f("ix_instances_host_id_state_intent_vcpus_memory_mib"),
        "instances",
        ["host_id", "state", "intent", "vcpus", "memory_mib"],
    )
    op.create_index(op.f("ix_instances_account_id_region_state"), "instances", ["account_id", "region", "state"])
    op.drop_index(op.f("ix_volumes_pool_id"), table_name="volumes")
    op.create_index(op.f("ix_volumes_pool_id_size_gib"), "volumes", ["pool_id", "size_gib"])
    op.create_index(
        "ix_instances_ephemeral_disks",
        "instances",
        ["host_id"],
        sqlite_where=sa.text("ephemeral_disks <> '[]'"),
        postgresql_where=sa.text("ephemeral_disks <> '[]'"),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute("ANALYZE sqlite_schema")  # makes the table of figures, and then has them read
        for (table, index), figures in _PLANNED_FOR.items():
            op.execute(f"INSERT INTO sqlite_stat1 VALUES ('{table}', '{index}', '{figures}')")
        op.execute("ANALYZE sqlite_schema")
