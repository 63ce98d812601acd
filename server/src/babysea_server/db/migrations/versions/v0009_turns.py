"""Turns at work that one of all workers does each time."""

from babysea_server.db.migrations.steps import run_sql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_sql("versions/0009_turns.sql")
