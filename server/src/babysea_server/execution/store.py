"""All SQL of execution: leases, claims, attempts, settlement, recovery.

Every write of a worker is guarded by its id and the fence of its claim. All of them may be repeated after a
lost answer without changing anything a second time.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from babysea_server import errors
from babysea_server.db.pool import Database
from babysea_server.execution.types import (
    AcceptedAttempt,
    AttemptRecord,
    Claim,
    Ended,
    OpenAttempt,
    Resolution,
    ResolvedAttempt,
    Settlement,
    Standing,
)
from babysea_server.kit import json

# ------------------------------------------------------------------------------------------- leases


async def register(db: Database, worker_id: UUID, *, host: str, pid: int, lease_s: float) -> None:
    """Enter a worker."""
    await db.execute(
        """INSERT INTO workers (id, host, pid, lease_until)
           VALUES ($1, $2, $3, now() + make_interval(secs => $4))""",
        worker_id,
        host,
        pid,
        lease_s,
    )


async def renew(db: Database, worker_id: UUID, *, lease_s: float) -> bool:
    """Renew the lease of all the worker's work; False when the worker has been given up."""
    return bool(
        await db.execute(
            "UPDATE workers SET lease_until = now() + make_interval(secs => $2) WHERE id = $1",
            worker_id,
            lease_s,
        )
    )


#: The dead are named first. Asked row by row whether its worker exists, a row that was freed and claimed again after
#: this statement began would be looked at with its new worker, whom the statement cannot see yet, and be taken from it.
FREE_OF_THE_DEAD = """
WITH dead AS MATERIALIZED (
    SELECT DISTINCT t.worker_id FROM {table} t
    WHERE t.worker_id IS NOT NULL AND NOT EXISTS (SELECT FROM workers w WHERE w.id = t.worker_id)
)
UPDATE {table} t SET worker_id = NULL FROM dead WHERE t.worker_id = dead.worker_id AND t.worker_id IS NOT NULL
"""


async def reap(db: Database) -> int:
    """Give up workers whose lease ran out: their work becomes claimable again, nothing is run here.

    Two steps, because one statement sees one moment: a claim that commits while its worker is being deleted
    would be missed, and its generations would belong to nobody for ever. So what is freed is whatever names
    a worker that no longer exists, however that came about. Freed work keeps its place in line.

    Returns how many generations were freed.
    """
    await db.execute(
        """DELETE FROM workers WHERE id IN (
               SELECT id FROM workers WHERE lease_until < now() FOR UPDATE SKIP LOCKED
           )"""
    )
    return await db.execute(FREE_OF_THE_DEAD.format(table="generations"))


async def leave(db: Database, worker_id: UUID) -> None:
    """Take a worker out and free all its work at once."""
    await db.execute("DELETE FROM workers WHERE id = $1", worker_id)
    await db.execute("UPDATE generations SET worker_id = NULL WHERE worker_id = $1", worker_id)


async def free_strays(db: Database, worker_id: UUID, running: Sequence[UUID]) -> int:
    """Free what the worker holds without running it, e.g. after the answer to a claim was lost.

    Returns how many generations were freed.
    """
    return await db.execute(
        "UPDATE generations SET worker_id = NULL WHERE worker_id = $1 AND id <> ALL ($2::uuid[])",
        worker_id,
        running,
    )


async def put_back(db: Database, worker_id: UUID, generation_id: UUID, fence: int, *, pause_s: float) -> None:
    """Free one generation, to be claimed again after a pause."""
    await db.execute(
        """UPDATE generations SET worker_id = NULL, due_at = now() + make_interval(secs => $4)
           WHERE id = $2 AND worker_id = $1 AND fence = $3""",
        worker_id,
        generation_id,
        fence,
        pause_s,
    )


# ------------------------------------------------------------------------------------------- claims

