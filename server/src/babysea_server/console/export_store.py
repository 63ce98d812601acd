"""All SQL of the data that a user takes along. Rows come as plain values, in the order of their ids."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from babysea_server.db.pool import Database


async def memberships(db: Database, user_id: UUID) -> Sequence[Any]:
    """The accounts of a user."""
    return await db.fetch(
        """SELECT a.id AS account_id, a.name, a.slug, a.is_personal, m.role::text AS role, m.created_at AS joined_at
           FROM memberships m JOIN accounts a ON a.id = m.account_id WHERE m.user_id = $1 ORDER BY a.id""",
        user_id,
    )


async def sessions(db: Database, user_id: UUID) -> Sequence[Any]:
    """Where a user is signed in; never by which token."""
    return await db.fetch(
        """SELECT id, created_at, seen_at, expires_at, user_agent, address_hash FROM sessions
           WHERE user_id = $1 ORDER BY id""",
        user_id,
    )


async def identities(db: Database, user_id: UUID) -> Sequence[Any]:
    """Who a user is at identity providers."""
    return await db.fetch(
        "SELECT issuer, subject, created_at FROM identities WHERE user_id = $1 ORDER BY issuer", user_id
    )


async def activity(db: Database, account_id: UUID, user_id: UUID, *, after: int, limit: int) -> Sequence[Any]:
    """What a user did in an account."""
    return await db.fetch(
        """SELECT id, account_id, action, description, created_at FROM activity
           WHERE account_id = $1 AND actor_id = $2 AND id > $3 ORDER BY id LIMIT $4""",
        account_id,
        user_id,
        after,
        limit,
    )


async def account(db: Database, account_id: UUID) -> Any:
    """One account."""
    return await db.fetchrow(
        """SELECT id, name, slug, email, is_personal, plan, credit_balance AS credit_balance_micro, created_at
           FROM accounts WHERE id = $1""",
        account_id,
    )


async def keys(db: Database, account_id: UUID, *, after: UUID, limit: int) -> Sequence[Any]:
    """Keys of an account, without anything that opens."""
    return await db.fetch(
        """SELECT id, name, prefix, scopes, allowlist, state::text AS state, created_at, last_used_at, expires_at,
                  grace_until, replaced_by
           FROM api_keys WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3""",
        account_id,
        after,
        limit,
    )


async def generations(db: Database, account_id: UUID, *, after: UUID, limit: int) -> Sequence[Any]:
    """Generations of an account; files are named by their kind and size, not linked."""
    return await db.fetch(
        """SELECT id, model, media::text AS media, inputs, status::text AS status, provider_used, outputs, error_code,
                  error_message, reserved AS reserved_micro, charged AS charged_micro, refunded AS refunded_micro,
                  apikey_id, created_at, started_at, completed_at, files_removed_at
           FROM generations WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3""",
        account_id,
        after,
        limit,
    )


async def ledger(db: Database, account_id: UUID, *, after: int, limit: int) -> Sequence[Any]:
    """The ledger of an account. Amounts are in micro-credits."""
    return await db.fetch(
        """SELECT id, generation_id, kind::text AS kind, amount AS amount_micro, balance_after AS balance_after_micro,
                  description, created_at
           FROM ledger WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3""",
        account_id,
        after,
        limit,
    )
