"""The console: people, their sessions and roles, invitations, activity, custom domains, payments."""

from babysea_server.db.migrations.steps import run_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_sql("functions/slugs.sql", "versions/0006_people.sql", "versions/0006_console.sql")
