"""Notices: what an account's people are told inside the product, and all SQL on them.

The row is the job, too: a notice that is due is sent as mail (`mail.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7

MailState = Literal["due", "sent", "failed", "none"]
PAGE_MAX = 100


class Notice(msgspec.Struct, frozen=True):
    """One notice of an account."""

    id: UUID
    kind: str
    text: str
    data: Mapping[str, Any]
    created_at: datetime
    read_at: datetime | None
    mail_state: MailState
    """`due`: to be sent; `none`: there was no address or no mail server."""


async def notify(db: Database | Any, account_id: UUID, kind: str, text: str, data: Mapping[str, Any]) -> UUID:
    """Tell an account's people something; returns the notice's id.

    Args:
        db: a database, or a connection of it that is in a transaction.
        kind: what about, e.g. `credits.low_balance`.
        text: one or two sentences for people, at most 1,000 characters.
        data: the same for programs.
    """
    notice_id = uuid7()
    await db.execute(
        "INSERT INTO notices (id, account_id, kind, text, data) VALUES ($1, $2, $3, $4, $5)",
        notice_id,
        account_id,
        kind,
        text,
        data,
    )
    return notice_id


async def page(
    db: Database, account_id: UUID, *, limit: int = PAGE_MAX, before: UUID | None = None, unread: bool = False
) -> list[Notice]:
    """Notices of an account, newest first.

    Args:
        before: the last notice of the page before.
        unread: only those that have not been read.
    """
    rows = await db.fetch(
        """SELECT id, kind, text, data, created_at, read_at, mail_state FROM notices
           WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) AND NOT ($3 AND read_at IS NOT NULL)
           ORDER BY id DESC LIMIT $4""",
        account_id,
        before,
        unread,
        limit,
    )
    return [Notice(**row) for row in rows]


async def mark_read(db: Database, account_id: UUID, notice_ids: Sequence[UUID] | None = None) -> int:
    """Note that these notices of an account have been read, or all of them; returns how many were unread.

    Ids that are not the account's are passed over.
    """
    return await db.execute(
        """UPDATE notices SET read_at = now()
           WHERE account_id = $1 AND read_at IS NULL AND ($2::uuid[] IS NULL OR id = ANY ($2))""",
        account_id,
        notice_ids,
    )


# ------------------------------------------------------------------------------- mail


class DueMail(msgspec.Struct, frozen=True):
    """A notice that is to be sent as mail, and belongs to the caller until the time it claimed is over."""

    id: UUID
    account_id: UUID
    account_name: str
    address: str
    kind: str
    text: str
    created_at: datetime
    tries: int
    """This one included."""


# A try is counted before it is made, so that mail which ends its worker is not sent for ever.
_CLAIM = """
WITH due AS (
    SELECT id FROM notices WHERE mail_state = 'due' AND mail_due_at <= now()
    ORDER BY mail_due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE notices n SET
    mail_state = CASE WHEN a.email IS NULL THEN 'none' WHEN n.mail_tries >= $3 THEN 'failed' ELSE 'due' END,
    mail_tries = n.mail_tries + (a.email IS NOT NULL AND n.mail_tries < $3)::int,
    mail_due_at = now() + make_interval(secs => $2)
FROM due, accounts a
WHERE n.id = due.id AND a.id = n.account_id
RETURNING n.id, n.account_id, a.name AS account_name, a.email AS address, n.kind, n.text, n.created_at,
          n.mail_tries AS tries, n.mail_state
"""


async def claim_mail(
    db: Database, *, limit: int, lease_s: float, tries_max: int
) -> tuple[int, list[DueMail]]:
    """Claim notices that are due for `lease_s`: how many were looked at, and those that are to be sent.

    Accounts without an address get no mail, and what has been tried `tries_max` times is given up.
    """
    rows = [dict(row) for row in await db.fetch(_CLAIM, limit, lease_s, tries_max)]
    return len(rows), [DueMail(**row) for row in rows if row.pop("mail_state") == "due"]


async def end_mail(db: Database, mail: DueMail, state: MailState, *, again_in_s: float = 0.0) -> bool:
    """Note what became of a claimed try; `due` is tried again later. Whether it was still the caller's."""
    return (
        await db.execute(
            """UPDATE notices SET mail_state = $3, mail_due_at = now() + make_interval(secs => $4)
               WHERE id = $1 AND mail_state = 'due' AND mail_tries = $2""",
            mail.id,
            mail.tries,
            state,
            again_in_s,
        )
        == 1
    )


async def skip_mail(db: Database, *, limit: int) -> int:
    """Send no mail for notices that are due, so that a mail server that comes later tells nothing old."""
    return await db.execute(
        """UPDATE notices SET mail_state = 'none' WHERE id IN (
               SELECT id FROM notices WHERE mail_state = 'due' ORDER BY mail_due_at LIMIT $1
               FOR UPDATE SKIP LOCKED
           )""",
        limit,
    )
