"""What the whole contract needs: usage, limits, rotation and periods, removal of files and records."""

from babysea_server.db.migrations.steps import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql(
        "versions/0003_keys_and_plans.sql",
        "versions/0003_limits.sql",
        "versions/0003_removal.sql",
        "functions/usage.sql",  # its triggers are named by the next step
        "versions/0003_usage.sql",
        "functions/admission.sql",
        "functions/cancellation.sql",
        "functions/removal.sql",
        "functions/credits.sql",
    )
