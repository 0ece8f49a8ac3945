"""Secrets that the cloud makes for itself; indexes that listings read page by page and that filters on tags read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PAGED = ("import_tasks", "instances", "snapshots", "volumes")


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
    op.create_index(op.f("ix_tags_key_value"), "tags", ["key", "value"])
