"""All SQL of accounts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7


@dataclass(frozen=True, slots=True)
class Account:
    """One account. `credit_balance` is in micro-credits."""

    id: UUID
    name: str
    email: str | None
    is_personal: bool
    plan: str
    credit_balance: int
    created_at: datetime


_COLUMNS = "id, name, email, is_personal, plan, credit_balance, created_at"


async def create(db: Database, *, name: str, plan: str, email: str | None = None) -> Account:
    """Insert an account with an empty balance."""
    row = await db.fetchrow(
        f"INSERT INTO accounts (id, name, email, plan) VALUES ($1, $2, $3, $4) RETURNING {_COLUMNS}",
        uuid7(),
        name,
        email,
        plan,
    )
    return Account(**row)


async def get(db: Database, account_id: UUID) -> Account | None:
    """One account, or None."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM accounts WHERE id = $1", account_id)
    return None if row is None else Account(**row)


async def first(db: Database) -> Account | None:
    """The oldest account, or None in a fresh database."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM accounts ORDER BY created_at, id LIMIT 1")
    return None if row is None else Account(**row)


async def page(db: Database, *, limit: int, offset: int = 0) -> Sequence[Account]:
    """Accounts, oldest first."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM accounts ORDER BY created_at, id LIMIT $1 OFFSET $2", limit, offset
    )
    return [Account(**row) for row in rows]


async def balance(db: Database, account_id: UUID) -> int:
    """The credit balance in micro-credits; 0 for an unknown account."""
    found: int | None = await db.fetchval("SELECT credit_balance FROM accounts WHERE id = $1", account_id)
    return found or 0
