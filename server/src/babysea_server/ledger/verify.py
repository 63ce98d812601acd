"""Recomputing every promise about money from the rows themselves."""

import msgspec

from babysea_server.db.pool import Database
from babysea_server.ledger.store import CHECKS

_DIFFERENCES_MAX = 1000
_STATEMENT_TIMEOUT_MS = 3_600_000


class Difference(msgspec.Struct, frozen=True):
    """One place where a promise does not hold."""

    promise: str
    account: str | None
    generation: str | None
    difference: str


async def verify(db: Database) -> list[Difference]:
    """All differences, at most 1,000 of each promise; an empty list means that the books are right.

    All checks read one snapshot, so a running server does not disturb them, nor they it.
    """
    found: list[Difference] = []
    async with (
        db.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}")
        for promise, query in CHECKS:
            rows = await connection.fetch(
                f"SELECT * FROM ({query}) AS differences LIMIT {_DIFFERENCES_MAX}", timeout=3600
            )
            found += [
                Difference(promise, row["account"], row["generation"], row["difference"]) for row in rows
            ]
    return found
