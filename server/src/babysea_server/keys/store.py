"""All SQL of API keys.

What takes a database takes a connection of it that is in a transaction, too.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7


class ApiKey(msgspec.Struct, frozen=True):
    """One key as stored: never the key itself.

    `state` is `active`, `rotated`, `expired` or `revoked` by the database's clock at the time of reading; a key whose
    grace after rotation is over is expired.
    """

    id: UUID
    account_id: UUID
    name: str
    prefix: str
    scopes: Sequence[str]
    allowlist: Sequence[str]
    state: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    grace_until: datetime | None
    """Until when it works after its rotation, unless it expires before."""
    replaced_by: UUID | None

    @property
    def ends_at(self) -> datetime | None:
        """When it stops working by itself: at its expiry or at the end of its grace; None is never."""
        return min((end for end in (self.expires_at, self.grace_until) if end is not None), default=None)


_COLUMNS = """k.id, k.account_id, k.name, k.prefix, k.scopes, k.allowlist,
    CASE WHEN k.state <> 'revoked' AND least(k.expires_at, k.grace_until) <= now() THEN 'expired' ELSE k.state::text
    END AS state, k.created_at, k.last_used_at, k.expires_at, k.grace_until, k.replaced_by"""
#: Keys that a caller may name: an account's own, or for the operator (no account) everybody's.
_ITS_OWN = "($2::uuid IS NULL OR k.account_id = $2)"


async def insert(
    db: Database | Any,
    *,
    account_id: UUID,
    name: str,
    prefix: str,
    hash: bytes,
    scopes: Sequence[str],
    allowlist: Sequence[str],
    expires_at: datetime | None,
) -> ApiKey | None:
    """Insert a key; None when there is no such account."""
    row = await db.fetchrow(
        f"""INSERT INTO api_keys AS k (id, account_id, name, prefix, hash, scopes, allowlist, expires_at)
            SELECT $1, a.id, $3, $4, $5, $6, $7, $8 FROM accounts a WHERE a.id = $2 FOR KEY SHARE
            RETURNING {_COLUMNS}""",
        uuid7(),
        account_id,
        name,
        prefix,
        hash,
        list(scopes),
        list(allowlist),
        expires_at,
    )
    return None if row is None else ApiKey(**row)


async def by_hash(db: Database, hash: bytes) -> Any:
    """The key with this hash and its account's plan (`plan` is None when the account is gone), or None."""
    return await db.fetchrow(
        f"""SELECT {_COLUMNS}, a.plan FROM api_keys k LEFT JOIN accounts a ON a.id = k.account_id
            WHERE k.hash = $1""",
        hash,
    )


async def get(db: Database | Any, key_id: UUID, account_id: UUID | None) -> ApiKey | None:
    """One key, or None when there is none or it is not the account's."""
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM api_keys k WHERE k.id = $1 AND {_ITS_OWN}", key_id, account_id
    )
    return None if row is None else ApiKey(**row)


async def with_prefix(db: Database, prefix: str, *, limit: int) -> Sequence[ApiKey]:
    """Keys of all accounts that begin with these nine characters, oldest first."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM api_keys k WHERE k.prefix = $1 ORDER BY k.created_at, k.id LIMIT $2",
        prefix,
        limit,
    )
    return [ApiKey(**row) for row in rows]


async def rotate(
    db: Database | Any, key_id: UUID, account_id: UUID | None, *, grace_hours: int, prefix: str, hash: bytes
) -> tuple[ApiKey, ApiKey] | None:
    """Replace an active key by one with this prefix and hash: both, the old one first, or None if it is not active.

    Two at once: the second waits for the first and finds the key rotated.
    """
    async with db.transaction() if isinstance(db, Database) else nullcontext(db) as connection:
        old = await connection.fetchrow(
            f"""UPDATE api_keys k
                SET state = 'rotated', grace_until = now() + make_interval(hours => $3), replaced_by = $4
                WHERE k.id = $1 AND {_ITS_OWN} AND k.state = 'active' AND (k.expires_at > now()) IS NOT FALSE
                RETURNING {_COLUMNS}""",
            key_id,
            account_id,
            grace_hours,
            uuid7(),
        )
        if old is None:
            return None
        new = await connection.fetchrow(
            f"""INSERT INTO api_keys AS k (id, account_id, name, prefix, hash, scopes, allowlist, expires_at)
                SELECT o.replaced_by, o.account_id, o.name, $2, $3, o.scopes, o.allowlist, o.expires_at
                FROM api_keys o WHERE o.id = $1
                RETURNING {_COLUMNS}""",
            key_id,
            prefix,
            hash,
        )
    return ApiKey(**old), ApiKey(**new)


async def revoke(db: Database | Any, key_id: UUID, account_id: UUID | None) -> ApiKey | None:
    """Revoke a key in any state; None when there is none or it is not the account's."""
    row = await db.fetchrow(
        f"UPDATE api_keys k SET state = 'revoked' WHERE k.id = $1 AND {_ITS_OWN} RETURNING {_COLUMNS}",
        key_id,
        account_id,
    )
    return None if row is None else ApiKey(**row)


