"""Accounts, keys, generations, attempts, ledger; admission and settlement."""

from babysea_server.db.migrations.steps import run_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql("versions/0001_foundation.sql", "functions/admission.sql", "functions/settlement.sql")
