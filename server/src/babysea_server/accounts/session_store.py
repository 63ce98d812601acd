"""All SQL of sessions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.accounts.user_store import User
from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7


class Session(msgspec.Struct, frozen=True):
    """One signed-in browser."""

    id: UUID
    user_id: UUID
    awaits_totp: bool
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    user_agent: str
    address_hash: str
    flash: Any
    """What the next page tells once, or None."""


_COLUMNS = """s.id, s.user_id, s.awaits_totp, s.created_at, s.seen_at, s.expires_at, s.user_agent, s.address_hash,
    s.flash"""
_NAMES = tuple(Session.__struct_fields__)


async def insert(
    db: Database | Any,
    user_id: UUID,
    token_hash: bytes,
    *,
    awaits_totp: bool,
    lifetime_s: int,
    user_agent: str,
    address_hash: str,
    flash: Any = None,
) -> Session:
    """Keep a new session."""
    row = await db.fetchrow(
        f"""INSERT INTO sessions AS s
                (id, token_hash, user_id, awaits_totp, expires_at, user_agent, address_hash, flash)
            VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5), $6, $7, $8) RETURNING {_COLUMNS}""",
        uuid7(),
        token_hash,
        user_id,
        awaits_totp,
        lifetime_s,
        user_agent,
        address_hash,
        flash,
    )
    return Session(**row)


async def open_session(
    db: Database | Any, token_hash: bytes, *, idle_s: int, touch_s: int
) -> tuple[Session, User] | None:
    """The session behind a token with its user, or None; one that has been idle or is too old is none.

    Args:
        touch_s: that it was seen is noted when the last note is older.
    """
    row = await db.fetchrow(
        f"""SELECT {_COLUMNS}, u.email, u.name, u.password, u.password_changed_at, u.totp_secret, u.totp_pending,
                   u.totp_step, u.created_at AS user_created_at, u.signed_in_at,
                   s.seen_at < now() - make_interval(secs => $3) AS is_stale
            FROM sessions s JOIN users u ON u.id = s.user_id
            WHERE s.token_hash = $1 AND s.expires_at > now() AND s.seen_at > now() - make_interval(secs => $2)""",
        token_hash,
        idle_s,
        touch_s,
    )
    if row is None:
        return None
    fields = dict(row)
    if fields.pop("is_stale"):
        await db.execute("UPDATE sessions SET seen_at = now() WHERE id = $1", fields["id"])
    session = Session(**{name: fields.pop(name) for name in _NAMES})
    return session, User(id=session.user_id, created_at=fields.pop("user_created_at"), **fields)


async def of_user(db: Database | Any, user_id: UUID, *, idle_s: int) -> Sequence[Session]:
    """The sessions of a user that would be let in, last seen first."""
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} FROM sessions s
            WHERE s.user_id = $1 AND NOT s.awaits_totp AND s.expires_at > now()
              AND s.seen_at > now() - make_interval(secs => $2)
            ORDER BY s.seen_at DESC, s.id DESC LIMIT 100""",
        user_id,
        idle_s,
    )
    return [Session(**row) for row in rows]


async def end(db: Database | Any, session_id: UUID, user_id: UUID) -> bool:
    """End one session of a user; whether there was it."""
    return bool(
        await db.fetchval(
            "DELETE FROM sessions WHERE id = $1 AND user_id = $2 RETURNING true", session_id, user_id
        )
    )


async def end_all(db: Database | Any, user_id: UUID, *, but: UUID | None = None) -> None:
    """End every session of a user, perhaps but one."""
    await db.execute(
        "DELETE FROM sessions WHERE user_id = $1 AND ($2::uuid IS NULL OR id <> $2)", user_id, but
    )


async def remove_expired(db: Database | Any, *, idle_s: int, limit: int = 1000) -> None:
    """Delete sessions that nobody is let in with any more."""
    await db.execute(
        """DELETE FROM sessions WHERE id IN (
               SELECT id FROM sessions WHERE expires_at <= now() OR seen_at <= now() - make_interval(secs => $1)
               ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
           )""",
        idle_s,
        limit,
    )


async def set_flash(db: Database | Any, session_id: UUID, flash: Any) -> None:
    """Have the next page tell this, or nothing."""
    await db.execute("UPDATE sessions SET flash = $2 WHERE id = $1", session_id, flash)
