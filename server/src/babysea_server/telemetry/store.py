"""All SQL of the request log and of the roll-ups' ends."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from babysea_server.db.pool import Database

_LOG = "SELECT log_requests_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"


async def log_requests(db: Database, columns: Sequence[Sequence[Any]]) -> None:
    """Write a batch of requests and count them: `columns` are the parallel arrays of `log_requests_v1`.

    Raises:
        DatabaseUnavailableError: with `sent=True` it is not known whether they were written.
        asyncpg.PostgresError: none of them was.
    """
    await db.execute(_LOG, *columns)


async def make_day(db: Database, *, ahead: int, today: date | None = None) -> bool:
    """Make the log's partition of the day `ahead` days from today (UTC); False when it is there."""
    made: bool = await db.fetchval(
        "SELECT make_request_log_day_v1(coalesce($2::date, (now() AT TIME ZONE 'UTC')::date) + $1::int)",
        ahead,
        today,
    )
    return made


async def drop_day(db: Database, *, keep_days: int, today: date | None = None) -> date | None:
    """Drop the oldest day of the log that has been over for `keep_days` days.

    Returns the day; None when there is none, or another process is changing partitions.

    Raises:
        asyncpg.LockNotAvailableError: somebody has been reading the log for too long.
    """
    dropped: date | None = await db.fetchval(
        "SELECT drop_request_log_day_v1(coalesce($2::date, (now() AT TIME ZONE 'UTC')::date) - $1::int)",
        keep_days,
        today,
    )
    return dropped


#: How many days each roll-up is kept. Days are read by `/v1/usage` (90 days) and for a year by people.
_HOURS_KEPT, _DAYS_KEPT = 95, 400

_FORGET = (
    f"""DELETE FROM usage_hourly WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM usage_hourly WHERE hour < now() - interval '{_HOURS_KEPT} days'
            LIMIT $1 FOR UPDATE SKIP LOCKED))""",
    f"""DELETE FROM usage_daily WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM usage_daily WHERE day < (now() AT TIME ZONE 'UTC')::date - {_DAYS_KEPT}
            LIMIT $1 FOR UPDATE SKIP LOCKED))""",
    f"""DELETE FROM usage_providers WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM usage_providers WHERE day < (now() AT TIME ZONE 'UTC')::date - {_DAYS_KEPT}
            LIMIT $1 FOR UPDATE SKIP LOCKED))""",
)


async def forget_usage(db: Database, *, limit: int = 5000) -> int:
    """Delete old rows of the roll-ups, at most `limit` of each; returns how many."""
    return sum([await db.execute(statement, limit) for statement in _FORGET])
