"""The sandbox provider's jobs."""

from babysea_server.db.migrations.steps import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql("versions/0002_sandbox.sql")
