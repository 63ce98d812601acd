"""Removing an account, and removing a user: what goes, what stays, and what stands in the way.

Gone are generations with their files, webhook endpoints with what they were sent, members, invitations, notices,
alerts, the picture and the custom domain. What stays says who spent what: the ledger, activity, usage, and what is
stored of keys, so that their callers are told that the account is gone. The request log goes by its age.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from babysea_server.accounts import activity, member_store
from babysea_server.accounts import removal_store as store
from babysea_server.accounts.activity import Actor
from babysea_server.accounts.user_store import User
from babysea_server.accounts.users import actor_of
from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.kit.faults import NotFoundError

_BATCH = 500
#: A request must be answered; what is left after that is removed by the next.
_AT_MOST_S = 15.0


class RemovalRefusedError(Exception):
    """Something must happen before; the message says what, for people."""


async def check_removable(db: Database | Any, account_id: UUID) -> None:
    """Whether nothing stands in the way of removing an account.

    Raises:
        RemovalRefusedError
    """
    if await store.has_subscription(db, account_id):
        raise RemovalRefusedError("It has a subscription. Cancel that under Billing first.")
    running = await store.in_flight(db, account_id)
    if running:
        raise RemovalRefusedError(
            f"{running} generation{' is' if running == 1 else 's are'} in flight. Cancel them, or wait until they end."
        )


async def remove_account(db: Database, clock: Clock, account_id: UUID, *, actor: Actor) -> bool:
    """Remove an account; False when there was more of it than could be removed in so long: ask again.

    Raises:
        RemovalRefusedError: see `check_removable`.
        NotFoundError: no such account.
    """
    await check_removable(db, account_id)
    if not await _empty(db, clock, [account_id]):
        return False
    async with db.transaction() as connection:
        await _remove(connection, account_id, actor)
    return True


async def blocking_teams(db: Database | Any, user_id: UUID) -> Sequence[str]:
    """Names of the team accounts that a user is the primary owner of: they need another one first."""
    return [row["name"] for row in await store.all_memberships(db, user_id) if _is_owned_team(row)]


async def remove_user(db: Database, clock: Clock, user: User) -> bool:
    """Remove a user and their personal account; False when there is more left to be removed: ask again.

    Raises:
        RemovalRefusedError: the user is the primary owner of a team account, or see `check_removable`.
        NotFoundError: no such user.
    """
    rows = await store.all_memberships(db, user.id)
    own = _own_accounts(rows)
    for account_id in own:
        await check_removable(db, account_id)
    if not await _empty(db, clock, own):
        return False
    async with db.transaction() as connection:
        # Accounts before users, as whoever joins or transfers an account takes them.
        await store.lock_accounts(connection, [row["account_id"] for row in rows])
        if not await store.lock_user(connection, user.id):
            raise NotFoundError("There is no such user.")
        now = await store.all_memberships(connection, user.id)
        if [tuple(row) for row in now] != [tuple(row) for row in rows]:
            raise RemovalRefusedError("Your accounts have changed in this moment. Try again.")
        for row in rows:
            if row["account_id"] in own:
                await _remove(connection, row["account_id"], actor_of(user))
            else:
                left = f"{user.email} deleted their user and left"
                await activity.record(connection, row["account_id"], actor_of(user), "membership.left", left)
        await store.remove_user(connection, user.id)
    return True


def _own_accounts(rows: Sequence[Any]) -> Sequence[UUID]:
    teams = [row["name"] for row in rows if _is_owned_team(row)]
    if teams:
        named = ", ".join(f"“{name}”" for name in teams)
        raise RemovalRefusedError(f"You are the primary owner of {named}. Transfer or delete that first.")
    return [row["account_id"] for row in rows if row["role"] == "primary-owner"]


def _is_owned_team(row: Any) -> bool:
    return row["role"] == "primary-owner" and not row["is_personal"]


async def _empty(db: Database, clock: Clock, account_ids: Sequence[UUID]) -> bool:
    """Remove in small steps what may be much; whether all of it is gone."""
    ends_at = clock.monotonic() + _AT_MOST_S
    steps: tuple[Callable[..., Awaitable[int]], ...] = (
        store.remove_generations,
        store.remove_deliveries,
        store.remove_idempotency_keys,
    )
    for account_id in account_ids:
        for step in steps:
            while await step(db, account_id, limit=_BATCH) == _BATCH:
                if clock.monotonic() > ends_at:
                    return False
    return True


async def _remove(connection: Any, account_id: UUID, actor: Actor) -> None:
    if not await member_store.lock(connection, account_id):
        raise NotFoundError(f"no account {account_id} in this region")
    await check_removable(connection, account_id)  # nothing is admitted any more while the lock is held
    while await store.remove_generations(connection, account_id, limit=_BATCH) == _BATCH:
        pass
    name = await connection.fetchval("SELECT name FROM accounts WHERE id = $1", account_id)
    await activity.record(
        connection, account_id, actor, "account.deleted", f"The account “{name}” was deleted"
    )
    await store.remove_account(connection, account_id)
