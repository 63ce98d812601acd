"""All SQL of accounts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.accounts.periods import Period
from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7


class Account(msgspec.Struct, frozen=True):
    """One account. `credit_balance` is in micro-credits."""

    id: UUID
    name: str
    email: str | None
    is_personal: bool
    picture_url: str | None
    plan: str
    credit_balance: int
    created_at: datetime
    plan_changed_at: datetime | None
    period: Period | None
    """The present period; None on a plan without monthly credits."""


class Grant(msgspec.Struct, frozen=True):
    """Credits that an account gets once: `source` says what for, and a second one of it changes nothing."""

    account_id: UUID
    source: str
    amount_micro: int
    description: str


_COLUMNS = """id, name, email, is_personal, picture_url, plan, credit_balance, created_at, plan_changed_at,
    period_anchor, period_starts_at, period_ends_at"""


def _account(row: Any) -> Account:
    fields = dict(row)
    anchor, *bounds = (fields.pop(name) for name in ("period_anchor", "period_starts_at", "period_ends_at"))
    return Account(**fields, period=None if anchor is None else Period(anchor, *bounds))


async def create(db: Database | Any, *, name: str, plan: str, email: str | None = None) -> Account:
    """Insert an account with an empty balance.

    Args:
        db: a database, or a connection of it that is in a transaction.
    """
    row = await db.fetchrow(
        f"INSERT INTO accounts (id, name, email, plan) VALUES ($1, $2, $3, $4) RETURNING {_COLUMNS}",
        uuid7(),
        name,
        email,
        plan,
    )
    return _account(row)


async def get(db: Database | Any, account_id: UUID) -> Account | None:
    """One account, or None."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM accounts WHERE id = $1", account_id)
    return None if row is None else _account(row)


async def first(db: Database) -> Account | None:
    """The oldest account, or None in a fresh database."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM accounts ORDER BY created_at, id LIMIT 1")
    return None if row is None else _account(row)


async def page(db: Database, *, limit: int, offset: int = 0) -> Sequence[Account]:
    """Accounts, oldest first."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM accounts ORDER BY created_at, id LIMIT $1 OFFSET $2", limit, offset
    )
    return [_account(row) for row in rows]


async def balance(db: Database, account_id: UUID) -> int:
    """The credit balance in micro-credits; 0 for an unknown account."""
    found: int | None = await db.fetchval("SELECT credit_balance FROM accounts WHERE id = $1", account_id)
    return found or 0


# ------------------------------------------------------------------- plans and periods, in a transaction


async def now(connection: Any) -> datetime:
    """The database's clock, which decides over periods; it stands still within a transaction."""
    moment: datetime = await connection.fetchval("SELECT now()")
    return moment


async def lock(connection: Any, account_id: UUID) -> Account | None:
    """One account, or None; nobody else changes it before the end of the transaction."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM accounts WHERE id = $1 FOR NO KEY UPDATE", account_id
    )
    return None if row is None else _account(row)


async def lock_due(connection: Any, plans: Sequence[str], *, limit: int) -> Sequence[Account]:
    """Accounts of these plans whose period is over, longest first; those that somebody else holds are left out."""
    rows = await connection.fetch(
        f"""SELECT {_COLUMNS} FROM accounts WHERE period_ends_at <= now() AND plan = ANY ($1)
            ORDER BY period_ends_at, id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED""",
        list(plans),
        limit,
    )
    return [_account(row) for row in rows]


async def due_on_other_plans(db: Database, plans: Sequence[str], *, limit: int) -> Sequence[str]:
    """Names of plans that are none of these and have accounts whose period is over."""
    rows = await db.fetch(
        "SELECT DISTINCT plan FROM accounts WHERE period_ends_at <= now() AND plan <> ALL ($1) LIMIT $2",
        list(plans),
        limit,
    )
    return [row["plan"] for row in rows]


async def set_plan(connection: Any, account_id: UUID, plan: str) -> None:
    """Note the plan; every API process hears of it at the commit."""
    await connection.execute(
        """UPDATE accounts SET plan = $2, plan_changed_at = CASE plan WHEN $2 THEN plan_changed_at ELSE now() END
           WHERE id = $1""",
        account_id,
        plan,
    )


async def set_periods(connection: Any, periods: Sequence[tuple[UUID, Period | None]]) -> None:
    """Note the present period of each account."""
    await connection.execute(
        """UPDATE accounts a SET period_anchor = p.anchor, period_starts_at = p.starts_at, period_ends_at = p.ends_at
           FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
                AS p (id, anchor, starts_at, ends_at)
           WHERE a.id = p.id""",
        [account_id for account_id, _ in periods],
        [period and period.anchor for _, period in periods],
        [period and period.starts_at for _, period in periods],
        [period and period.ends_at for _, period in periods],
    )


async def grant(connection: Any, grants: Sequence[Grant]) -> None:
    """Add the credits of those that have not been granted before, in this order."""
    await connection.execute(
        """SELECT grant_credits_v1(g.account_id, g.source, g.amount, g.description)
           FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[])
                AS g (account_id, source, amount, description)""",
        [each.account_id for each in grants],
        [each.source for each in grants],
        [each.amount_micro for each in grants],
        [each.description for each in grants],
    )


# ------------------------------------------------------------------- usage

#: The roll-ups have few rows for each day, so that this costs the same whatever the traffic was.
_USAGE = """
WITH first AS (SELECT (now() AT TIME ZONE 'UTC')::date - $2::int + 1 AS day)
SELECT credit_balance, (
    SELECT coalesce(jsonb_agg(e), '[]') FROM (
        SELECT endpoint, status_class, error_code, sum(requests)::bigint AS requests, sum(replays)::bigint AS replays
        FROM usage_daily WHERE account_id = $1 AND day >= (SELECT day FROM first)
        GROUP BY endpoint, status_class, error_code
    ) AS e
) AS endpoints, (
    SELECT coalesce(jsonb_agg(p), '[]') FROM (
        SELECT provider, sum(submissions)::bigint AS submissions, sum(used)::bigint AS used,
               sum(cancelled)::bigint AS cancelled, sum(discarded)::bigint AS discarded, sum(failed)::bigint AS failed,
               sum(estimated_cost)::bigint AS estimated_cost, sum(wasted_cost)::bigint AS wasted_cost
        FROM usage_providers WHERE account_id = $1 AND day >= (SELECT day FROM first)
        GROUP BY provider
    ) AS p
) AS providers
FROM accounts WHERE id = $1
"""


async def usage(db: Database, account_id: UUID, *, days: int) -> Any:
    """Balance, and the sums of the account's roll-ups over the last `days` days (UTC), today included.

    Returns `credit_balance`, `endpoints` and `providers`, or None for an unknown account.
    """
    return await db.fetchrow(_USAGE, account_id, days)
