"""All SQL of endpoints, and of sending again what they were sent.

Where a function takes `account_id`, only that account's rows are found; None stands for the operator, who may name
any. Endpoints of `webhooks listen` (`listening.py`) are rows, too, and are found by nothing here. Where one takes
`Database | Any`, a connection of it that is in a transaction will do, too.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7

EndpointState: TypeAlias = Literal["enabled", "disabled", "failing"]
DeliveryState: TypeAlias = Literal["pending", "delivered", "failed", "expired"]


class Endpoint(msgspec.Struct, frozen=True):
    """One endpoint as its owner sees it: never its secret.

    `state` is `enabled`, `disabled` (by its owner) or `failing` (by us, after too many failures).
    """

    id: UUID
    account_id: UUID
    url: str
    description: str
    events: tuple[str, ...]
    state: EndpointState
    state_changed_at: datetime
    failed_in_a_row: int
    created_at: datetime
    secret_rotated_at: datetime | None


class Attempt(msgspec.Struct, frozen=True):
    """One try of a delivery: `status` of the answer where there was one, class of the `error` unless it was taken."""

    number: int
    at: datetime
    status: int | None
    duration_ms: int
    error: str | None
    response: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery with its tries, the first try first.

    `state` is `pending`, `delivered`, `failed` or `expired`; `data` is what is told, with storage keys where links
    will stand; `due_at` is None unless another try is to come by itself.
    """

    id: UUID
    endpoint_id: UUID
    account_id: UUID
    event: str
    generation_id: UUID | None
    state: DeliveryState
    replay_of: UUID | None
    created_at: datetime
    ended_at: datetime | None
    due_at: datetime | None
    data: dict[str, Any] = field(repr=False)
    attempts: Sequence[Attempt] = ()


class Refusal(StrEnum):
    """Why an endpoint was not inserted."""

    ACCOUNT_GONE = "account_gone"
    OVER_LIMIT = "over_limit"


_COLUMNS = """e.id, e.account_id, e.url, e.description, e.events, e.state::text AS state, e.state_changed_at,
    e.failed_in_a_row, e.created_at, e.secret_rotated_at"""
#: Endpoints that a caller may name by `$1`, where `$2` is the account or, for the operator, NULL.
_NAMED = "e.id = $1 AND ($2::uuid IS NULL OR e.account_id = $2) AND e.url NOT LIKE 'listen:%'"

_DELIVERY = """d.id, d.endpoint_id, d.account_id, m.event, m.generation_id, d.state::text AS state, d.replay_of,
    d.created_at, d.ended_at, m.data,
    CASE WHEN d.state = 'pending' AND e.state = 'enabled' AND d.due_at < 'infinity' THEN d.due_at END AS due_at"""
_FROM = """FROM webhook_deliveries d JOIN webhook_messages m ON m.id = d.message_id
    JOIN webhook_endpoints e ON e.id = d.endpoint_id"""

#: What waits for `replay.deliver_queued`: written while its endpoint was not enabled, and never due by itself.
_QUEUED = "d.endpoint_id = $1 AND d.state = 'pending' AND d.worker_id IS NULL AND d.due_at = 'infinity'"


async def insert(
    db: Database | Any,
    *,
    account_id: UUID,
    url: str,
    description: str,
    events: Sequence[str],
    secret: bytes,
    limit: int,
) -> Endpoint | Refusal:
    """Insert an endpoint unless the account has `limit` of them; of two at once the second counts the first."""
    async with db.transaction() if isinstance(db, Database) else nullcontext(db) as connection:
        # A statement of its own: the count must see what was committed while this one waited.
        if not await connection.fetchval(
            "SELECT true FROM accounts WHERE id = $1 FOR NO KEY UPDATE", account_id
        ):
            return Refusal.ACCOUNT_GONE
        row = await connection.fetchrow(
            f"""INSERT INTO webhook_endpoints AS e (id, account_id, url, description, events, secret)
                SELECT $1, $2, $3, $4, $5, $6
                WHERE (SELECT count(*) FROM webhook_endpoints o
                       WHERE o.account_id = $2 AND o.url NOT LIKE 'listen:%') < $7
                RETURNING {_COLUMNS}""",
            uuid7(),
            account_id,
            url,
            description,
            list(events),
            secret,
            limit,
        )
    return Refusal.OVER_LIMIT if row is None else _endpoint(row)


