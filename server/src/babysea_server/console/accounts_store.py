"""SQL on accounts that only the console asks."""

from typing import Any
from uuid import UUID

from babysea_server.db.pool import Database


async def picture(db: Database, account_id: UUID) -> tuple[str, bytes] | None:
    """Content type and content of an account's picture, or None."""
    row = await db.fetchrow(
        "SELECT content_type, content FROM account_pictures WHERE account_id = $1", account_id
    )
    return None if row is None else (row["content_type"], row["content"])


async def slug(db: Database | Any, account_id: UUID) -> str:
    """What an account is called in addresses."""
    found: str = await db.fetchval("SELECT slug FROM accounts WHERE id = $1", account_id)
    return found
