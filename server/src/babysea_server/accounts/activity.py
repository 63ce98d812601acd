"""Activity: what was done in an account and by whom, for ever. All SQL on it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database

#: The part of an action before its dot.
CATEGORIES = (
    "account",
    "api_key",
    "auth",
    "billing",
    "credit",
    "credit_alert",
    "domain",
    "generation",
    "invitation",
    "membership",
    "notification",
    "order",
    "subscription",
    "webhook",
)
DESCRIPTION_MAX = 500


class Actor(msgspec.Struct, frozen=True):
    """Who did something."""

    kind: Literal["user", "key", "operator", "system"]
    name: str
    """For people: a user's name or address, a key's name."""
    id: UUID | None = None
    """Of a user or a key."""


OPERATOR = Actor("operator", "Operator")
SYSTEM = Actor("system", "BabySea")


class Entry(msgspec.Struct, frozen=True):
    """One entry, as it was written."""

    id: int
    actor: str
    actor_id: UUID | None
    actor_name: str
    action: str
    description: str
    created_at: datetime


async def record(
    connection: Database | Any, account_id: UUID, actor: Actor, action: str, description: str
) -> None:
    """Note what was done, in the transaction that does it wherever there is one.

    Args:
        action: `category.verb`, e.g. `api_key.created`; the category is one of `CATEGORIES`.
        description: one sentence for people, without secrets; what is longer than 500 characters is cut.

    Raises:
        ValueError: there is no such category.
    """
    if action.partition(".")[0] not in CATEGORIES:
        raise ValueError(f"activity has no category for {action!r}")
    await connection.execute(
        """INSERT INTO activity (account_id, actor, actor_id, actor_name, action, description)
           VALUES ($1, $2, $3, $4, $5, $6)""",
        account_id,
        actor.kind,
        actor.id,
        actor.name[:320] or "?",
        action,
        description[:DESCRIPTION_MAX],
    )


async def page(
    db: Database | Any,
    account_id: UUID,
    *,
    limit: int,
    before: int | None = None,
    category: str | None = None,
    search: str = "",
) -> Sequence[Entry]:
    """Entries of an account, newest first.

    Args:
        before: the last entry of the page before.
        search: a part of the description, the actor's name or the action, whatever the case.
    """
    rows = await db.fetch(
        """SELECT id, actor, actor_id, actor_name, action, description, created_at FROM activity
           WHERE account_id = $1 AND ($2::bigint IS NULL OR id < $2)
             AND ($3::text IS NULL OR split_part(action, '.', 1) = $3)
             AND ($4 = '' OR strpos(lower(concat_ws(' ', description, actor_name, action)), lower($4)) > 0)
           ORDER BY id DESC LIMIT $5""",
        account_id,
        before,
        category,
        search,
        limit,
    )
    return [Entry(**row) for row in rows]