async def get(db: Database, endpoint_id: UUID, account_id: UUID | None) -> Endpoint | None:
    """One endpoint, or None when there is none or it is not the account's."""
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM webhook_endpoints e WHERE {_NAMED}", endpoint_id, account_id
    )
    return None if row is None else _endpoint(row)


async def of_account(
    db: Database, account_id: UUID | None, *, limit: int = 1000, offset: int = 0
) -> Sequence[Endpoint]:
    """Endpoints of one account, or of all, oldest first."""
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} FROM webhook_endpoints e
            WHERE ($1::uuid IS NULL OR e.account_id = $1) AND e.url NOT LIKE 'listen:%'
            ORDER BY e.id LIMIT $2 OFFSET $3""",
        account_id,
        limit,
        offset,
    )
    return [_endpoint(row) for row in rows]


async def change(
    db: Database | Any,
    endpoint_id: UUID,
    account_id: UUID | None,
    *,
    url: str | None,
    description: str | None,
    events: Sequence[str] | None,
) -> Endpoint | None:
    """Change what is not None. Failures at another address say nothing of the new one."""
    row = await db.fetchrow(
        f"""UPDATE webhook_endpoints e
            SET url = coalesce($3, e.url), description = coalesce($4, e.description),
                events = coalesce($5::text[], e.events),
                failed_in_a_row = CASE WHEN $3 <> e.url THEN 0 ELSE e.failed_in_a_row END
            WHERE {_NAMED} RETURNING {_COLUMNS}""",
        endpoint_id,
        account_id,
        url,
        description,
        None if events is None else list(events),
    )
    return None if row is None else _endpoint(row)


async def enable(db: Database | Any, endpoint_id: UUID, account_id: UUID | None) -> Endpoint | None:
    """Enable an endpoint in any state, with its failures forgotten; again changes nothing."""
    row = await db.fetchrow(
        f"""UPDATE webhook_endpoints e
            SET state = 'enabled',
                state_changed_at = CASE WHEN e.state = 'enabled' THEN e.state_changed_at ELSE now() END,
                failed_in_a_row = CASE WHEN e.state = 'enabled' THEN e.failed_in_a_row ELSE 0 END
            WHERE {_NAMED} RETURNING {_COLUMNS}""",
        endpoint_id,
        account_id,
    )
    return None if row is None else _endpoint(row)


async def disable(db: Database | Any, endpoint_id: UUID, account_id: UUID | None) -> Endpoint | None:
    """Disable an endpoint in any state; again changes nothing."""
    row = await db.fetchrow(
        f"""UPDATE webhook_endpoints e
            SET state = 'disabled',
                state_changed_at = CASE WHEN e.state = 'disabled' THEN e.state_changed_at ELSE now() END
            WHERE {_NAMED} RETURNING {_COLUMNS}""",
        endpoint_id,
        account_id,
    )
    return None if row is None else _endpoint(row)


async def sealed_secret(db: Database | Any, endpoint_id: UUID, account_id: UUID | None) -> bytes | None:
    """The secret as it is kept, or None when there is no such endpoint."""
    sealed: bytes | None = await db.fetchval(
        f"SELECT e.secret FROM webhook_endpoints e WHERE {_NAMED}", endpoint_id, account_id
    )
    return sealed


async def replace_secret(
    db: Database | Any, endpoint_id: UUID, *, before: bytes, after: bytes
) -> Endpoint | None:
    """Replace a secret if it still is what it was `before`; None when it is not."""
    row = await db.fetchrow(
        f"""UPDATE webhook_endpoints e SET secret = $3, secret_rotated_at = now()
            WHERE e.id = $1 AND e.secret = $2 RETURNING {_COLUMNS}""",
        endpoint_id,
        before,
        after,
    )
    return None if row is None else _endpoint(row)


async def delete_deliveries(db: Database, endpoint_id: UUID, *, batch: int) -> int:
    """Delete some of an endpoint's deliveries that no worker holds; returns how many, at most `batch`."""
    return await db.execute(
        """DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
               SELECT id FROM webhook_deliveries WHERE endpoint_id = $1 AND worker_id IS NULL
           LIMIT $2 FOR UPDATE SKIP LOCKED))""",
        endpoint_id,
        batch,
    )