async def delete(db: Database | Any, key_id: UUID, account_id: UUID | None) -> ApiKey | None:
    """Delete a key in any state and return what it was; None when there is none or it is not the account's."""
    row = await db.fetchrow(
        f"DELETE FROM api_keys k WHERE k.id = $1 AND {_ITS_OWN} RETURNING {_COLUMNS}", key_id, account_id
    )
    return None if row is None else ApiKey(**row)


async def of_account(
    db: Database, account_id: UUID | None, *, limit: int = 1000, offset: int = 0
) -> Sequence[ApiKey]:
    """Keys of one account, or of all, oldest first."""
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} FROM api_keys k WHERE $1::uuid IS NULL OR k.account_id = $1
            ORDER BY k.created_at, k.id LIMIT $2 OFFSET $3""",
        account_id,
        limit,
        offset,
    )
    return [ApiKey(**row) for row in rows]


async def search(
    db: Database,
    account_id: UUID,
    *,
    text: str,
    state: str | None,
    order_by: str,
    limit: int,
    offset: int,
) -> tuple[Sequence[ApiKey], int]:
    """Keys of an account whose name or prefix has the text in it, and how many there are.

    Args:
        state: as in `ApiKey`; None: all.
        order_by: an expression over the key as `k`, never a caller's own text.
    """
    rows = await db.fetch(
        f"""WITH k AS (
                SELECT * FROM (SELECT {_COLUMNS} FROM api_keys k WHERE k.account_id = $1) AS k
                WHERE ($2 = '' OR strpos(lower(k.name || ' ' || k.prefix), lower($2)) > 0)
                  AND ($3::text IS NULL OR k.state = $3)
            )
            SELECT k.*, (SELECT count(*) FROM k) AS total FROM k ORDER BY {order_by}, k.id LIMIT $4 OFFSET $5""",
        account_id,
        text,
        state,
        limit,
        offset,
    )
    keys = [ApiKey(**{name: row[name] for name in ApiKey.__struct_fields__}) for row in rows]
    return keys, rows[0]["total"] if rows else 0


async def replaced_until(db: Database, account_id: UUID, key_id: UUID) -> datetime | None:
    """Until when the key works that this one replaced; None: it replaced none."""
    until: datetime | None = await db.fetchval(
        """SELECT least(k.expires_at, k.grace_until) FROM api_keys k
           WHERE k.account_id = $1 AND k.replaced_by = $2""",
        account_id,
        key_id,
    )
    return until


async def touch(db: Database, used: Sequence[tuple[UUID, datetime]]) -> None:
    """Note when keys were last used; a newer note is never overwritten by an older one.

    Rows are locked in id order, so that processes noting the same keys never deadlock.
    """
    await db.execute(
        """WITH locked AS (SELECT id FROM api_keys WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE)
           UPDATE api_keys k SET last_used_at = u.at
           FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at) JOIN locked ON locked.id = u.id
           WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)""",
        [key_id for key_id, _ in used],
        [moment for _, moment in used],
    )
