"""What an account wants of the metadata options of instances it launches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "metadata_defaults",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("http_endpoint", sa.Text(), nullable=True),
        sa.Column("http_tokens", sa.Text(), nullable=True),
        sa.Column("http_put_response_hop_limit", sa.Integer(), nullable=True),
        sa.Column("instance_metadata_tags", sa.Text(), nullable=True),
        sa.Column("http_tokens_enforced", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account_id", "region", name=op.f("pk_metadata_defaults")),
    )
