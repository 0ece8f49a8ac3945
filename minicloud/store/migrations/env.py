"""Alembic's environment: runs migrations inside the transaction that revisions.py hands over."""

from __future__ import annotations

from alembic import context

from minicloud.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
