"""Requests and generations of an account, written as the product writes them, at any time of the past."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from babysea_server.db.pool import Database
from babysea_server.kit.ids import request_id, uuid7

DEFAULTS: Mapping[str, Any] = {
    "age_s": 0.0,
    "endpoint": "GET /v1/status",
    "query": None,
    "status": 200,
    "code": None,
    "replayed": False,
    "ip_hash": bytes(range(16)),
    "agent": "test",
    "duration_us": 2000,
}


async def log(db: Database, account_id: UUID, key: UUID, *requests: Mapping[str, Any]) -> list[str]:
    """Write requests to the log with what counts them; their ids."""
    rows = [{**DEFAULTS, **request} for request in requests]
    ids = [row.get("request_id") or request_id() for row in rows]
    await db.execute(
        "SELECT log_requests_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        [int(row["age_s"] * 1e6) for row in rows],
        ids,
        [account_id for _ in rows],
        [row.get("key", key) for row in rows],
        [row["endpoint"].partition(" ")[0] for row in rows],
        [row["endpoint"] for row in rows],
        [None if row["query"] is None else json.dumps(row["query"]) for row in rows],
        [row["status"] for row in rows],
        [row["code"] for row in rows],
        [row["replayed"] for row in rows],
        [row["ip_hash"] for row in rows],
        [row["agent"] for row in rows],
        [None for _ in rows],
        [row["duration_us"] for row in rows],
    )
    return ids


async def key_of(db: Database, account_id: UUID) -> UUID:
    """The account's first key."""
    found: UUID = await db.fetchval(
        "SELECT id FROM api_keys WHERE account_id = $1 ORDER BY id LIMIT 1", account_id
    )
    return found


async def generation(
    db: Database,
    account_id: UUID,
    *,
    model: str = "sandbox/image",
    status: str = "succeeded",
    price: int = 30_000,
    providers: Sequence[str] = ("fal",),
    inputs: Mapping[str, Any] | None = None,
    outputs: Sequence[Mapping[str, Any]] = (),
    error: tuple[str, str] | None = None,
    failure: tuple[str, str] = ("refused_busy", "The provider has no capacity now."),
) -> UUID:
    """A generation that was admitted, tried at each of these providers, and settled; its id.

    All but the last provider failed with `failure`; so did the last one unless it succeeded.
    """
    generation_id = uuid7()
    async with db.transaction() as connection:
        await connection.execute(
            "UPDATE accounts SET credit_balance = credit_balance - $2, generations_total = generations_total + 1 "
            "WHERE id = $1",
            account_id,
            price,
        )
        await connection.execute(
            """INSERT INTO generations (id, account_id, apikey_id, model, media, inputs, provider_order,
                                        prediction_id, reserved, expires_at, created_at)
               VALUES ($1, $2, (SELECT id FROM api_keys WHERE account_id = $2 LIMIT 1), $3, 'image', $4, $5, $6, $7,
                       now() + interval '1 hour', now() - interval '2 seconds')""",
            generation_id,
            account_id,
            model,
            dict(inputs or {"generation_prompt": "a test"}),
            list(providers),
            uuid7(),
            price,
        )
        if price:
            await connection.execute(
                """INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description)
                   SELECT id, $2, 'reserve', $3, credit_balance, $4 FROM accounts WHERE id = $1""",
                account_id,
                generation_id,
                price,
                model,
            )
        for order, provider in enumerate(providers, 1):
            used = order == len(providers) and status == "succeeded"
            await connection.execute(
                """INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter,
                                         outcome, failure, error_code, error_message, estimated_cost, submitted_at,
                                         resolved_at)
                   VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9, $10, $11, now() - interval '1 second', now())""",
                uuid7(),
                generation_id,
                account_id,
                model,
                order,
                provider,
                "used" if used else "failed",
                None if used else failure[0],
                None if used else "BSE6001",
                None if used else failure[1],
                price if used else 0,
            )
        if status in ("succeeded", "failed", "canceled"):
            await settle(connection, account_id, generation_id, status, providers[-1], outputs, error)
    return generation_id


async def settle(
    connection: Any,
    account_id: UUID,
    generation_id: UUID,
    status: str,
    provider: str,
    outputs: Sequence[Mapping[str, Any]] = (),
    error: tuple[str, str] | None = None,
) -> None:
    """End a generation that is in flight."""
    succeeded = status == "succeeded"
    code, message = error or (("BSE5002", "All providers failed.") if status == "failed" else (None, None))
    await connection.execute(
        """SELECT settle_generations_v1(NULL, ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[0],
               ARRAY[$3::generation_status], ARRAY[NULL::numeric], ARRAY[$4::text], ARRAY[$5::text]::jsonb[],
               ARRAY[$6::text], ARRAY[$7::text], ARRAY[$8::bigint])""",
        generation_id,
        account_id,
        status,
        provider if succeeded else None,
        json.dumps(list(outputs)) if succeeded else None,
        code,
        message,
        900 if succeeded else None,
    )


async def counted(db: Database, table: str, account_id: UUID, columns: str) -> list[tuple[Any, ...]]:
    """Rows of a roll-up of the account, in order."""
    rows = await db.fetch(f"SELECT {columns} FROM {table} WHERE account_id = $1 ORDER BY 1, 2, 3", account_id)
    return [tuple(row) for row in rows]


async def hour_of(db: Database) -> datetime:
    """The beginning of the present hour, by the database's clock."""
    found: datetime = await db.fetchval("SELECT date_trunc('hour', now(), 'UTC')")
    return found
