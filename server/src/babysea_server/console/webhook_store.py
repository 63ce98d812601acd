"""What the page Webhook alone asks of endpoints and their deliveries: lists, a page of rows at a time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database
from babysea_server.webhooks.endpoint_store import DeliveryState, EndpointState

#: So many deliveries are looked through for one page of a list that is narrowed; the next page goes on behind them.
LOOKED_THROUGH = 20_000

_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


class EndpointLine(msgspec.Struct, frozen=True):
    """One endpoint in a list, with its newest delivery."""

    id: UUID
    url: str
    description: str
    events: Sequence[str]
    state: EndpointState
    created_at: datetime
    last_at: datetime | None
    last_state: DeliveryState | None


class DeliveryLine(msgspec.Struct, frozen=True):
    """One delivery in a list; `status` and `error` are of its last try."""

    id: UUID
    event: str
    generation_id: UUID | None
    state: DeliveryState
    attempts: int
    status: int | None
    error: str | None
    replay_of: UUID | None
    created_at: datetime
    due_at: datetime | None
    """When it is tried next; None: not by itself."""


class Found(msgspec.Struct, frozen=True):
    """Rows of one page, and where the next one goes on; None at the end of the list."""

    rows: Sequence[DeliveryLine]
    next: UUID | None


async def endpoints(
    db: Database, account_id: UUID, *, text: str, state: str | None, order_by: str, limit: int, offset: int
) -> tuple[Sequence[EndpointLine], int]:
    """Endpoints of an account whose address or description holds a text, and how many there are in all."""
    rows = await db.fetch(
        f"""SELECT e.id, e.url, e.description, e.events, e.state::text AS state, e.created_at,
                   newest.created_at AS last_at, newest.state AS last_state, count(*) OVER () AS total
            FROM webhook_endpoints e LEFT JOIN LATERAL (
                SELECT d.created_at, d.state::text AS state FROM webhook_deliveries d
                WHERE d.endpoint_id = e.id ORDER BY d.id DESC LIMIT 1
            ) AS newest ON true
            WHERE e.account_id = $1 AND e.url NOT LIKE 'listen:%'
              AND ($2 = '' OR strpos(lower(concat_ws(' ', e.url, e.description)), lower($2)) > 0)
              AND ($3::text IS NULL OR e.state::text = $3)
            ORDER BY {order_by}, e.id LIMIT $4 OFFSET $5""",
        account_id,
        text,
        state,
        limit,
        offset,
    )
    total = rows[0]["total"] if rows else 0
    return [
        EndpointLine(**{name: row[name] for name in EndpointLine.__struct_fields__}) for row in rows
    ], total


# The rows that are looked through are bounded, whatever is searched for; the list itself is read in the index's order.
_DELIVERIES = """
SELECT d.id, m.event, m.generation_id, d.state::text AS state, d.attempts, t.status, t.error, d.replay_of, d.created_at,
       CASE WHEN d.state = 'pending' AND e.state = 'enabled' AND d.due_at < 'infinity' THEN d.due_at END AS due_at
FROM (
    SELECT * FROM webhook_deliveries WHERE endpoint_id = $1 AND id {after} $2 ORDER BY id {order} LIMIT {most}
) AS d
    JOIN webhook_endpoints e ON e.id = $1
    JOIN webhook_messages m ON m.id = d.message_id
    LEFT JOIN webhook_attempts t ON t.delivery_id = d.id AND t.number = d.attempts
WHERE ($3::text IS NULL OR d.state::text = $3)
  AND ($4::text IS NULL OR m.event = $4)
  AND ($5::uuid IS NULL OR $5 IN (d.id, d.replay_of, m.generation_id))
  AND ($6 = '' OR strpos(lower(concat_ws(' ', m.event, t.status, t.error)), lower($6)) > 0)
ORDER BY d.id {order} LIMIT $7
"""


def deliveries_statement(*, descending: bool) -> str:
    """The statement that reads a page of deliveries, newest first or oldest first."""
    return _DELIVERIES.format(
        after="<" if descending else ">", order="DESC" if descending else "ASC", most=LOOKED_THROUGH
    )


async def deliveries(
    db: Database,
    endpoint_id: UUID,
    *,
    text: str,
    state: str | None,
    event: str | None,
    descending: bool,
    after: UUID | None,
    limit: int,
) -> Found:
    """Deliveries of an endpoint by time, with their last try.

    Args:
        text: an id of a delivery or a generation, or a part of event, status or error.
        after: where the page before ended.
    """
    start = after or (_LAST if descending else _FIRST)
    wanted = _id(text)
    rows = await db.fetch(
        deliveries_statement(descending=descending),
        endpoint_id,
        start,
        state,
        event,
        wanted,
        "" if wanted else text,
        limit + 1,
    )
    lines = [DeliveryLine(**row) for row in rows[:limit]]
    if len(rows) > limit:
        return Found(lines, lines[-1].id)
    return Found(lines, await _looked_through(db, endpoint_id, start, descending=descending))


async def _looked_through(db: Database, endpoint_id: UUID, start: UUID, *, descending: bool) -> UUID | None:
    """The last row that a page looked at, if others lie behind it."""
    rows = await db.fetch(
        f"""SELECT id FROM webhook_deliveries WHERE endpoint_id = $1 AND id {"<" if descending else ">"} $2
            ORDER BY id {"DESC" if descending else "ASC"} OFFSET $3 LIMIT 2""",
        endpoint_id,
        start,
        LOOKED_THROUGH - 1,
    )
    last: UUID | None = rows[0]["id"] if len(rows) == 2 else None
    return last


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


async def happened_at(db: Database, delivery_id: UUID) -> datetime | None:
    """When what a delivery tells of has happened; None when there is no such delivery any more."""
    moment: datetime | None = await db.fetchval(
        """SELECT m.created_at FROM webhook_deliveries d JOIN webhook_messages m ON m.id = d.message_id
           WHERE d.id = $1""",
        delivery_id,
    )
    return moment


async def replays(db: Database | Any, delivery_id: UUID, *, limit: int = 10) -> Sequence[UUID]:
    """Deliveries that repeat this one, newest first."""
    rows = await db.fetch(
        """SELECT r.id FROM webhook_deliveries d JOIN webhook_deliveries r ON r.message_id = d.message_id
           WHERE d.id = $1 AND r.replay_of = d.id ORDER BY r.id DESC LIMIT $2""",
        delivery_id,
        limit,
    )
    return [row["id"] for row in rows]