_CLAIM = """
WITH due AS (
    SELECT id FROM generations
    WHERE status IN ('pending', 'processing') AND worker_id IS NULL AND due_at <= now()
      AND expires_at > now()  -- what is past its hard limit is only refunded
      AND EXISTS (SELECT FROM workers WHERE id = $1)
    ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE generations g SET worker_id = $1, fence = fence + 1 FROM due WHERE g.id = due.id
RETURNING g.id, g.account_id, g.model, g.media::text AS media, g.inputs, g.provider_order, g.prediction_id,
    g.rate_per_second IS NOT NULL AS measured, g.created_at, g.fence,
    CASE WHEN g.fence > 1 THEN (
        SELECT jsonb_agg(jsonb_build_object(
            'id', a.id, 'attempt_order', a.attempt_order, 'provider', a.provider, 'outcome', a.outcome,
            'upstream_id', a.upstream_id, 'upstream', a.upstream, 'failure', a.failure,
            'error_code', a.error_code, 'age_s', extract(epoch FROM now() - a.submitted_at)
        ) ORDER BY a.attempt_order) FROM attempts a WHERE a.generation_id = g.id
    ) END AS attempts
"""


async def claim(db: Database, worker_id: UUID, limit: int) -> list[Claim]:
    """Take up to `limit` due generations; nobody else can take them while the worker's lease holds."""
    rows = await db.fetch(_CLAIM, worker_id, limit)
    return [
        Claim(**{**row, "attempts": msgspec.convert(row["attempts"] or [], list[AttemptRecord])})
        for row in rows
    ]


# ------------------------------------------------------------------------------------------- attempts

# `coalesce` below keeps the planner from the indexes of leased generations and of open attempts: by statistics of a
# quiet moment it expects next to nothing there, and would read all that is in flight for each batch.

_OPEN = """
WITH asked AS (
    SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[], $7::smallint[], $8::text[],
                         $9::text[], $10::bigint[])
        AS u (id, generation_id, account_id, fence, model, attempt_order, provider, adapter, estimated_cost)
), held AS MATERIALIZED (
    SELECT u.*, g.reserved FROM asked u JOIN generations g ON g.id = u.generation_id
    WHERE coalesce(g.worker_id = $1, false) AND g.fence = u.fence AND g.status IN ('pending', 'processing')
    -- Against claims, which lock FOR UPDATE: one that does not see the attempt would buy beside it.
    FOR KEY SHARE OF g
), opened AS (
    INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter, estimated_cost)
    SELECT id, generation_id, account_id, model, attempt_order, provider, adapter, coalesce(estimated_cost, reserved)
    FROM held ON CONFLICT (id) DO NOTHING RETURNING id
)
SELECT id FROM opened UNION
SELECT a.id FROM attempts a JOIN held ON a.id = held.id WHERE coalesce(a.outcome = 'pending', false)
"""


async def open_attempts(db: Database, worker_id: UUID, attempts: Sequence[OpenAttempt]) -> list[bool]:
    """Write attempts before their provider is called; False where the lease or the generation is gone."""
    rows = await db.fetch(
        _OPEN,
        worker_id,
        [attempt.attempt_id for attempt in attempts],
        [attempt.generation_id for attempt in attempts],
        [attempt.account_id for attempt in attempts],
        [attempt.fence for attempt in attempts],
        [attempt.model for attempt in attempts],
        [attempt.attempt_order for attempt in attempts],
        [attempt.provider for attempt in attempts],
        [attempt.adapter for attempt in attempts],
        [attempt.estimated_cost for attempt in attempts],
    )
    opened = {row["id"] for row in rows}
    return [attempt.attempt_id in opened for attempt in attempts]


_ACCEPT = """
WITH asked AS (
    SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::int[], $5::text[], $6::jsonb[])
        AS u (id, generation_id, fence, upstream_id, upstream)
), kept AS (
    UPDATE attempts a SET upstream_id = u.upstream_id, upstream = u.upstream, accepted_at = now()
    FROM asked u WHERE a.id = u.id AND a.upstream_id IS NULL
), begun AS (
    UPDATE generations g SET status = 'processing', started_at = coalesce(g.started_at, now())
    FROM asked u
    WHERE g.id = u.generation_id AND coalesce(g.worker_id = $1, false) AND g.fence = u.fence AND g.status = 'pending'
    RETURNING g.id, g.account_id, g.model, g.status, g.prediction_id, u.id AS attempt_id
), told AS MATERIALIZED (
    SELECT enqueue_webhooks_v1(array_agg(b.account_id), array_agg(b.id), array_agg('generation.started'::text),
        array_agg(generation_event_v1(b.account_id, b.model, b.id, b.status) || jsonb_build_object(
            'generation_provider_initialize', a.provider, 'generation_prediction_id', b.prediction_id)))
    FROM begun b JOIN attempts a ON a.id = b.attempt_id
    WHERE EXISTS (
        SELECT FROM webhook_endpoints e WHERE e.account_id = b.account_id AND 'generation.started' = ANY (e.events))
)
SELECT id FROM begun CROSS JOIN told UNION
SELECT g.id FROM generations g JOIN asked u ON g.id = u.generation_id
WHERE coalesce(g.worker_id = $1, false) AND g.fence = u.fence AND g.status = 'processing'
"""


