"""All SQL of the page Credits and of a generation's page."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database

KINDS = ("add", "reserve", "charge", "refund")


class Entry(msgspec.Struct, frozen=True):
    """One row of the ledger. Amounts in micro-credits."""

    id: int
    generation_id: UUID | None
    kind: str
    amount: int
    balance_after: int
    description: str
    created_at: datetime

    @property
    def model(self) -> str | None:
        """The model of its generation; what concerns generations is described by nothing else."""
        return None if self.generation_id is None else self.description

    @property
    def change(self) -> int:
        """What it did to the balance; a charge takes from what was reserved."""
        return {"add": 1, "refund": 1, "reserve": -1}.get(self.kind, 0) * self.amount


_COLUMNS = "id, generation_id, kind::text AS kind, amount, balance_after, description, created_at"


async def ledger(
    db: Database,
    account_id: UUID,
    *,
    kind: str | None = None,
    generation_id: UUID | None = None,
    after: int | None = None,
    descending: bool = True,
    limit: int,
) -> Sequence[Entry]:
    """Rows of the ledger in its order.

    Args:
        kind: one of `KINDS`.
        after: the last row of the page before.
    """
    conditions, arguments = ["account_id = $1"], [account_id, limit]
    for condition, value in (
        ("kind = ${}::ledger_kind", kind),
        ("generation_id = ${}", generation_id),
        (f"id {'<' if descending else '>'} ${{}}", after),
    ):
        if value is not None:
            arguments.append(value)
            conditions.append(condition.format(len(arguments)))
    # Which kinds have an index of their own is seen only where they stand in the statement.
    if kind in ("add", "refund"):
        conditions.append("kind IN ('add', 'refund')")
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} FROM ledger WHERE {" AND ".join(conditions)}
            ORDER BY id {"DESC" if descending else "ASC"} LIMIT $2""",
        *arguments,
    )
    return [Entry(**row) for row in rows]


async def balances(db: Database, account_id: UUID, moments: Sequence[datetime]) -> Sequence[int]:
    """The balance at each of these moments, which are given in their order, in micro-credits."""
    found: Sequence[int] = await db.fetchval("SELECT balances_at_v1($1, $2)", account_id, list(moments))
    return found


async def money(db: Database, account_id: UUID, generation_id: UUID) -> Any:
    """`reserved`, `charged` and `refunded` of a generation in micro-credits, and its key; None where it is gone."""
    return await db.fetchrow(
        """SELECT g.reserved, g.charged, g.refunded, g.apikey_id, k.name AS key_name
           FROM generations g LEFT JOIN api_keys k ON k.id = g.apikey_id AND k.account_id = g.account_id
           WHERE g.id = $2 AND g.account_id = $1""",
        account_id,
        generation_id,
    )


async def attempts(db: Database, account_id: UUID, generation_id: UUID) -> list[Any]:
    """The attempts of a generation, also of one that was deleted, first to last; costs in micro-credits."""
    return await db.fetch(
        """SELECT attempt_order, provider, adapter, model, outcome::text AS outcome, failure::text AS failure,
                  error_code, error_message, estimated_cost, submitted_at, accepted_at, resolved_at
           FROM attempts WHERE generation_id = $2 AND account_id = $1 ORDER BY attempt_order""",
        account_id,
        generation_id,
    )
