"""What the page Notifications alone asks of notices: those that have not been read first."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.accounts.notices import Notice
from babysea_server.db.pool import Database


class Place(msgspec.Struct, frozen=True):
    """Where a page of notices ended."""

    was_read: bool
    id: UUID

    def __str__(self) -> str:
        return f"{'read' if self.was_read else 'new'}.{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """The place that an address names, or None where it names none."""
        kind, _, id = text.partition(".")
        try:
            return cls({"read": True, "new": False}[kind], UUID(id))
        except (KeyError, ValueError):
            return None


async def search(
    db: Database,
    account_id: UUID,
    *,
    text: str,
    kind: str | None,
    unread: bool,
    after: Place | None,
    limit: int,
) -> tuple[Sequence[Notice], Place | None]:
    """Notices of an account, unread ones first, each newest first; and where the next page goes on.

    Args:
        text: a part of what they say, whatever the case.
        kind: of what they are about.
        unread: only those that have not been read.
    """
    rows = await db.fetch(
        """SELECT id, kind, text, data, created_at, read_at, mail_state FROM notices
           WHERE account_id = $1 AND ($2 = '' OR strpos(lower(text), lower($2)) > 0)
             AND ($3::text IS NULL OR kind = $3) AND NOT ($4 AND read_at IS NOT NULL)
             AND ($5::boolean IS NULL OR (read_at IS NOT NULL) > $5 OR (read_at IS NOT NULL) = $5 AND id < $6)
           ORDER BY read_at IS NOT NULL, id DESC LIMIT $7""",
        account_id,
        text,
        kind,
        unread,
        None if after is None else after.was_read,
        None if after is None else after.id,
        limit + 1,
    )
    notices = [Notice(**row) for row in rows[:limit]]
    more = len(rows) > limit
    return notices, Place(notices[-1].read_at is not None, notices[-1].id) if more else None


async def count_unread(db: Database, account_id: UUID, *, limit: int = 1000) -> int:
    """How many notices of an account have not been read; at most `limit`."""
    count: int = await db.fetchval(
        """SELECT count(*) FROM (SELECT FROM notices WHERE account_id = $1 AND read_at IS NULL LIMIT $2) AS unread""",
        account_id,
        limit,
    )
    return count


async def is_there(connection: Database | Any, account_id: UUID, notice_id: UUID) -> bool:
    """Whether the account has such a notice."""
    there: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM notices WHERE id = $2 AND account_id = $1)", account_id, notice_id
    )
    return there


async def mark_read(connection: Database | Any, account_id: UUID, notice_id: UUID | None = None) -> int:
    """Note that a notice of an account has been read, or that all have; returns how many were unread."""
    count: int = await connection.fetchval(
        """WITH read AS (
               UPDATE notices SET read_at = now()
               WHERE account_id = $1 AND read_at IS NULL AND ($2::uuid IS NULL OR id = $2) RETURNING id
           ) SELECT count(*) FROM read""",
        account_id,
        notice_id,
    )
    return count
