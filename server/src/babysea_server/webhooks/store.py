"""All SQL of sending webhooks: claims, results, and what becomes of old rows.

What is to be sent is written by `enqueue_webhooks_v1`, inside the transactions that it tells of. All writes here may
be repeated after a lost answer.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from babysea_server.db.pool import Database
from babysea_server.execution import store as execution
from babysea_server.webhooks.schedule import WAIT_HOURS
from babysea_server.webhooks.types import DueDelivery, Sent

#: A delivery counts as failed for its endpoint when so many attempts failed; it is tried on all the same.
TRIES_THAT_COUNT = 5
#: So many of these in a row disable an endpoint.
FAILURES_THAT_DISABLE = 15
#: Before the first endpoint.
BEGINNING = UUID(int=0)

# ------------------------------------------------------------------------------------------- claims


class Claimed(NamedTuple):
    """What one claim took, and where the next goes on."""

    deliveries: list[DueDelivery]
    cursor: UUID
    """`BEGINNING` when the last endpoint with work was reached."""


async def claim(
    db: Database, worker_id: UUID, *, limit: int, per_endpoint: int, after: UUID, endpoints: int
) -> Claimed:
    """Take due deliveries of enabled endpoints; nobody else can take them while the worker's lease holds.

    Args:
        limit: deliveries at most.
        per_endpoint: of one endpoint in flight at once, over all workers.
        after: the cursor of the claim before.
        endpoints: how many are looked at.
    """
    rows = await db.fetch(
        "SELECT * FROM claim_webhooks_v1($1, $2, $3, $4, $5)",
        worker_id,
        limit,
        per_endpoint,
        after,
        endpoints,
    )
    deliveries, cursor = [], BEGINNING
    for last, visited, *values in rows:
        if visited == endpoints:
            cursor = last
        if values[0] is not None:
            deliveries.append(DueDelivery(*values))
    return Claimed(deliveries, cursor)


async def reap(db: Database) -> int:
    """Free what belongs to workers that no longer exist; returns how many deliveries. See `execution.store.reap`."""
    await execution.reap(db)
    return await db.execute(execution.FREE_OF_THE_DEAD.format(table="webhook_deliveries"))


async def leave(db: Database, worker_id: UUID) -> None:
    """Take a worker out and free all its deliveries at once."""
    await execution.leave(db, worker_id)
    await free_strays(db, worker_id, ())


async def free_strays(db: Database, worker_id: UUID, sending: Sequence[UUID]) -> int:
    """Free what the worker holds without sending it, e.g. after the answer to a claim was lost; returns how many."""
    return await db.execute(
        "UPDATE webhook_deliveries SET worker_id = NULL WHERE worker_id = $1 AND id <> ALL ($2::uuid[])",
        worker_id,
        sending,
    )


# ------------------------------------------------------------------------------------------- results


class Recorded(NamedTuple):
    """Whether a result was recorded, and the endpoint that it disabled."""

    ours: bool
    disabled: UUID | None


async def record(db: Database, worker_id: UUID, results: Sequence[Sent]) -> list[Recorded]:
    """Write what came of tries; not ours where the lease or the endpoint is gone, or it was recorded before."""
    rows = await db.fetch(
        "SELECT * FROM record_webhooks_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        worker_id,
        [sent.delivery.id for sent in results],
        [sent.delivery.fence for sent in results],
        [sent.answer.ok for sent in results],
        [sent.again_after_s for sent in results],
        [sent.answer.status for sent in results],
        [sent.answer.duration_ms for sent in results],
        [sent.answer.failure for sent in results],
        [sent.answer.response for sent in results],
        TRIES_THAT_COUNT,
        FAILURES_THAT_DISABLE,
        WAIT_HOURS,
    )
    disabled = {row["delivery_id"]: row["disabled_endpoint"] for row in rows}
    return [Recorded(sent.delivery.id in disabled, disabled.get(sent.delivery.id)) for sent in results]


# ------------------------------------------------------------------------------------------- old rows

_EXPIRE = """
UPDATE webhook_deliveries SET state = 'expired', ended_at = now() WHERE id = ANY (ARRAY(
    SELECT d.id FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
    WHERE d.state = 'pending' AND d.worker_id IS NULL AND d.created_at < now() - make_interval(hours => $1)
      AND (d.due_at = 'infinity' OR e.state <> 'enabled' AND e.state_changed_at < now() - make_interval(hours => $1))
    ORDER BY d.created_at LIMIT $2 FOR UPDATE OF d SKIP LOCKED))
"""


async def expire(db: Database, *, limit: int) -> int:
    """Give up deliveries that waited 72 hours for their endpoint; returns how many.

    What was queued waits from its creation; what had been tried before, from when its endpoint was disabled.
    """
    return await db.execute(_EXPIRE, WAIT_HOURS, limit)


async def forget(db: Database, *, days: int, limit: int) -> int:
    """Delete old messages with their deliveries and attempts, unless one is still to be sent; returns how many."""
    return await db.execute(
        """DELETE FROM webhook_messages WHERE id = ANY (ARRAY(
               SELECT m.id FROM webhook_messages m
               WHERE m.created_at < now() - make_interval(days => $1) AND NOT EXISTS (
                   SELECT FROM webhook_deliveries d WHERE d.message_id = m.id AND d.state = 'pending')
               ORDER BY m.created_at LIMIT $2 FOR UPDATE SKIP LOCKED))""",
        days,
        limit,
    )
