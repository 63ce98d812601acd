"""What an account is called: its name, and its slug in addresses of the console."""

import re
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from babysea_server.accounts import activity, member_store
from babysea_server.accounts.activity import Actor
from babysea_server.accounts.users import check_user_name
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError

SLUG_MAX = 63
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9]){0,62}")


class SlugTakenError(Exception):
    """Another account of the region is called so."""


class Naming(msgspec.Struct, frozen=True):
    """What an account is called."""

    name: str
    slug: str


def check_slug(text: str) -> str:
    """A slug as it is kept.

    Raises:
        ValueError: it has other characters than a slug may have, or too many.
    """
    slug = text.strip().lower()
    if len(slug) > SLUG_MAX or not _SLUG.fullmatch(slug):
        raise ValueError(f"Use 1 to {SLUG_MAX} letters, digits and single hyphens, with none at either end.")
    return slug


async def rename(db: Database, account_id: UUID, *, name: str, slug: str, actor: Actor) -> Naming:
    """Call an account something else; returns what it is called now. API keys and generations do not change.

    Raises:
        ValueError: the name or the slug may not be one.
        SlugTakenError: another account has the slug.
        NotFoundError: no such account.
    """
    wanted = Naming(check_user_name(name), check_slug(slug))
    try:
        async with db.transaction() as connection:
            await _rename(connection, account_id, wanted, actor)
    except asyncpg.UniqueViolationError:
        raise SlugTakenError from None
    return wanted


async def _rename(connection: Any, account_id: UUID, wanted: Naming, actor: Actor) -> None:
    row = await connection.fetchrow(
        "SELECT name, slug FROM accounts WHERE id = $1 FOR NO KEY UPDATE", account_id
    )
    if row is None:
        raise NotFoundError(f"no account {account_id} in this region")
    if row["name"] != wanted.name:
        await connection.execute("UPDATE accounts SET name = $2 WHERE id = $1", account_id, wanted.name)
        told = f"“{row['name']}” is called “{wanted.name}” now"
        await activity.record(connection, account_id, actor, "account.renamed", told)
    if row["slug"] != wanted.slug:
        if not await member_store.set_slug(connection, account_id, wanted.slug):
            raise SlugTakenError
        told = f"Its addresses begin with “{wanted.slug}” now, not with “{row['slug']}”"
        await activity.record(connection, account_id, actor, "account.slug_changed", told)