async def accept_attempts(
    db: Database, worker_id: UUID, accepted: Sequence[AcceptedAttempt]
) -> list[Standing]:
    """Persist upstream ids and start the generations; says whose each generation is.

    The upstream id is kept in any case: whoever holds the generation now, or cleans up after it, needs it.
    """
    rows = await db.fetch(
        _ACCEPT,
        worker_id,
        [attempt.attempt_id for attempt in accepted],
        [attempt.generation_id for attempt in accepted],
        [attempt.fence for attempt in accepted],
        [attempt.upstream_id for attempt in accepted],
        [attempt.upstream for attempt in accepted],
    )
    ours = {row["id"] for row in rows}
    others = [attempt.generation_id for attempt in accepted if attempt.generation_id not in ours]
    taken = await _in_flight(db, others) if others else set()
    return [
        "ours" if id in ours else "taken" if id in taken else "over"
        for id in (attempt.generation_id for attempt in accepted)
    ]


async def _in_flight(db: Database, ids: Sequence[UUID]) -> set[UUID]:
    rows = await db.fetch(
        "SELECT id FROM generations WHERE id = ANY ($1::uuid[]) AND status IN ('pending', 'processing')", ids
    )
    return {row["id"] for row in rows}


async def upstreams_of(
    db: Database, attempt_ids: Sequence[UUID]
) -> list[tuple[str, dict[str, Any] | None] | None]:
    """Upstream id and state of each attempt, where they have been persisted by now."""
    rows = await db.fetch(
        "SELECT id, upstream_id, upstream FROM attempts WHERE id = ANY($1) AND upstream_id IS NOT NULL",
        list(attempt_ids),
    )
    found = {row["id"]: (row["upstream_id"], row["upstream"]) for row in rows}
    return [found.get(id) for id in attempt_ids]


_ASKED = """
asked AS (
    SELECT * FROM unnest($1::uuid[], $2::attempt_outcome[], $3::failure_class[], $4::text[], $5::text[],
                         $6::bigint[], $7::uuid[], $8::int[])
        AS u (id, outcome, failure, error_code, error_message, cost, generation_id, fence)
)"""

_RESOLVE = f"""
WITH {_ASKED}, ours AS (
    SELECT g.id FROM generations g JOIN asked u ON g.id = u.generation_id
    WHERE coalesce(g.worker_id = $9, false) AND g.fence = u.fence AND g.status IN ('pending', 'processing')
), resolved AS (
    UPDATE attempts a SET outcome = u.outcome, failure = u.failure, error_code = u.error_code,
        error_message = u.error_message, resolved_at = now(),
        estimated_cost = attempt_cost_v1(u.cost, a.estimated_cost, u.outcome, u.failure)
    FROM asked u JOIN ours ON ours.id = u.generation_id
    WHERE a.id = u.id AND coalesce(a.outcome = 'pending', false)
)
SELECT id FROM ours
"""


async def resolve_attempts(db: Database, worker_id: UUID, resolutions: Sequence[Resolution]) -> list[bool]:
    """End attempts whose generation goes on with another; False where the generation is no longer ours."""
    rows = await db.fetch(_RESOLVE, *_columns_of(resolutions), worker_id)
    ours = {row["id"] for row in rows}
    # A statement of its own, because it must see what ended the generation meanwhile.
    late = [resolution for resolution in resolutions if resolution.generation_id not in ours]
    if late:
        await discard_attempts(db, late)
    return [resolution.generation_id in ours for resolution in resolutions]


