"""Users' identities at the operator's OpenID Connect provider."""

from babysea_server.db.migrations.steps import run_sql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run_sql("versions/0008_identities.sql")
