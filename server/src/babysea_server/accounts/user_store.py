"""All SQL of users: who they are and what they sign in with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7

#: Kinds of one-time links, by the table they are kept in.
LinkKind = Literal["password_resets", "sign_in_links"]


@dataclass(frozen=True, slots=True)
class User:
    """One user of a region."""

    id: UUID
    email: str
    name: str
    password: str | None = field(repr=False)
    """Its hash; None: there is none yet."""
    password_changed_at: datetime | None
    totp_secret: bytes | None = field(repr=False)
    """Sealed."""
    totp_pending: bytes | None = field(repr=False)
    """Sealed; shown, and not yet confirmed."""
    totp_step: int
    created_at: datetime
    signed_in_at: datetime | None


COLUMNS = """u.id, u.email, u.name, u.password, u.password_changed_at, u.totp_secret, u.totp_pending, u.totp_step,
    u.created_at, u.signed_in_at"""


async def insert(
    db: Database | Any, *, email: str, name: str, password: str | None, user_id: UUID | None = None
) -> User | None:
    """Insert a user; None when the address is taken.

    Args:
        db: a database, or a connection of it that is in a transaction.
        password: its hash.
    """
    row = await db.fetchrow(
        f"""INSERT INTO users AS u (id, email, name, password, password_changed_at)
            VALUES ($1, $2, $3, $4, CASE WHEN $4::text IS NOT NULL THEN now() END)
            ON CONFLICT (lower(email)) DO NOTHING RETURNING {COLUMNS}""",
        user_id or uuid7(),
        email,
        name,
        password,
    )
    return None if row is None else User(**row)


async def get(db: Database | Any, user_id: UUID) -> User | None:
    """One user, or None."""
    row = await db.fetchrow(f"SELECT {COLUMNS} FROM users u WHERE u.id = $1", user_id)
    return None if row is None else User(**row)


async def by_email(db: Database | Any, email: str) -> User | None:
    """The user with this address, whatever its case, or None."""
    row = await db.fetchrow(f"SELECT {COLUMNS} FROM users u WHERE lower(u.email) = lower($1)", email)
    return None if row is None else User(**row)


async def page(db: Database, *, limit: int, offset: int = 0) -> Sequence[User]:
    """Users, oldest first."""
    rows = await db.fetch(
        f"SELECT {COLUMNS} FROM users u ORDER BY u.created_at, u.id LIMIT $1 OFFSET $2", limit, offset
    )
    return [User(**row) for row in rows]


async def exists(db: Database | Any) -> bool:
    """Whether there is a user at all."""
    found: bool = await db.fetchval("SELECT EXISTS (SELECT FROM users)")
    return found


async def any_user(connection: Any) -> bool:
    """Whether there is a user at all; nobody else adds the first one before the end of the transaction."""
    await connection.execute("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")
    return await exists(connection)


async def set_password(db: Database | Any, user_id: UUID, password: str) -> None:
    """Note another password's hash."""
    await db.execute(
        "UPDATE users SET password = $2, password_changed_at = now() WHERE id = $1", user_id, password
    )


async def set_profile(db: Database | Any, user_id: UUID, *, name: str, email: str) -> bool:
    """Note name and address; False when another user has the address."""
    return bool(
        await db.fetchval(
            """UPDATE users u SET name = $2, email = $3 WHERE u.id = $1 AND NOT EXISTS (
                   SELECT FROM users o WHERE lower(o.email) = lower($3) AND o.id <> $1
               ) RETURNING true""",
            user_id,
            name,
            email,
        )
    )


async def note_signed_in(db: Database | Any, user_id: UUID) -> None:
    """Note that the user has just signed in."""
    await db.execute("UPDATE users SET signed_in_at = now() WHERE id = $1", user_id)


async def delete(db: Database | Any, user_id: UUID) -> None:
    """Delete a user with sessions, memberships and codes."""
    await db.execute("DELETE FROM users WHERE id = $1", user_id)


# ------------------------------------------------------------------------------- one-time links


async def add_link(
    db: Database | Any, kind: LinkKind, user_id: UUID, token_hash: bytes, *, hours: int
) -> None:
    """Keep a link that works once, for so long. Links of the same kind that the user had are dead."""
    await db.execute(
        f"""WITH dead AS (DELETE FROM {kind} WHERE user_id = $1)
            INSERT INTO {kind} (token_hash, user_id, expires_at)
            VALUES ($2, $1, now() + make_interval(hours => $3))""",
        user_id,
        token_hash,
        hours,
    )


