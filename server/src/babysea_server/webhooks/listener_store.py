"""All SQL of `webhooks listen`: rows that look like disabled endpoints, so that no worker ever sends to them."""

from collections.abc import Sequence
from uuid import UUID

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7
from babysea_server.webhooks.types import DueDelivery


async def insert(db: Database, account_id: UUID, events: Sequence[str], secret: bytes) -> UUID | None:
    """Insert a listener, and return its id; None when there is no such account."""
    listener_id = uuid7()
    inserted: UUID | None = await db.fetchval(
        """INSERT INTO webhook_endpoints (id, account_id, url, description, events, secret, state)
           SELECT $1, a.id, 'listen:' || $1::uuid, 'webhooks listen', $3, $4, 'disabled'
           FROM accounts a WHERE a.id = $2 FOR KEY SHARE
           RETURNING id""",
        listener_id,
        account_id,
        list(events),
        secret,
    )
    return inserted


async def touch(db: Database, listener_id: UUID) -> bool:
    """Note that the listener still listens; False when its row is gone."""
    return (
        await db.execute("UPDATE webhook_endpoints SET state_changed_at = now() WHERE id = $1", listener_id)
        == 1
    )


async def delete(db: Database, listener_id: UUID) -> None:
    """Delete a listener with what it has heard."""
    await db.execute("DELETE FROM webhook_endpoints WHERE id = $1 AND url LIKE 'listen:%'", listener_id)


async def delete_silent(db: Database, *, for_s: float) -> None:
    """Delete listeners of all accounts that ended without a word so many seconds ago."""
    await db.execute(
        """DELETE FROM webhook_endpoints
           WHERE url LIKE 'listen:%' AND state_changed_at < now() - make_interval(secs => $1)""",
        for_s,
    )


async def heard(db: Database, listener_id: UUID, *, limit: int) -> Sequence[DueDelivery]:
    """What a listener has not been given yet, oldest first."""
    rows = await db.fetch(
        """SELECT d.id, d.fence, d.attempts, m.event, m.data, m.created_at AS happened_at, d.created_at,
               d.endpoint_id, d.account_id, e.url, e.secret
           FROM webhook_deliveries d JOIN webhook_messages m ON m.id = d.message_id
           JOIN webhook_endpoints e ON e.id = d.endpoint_id
           WHERE d.endpoint_id = $1 AND d.state = 'pending' AND d.worker_id IS NULL AND d.due_at = 'infinity'
           ORDER BY d.id LIMIT $2""",
        listener_id,
        limit,
    )
    return [DueDelivery(**row) for row in rows]


async def mark(db: Database, delivery_id: UUID) -> None:
    """Note that a listener was given this."""
    await db.execute(
        """UPDATE webhook_deliveries SET state = 'delivered', ended_at = now()
           WHERE id = $1 AND state = 'pending' AND worker_id IS NULL""",
        delivery_id,
    )
