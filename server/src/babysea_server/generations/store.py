"""All SQL of reading and admitting generations. What moves a generation on is in `execution.store`."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from babysea_server.db.pool import Database

_COLUMNS = """id, account_id, model, media::text AS media, inputs, provider_order, prediction_id,
    status::text AS status, provider_used, outputs, error_code, error_message, predict_ms, created_at, started_at,
    completed_at"""

_ADMIT = """SELECT n, result::text AS result, generation_id, model, provider_order, prediction_id,
        status::text AS status, balance, in_flight
    FROM admit_generations_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ORDER BY n"""


async def by_ids(db: Database, ids: Collection[UUID]) -> list[Any]:
    """These generations, whosever they are, as far as they exist."""
    return await db.fetch(f"SELECT {_COLUMNS} FROM generations WHERE id = ANY ($1::uuid[])", list(ids))


async def page(db: Database, account_id: UUID, *, limit: int, offset: int) -> tuple[list[Any], int]:
    """A page of the account's generations, newest first, and how many there are in all."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM generations WHERE account_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3",
        account_id,
        limit,
        offset,
    )
    total: int | None = await db.fetchval("SELECT generations_total FROM accounts WHERE id = $1", account_id)
    return rows, total or 0


async def admit(db: Database, deadline: datetime, columns: Sequence[Sequence[Any]]) -> list[Any]:
    """Decide a batch: `columns` are the parallel arrays of `admit_generations_v1` after the deadline.

    Raises:
        DatabaseUnavailableError: with `sent=True` the outcome is not known.
        asyncpg.PostgresError: the batch was rolled back whole.
    """
    return await db.fetch(_ADMIT, deadline, *columns)


async def admitted(
    db: Database, deadline: datetime, accounts: Sequence[UUID], ids: Sequence[UUID]
) -> tuple[set[UUID], bool]:
    """Which of these generations were admitted, and whether that is the last word on all of them.

    Args:
        deadline: what `admit` was called with.
        accounts: whose generations they are.

    Raises:
        DatabaseUnavailableError, asyncpg.LockNotAvailableError: not to be known now.
    """
    row = await db.fetchrow(
        "SELECT admitted, certain FROM admitted_generations_v1($1, $2, $3)",
        deadline,
        list(accounts),
        list(ids),
    )
    return set(row["admitted"]), row["certain"]