async def link_user(db: Database | Any, kind: LinkKind, token_hash: bytes) -> User | None:
    """Whom an unused, unexpired link is for; uses nothing up."""
    row = await db.fetchrow(
        f"""SELECT {COLUMNS} FROM {kind} l JOIN users u ON u.id = l.user_id
            WHERE l.token_hash = $1 AND l.used_at IS NULL AND l.expires_at > now()""",
        token_hash,
    )
    return None if row is None else User(**row)


async def use_link(connection: Any, kind: LinkKind, token_hash: bytes) -> UUID | None:
    """Use a link up; whose it was, or None when it is used, expired or unknown. Of two at once one wins."""
    found: UUID | None = await connection.fetchval(
        f"""UPDATE {kind} SET used_at = now()
            WHERE token_hash = $1 AND used_at IS NULL AND expires_at > now() RETURNING user_id""",
        token_hash,
    )
    return found


async def end_links(connection: Any, user_id: UUID) -> None:
    """Make every link of a user's useless."""
    await connection.execute("DELETE FROM password_resets WHERE user_id = $1", user_id)
    await connection.execute("DELETE FROM sign_in_links WHERE user_id = $1", user_id)


# ------------------------------------------------------------------------------- the second step


async def set_totp_pending(db: Database | Any, user_id: UUID, sealed: bytes | None) -> None:
    """Keep a secret that is shown and not yet confirmed."""
    await db.execute("UPDATE users SET totp_pending = $2 WHERE id = $1", user_id, sealed)


async def confirm_totp(connection: Any, user_id: UUID, step: int, code_hashes: Sequence[bytes]) -> None:
    """Make the pending secret the one in use, with these recovery codes and no others."""
    await connection.execute(
        """UPDATE users SET totp_secret = totp_pending, totp_pending = NULL, totp_step = $2
           WHERE id = $1 AND totp_pending IS NOT NULL""",
        user_id,
        step,
    )
    await replace_recovery_codes(connection, user_id, code_hashes)


async def remove_totp(connection: Any, user_id: UUID) -> None:
    """Have no second step any more."""
    await connection.execute(
        "UPDATE users SET totp_secret = NULL, totp_pending = NULL, totp_step = 0 WHERE id = $1", user_id
    )
    await replace_recovery_codes(connection, user_id, [])


async def totp_sealed_otherwise(
    connection: Any, head: bytes, after: UUID, *, limit: int
) -> Sequence[tuple[UUID, bytes]]:
    """Users with a secret in use that does not begin with `head`, by id from `after` on; they are locked."""
    rows = await connection.fetch(
        """SELECT id, totp_secret FROM users
           WHERE id > $2 AND totp_secret IS NOT NULL AND substr(totp_secret, 1, length($1::bytea)) <> $1::bytea
           ORDER BY id LIMIT $3 FOR NO KEY UPDATE""",
        head,
        after,
        limit,
    )
    return [(row["id"], row["totp_secret"]) for row in rows]


async def set_sealed_totp(connection: Any, user_id: UUID, sealed: bytes) -> None:
    """Keep the same secret, sealed otherwise."""
    await connection.execute("UPDATE users SET totp_secret = $2 WHERE id = $1", user_id, sealed)


async def take_totp_step(db: Database | Any, user_id: UUID, step: int) -> bool:
    """Note the step of time that opened; False when it, or a later one, has opened already."""
    return bool(
        await db.fetchval(
            "UPDATE users SET totp_step = $2 WHERE id = $1 AND totp_step < $2 RETURNING true", user_id, step
        )
    )


async def replace_recovery_codes(connection: Any, user_id: UUID, code_hashes: Sequence[bytes]) -> None:
    """Keep these recovery codes and no others."""
    await connection.execute("DELETE FROM recovery_codes WHERE user_id = $1", user_id)
    await connection.execute(
        "INSERT INTO recovery_codes (user_id, code_hash) SELECT $1, unnest($2::bytea[])",
        user_id,
        list(code_hashes),
    )


async def use_recovery_code(db: Database | Any, user_id: UUID, code_hash: bytes) -> bool:
    """Use a recovery code up; whether it was one that had not been used."""
    return bool(
        await db.fetchval(
            """UPDATE recovery_codes SET used_at = now()
               WHERE user_id = $1 AND code_hash = $2 AND used_at IS NULL RETURNING true""",
            user_id,
            code_hash,
        )
    )


async def recovery_codes_left(db: Database | Any, user_id: UUID) -> int:
    """How many recovery codes have not been used."""
    left: int = await db.fetchval(
        "SELECT count(*) FROM recovery_codes WHERE user_id = $1 AND used_at IS NULL", user_id
    )
    return left
