"""Alembic's migrations: how a database made by any earlier minicloud becomes this one's. Run by revisions.py."""