async def delete(db: Database, endpoint_id: UUID, account_id: UUID | None) -> Endpoint | None:
    """Delete an endpoint with what is left of its deliveries, and return what it was."""
    row = await db.fetchrow(
        f"DELETE FROM webhook_endpoints e WHERE {_NAMED} RETURNING {_COLUMNS}", endpoint_id, account_id
    )
    return None if row is None else _endpoint(row)


async def lock(connection: Any, endpoint_id: UUID, account_id: UUID | None) -> Endpoint | None:
    """One endpoint, whose state nobody changes before the transaction ends."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM webhook_endpoints e WHERE {_NAMED} FOR NO KEY UPDATE",
        endpoint_id,
        account_id,
    )
    return None if row is None else _endpoint(row)


async def sealed_otherwise(
    connection: Any, head: bytes, after: UUID, *, limit: int
) -> Sequence[tuple[UUID, bytes]]:
    """Endpoints with ids above `after`, by id, whose sealed secrets do not begin with `head`; locked."""
    rows = await connection.fetch(
        """SELECT id, secret FROM webhook_endpoints
           WHERE id > $2 AND substring(secret FROM 1 FOR length($1::bytea)) <> $1::bytea
           ORDER BY id LIMIT $3 FOR NO KEY UPDATE""",
        head,
        after,
        limit,
    )
    return [(row["id"], row["secret"]) for row in rows]


async def write_sealed(connection: Any, sealed: Sequence[tuple[UUID, bytes]]) -> None:
    """Keep secrets that were sealed anew; they are the same secrets."""
    await connection.execute(
        """UPDATE webhook_endpoints e SET secret = s.secret
           FROM unnest($1::uuid[], $2::bytea[]) AS s (id, secret) WHERE e.id = s.id""",
        [endpoint_id for endpoint_id, _ in sealed],
        [secret for _, secret in sealed],
    )


async def insert_test(connection: Any, endpoint: Endpoint, event: str, data: dict[str, Any]) -> UUID:
    """Insert a message for one endpoint alone, whatever it is subscribed to; returns the delivery's id."""
    delivery_id = uuid7()
    await connection.execute(
        """WITH told AS (
               INSERT INTO webhook_messages (id, account_id, event, data) VALUES ($1, $2, $3, $4)
               RETURNING id, account_id)
           INSERT INTO webhook_deliveries (id, message_id, endpoint_id, account_id)
           SELECT $5, id, $6, account_id FROM told""",
        uuid7(),
        endpoint.account_id,
        event,
        data,
        delivery_id,
        endpoint.id,
    )
    return delivery_id


async def delivery(db: Database | Any, delivery_id: UUID, account_id: UUID | None) -> Delivery | None:
    """One delivery with its attempts, or None when there is none or it is not the account's."""
    row = await db.fetchrow(
        f"""SELECT {_DELIVERY} {_FROM}
            WHERE d.id = $1 AND ($2::uuid IS NULL OR d.account_id = $2) AND e.url NOT LIKE 'listen:%'""",
        delivery_id,
        account_id,
    )
    return None if row is None else (await _with_attempts(db, [row]))[0]


async def deliveries(
    db: Database, endpoint_id: UUID, *, before: UUID | None, state: DeliveryState | None, limit: int
) -> Sequence[Delivery]:
    """Deliveries of an endpoint with their attempts, newest first, from below the id `before`."""
    rows = await db.fetch(
        f"""SELECT {_DELIVERY} {_FROM}
            WHERE d.endpoint_id = $1 AND ($2::uuid IS NULL OR d.id < $2)
            AND ($3::text IS NULL OR d.state = $3::text::webhook_delivery_state)
            ORDER BY d.id DESC LIMIT $4""",
        endpoint_id,
        before,
        state,
        limit,
    )
    return await _with_attempts(db, rows)


