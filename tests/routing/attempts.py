"""Attempts as they stand in the log, written by a test."""

from typing import Any
from uuid import uuid4

from babysea_server.db.pool import Database
from babysea_server.execution.verdict import RULES

#: The failure classes that speak against a provider.
AGAINST = [failure.value for failure, rule in RULES.items() if rule.trips_breaker]

_INSERT = """
INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter, outcome, failure,
                      error_code, estimated_cost, submitted_at, resolved_at)
SELECT gen_random_uuid(), gen_random_uuid(), $1, $2, 1, $3, 'sandbox', $4::text::attempt_outcome,
       $5::text::failure_class, $6, $7, now() - make_interval(secs => $8::float8 + $9::float8),
       CASE $4::text WHEN 'pending' THEN NULL ELSE now() - make_interval(secs => $8::float8) END
FROM generate_series(1, $10)
"""


async def resolve(db: Database, provider: str, outcome: str, age_s: float = 0, **columns: Any) -> None:
    """Attempts of `provider` that ended `age_s` ago.

    `took_s` is how long they took (0), `times` how many they are (1), `cost` what they cost (0); `model`, `failure`,
    `code` are as in the table.
    """
    await db.execute(
        _INSERT,
        uuid4(),
        columns.get("model", "m/m"),
        provider,
        outcome,
        columns.get("failure"),
        columns.get("code"),
        columns.get("cost", 0),
        float(age_s),
        float(columns.get("took_s", 0)),
        columns.get("times", 1),
    )
