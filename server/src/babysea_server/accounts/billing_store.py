"""All SQL of payments: who an account is at the payment service, its subscription, and events that are done."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database

RETENTION_EVERY_S = 3600.0
#: Stripe repeats an event for three days, and its people can for a month.
_KEEP_DAYS = 90
_DELETED_AT_ONCE = 5_000


class Customer(msgspec.Struct, frozen=True):
    """An account as the payment service knows it."""

    account_id: UUID
    customer_id: str
    subscription_id: str | None
    subscription_status: str | None
    cancel_at_period_end: bool | None
    currency: str | None
    period_starts_at: datetime | None
    period_ends_at: datetime | None
    updated_at: datetime


class Addition(msgspec.Struct, frozen=True):
    """Credits that were added to an account."""

    amount: int
    """In micro-credits."""
    description: str
    created_at: datetime


_COLUMNS = """account_id, customer_id, subscription_id, subscription_status, cancel_at_period_end, currency,
    period_starts_at, period_ends_at, updated_at"""


async def customer(db: Database | Any, account_id: UUID) -> Customer | None:
    """The account's customer, or None."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM billing_customers WHERE account_id = $1", account_id)
    return None if row is None else Customer(**row)


async def lock_customer(connection: Any, customer_id: str) -> Customer | None:
    """A customer by its id at the payment service, or None; nobody else changes it before the transaction ends."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM billing_customers WHERE customer_id = $1 FOR UPDATE", customer_id
    )
    return None if row is None else Customer(**row)


async def keep_customer(db: Database, account_id: UUID, customer_id: str) -> str:
    """Note who the account is at the payment service; what was noted first stays. Returns what is noted."""
    kept: str = await db.fetchval(
        """INSERT INTO billing_customers (account_id, customer_id) VALUES ($1, $2)
           ON CONFLICT (account_id) DO UPDATE SET customer_id = billing_customers.customer_id
           RETURNING customer_id""",
        account_id,
        customer_id,
    )
    return kept


async def note_subscription(
    connection: Any,
    account_id: UUID,
    *,
    subscription_id: str,
    status: str,
    cancel_at_period_end: bool,
    currency: str | None,
    period: tuple[datetime, datetime] | None,
) -> None:
    """Note how the account's subscription stands."""
    starts_at, ends_at = period or (None, None)
    await connection.execute(
        """UPDATE billing_customers SET subscription_id = $2, subscription_status = $3, cancel_at_period_end = $4,
               currency = coalesce($5, currency), period_starts_at = $6, period_ends_at = $7, updated_at = now()
           WHERE account_id = $1""",
        account_id,
        subscription_id,
        status,
        cancel_at_period_end,
        currency,
        starts_at,
        ends_at,
    )


async def take_event(connection: Any, event_id: str, type: str, account_id: UUID | None) -> bool:
    """Note that an event is being carried out in this transaction; False: it has been already.

    Whoever comes with the same event meanwhile waits here for the other's end.
    """
    taken = await connection.fetchval(
        """INSERT INTO stripe_events (id, type, account_id) VALUES ($1, $2, $3)
           ON CONFLICT DO NOTHING RETURNING true""",
        event_id,
        type,
        account_id,
    )
    return bool(taken)


async def delete_old_events(db: Database) -> int:
    """Forget events that nobody sends any more, some at once; returns how many. What they added stays added once."""
    return await db.execute(
        """DELETE FROM stripe_events WHERE id IN (
               SELECT id FROM stripe_events WHERE received_at < now() - make_interval(days => $1) LIMIT $2
           )""",
        _KEEP_DAYS,
        _DELETED_AT_ONCE,
    )


async def additions(db: Database, account_id: UUID, *, limit: int) -> Sequence[Addition]:
    """The last credits that were added to an account, newest first."""
    rows = await db.fetch(
        """SELECT amount, description, created_at FROM ledger
           WHERE account_id = $1 AND kind = 'add' ORDER BY id DESC LIMIT $2""",
        account_id,
        limit,
    )
    return [Addition(**row) for row in rows]


async def grant(connection: Any, account_id: UUID, source: str, amount_micro: int, description: str) -> bool:
    """Add credits once for a source; whether this call did."""
    granted: bool = await connection.fetchval(
        "SELECT grant_credits_v1($1, $2, $3, $4)", account_id, source, amount_micro, description
    )
    return granted