_DISCARD = f"""
WITH {_ASKED}, discarded AS (
    UPDATE attempts a SET
        outcome = CASE u.outcome WHEN 'used' THEN 'discarded' ELSE u.outcome END,
        failure = u.failure, error_code = u.error_code, error_message = u.error_message,
        estimated_cost = attempt_cost_v1(u.cost, a.estimated_cost, u.outcome, u.failure), resolved_at = now()
    FROM asked u
    -- While the generation is in flight the attempt belongs to whoever resumes it.
    WHERE a.id = u.id AND coalesce(a.outcome = 'pending', false) AND NOT EXISTS (
        SELECT FROM generations g WHERE g.id = u.generation_id AND g.status IN ('pending', 'processing'))
), billed AS (
    -- Its end was written already, by whoever canceled; what it cost is known only now.
    UPDATE attempts a SET estimated_cost = u.cost FROM asked u
    WHERE a.id = u.id AND a.outcome IN ('cancelled', 'discarded') AND u.cost <> a.estimated_cost
)
SELECT a.id FROM attempts a JOIN asked u ON a.id = u.id WHERE a.outcome = 'used'
"""


async def discard_attempts(db: Database, resolutions: Sequence[Resolution]) -> list[bool]:
    """End attempts of generations that ended without them; True where the attempt was used all the same."""
    rows = await db.fetch(_DISCARD, *_columns_of(resolutions))
    used = {row["id"] for row in rows}
    return [resolution.attempt.attempt_id in used for resolution in resolutions]


_ABANDONED = """
WITH late AS MATERIALIZED (
    SELECT a.id, g.inputs FROM attempts a LEFT JOIN generations g ON g.id = a.generation_id
    WHERE a.outcome = 'pending' AND (g.id IS NULL OR g.status IN ('succeeded', 'failed', 'canceled'))
      AND coalesce(g.completed_at, a.submitted_at) < now() - make_interval(secs => $1)
    LIMIT $2 FOR UPDATE OF a SKIP LOCKED
)
UPDATE attempts a SET outcome = 'discarded', resolved_at = now() FROM late WHERE a.id = late.id
RETURNING a.id, a.model, a.provider, a.upstream_id, a.upstream, a.submitted_at, late.inputs
"""


async def end_abandoned(db: Database, *, older_than_s: float, limit: int) -> list[Any]:
    """End open attempts of generations that have been final for a while: whoever should have, died.

    Returns their id, model, provider, upstream_id, upstream and submitted_at, and what was asked for (`inputs`), unless
    that was deleted.
    """
    return await db.fetch(_ABANDONED, older_than_s, limit)


