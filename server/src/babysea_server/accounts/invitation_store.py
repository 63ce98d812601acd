"""All SQL of invitations."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.accounts.roles import Role
from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7


class Invitation(msgspec.Struct, frozen=True):
    """An invitation into an account; never its link."""

    id: UUID
    account_id: UUID
    account_name: str
    account_slug: str
    email: str
    role: Role
    invited_by: UUID | None
    inviter: str | None
    """Name of who invited; None: the operator, or somebody who is gone."""
    created_at: datetime
    expires_at: datetime
    is_expired: bool


_COLUMNS = """i.id, i.account_id, a.name AS account_name, a.slug AS account_slug, i.email, i.role::text AS role,
    i.invited_by, u.name AS inviter, i.created_at, i.expires_at, i.expires_at <= now() AS is_expired"""
_FROM = "invitations i JOIN accounts a ON a.id = i.account_id LEFT JOIN users u ON u.id = i.invited_by"
_OPEN = "i.accepted_at IS NULL AND i.revoked_at IS NULL"


async def put(
    connection: Any,
    account_id: UUID,
    *,
    email: str,
    role: Role,
    token_hash: bytes,
    invited_by: UUID | None,
    days: int,
) -> UUID:
    """Keep an invitation; an open one to the same address gets this role and link, and begins anew."""
    invitation_id: UUID = await connection.fetchval(
        """INSERT INTO invitations (id, account_id, email, role, token_hash, invited_by, expires_at)
           VALUES ($1, $2, $3, $4::text::membership_role, $5, $6, now() + make_interval(days => $7))
           ON CONFLICT (account_id, lower(email)) WHERE accepted_at IS NULL AND revoked_at IS NULL
           DO UPDATE SET role = excluded.role, token_hash = excluded.token_hash, invited_by = excluded.invited_by,
                         created_at = now(), expires_at = excluded.expires_at
           RETURNING id""",
        uuid7(),
        account_id,
        email,
        role,
        token_hash,
        invited_by,
        days,
    )
    return invitation_id


async def get(db: Database | Any, account_id: UUID, invitation_id: UUID) -> Invitation | None:
    """One open invitation of an account, expired or not, or None."""
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE i.id = $2 AND i.account_id = $1 AND {_OPEN}",
        account_id,
        invitation_id,
    )
    return None if row is None else Invitation(**row)


async def open_of_account(db: Database | Any, account_id: UUID) -> Sequence[Invitation]:
    """The open invitations of an account, expired ones too, newest first."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE i.account_id = $1 AND {_OPEN} ORDER BY i.created_at DESC LIMIT 1000",
        account_id,
    )
    return [Invitation(**row) for row in rows]


async def by_token(db: Database | Any, token_hash: bytes) -> Invitation | None:
    """The open, unexpired invitation behind a link, or None."""
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM {_FROM} WHERE i.token_hash = $1 AND {_OPEN} AND i.expires_at > now()",
        token_hash,
    )
    return None if row is None else Invitation(**row)


async def accept(connection: Any, token_hash: bytes) -> UUID | None:
    """Use an invitation up; its id, or None when it is none any more. Of two at once one wins."""
    found: UUID | None = await connection.fetchval(
        f"UPDATE invitations i SET accepted_at = now() WHERE i.token_hash = $1 AND {_OPEN} AND i.expires_at > now() "
        "RETURNING i.id",
        token_hash,
    )
    return found


async def revoke(connection: Any, account_id: UUID, invitation_id: UUID) -> bool:
    """Make an open invitation useless; whether there was it."""
    return bool(
        await connection.fetchval(
            f"UPDATE invitations i SET revoked_at = now() WHERE i.id = $2 AND i.account_id = $1 AND {_OPEN} "
            "RETURNING true",
            account_id,
            invitation_id,
        )
    )
