"""Asking the database function directly: batches in, rows out; and ending generations by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from tests.generations.reference import Ask

from babysea_server.accounts import store as accounts
from babysea_server.db.pool import Database
from babysea_server.generations import store
from babysea_server.generations.admission import AdmissionRequest
from babysea_server.ledger import store as ledger


async def account(db: Database, credits_micro: int = 0, *, plan: str = "unlimited") -> UUID:
    """An account with this many micro-credits."""
    made = await accounts.create(db, name="Customer", plan=plan)
    if credits_micro:
        await ledger.add(db, made.id, credits_micro, "test")
    return made.id


def ask(account_id: UUID, cost: int = 1, **facts: Any) -> Ask:
    """A request with fresh ids."""
    return Ask(uuid4(), uuid4(), account_id, cost, **facts)


def request(account_id: UUID, cost: int = 1, **facts: Any) -> AdmissionRequest:
    """The same as the API's own type."""
    return AdmissionRequest(
        **{
            "generation_id": uuid4(),
            "prediction_id": uuid4(),
            "account_id": account_id,
            "apikey_id": UUID(int=1),
            "model": "sandbox/image",
            "media": "image",
            "inputs": {"generation_prompt": "a test"},
            "provider_order": ("sandbox",),
            "cost": cost,
            "rate_per_second": None,
            "lifetime_s": 600,
            "in_flight_limit": None,
            "idempotency_key": None,
            "fingerprint": b"",
            **facts,
        }
    )


async def admit(db: Database, batch: Sequence[Ask], *, within_s: float = 60) -> list[Any]:
    """One call of `admit_generations_v1`."""
    columns: list[list[Any]] = [
        [item.generation_id for item in batch],
        [item.account_id for item in batch],
        [UUID(int=1) for _ in batch],
        [item.model for item in batch],
        [item.media for item in batch],
        [item.inputs for item in batch],
        [",".join(item.order) for item in batch],
        [item.prediction_id for item in batch],
        [item.cost for item in batch],
        [None for _ in batch],
        [600 for _ in batch],
        [item.limit for item in batch],
        [item.key for item in batch],
        [item.fingerprint for item in batch],
    ]
    return await store.admit(db, datetime.now(UTC) + timedelta(seconds=within_s), columns)


async def settle(db: Database, account_id: UUID, generation_id: UUID, status: str) -> bool:
    """End a generation outside of any lease; False when it had ended before."""
    failed = status == "failed"
    ended = await db.fetch(
        """SELECT * FROM settle_generations_v1(NULL, ARRAY[$1::uuid], ARRAY[$2::uuid], ARRAY[0],
               ARRAY[$3::generation_status], ARRAY[NULL::numeric], ARRAY[$4::text], ARRAY[$5::text]::jsonb[],
               ARRAY[$6::text], ARRAY[$7::text], ARRAY[NULL::bigint])""",
        generation_id,
        account_id,
        status,
        None if status == "canceled" else "sandbox",
        "[]" if status == "succeeded" else None,
        "BSE4001" if failed else None,
        "It failed." if failed else None,
    )
    return len(ended) == 1


async def settle_all(db: Database, status: str = "succeeded") -> int:
    """End everything in flight; returns how many there were."""
    rows = await db.fetch("SELECT id, account_id FROM generations WHERE status IN ('pending', 'processing')")
    for row in rows:
        assert await settle(db, row["account_id"], row["id"], status)
    return len(rows)


async def age_keys(db: Database, account_id: UUID, *keys: str, hours: int = 25) -> int:
    """Make idempotency keys older by so many hours; returns how many there were."""
    return await db.execute(
        """UPDATE idempotency_keys SET created_at = created_at - make_interval(hours => $3)
           WHERE account_id = $1 AND key = ANY ($2)""",
        account_id,
        list(keys),
        hours,
    )
