"""Webhooks and alerts: the outbox, endpoints, deliveries, attempts, notices, thresholds."""

from babysea_server.db.migrations.steps import run_sql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql(
        "versions/0005_webhooks.sql",
        "versions/0005_alerts.sql",
        "functions/webhooks.sql",
        "functions/settlement.sql",
    )
