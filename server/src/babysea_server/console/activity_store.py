"""What the page Activity alone asks of it: a page of entries at a time, by category, actor and text."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from babysea_server.accounts.activity import Entry
from babysea_server.db.pool import Database

#: So many entries are looked through for one page of a list that is narrowed; the next page goes on behind them.
LOOKED_THROUGH = 20_000

_LAST = 2**63 - 1


class Wanted(msgspec.Struct, frozen=True):
    """Which entries: what is None or empty narrows nothing."""

    category: str | None = None
    actor: str | None = None
    """`user`, `key`, `operator`, `system`, or the id of a user or a key."""
    text: str = ""
    """A part of the description, the actor's name or the action, whatever the case."""

    @property
    def actor_id(self) -> UUID | None:
        """The one user or key that is meant."""
        try:
            return UUID(self.actor or "")
        except ValueError:
            return None


class Found(msgspec.Struct, frozen=True):
    """Entries of one page, and where the next one goes on; None at the end of the list."""

    entries: Sequence[Entry]
    next: int | None


# The rows that are looked through are bounded, whatever is searched for; the list itself is read in the index's order.
_ENTRIES = """
SELECT id, actor, actor_id, actor_name, action, description, created_at
FROM (SELECT * FROM activity WHERE account_id = $1 AND id {after} $2 ORDER BY id {order} LIMIT {most}) AS a
WHERE ($3::text IS NULL OR split_part(action, '.', 1) = $3)
  AND ($4::text IS NULL OR actor = $4) AND ($5::uuid IS NULL OR actor_id = $5)
  AND ($6 = '' OR strpos(lower(concat_ws(' ', description, actor_name, action)), lower($6)) > 0)
ORDER BY id {order} LIMIT $7
"""


def entries_statement(*, descending: bool) -> str:
    """The statement that reads a page of entries, newest first or oldest first."""
    return _ENTRIES.format(
        after="<" if descending else ">", order="DESC" if descending else "ASC", most=LOOKED_THROUGH
    )


async def search(
    db: Database,
    account_id: UUID,
    wanted: Wanted,
    *,
    limit: int,
    after: int | None = None,
    descending: bool = True,
) -> Found:
    """Entries of an account by time.

    Args:
        after: where the page before ended.
    """
    start = after if after is not None else (_LAST if descending else 0)
    rows = await db.fetch(
        entries_statement(descending=descending),
        account_id,
        start,
        wanted.category,
        None if wanted.actor_id else wanted.actor,
        wanted.actor_id,
        wanted.text,
        limit + 1,
    )
    entries = [Entry(**row) for row in rows[:limit]]
    if len(rows) > limit:
        return Found(entries, entries[-1].id)
    return Found(entries, await _looked_through(db, account_id, start, descending=descending))


async def _looked_through(db: Database, account_id: UUID, start: int, *, descending: bool) -> int | None:
    """The last row that a page looked at, if others lie behind it."""
    rows = await db.fetch(
        f"""SELECT id FROM activity WHERE account_id = $1 AND id {"<" if descending else ">"} $2
            ORDER BY id {"DESC" if descending else "ASC"} OFFSET $3 LIMIT 2""",
        account_id,
        start,
        LOOKED_THROUGH - 1,
    )
    last: int | None = rows[0]["id"] if len(rows) == 2 else None
    return last
