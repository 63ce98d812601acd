"""All SQL of routing: what became of attempts, lately and over a day, and what all processes know of it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from babysea_server.db.pool import Database
from babysea_server.errors import STORAGE_ERROR
from babysea_server.routing.statistics import BUCKET_MAX, BUCKETS_PER_DOUBLING, NO_SUCCESS, SLOT_S, WINDOW_S

# ------------------------------------------------------------------------------- lately: the breaker's window

# Bounded by the window and read off one index. The first row is always there: it tells the database's time.
_ATTEMPTS = """
SELECT now() AS at, a.*, b.probed_at, b.told_at
FROM (SELECT) AS always LEFT JOIN (
    SELECT provider,
           count(*) FILTER (WHERE outcome = 'used') AS successes,
           count(*) FILTER (WHERE at_fault) AS failures,
           max(resolved_at) FILTER (WHERE at_fault) AS last_failure,
           max(submitted_at) FILTER (WHERE outcome = 'used') AS last_success,
           max(resolved_at) FILTER (WHERE at_fault AND operators) AS last_operator_failure,
           max(failure::text) FILTER (WHERE at_fault AND operators) AS operator_failure
    FROM (
        SELECT provider, outcome, failure, submitted_at, resolved_at,
               -- An output that our own storage did not take says nothing of who made it.
               outcome = 'failed' AND failure = ANY ($2::text[]::failure_class[])
                   AND error_code IS DISTINCT FROM $3 AS at_fault,
               failure = ANY ($4::text[]::failure_class[]) AS operators
        FROM attempts
        WHERE resolved_at > now() - make_interval(secs => $1)
    ) AS lately
    GROUP BY provider
) AS a ON true LEFT JOIN provider_breakers b ON b.provider = a.provider
"""


async def latest_attempts(
    db: Database, *, seconds: float, failures: Collection[str], operator: Collection[str]
) -> list[Any]:
    """Successes and failures by provider of the attempts that ended in the last `seconds`.

    At least one row; without attempts its `provider` is None. `at` is the database's time.

    Args:
        failures: the failure classes that speak against a provider.
        operator: those that only the operator can mend.
    """
    return await db.fetch(_ATTEMPTS, seconds, sorted(failures), STORAGE_ERROR.code, sorted(operator))


_TAKE_PROBE = """
INSERT INTO provider_breakers AS b (provider, probed_at) VALUES ($1, now())
ON CONFLICT (provider) DO UPDATE SET probed_at = now()
WHERE b.probed_at IS NULL OR b.probed_at <= now() - make_interval(secs => $2)
"""


async def take_probe(db: Database, provider: str, *, seconds: float) -> bool:
    """Whether nobody has probed the provider in the last `seconds`; from now on somebody has."""
    return await db.execute(_TAKE_PROBE, provider, seconds) == 1


_NOTE_TOLD = """
INSERT INTO provider_breakers AS b (provider, told_at) VALUES ($1, now())
ON CONFLICT (provider) DO UPDATE SET told_at = now()
WHERE b.told_at IS NULL OR b.told_at <= now() - make_interval(secs => $2)
"""


async def note_told(db: Database, provider: str, *, again_s: float) -> bool:
    """Whether it is this caller who tells the operator of the provider."""
    return await db.execute(_NOTE_TOLD, provider, again_s) == 1


_FORGET_TOLD = "UPDATE provider_breakers SET told_at = NULL WHERE provider = $1 AND told_at = $2"


async def forget_told(db: Database, provider: str, told_at: datetime) -> bool:
    """Note that the provider works again; whether this caller is the first to see it."""
    return await db.execute(_FORGET_TOLD, provider, told_at) == 1


# ------------------------------------------------------------------------------- a day: slots and rankings

_CLAIM = """
UPDATE attempt_rollup SET ranked_at = now() WHERE ranked_at <= now() - make_interval(secs => $1) RETURNING now() AS at
"""


async def claim_ranking(db: Database, *, seconds: float) -> datetime | None:
    """The database's time, if nobody has claimed the work in the last `seconds`; else None."""
    at: datetime | None = await db.fetchval(_CLAIM, seconds)
    return at


# The next piece of the attempt log that is not counted yet: one slot's length at most, never further back than the
# window. `lag_s` is left for statements that are still on their way; what is committed later than that is missed.
_NEXT_PIECE = """
SELECT greatest(upto, now() - make_interval(secs => $1)) AS after,
       least(now() - make_interval(secs => $2),
             greatest(upto, now() - make_interval(secs => $1)) + make_interval(secs => $3)) AS upto,
       now() - make_interval(secs => $2) AS end
FROM attempt_rollup WHERE upto < now() - make_interval(secs => $2)
FOR UPDATE SKIP LOCKED
"""

