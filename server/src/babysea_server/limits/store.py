"""All SQL of limits: counters of windows in PostgreSQL."""

from collections.abc import Sequence
from contextlib import suppress

import asyncpg

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.limits.counters import KEEP_S, WINDOW_S, Addition, CountersUnavailableError

_DELETE_MAX = 5000

# In the order of the primary key: two processes that add to the same rows never wait for each other in a circle.
_ADD = """
INSERT INTO window_counts AS w (window_no, key, count)
SELECT window_no, key, amount FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS a (window_no, key, amount)
ORDER BY window_no, key
ON CONFLICT (window_no, key) DO UPDATE SET count = w.count + excluded.count
RETURNING w.window_no, w.key, w.count
"""

_DELETE = """
DELETE FROM window_counts w USING (
    SELECT window_no, key FROM window_counts WHERE window_no < $1
    ORDER BY window_no, key LIMIT $2 FOR UPDATE SKIP LOCKED
) AS old
WHERE w.window_no = old.window_no AND w.key = old.key
"""


class PostgresCounters:
    """`WindowCounters` in a table of the region's database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def open(self) -> None:
        await self._db.open()
        with suppress(CountersUnavailableError):
            await self.probe()

    async def close(self) -> None:
        await self._db.close()

    async def add(self, additions: Sequence[Addition]) -> Sequence[int]:
        keys, windows, amounts = zip(*additions, strict=True)
        try:
            rows = await self._db.fetch(_ADD, windows, keys, amounts)
        except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
            raise CountersUnavailableError("The database did not take the counts.") from error
        counts = {(row["key"], row["window_no"]): row["count"] for row in rows}
        return [counts[addition.key, addition.window] for addition in additions]

    async def probe(self) -> None:
        # Long over, so the next cleaning takes it away.
        await self.add([Addition("probe", 0, 1)])


async def delete_old(db: Database, now_s: float) -> None:
    """Delete the numbers of windows that are over, some thousands in one statement.

    Args:
        now_s: unix seconds.
    """
    before = int(now_s - KEEP_S) // WINDOW_S
    while await db.execute(_DELETE, before, _DELETE_MAX) == _DELETE_MAX:
        pass
