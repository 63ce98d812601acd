"""All SQL of memberships, and of accounts as people see them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.accounts.roles import Role
from babysea_server.db.pool import Database


class Membership(msgspec.Struct, frozen=True):
    """An account that a user is in. `credit_balance` is in micro-credits."""

    account_id: UUID
    slug: str
    name: str
    email: str | None
    is_personal: bool
    has_picture: bool
    plan: str
    credit_balance: int
    created_at: datetime
    role: Role
    unread_notices: int


class Member(msgspec.Struct, frozen=True):
    """A user in an account."""

    user_id: UUID
    name: str
    email: str
    role: Role
    joined_at: datetime
    signed_in_at: datetime | None
    has_totp: bool


_MEMBERSHIP = """SELECT a.id AS account_id, a.slug, a.name, a.email, a.is_personal, a.plan, a.credit_balance,
           a.created_at, m.role::text AS role,
           EXISTS (SELECT FROM account_pictures p WHERE p.account_id = a.id) AS has_picture,
           (SELECT count(*) FROM (
               SELECT FROM notices n WHERE n.account_id = a.id AND n.read_at IS NULL LIMIT 100
           ) AS unread) AS unread_notices
    FROM memberships m JOIN accounts a ON a.id = m.account_id"""
_MEMBER = """SELECT u.id AS user_id, u.name, u.email, m.role::text AS role, m.created_at AS joined_at, u.signed_in_at,
           u.totp_secret IS NOT NULL AS has_totp
    FROM memberships m JOIN users u ON u.id = m.user_id"""
#: Accounts that are shown to choose from.
CHOICE_MAX = 100


async def of_user(db: Database | Any, user_id: UUID) -> Sequence[Membership]:
    """The accounts of a user: the personal one first, then by name."""
    rows = await db.fetch(
        f"{_MEMBERSHIP} WHERE m.user_id = $1 ORDER BY a.is_personal DESC, lower(a.name), a.id LIMIT {CHOICE_MAX}",
        user_id,
    )
    return [Membership(**row) for row in rows]


async def in_account(db: Database | Any, user_id: UUID, slug: str) -> Membership | None:
    """A user's membership in the account of this name, or None when there is none, or no such account."""
    row = await db.fetchrow(f"{_MEMBERSHIP} WHERE m.user_id = $1 AND a.slug = $2", user_id, slug)
    return None if row is None else Membership(**row)


async def of_account(db: Database | Any, account_id: UUID) -> Sequence[Member]:
    """The members of an account, strongest role first, then by name."""
    rows = await db.fetch(
        f"{_MEMBER} WHERE m.account_id = $1 ORDER BY m.role, lower(u.name), u.id", account_id
    )
    return [Member(**row) for row in rows]


async def lock(connection: Any, account_id: UUID) -> bool:
    """Whether there is the account; nobody else changes who is in it before the end of the transaction."""
    found = await connection.fetchval("SELECT true FROM accounts WHERE id = $1 FOR NO KEY UPDATE", account_id)
    return found is not None


async def get(connection: Any, account_id: UUID, user_id: UUID) -> Member | None:
    """One member of an account, or None."""
    row = await connection.fetchrow(
        f"{_MEMBER} WHERE m.account_id = $1 AND m.user_id = $2", account_id, user_id
    )
    return None if row is None else Member(**row)


async def add(connection: Any, account_id: UUID, user_id: UUID, role: Role) -> bool:
    """Make a user a member; False when it is one already."""
    return bool(
        await connection.fetchval(
            """INSERT INTO memberships (account_id, user_id, role) VALUES ($1, $2, $3::text::membership_role)
               ON CONFLICT DO NOTHING RETURNING true""",
            account_id,
            user_id,
            role,
        )
    )


async def set_role(connection: Any, account_id: UUID, user_id: UUID, role: Role) -> None:
    """Give a member another role."""
    await connection.execute(
        "UPDATE memberships SET role = $3::text::membership_role WHERE account_id = $1 AND user_id = $2",
        account_id,
        user_id,
        role,
    )


async def remove(connection: Any, account_id: UUID, user_id: UUID) -> None:
    """Remove a member."""
    await connection.execute(
        "DELETE FROM memberships WHERE account_id = $1 AND user_id = $2", account_id, user_id
    )


async def set_slug(connection: Any, account_id: UUID, slug: str) -> bool:
    """Name an account in addresses; False when another has the name.

    Raises:
        asyncpg.UniqueViolationError: somebody took it in this moment.
    """
    return bool(
        await connection.fetchval(
            """UPDATE accounts SET slug = $2
               WHERE id = $1 AND NOT EXISTS (SELECT FROM accounts o WHERE o.slug = $2 AND o.id <> $1)
               RETURNING true""",
            account_id,
            slug,
        )
    )


async def plain_slug(connection: Any, account_id: UUID) -> None:
    """Name an account in addresses by its name alone, where nobody else is called so."""
    await connection.execute(
        """UPDATE accounts a SET slug = slug_of_v1(a.name)
           WHERE a.id = $1 AND pg_try_advisory_xact_lock(hashtext('accounts.slug'))
             AND NOT EXISTS (SELECT FROM accounts o WHERE o.slug = slug_of_v1(a.name))""",
        account_id,
    )


async def owned_teams(connection: Any, user_id: UUID) -> int:
    """How many team accounts a user is the primary owner of."""
    found: int = await connection.fetchval(
        """SELECT count(*) FROM memberships m JOIN accounts a ON a.id = m.account_id
           WHERE m.user_id = $1 AND m.role = 'primary-owner' AND NOT a.is_personal""",
        user_id,
    )
    return found


async def set_personal(connection: Any, account_id: UUID, *, is_personal: bool, email: str | None) -> None:
    """Note whose an account is: one person's, or a team's."""
    await connection.execute(
        "UPDATE accounts SET is_personal = $2, email = coalesce(email, $3) WHERE id = $1",
        account_id,
        is_personal,
        email,
    )


async def hand_over(connection: Any, account_id: UUID, from_email: str, to_email: str) -> None:
    """Note that an account is a team's, and that mail to the one address goes to the other."""
    await connection.execute(
        """UPDATE accounts SET is_personal = false,
                  email = CASE WHEN lower(email) = lower($2) THEN $3 ELSE email END
           WHERE id = $1""",
        account_id,
        from_email,
        to_email,
    )
