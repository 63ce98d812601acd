"""Issuing keys."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from babysea_server.db.pool import Database
from babysea_server.keys import store
from babysea_server.keys.allowlist import check_allowlist
from babysea_server.keys.store import ApiKey

_RANDOM_BYTES = 30
PREFIX_LENGTH = 9
KEY_LENGTH = 44


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key; `secret` is the key itself and is never to be had again."""

    secret: str
    key: ApiKey


def hash_of(secret: str) -> bytes:
    """What is stored of a key: plain SHA-256.

    A key is 240 random bits, so nothing can be guessed from its hash; a slow password hash would buy nothing
    and would cost every request.
    """
    return hashlib.sha256(secret.encode("ascii", "replace")).digest()


async def issue(
    db: Database,
    *,
    account_id: UUID,
    name: str,
    scopes: Sequence[str],
    allowlist: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> IssuedKey:
    """Make a key for an account.

    Raises:
        ValueError: bad name or allowlist entry, unknown account.
    """
    if not 1 <= len(name) <= 100:
        raise ValueError("a key's name has 1 to 100 characters")
    secret = "bye_" + secrets.token_urlsafe(_RANDOM_BYTES)
    key = await store.insert(
        db,
        account_id=account_id,
        name=name,
        prefix=secret[:PREFIX_LENGTH],
        hash=hash_of(secret),
        scopes=scopes,
        allowlist=check_allowlist(allowlist),
        expires_at=expires_at,
    )
    if key is None:
        raise ValueError(f"no account {account_id} in this region")
    return IssuedKey(secret, key)
