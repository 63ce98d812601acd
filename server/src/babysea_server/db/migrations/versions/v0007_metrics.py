"""What the console's charts read: generations, failovers, latencies and keys by the hour; balances of the past."""

from babysea_server.db.migrations.steps import run_sql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_sql(
        "functions/usage.sql",
        "versions/0007_metrics.sql",
        "functions/settlement.sql",
        "functions/balances.sql",
    )
