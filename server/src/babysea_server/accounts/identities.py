"""Who users are at the operator's identity provider, and all SQL on it."""

from typing import Any
from uuid import UUID

from babysea_server.accounts import user_store
from babysea_server.accounts.user_store import User
from babysea_server.accounts.users import note_everywhere
from babysea_server.db.pool import Database


async def user_of(db: Database | Any, issuer: str, subject: str) -> User | None:
    """The user whom a subject of an issuer is linked to, or None."""
    user_id: UUID | None = await db.fetchval(
        "SELECT user_id FROM identities WHERE issuer = $1 AND subject = $2", issuer, subject
    )
    return None if user_id is None else await user_store.get(db, user_id)


async def link(connection: Any, issuer: str, subject: str, user: User) -> bool:
    """Link a subject to a user, in the caller's transaction; False when it is linked already, or the user is.

    A user has at most one identity at an issuer, so that nobody else there is let in beside them.
    """
    linked = bool(
        await connection.fetchval(
            """INSERT INTO identities (issuer, subject, user_id) VALUES ($1, $2, $3)
               ON CONFLICT DO NOTHING RETURNING true""",
            issuer,
            subject,
            user.id,
        )
    )
    if linked:
        told = f"{user.email} can sign in through {issuer}"
        await note_everywhere(connection, user, "auth.identity_linked", told)
    return linked


async def issuers_of(db: Database | Any, user_id: UUID) -> list[str]:
    """The issuers at which a user can sign in."""
    rows = await db.fetch("SELECT issuer FROM identities WHERE user_id = $1 ORDER BY issuer", user_id)
    return [row["issuer"] for row in rows]
