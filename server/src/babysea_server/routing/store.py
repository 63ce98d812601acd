"""All SQL of routing: what became of the latest attempts, by provider."""

from collections.abc import Collection
from typing import Any

from babysea_server.db.pool import Database
from babysea_server.errors import STORAGE_ERROR

# Bounded by the window and read off one index. The first row is always there: it tells the database's time.
_ATTEMPTS = """
SELECT now() AS at, a.provider, a.failures, a.successes, a.last_failure
FROM (SELECT) AS always LEFT JOIN (
    SELECT provider,
           count(*) FILTER (WHERE outcome = 'used') AS successes,
           count(*) FILTER (WHERE at_fault) AS failures,
           max(resolved_at) FILTER (WHERE at_fault) AS last_failure
    FROM (
        SELECT provider, outcome, resolved_at,
               -- An output that our own storage did not take says nothing of who made it.
               outcome = 'failed' AND failure = ANY ($2::text[]::failure_class[])
                   AND error_code IS DISTINCT FROM $3 AS at_fault
        FROM attempts
        WHERE resolved_at > now() - make_interval(secs => $1)
    ) AS lately
    GROUP BY provider
) AS a ON true
"""


async def latest_attempts(db: Database, *, seconds: float, failures: Collection[str]) -> list[Any]:
    """Successes and failures by provider of the attempts that ended in the last `seconds`.

    At least one row; without attempts its `provider` is None. `at` is the database's time.

    Args:
        failures: the failure classes that speak against a provider.
    """
    return await db.fetch(_ATTEMPTS, seconds, sorted(failures), STORAGE_ERROR.code)
