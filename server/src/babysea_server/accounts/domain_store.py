"""All SQL of custom domains."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7

#: Told at the commit of whatever changes which domains are active.
CHANNEL = "domains_changed"

_COLUMNS = "id, account_id, hostname, state, created_at, checked_at, verified_at"


class Domain(msgspec.Struct, frozen=True):
    """The custom domain of an account."""

    id: UUID
    account_id: UUID
    hostname: str
    state: Literal["pending", "active"]
    created_at: datetime
    checked_at: datetime | None
    """When its records were last looked at."""
    verified_at: datetime | None
    """When they were last right."""


class HostnameTakenError(Exception):
    """Another account has an active domain of this name."""


class DomainExistsError(Exception):
    """The account has a domain already."""


async def insert(connection: Any, account_id: UUID, hostname: str) -> Domain:
    """A pending domain.

    Raises:
        HostnameTakenError, DomainExistsError
    """
    if await connection.fetchval(
        "SELECT EXISTS (SELECT FROM custom_domains WHERE hostname = $1 AND state = 'active' AND account_id <> $2)",
        hostname,
        account_id,
    ):
        raise HostnameTakenError
    row = await connection.fetchrow(
        f"""INSERT INTO custom_domains (id, account_id, hostname) VALUES ($1, $2, $3)
            ON CONFLICT (account_id) DO NOTHING RETURNING {_COLUMNS}""",
        uuid7(),
        account_id,
        hostname,
    )
    if row is None:
        raise DomainExistsError
    return Domain(**row)


async def of_account(db: Database | Any, account_id: UUID) -> Domain | None:
    """The account's domain, or None."""
    row = await db.fetchrow(f"SELECT {_COLUMNS} FROM custom_domains WHERE account_id = $1", account_id)
    return None if row is None else Domain(**row)


async def page(db: Database, *, limit: int, offset: int = 0) -> Sequence[Domain]:
    """Domains of the region, oldest first."""
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM custom_domains ORDER BY created_at, id LIMIT $1 OFFSET $2", limit, offset
    )
    return [Domain(**row) for row in rows]


async def active(db: Database) -> Mapping[str, UUID]:
    """The account of each active domain by host name."""
    rows = await db.fetch("SELECT hostname, account_id FROM custom_domains WHERE state = 'active'")
    return {row["hostname"]: row["account_id"] for row in rows}


async def note_verified(connection: Any, domain_id: UUID) -> bool:
    """Its records are right: it is active from the commit on. Whether it was pending before.

    Raises:
        HostnameTakenError: another account was first.
    """
    try:
        before = await connection.fetchval(
            """UPDATE custom_domains d SET state = 'active', checked_at = now(), verified_at = now()
               FROM (SELECT id, state FROM custom_domains WHERE id = $1 FOR UPDATE) AS old
               WHERE d.id = old.id RETURNING old.state""",
            domain_id,
        )
    except asyncpg.UniqueViolationError:
        raise HostnameTakenError from None
    if before == "pending":
        await _announce(connection)
    return bool(before == "pending")


async def note_checked(db: Database | Any, domain_id: UUID) -> None:
    """Its records were looked at, and are not right or could not be seen."""
    await db.execute("UPDATE custom_domains SET checked_at = now() WHERE id = $1", domain_id)


async def note_lost(connection: Any, domain_id: UUID, *, after_s: float) -> bool:
    """Its records are gone: after so long it is pending again. Whether it became so now."""
    lost = await connection.fetchval(
        """UPDATE custom_domains SET state = 'pending'
           WHERE id = $1 AND state = 'active' AND verified_at <= now() - make_interval(secs => $2) RETURNING true""",
        domain_id,
        after_s,
    )
    if lost:
        await _announce(connection)
    return bool(lost)


async def delete(connection: Any, account_id: UUID) -> Domain | None:
    """Take the account's domain away; what it was, or None."""
    row = await connection.fetchrow(
        f"DELETE FROM custom_domains WHERE account_id = $1 RETURNING {_COLUMNS}", account_id
    )
    if row is None:
        return None
    await _announce(connection)
    return Domain(**row)


_CLAIM = f"""
UPDATE custom_domains SET checked_at = now() WHERE id IN (
    SELECT id FROM custom_domains
    WHERE (checked_at IS NULL
           OR checked_at <= now() - make_interval(secs => CASE state WHEN 'active' THEN $1::float8 ELSE $2 END))
      AND (state = 'active' OR greatest(created_at, verified_at) > now() - make_interval(secs => $3))
    ORDER BY checked_at NULLS FIRST LIMIT $4 FOR UPDATE SKIP LOCKED
) RETURNING {_COLUMNS}
"""


async def claim_due(
    db: Database, *, active_every_s: float, pending_every_s: float, pending_for_s: float, limit: int
) -> Sequence[Domain]:
    """Domains whose records are to be looked at again; nobody else gets them until their time has come once more."""
    rows = await db.fetch(_CLAIM, active_every_s, pending_every_s, pending_for_s, limit)
    return [Domain(**row) for row in rows]


async def _announce(connection: Any) -> None:
    await connection.execute("SELECT pg_notify($1, '')", CHANNEL)