def _least_id(since: datetime) -> UUID:
    """A version 7 UUID below all that were made since then, by clocks that differ by less than an hour."""
    return UUID(int=max(0, int(since.timestamp() - 3600) * 1000) << 80)


def _endpoint(row: Any) -> Endpoint:
    return Endpoint(**{**row, "events": tuple(row["events"])})


async def _with_attempts(db: Database | Any, rows: Sequence[Any]) -> list[Delivery]:
    attempts: dict[UUID, list[Attempt]] = {row["id"]: [] for row in rows}
    for delivery_id, *values in await db.fetch(
        """SELECT delivery_id, number, at, status, duration_ms, error, response FROM webhook_attempts
           WHERE delivery_id = ANY ($1) ORDER BY delivery_id, number""",
        list(attempts),
    ):
        attempts[delivery_id].append(Attempt(*values))
    return [Delivery(**row, attempts=attempts[row["id"]]) for row in rows]


async def missed(
    connection: Any, endpoint_id: UUID, since: datetime, *, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Ids of deliveries, oldest first, that were made since then, never arrived, and were not sent again yet.

    Each with a fresh id for sending it again. Of a chain of replays only the last is one of them.
    """
    rows = await connection.fetch(
        """SELECT d.id FROM webhook_deliveries d
           WHERE d.endpoint_id = $1 AND d.id >= $4 AND d.state IN ('failed', 'expired') AND d.created_at >= $2
           AND NOT EXISTS (SELECT FROM webhook_deliveries r WHERE r.message_id = d.message_id AND r.replay_of = d.id)
           ORDER BY d.id LIMIT $3""",
        endpoint_id,
        since,
        limit,
        _least_id(since),
    )
    return [(row["id"], uuid7()) for row in rows]


async def queued(connection: Any, endpoint_id: UUID, *, limit: int) -> Sequence[tuple[UUID, UUID]]:
    """Ids of deliveries that wait to be sent after their endpoint was enabled, oldest first; each with a fresh id."""
    rows = await connection.fetch(
        f"SELECT d.id FROM webhook_deliveries d WHERE {_QUEUED} ORDER BY d.id LIMIT $2 FOR UPDATE",
        endpoint_id,
        limit,
    )
    return [(row["id"], uuid7()) for row in rows]


async def count_waiting(db: Database, endpoint_id: UUID, *, limit: int) -> int:
    """How many deliveries wait for the endpoint to be enabled or, after that, to be sent; at most `limit`."""
    count: int = await db.fetchval(
        f"""SELECT count(*) FROM (
               (SELECT FROM webhook_deliveries d WHERE {_QUEUED} LIMIT $2)
               UNION ALL
               (SELECT FROM webhook_deliveries d
                WHERE d.endpoint_id = $1 AND d.state = 'pending' AND d.worker_id IS NULL AND d.due_at < 'infinity'
                AND EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = $1 AND e.state <> 'enabled') LIMIT $2)
               LIMIT $2) waiting""",
        endpoint_id,
        limit,
    )
    return count


async def insert_replays(connection: Any, replays: Sequence[tuple[UUID, UUID]]) -> None:
    """Insert deliveries of the same messages under fresh ids, due at once and in this order."""
    await connection.execute(
        """INSERT INTO webhook_deliveries (id, message_id, endpoint_id, account_id, replay_of, due_at)
           SELECT r.fresh, d.message_id, d.endpoint_id, d.account_id, d.id, now() + r.n * interval '1 microsecond'
           FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS r (old, fresh, n)
           JOIN webhook_deliveries d ON d.id = r.old ORDER BY r.n""",
        [old for old, _ in replays],
        [fresh for _, fresh in replays],
    )


async def expire(connection: Any, delivery_ids: Sequence[UUID]) -> None:
    """End deliveries that wait and were put under other ids."""
    await connection.execute(
        """UPDATE webhook_deliveries SET state = 'expired', ended_at = now()
           WHERE id = ANY ($1) AND state = 'pending' AND worker_id IS NULL""",
        list(delivery_ids),
    )