async def ended(db: Database, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these generations are final or gone."""
    in_flight = await _in_flight(db, ids)
    return {id for id in ids if id not in in_flight}


def _columns_of(resolutions: Sequence[Resolution]) -> list[list[Any]]:
    return [
        *_resolution_columns([resolution.attempt for resolution in resolutions]),
        [resolution.generation_id for resolution in resolutions],
        [resolution.fence for resolution in resolutions],
    ]


def _resolution_columns(resolved: Sequence[ResolvedAttempt | None]) -> list[list[Any]]:
    return [
        [attempt and attempt.attempt_id for attempt in resolved],
        [attempt and attempt.outcome for attempt in resolved],
        [attempt and attempt.failure for attempt in resolved],
        [attempt and attempt.error_code for attempt in resolved],
        [attempt and attempt.error_message for attempt in resolved],
        [attempt and attempt.cost for attempt in resolved],
    ]


# ------------------------------------------------------------------------------------------- settlement

_SETTLE = """
WITH settled AS MATERIALIZED (
    SELECT * FROM settle_generations_v1($1, $2, $3, $4, $5, $6, $7, $8::text[]::jsonb[], $9, $10, $11)
), resolved AS (
    UPDATE attempts a SET outcome = u.outcome, failure = u.failure, error_code = u.error_code,
        error_message = u.error_message, resolved_at = now(),
        -- Where the price follows a measured length, what was charged is the better estimate.
        estimated_cost = attempt_cost_v1(u.cost, CASE u.outcome WHEN 'used' THEN s.charged ELSE a.estimated_cost END,
                                         u.outcome, u.failure)
    FROM unnest($12::uuid[], $13::attempt_outcome[], $14::failure_class[], $15::text[], $16::text[], $17::bigint[],
                $2::uuid[])
        AS u (id, outcome, failure, error_code, error_message, cost, generation_id)
        JOIN settled s ON s.generation_id = u.generation_id
    WHERE a.id = u.id AND coalesce(a.outcome = 'pending', false)
)
SELECT generation_id FROM settled
"""


async def settle(db: Database, worker_id: UUID, settlements: Sequence[Settlement]) -> list[bool]:
    """Finish generations and their last attempts; False where somebody else was first.

    A success that was settled before, by a call whose answer was lost, is true again.
    """
    rows = await db.fetch(
        _SETTLE,
        worker_id,
        [item.generation_id for item in settlements],
        [item.account_id for item in settlements],
        [item.fence for item in settlements],
        [item.status for item in settlements],
        [item.seconds for item in settlements],
        [item.provider for item in settlements],
        # As text: a list among the elements would be taken for another dimension of the array.
        [None if item.outputs is None else json.dumps(item.outputs).decode() for item in settlements],
        [item.error_code for item in settlements],
        [item.error_message for item in settlements],
        [item.predict_ms for item in settlements],
        *_resolution_columns([item.attempt for item in settlements]),
    )
    settled = {row["generation_id"] for row in rows}
    # A statement of its own, because it must see what the lost races left behind.
    late = [
        Resolution(item.generation_id, item.fence, item.attempt)
        for item in settlements
        if item.attempt is not None and item.generation_id not in settled
    ]
    if late:
        used = await discard_attempts(db, late)
        settled |= {item.generation_id for item, ours in zip(late, used, strict=True) if ours}
    return [item.generation_id in settled for item in settlements]


_EXPIRE = """
WITH late AS MATERIALIZED (
    SELECT id, account_id, model, media::text AS media, created_at FROM generations
    WHERE status IN ('pending', 'processing') AND expires_at <= now() ORDER BY expires_at LIMIT $1
), settled AS MATERIALIZED (
    SELECT s.generation_id FROM (
        SELECT coalesce(array_agg(id), '{}') AS ids, coalesce(array_agg(account_id), '{}') AS accounts,
               coalesce(array_agg(0), '{}') AS fences,
               coalesce(array_agg('failed'::generation_status), '{}') AS statuses,
               coalesce(array_agg(NULL::text), '{}') AS nothing, coalesce(array_agg(NULL::jsonb), '{}') AS no_outputs,
               coalesce(array_agg(NULL::numeric), '{}') AS no_seconds, coalesce(array_agg(NULL::bigint), '{}') AS no_ms,
               coalesce(array_agg($2::text), '{}') AS codes, coalesce(array_agg($3::text), '{}') AS messages
        FROM late
    ) l, LATERAL settle_generations_v1(NULL, l.ids, l.accounts, l.fences, l.statuses, l.no_seconds, l.nothing,
                                       l.no_outputs, l.codes, l.messages, l.no_ms) AS s
), discarded AS (
    UPDATE attempts SET outcome = 'discarded', resolved_at = now()
    WHERE outcome = 'pending' AND generation_id IN (SELECT generation_id FROM settled)
)
SELECT late.* FROM late JOIN settled ON late.id = settled.generation_id
"""


async def give_up(db: Database, *, limit: int = 200) -> list[Ended]:
    """Fail and refund generations past their hard limit, whoever holds them; returns which."""
    rows = await db.fetch(
        _EXPIRE,
        limit,
        errors.GENERATION_EXPIRED.code,
        "The generation did not end in time and was given up. You were not charged.",
    )
    return [Ended(**row) for row in rows]


async def expire(db: Database, *, limit: int = 200) -> int:
    """The same, where only how many they were is of interest."""
    return len(await give_up(db, limit=limit))


async def forget_idempotency_keys(db: Database, *, limit: int = 5000) -> int:
    """Delete idempotency keys older than 24 hours, in bounded steps; returns how many."""
    return await db.execute(
        """DELETE FROM idempotency_keys WHERE (account_id, key) IN (
               SELECT account_id, key FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
               ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED
           )""",
        limit,
    )