# What the customer caused is not counted. An attempt that was thrown away because the customer had canceled, or that
# came too late, is neither success nor failure; if it cost something, that was wasted.
_COUNT = f"""
INSERT INTO attempt_slots AS s (slot, model, provider, bucket, attempts, failures, wasted)
SELECT date_bin(make_interval(secs => {SLOT_S}), resolved_at, 'epoch'), model, provider, bucket,
       count(*), count(*) FILTER (WHERE at_fault), count(*) FILTER (WHERE at_fault AND billed OR outcome = 'discarded')
FROM (
    SELECT model, provider, outcome, resolved_at,
           outcome = 'failed' AND failure = ANY ($3::text[]::failure_class[])
               AND error_code IS DISTINCT FROM $4 AS at_fault,
           estimated_cost > 0 OR failure IN ('timed_out', 'outcome_unknown', 'bad_output') AS billed,
           CASE outcome WHEN 'used' THEN least({BUCKET_MAX}, floor({BUCKETS_PER_DOUBLING} * ln(greatest(
               1, extract(epoch FROM resolved_at - submitted_at)::float8 * 1000)) / ln(2::float8)))::smallint
           ELSE {NO_SUCCESS} END AS bucket
    FROM attempts WHERE resolved_at > $1 AND resolved_at <= $2
) AS ended
WHERE outcome = 'used' OR at_fault OR (outcome = 'discarded' AND billed)
GROUP BY 1, 2, 3, 4
ON CONFLICT (slot, model, provider, bucket) DO UPDATE
SET attempts = s.attempts + excluded.attempts, failures = s.failures + excluded.failures,
    wasted = s.wasted + excluded.wasted
"""

_ADVANCE = "UPDATE attempt_rollup SET upto = $1"


async def roll_up(db: Database, *, lag_s: float, failures: Collection[str]) -> bool:
    """Count the next piece of the attempt log; whether there is more of it to be counted now.

    Not by this caller when somebody else is at it. All of a piece is counted, and once, whatever dies.

    Args:
        lag_s: how old an attempt's end must be at least.
        failures: the failure classes that speak against a provider.
    """
    async with db.transaction() as connection:
        piece = await connection.fetchrow(_NEXT_PIECE, WINDOW_S, lag_s, SLOT_S)
        if piece is None:
            return False
        await connection.execute(_COUNT, piece["after"], piece["upto"], sorted(failures), STORAGE_ERROR.code)
        await connection.execute(_ADVANCE, piece["upto"])
    return bool(piece["upto"] < piece["end"])


_DELETE_SLOTS = "DELETE FROM attempt_slots WHERE slot <= now() - make_interval(secs => $1)"


async def delete_old_slots(db: Database) -> None:
    """Delete the slots that the window has left."""
    await db.execute(_DELETE_SLOTS, WINDOW_S + SLOT_S)


# A slot's age is that of its middle. Its weight is found once, not once for each of its rows; the exponent is bounded,
# because a double that becomes too small is an error.
_STATISTICS = f"""
WITH weights AS MATERIALIZED (
    SELECT slot, exp(-ln(2::float8) * least(900, greatest(
        0, date_part('epoch', now() - slot) - {SLOT_S} / 2.0) / $1)) AS weight
    FROM generate_series(date_bin(make_interval(secs => {SLOT_S}), now(), 'epoch'),
                         now() - make_interval(secs => {WINDOW_S}), make_interval(secs => -{SLOT_S})) AS slot
)
SELECT model, provider, bucket, sum(attempts::float8) AS attempts, sum(failures::float8) AS failures,
       sum(wasted::float8) AS wasted, sum(attempts * weight) AS attempts_lately,
       sum(failures * weight) AS failures_lately, sum(wasted * weight) AS wasted_lately
FROM attempt_slots JOIN weights USING (slot)
WHERE $2::text IS NULL OR model = $2
GROUP BY model, provider, bucket
"""


async def statistics(db: Database, *, half_life_s: float, model: str | None = None) -> list[Any]:
    """The counts of the window by model, provider and bucket, as they are and weighed by age."""
    return await db.fetch(_STATISTICS, half_life_s, model)


_PUBLISH = """
INSERT INTO rankings AS r (key, document, computed_at)
SELECT key, document, now() FROM unnest($1::text[], $2::text[]) AS u (key, document)
ON CONFLICT (key) DO UPDATE SET document = excluded.document, computed_at = now()
"""
_DELETE_RANKINGS = "DELETE FROM rankings WHERE computed_at < now() - make_interval(secs => $1)"


async def publish_rankings(db: Database, documents: Mapping[str, str], *, keep_s: float) -> None:
    """Replace the documents by key; forget those that have not been replaced for `keep_s`."""
    await db.execute(_PUBLISH, list(documents), list(documents.values()))
    await db.execute(_DELETE_RANKINGS, keep_s)


async def read_rankings(db: Database, prefix: str) -> Sequence[tuple[str, str]]:
    """All documents whose key begins with `prefix`, with their keys."""
    rows = await db.fetch("SELECT key, document FROM rankings WHERE starts_with(key, $1)", prefix)
    return [(row["key"], row["document"]) for row in rows]
