"""Deliveries as workers leave them, for pages that show them."""

from typing import Any
from uuid import UUID

from tests.console.support import ConsoleClient

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7
from babysea_server.webhooks import endpoints, replay
from babysea_server.webhooks.endpoint_store import Delivery, Endpoint
from babysea_server.webhooks.secrets import SecretBox

_BOX = SecretBox(b"k" * 32)


async def make_endpoint(db: Database, account_id: UUID, **fields: Any) -> Endpoint:
    """An enabled endpoint that hears everything, at an address of this machine: no worker sends anything elsewhere."""
    given = {"url": "https://127.0.0.1/hook", "allow_private": True, **fields}
    made = await endpoints.create(db, _BOX, account_id, **given)
    return made.endpoint


async def happen(
    db: Database,
    account_id: UUID,
    event: str = "credits.low_balance",
    *,
    generation_id: UUID | None = None,
    **data: Any,
) -> None:
    """Something happens to an account, or to a generation of it."""
    told = {"account_id": str(account_id), **data}
    if generation_id is not None:
        told["generation_id"] = str(generation_id)
    await db.execute(
        "SELECT enqueue_webhooks_v1(ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[$3::text], ARRAY[$4::jsonb])",
        account_id,
        generation_id,
        event,
        told,
    )


async def newest(db: Database, endpoint: Endpoint) -> UUID:
    """The newest delivery of an endpoint."""
    found: UUID = await db.fetchval(
        "SELECT id FROM webhook_deliveries WHERE endpoint_id = $1 ORDER BY id DESC LIMIT 1", endpoint.id
    )
    return found


async def tried(
    db: Database,
    delivery_id: UUID,
    *tries: tuple[int | None, str | None, str | None],
    state: str = "pending",
) -> None:
    """A delivery was tried: the status, error and answer of each try, and the state that it is left in."""
    await db.execute(
        """INSERT INTO webhook_attempts (delivery_id, number, status, error, response, duration_ms)
           SELECT $1, t.number, t.status, t.error, t.response, 120
           FROM unnest($2::smallint[], $3::text[], $4::text[]) WITH ORDINALITY
               AS t (status, error, response, number)""",
        delivery_id,
        [status for status, _, _ in tries],
        [error for _, error, _ in tries],
        [response for _, _, response in tries],
    )
    await db.execute(
        """UPDATE webhook_deliveries SET attempts = $2, state = $3::text::webhook_delivery_state,
               ended_at = CASE WHEN $3 <> 'pending' THEN now() END, due_at = now() + interval '10 minutes'
           WHERE id = $1""",
        delivery_id,
        len(tries),
        state,
    )


async def many(db: Database, endpoint: Endpoint, count: int) -> None:
    """So many deliveries that have ended, every tenth of them failed; with one try each."""
    await db.execute(
        """WITH told AS (
               INSERT INTO webhook_messages (id, account_id, event, data)
               SELECT new_id_v1(), $2, CASE n % 3 WHEN 0 THEN 'generation.completed' WHEN 1 THEN 'generation.started'
                                       ELSE 'generation.failed' END, '{}'
               FROM generate_series(1, $3::integer) AS n RETURNING id, account_id
           ), sent AS (
               INSERT INTO webhook_deliveries (id, message_id, endpoint_id, account_id, state, attempts, ended_at)
               SELECT new_id_v1(), id, $1, account_id,
                      CASE WHEN row_number() OVER () % 10 = 0 THEN 'failed'::webhook_delivery_state
                           ELSE 'delivered' END, 1, now()
               FROM told RETURNING id, state
           )
           INSERT INTO webhook_attempts (delivery_id, number, status, error, response, duration_ms)
           SELECT id, 1, CASE state WHEN 'failed' THEN 500 ELSE 200 END, CASE state WHEN 'failed' THEN 'http_5xx' END,
                  'ok', 40
           FROM sent""",
        endpoint.id,
        endpoint.account_id,
        count,
    )


def generation_id() -> UUID:
    """Of a generation that nobody looks for."""
    return uuid7()


async def log_of(client: ConsoleClient, endpoint: Endpoint) -> list[Delivery]:
    """The deliveries of an endpoint, newest first."""
    return list(await replay.list_deliveries(client.deployment.db, client.account_id, endpoint.id))
