"""Routing: attempts condensed by time, rankings, the circuit breaker."""

from babysea_server.db.migrations.steps import run_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_sql("versions/0004_routing.sql")
