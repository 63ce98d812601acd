"""All SQL of removing accounts and users."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from babysea_server.db.pool import Database


async def in_flight(db: Database | Any, account_id: UUID) -> int:
    """How many of an account's generations are in flight."""
    found: int = await db.fetchval(
        "SELECT count(*) FROM generations WHERE account_id = $1 AND status IN ('pending', 'processing')",
        account_id,
    )
    return found


async def has_subscription(db: Database | Any, account_id: UUID) -> bool:
    """Whether the payment service would go on charging for an account."""
    found: bool = await db.fetchval(
        """SELECT EXISTS (
               SELECT FROM billing_customers WHERE account_id = $1 AND subscription_id IS NOT NULL
                 AND coalesce(subscription_status, 'active') NOT IN ('canceled', 'incomplete_expired')
           )""",
        account_id,
    )
    return found


async def remove_generations(db: Database | Any, account_id: UUID, *, limit: int) -> int:
    """Remove final generations with their attempts, and have their files deleted; returns how many there were."""
    found: int = await db.fetchval(
        """SELECT count(*) FROM remove_generations_v1(ARRAY[$1::uuid], ARRAY(
               SELECT id FROM generations
               WHERE account_id = $1 AND status IN ('succeeded', 'failed', 'canceled') ORDER BY id LIMIT $2
           ), true)""",
        account_id,
        limit,
    )
    return found


async def remove_deliveries(db: Database | Any, account_id: UUID, *, limit: int) -> int:
    """Remove deliveries of webhooks with their attempts; returns how many there were."""
    found: int = await db.fetchval(
        """WITH removed AS (
               DELETE FROM webhook_deliveries WHERE id IN (
                   SELECT d.id FROM webhook_endpoints e JOIN webhook_deliveries d ON d.endpoint_id = e.id
                   WHERE e.account_id = $1 LIMIT $2
               ) RETURNING 1
           ) SELECT count(*) FROM removed""",
        account_id,
        limit,
    )
    return found


async def remove_idempotency_keys(db: Database | Any, account_id: UUID, *, limit: int) -> int:
    """Forget requests that could be repeated; returns how many there were."""
    found: int = await db.fetchval(
        """WITH removed AS (
               DELETE FROM idempotency_keys WHERE (account_id, key) IN (
                   SELECT account_id, key FROM idempotency_keys WHERE account_id = $1 LIMIT $2
               ) RETURNING 1
           ) SELECT count(*) FROM removed""",
        account_id,
        limit,
    )
    return found


async def remove_account(connection: Any, account_id: UUID) -> None:
    """Delete the account with its members, invitations, endpoints, notices and picture."""
    await connection.execute("DELETE FROM accounts WHERE id = $1", account_id)


async def lock_accounts(connection: Any, account_ids: Sequence[UUID]) -> None:
    """Nobody else changes these accounts before the end of the transaction."""
    await connection.execute(
        "SELECT FROM accounts WHERE id = ANY ($1) ORDER BY id FOR UPDATE", list(account_ids)
    )


async def lock_user(connection: Any, user_id: UUID) -> bool:
    """Whether there is the user; nobody else changes it, or makes it a member, before the end of the transaction."""
    found = await connection.fetchval("SELECT true FROM users WHERE id = $1 FOR UPDATE", user_id)
    return found is not None


async def remove_user(connection: Any, user_id: UUID) -> None:
    """Delete a user with sessions, links, codes, identities and memberships."""
    await connection.execute("DELETE FROM users WHERE id = $1", user_id)


async def all_memberships(connection: Any, user_id: UUID) -> Sequence[Any]:
    """Every account that a user is in, in the order of ids: `account_id`, `name`, `is_personal`, `role`."""
    found: Sequence[Any] = await connection.fetch(
        """SELECT m.account_id, a.name, a.is_personal, m.role::text AS role
           FROM memberships m JOIN accounts a ON a.id = m.account_id WHERE m.user_id = $1 ORDER BY m.account_id""",
        user_id,
    )
    return found
