"""The past of one account, written by SQL: generations with their attempts and ledger, the request log, the roll-ups.

Ninety days end now, as if the account had sent requests at one rate. Generations and attempts are copies of real ones
under their own ids and times; roll-ups are added up from what they summarise, so that everything fits together and
`ledger verify` finds nothing.
"""

from collections.abc import Mapping

import asyncpg

from bench.servers import Site

DAYS = 90
#: Rows of a statement: enough for speed, few enough for its memory.
_STEP = 250_000

# Ids of version 7 in the order of their moments; `n` also makes them differ within a millisecond.
_MILLISECONDS = "(extract(epoch FROM h.at) * 1000)::bigint"
_ID = f"(lpad(to_hex({_MILLISECONDS}), 12, '0') || '{{mark}}' || lpad(to_hex(h.n), 16, '0'))::uuid"
_GENERATION_ID = _ID.format(mark="7000")
_ATTEMPT_ID = _ID.format(mark="7001")
_PREDICTION_ID = _ID.format(mark="7002")
_HISTORY = f"""history AS (
    SELECT n, now() - make_interval(secs => {DAYS * 86400.0} * ($2::bigint - n) / $2::bigint - 1) AS at
    FROM generate_series($1::bigint, $3::bigint) AS n
)"""

_LEDGER = f"""
WITH {_HISTORY}, model AS (
    SELECT g.account_id, g.reserved, a.credit_balance FROM generations g JOIN accounts a ON a.id = g.account_id
    WHERE g.status = 'succeeded' LIMIT 1
)
INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description, created_at)
SELECT m.account_id, {_GENERATION_ID}, kind::ledger_kind, m.reserved, m.credit_balance - h.n * m.reserved,
       'Generation', h.at
FROM history h CROSS JOIN model m CROSS JOIN (VALUES ('reserve'), ('charge')) AS k (kind)"""

# Nineteen of twenty requests succeed; endpoints, codes and durations vary as the numbers do.
_LOG = f"""
WITH {_HISTORY}
INSERT INTO request_log (at, request_id, account_id, apikey_id, method, endpoint, status, error_code, replayed, ip_hash,
                         user_agent, sdk, duration_us)
SELECT h.at, 'req_' || lpad(to_hex(h.n), 24, '0'), $4::uuid, $5::uuid, split_part(e.endpoint, ' ', 1), e.endpoint,
       CASE WHEN h.n % 20 > 0 THEN 200 WHEN h.n % 40 = 0 THEN 429 ELSE 400 END,
       CASE WHEN h.n % 20 > 0 THEN NULL WHEN h.n % 40 = 0 THEN 'BSE1009' ELSE 'BSE2001' END,
       false, decode(md5((h.n % 50)::text), 'hex'), 'babysea-python/1.0', '{{"name": "babysea"}}', 2000 + h.n % 5000
FROM history h JOIN unnest($6::text[]) WITH ORDINALITY AS e (endpoint, place)
    ON e.place = 1 + h.n % cardinality($6::text[])"""

_ROLL_UPS = (
    """INSERT INTO usage_hourly (account_id, hour, endpoint, status_class, error_code, requests, replays, duration_us)
       SELECT account_id, date_trunc('hour', at, 'UTC'), endpoint, status / 100, coalesce(error_code, ''), count(*), 0,
              sum(duration_us)
       FROM request_log GROUP BY 1, 2, 3, 4, 5""",
    """INSERT INTO usage_daily (account_id, day, endpoint, status_class, error_code, requests, replays)
       SELECT account_id, (at AT TIME ZONE 'UTC')::date, endpoint, status / 100, coalesce(error_code, ''), count(*), 0
       FROM request_log GROUP BY 1, 2, 3, 4, 5""",
    "DELETE FROM usage_providers",
    """INSERT INTO usage_providers (account_id, day, provider, submissions, used, estimated_cost)
       SELECT account_id, (submitted_at AT TIME ZONE 'UTC')::date, provider, count(*), count(*), sum(estimated_cost)
       FROM attempts GROUP BY 1, 2, 3""",
)
_ACCOUNT = """
UPDATE accounts a SET generations_total = generations_total + $2::bigint,
    credit_balance = credit_balance - $2::bigint * (
        SELECT reserved FROM generations g WHERE g.account_id = a.id AND status = 'succeeded' LIMIT 1)
WHERE id = $1"""
_ENDPOINTS = [
    "POST /v1/generate/image/{model_identifier}",
    "GET /v1/content/{generation_id}",
    "GET /v1/content/list",
    "GET /v1/usage",
    "GET /v1/status",
]


async def write_history(site: Site, generations: int) -> None:
    """Write the past of the site's account, which has one finished generation or more, and analyse the tables.

    Triggers and foreign keys are off in the one session that writes, by `session_replication_role`.
    """
    connection = await asyncpg.connect(site.db.dsn)
    try:
        await connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        copies = [
            await _copy(
                connection,
                "generations",
                {
                    "id": _GENERATION_ID,
                    "prediction_id": _PREDICTION_ID,
                    "created_at": "h.at",
                    "started_at": "h.at + interval '20 ms'",
                    "completed_at": "h.at + interval '900 ms'",
                    "expires_at": "h.at + interval '1 hour'",
                    "due_at": "h.at",
                },
                "status = 'succeeded'",
            ),
            await _copy(
                connection,
                "attempts",
                {
                    "id": _ATTEMPT_ID,
                    "generation_id": _GENERATION_ID,
                    "submitted_at": "h.at + interval '10 ms'",
                    "accepted_at": "h.at + interval '20 ms'",
                    "resolved_at": "h.at + interval '800 ms'",
                },
                "outcome = 'used'",
            ),
            _LEDGER,
        ]
        for day in range(DAYS + 1):
            await connection.execute(
                "SELECT make_request_log_day_v1((now() AT TIME ZONE 'UTC')::date - $1::int)", day
            )
        log = (site.account_id, site.apikey_id, _ENDPOINTS)
        async with connection.transaction():  # one, so that `now()`, from which ids are made, stands still
            for first in range(1, generations + 1, _STEP):
                steps = (first, generations, min(first + _STEP - 1, generations))
                for statement in copies:
                    await connection.execute(statement, *steps, timeout=600)
                await connection.execute(_LOG, *steps, *log, timeout=600)
            for statement in _ROLL_UPS:
                await connection.execute(statement, timeout=600)
            await connection.execute(_ACCOUNT, site.account_id, generations)
        await connection.execute("VACUUM (ANALYZE)", timeout=1200)
        await connection.execute("CHECKPOINT", timeout=600)
    finally:
        await connection.close()


async def _copy(connection: asyncpg.Connection, table: str, other: Mapping[str, str], which: str) -> str:
    """A statement that writes copies of one row of the table, whatever columns it has, with `other` values."""
    rows = await connection.fetch(
        """SELECT attname AS name FROM pg_attribute
           WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
        table,
    )
    columns = [row["name"] for row in rows]
    values = [other.get(column, f"m.{column}") for column in columns]
    return (
        f"WITH {_HISTORY}, model AS (SELECT * FROM {table} WHERE {which} LIMIT 1) "
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM history h CROSS JOIN model m"
    )
