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
_HOURLY = ("usage_hourly", "usage_generations", "usage_failovers", "usage_latency", "usage_keys")
_DAILY = ("usage_daily", "usage_providers")

_FORGET = (
    *(
        f"""DELETE FROM {table} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table} WHERE hour < now() - interval '{_HOURS_KEPT} days'
            LIMIT $1 FOR UPDATE SKIP LOCKED))"""
        for table in _HOURLY
    ),
    *(
        f"""DELETE FROM {table} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table} WHERE day < (now() AT TIME ZONE 'UTC')::date - {_DAYS_KEPT}
            LIMIT $1 FOR UPDATE SKIP LOCKED))"""
        for table in _DAILY
    ),
)


async def forget_usage(db: Database, *, limit: int = 5000) -> int:
    """Delete old rows of the roll-ups, at most `limit` of each; returns how many."""
    return sum([await db.execute(statement, limit) for statement in _FORGET])


#: A week is shown by hours; what is older, by days.
_HOURS_SHOWN = 9


def _condense(table: str, keys: str, *sums: str, but: str = "") -> str:
    """Hours that are over for a while become one row for their day (UTC), at its beginning.

    What nobody condensed for a month stays as it is: the search for hours is not to go through all the days.
    """
    day = "date_trunc('day', hour, 'UTC')"
    columns = ", ".join(sums)
    return f"""WITH old AS (
        DELETE FROM {table} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table}
            WHERE hour < date_trunc('day', now() - interval '{_HOURS_SHOWN} days', 'UTC')
              AND hour >= date_trunc('day', now() - interval '{_HOURS_SHOWN + 32} days', 'UTC') AND hour <> {day} {but}
            LIMIT $1 FOR UPDATE SKIP LOCKED))
        RETURNING account_id, {day} AS hour, {keys}, {columns}
    ), added AS (
        INSERT INTO {table} AS t (account_id, hour, {keys}, {columns})
        SELECT account_id, hour, {keys}, {", ".join(f"sum({name})" for name in sums)} FROM old
        GROUP BY account_id, hour, {keys} ORDER BY account_id, hour, {keys}
        ON CONFLICT (account_id, hour, {keys}) DO UPDATE
        SET {", ".join(f"{name} = t.{name} + excluded.{name}" for name in sums)}
    ) SELECT count(*) FROM old"""


#: The day in which an account's period began keeps its hours: what was charged since then is asked for.
_NOT_BEGINNING = """AND NOT EXISTS (
                SELECT FROM accounts a WHERE a.id = usage_generations.account_id
                AND date_trunc('day', a.period_starts_at, 'UTC') = date_trunc('day', hour, 'UTC'))"""
_CONDENSE = (
    _condense(
        "usage_generations",
        "model, provider, status, error_code",
        "generations",
        "charged",
        "total_ms",
        but=_NOT_BEGINNING,
    ),
    _condense("usage_failovers", "provider, next_provider, reason", "failovers"),
    _condense("usage_latency", "endpoint, bucket", "requests"),
    _condense("usage_keys", "apikey_id, status_class", "requests"),
)


async def condense_usage(db: Database, *, limit: int = 5000) -> int:
    """Condense old hours of the roll-ups into their days, at most `limit` rows of each; returns how many went."""
    return sum([await db.fetchval(statement, limit) for statement in _CONDENSE])


#: Rows that one reading of the queues looks at, of each kind: it costs the same however long they are.
QUEUE_READ_MAX = 20_000

_QUEUES = f"""
WITH due AS (
    SELECT due_at FROM generations
    WHERE status IN ('pending', 'processing') AND worker_id IS NULL AND due_at <= now()
    ORDER BY due_at LIMIT {QUEUE_READ_MAX}
), leased AS (
    SELECT FROM generations WHERE worker_id IS NOT NULL LIMIT {QUEUE_READ_MAX}
), overdue AS (
    SELECT FROM generations
    WHERE status IN ('pending', 'processing') AND expires_at < now() LIMIT {QUEUE_READ_MAX}
), webhooks AS (  -- by endpoint in their index, so what is due among them is not known beforehand
    SELECT due_at FROM webhook_deliveries
    WHERE state = 'pending' AND worker_id IS NULL AND due_at < 'infinity' LIMIT {QUEUE_READ_MAX}
), webhooks_leased AS (
    SELECT FROM webhook_deliveries WHERE worker_id IS NOT NULL LIMIT {QUEUE_READ_MAX}
)
SELECT (SELECT count(*) FROM due) AS generations_due,
       (SELECT count(*) FROM leased) AS generations_leased,
       (SELECT count(*) FROM overdue) AS generations_overdue,
       coalesce((SELECT extract(epoch FROM now() - min(due_at)) FROM due), 0)::float8 AS generations_age_s,
       (SELECT count(*) FROM webhooks WHERE due_at <= now()) AS webhooks_due,
       (SELECT count(*) FROM webhooks_leased) AS webhooks_leased,
       coalesce((SELECT extract(epoch FROM now() - min(due_at)) FROM webhooks WHERE due_at <= now()), 0)::float8
           AS webhooks_age_s
"""


async def queues(db: Database) -> Any:
    """How much waits, is under way and is too late, of generations and of deliveries, and since when."""
    return await db.fetchrow(_QUEUES)


async def ledger_end(db: Database) -> int:
    """The id of the ledger's last row; 0 without any."""
    end: int = await db.fetchval("SELECT coalesce(max(id), 0) FROM ledger")
    return end


#: Ids are given out before they are committed, so a smaller one may come later: read on only up to the first row
#: that is younger than any transaction lives.
_LEDGER_AFTER = """
WITH next AS MATERIALIZED (
    SELECT id, kind, amount, created_at < now() - make_interval(secs => $2) AS certain
    FROM ledger WHERE id > $1 ORDER BY id LIMIT $3
), young AS (
    SELECT min(id) AS id FROM next WHERE NOT certain
)
SELECT kind::text AS kind, count(*) AS rows, sum(amount)::bigint AS amount, max(next.id) AS read_to
FROM next, young WHERE young.id IS NULL OR next.id < young.id GROUP BY kind
"""


async def ledger_after(
    db: Database, read_to: int, *, certain_after_s: float = 60.0, limit: int = 50_000
) -> list[Any]:
    """The next rows of the ledger by kind, at most `limit`, with their sum and the greatest id among them.

    Args:
        certain_after_s: rows younger than that are left for later.
    """
    return await db.fetch(_LEDGER_AFTER, read_to, certain_after_s, limit)
