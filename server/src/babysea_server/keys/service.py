"""The life of keys: issued, rotated, revoked, deleted.

Where a function takes `account_id`, only that account's keys are found; None stands for the operator, who may
name any. What takes a database takes a connection of it that is in a transaction, too.
"""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database
from babysea_server.keys import store
from babysea_server.keys.allowlist import check_allowlist
from babysea_server.keys.scopes import resolve_scopes
from babysea_server.keys.store import ApiKey
from babysea_server.kit.clock import rfc3339
from babysea_server.kit.faults import NotFoundError

_RANDOM_BYTES = 30
PREFIX_LENGTH = 9
KEY_LENGTH = 44

#: How long a key may go on working after its rotation, in hours. Source: contract, section 2.
GRACE_HOURS = (1, 6, 12, 24, 48, 72, 168)
DEFAULT_GRACE_HOURS = 24

_AMBIGUOUS_MAX = 10


class KeyStateError(Exception):
    """The key is not in a state in which this can be done; the message says in which it is."""


class AmbiguousPrefixError(LookupError):
    """Several keys begin with these characters; the message lists their ids."""


class IssuedKey(msgspec.Struct, frozen=True):
    """A new key; `secret` is the key itself and is never to be had again."""

    secret: str
    key: ApiKey


class Rotation(msgspec.Struct, frozen=True):
    """A key and its replacement."""

    old: ApiKey
    new: IssuedKey


def hash_of(secret: str) -> bytes:
    """What is stored of a key: plain SHA-256.

    A key is 240 random bits, so nothing can be guessed from its hash; a slow password hash would buy nothing
    and would cost every request.
    """
    return hashlib.sha256(secret.encode("ascii", "replace")).digest()


def check_name(name: str) -> None:
    """What a key may be called.

    Raises:
        ValueError: not 1 to 100 characters.
    """
    if not 1 <= len(name) <= 100:
        raise ValueError("a key's name has 1 to 100 characters")


def check_expiry(expires_at: datetime | None, now: datetime) -> None:
    """When a new key may expire.

    Raises:
        ValueError: not later than now.
    """
    if expires_at is not None and expires_at <= now:
        raise ValueError(f"the key would have expired at {rfc3339(expires_at)} already")


def check_grace(hours: int) -> None:
    """How long a rotated key may go on working.

    Raises:
        ValueError: none of the lengths there are.
    """
    if hours not in GRACE_HOURS:
        raise ValueError(f"a grace period has {', '.join(map(str, GRACE_HOURS))} hours, not {hours}")


async def issue(
    db: Database | Any,
    *,
    account_id: UUID,
    name: str,
    scopes: Sequence[str],
    allowlist: Sequence[str] = (),
    expires_at: datetime | None = None,
) -> IssuedKey:
    """Make a key for an account.

    Raises:
        ValueError: bad name, scopes or allowlist entry.
        NotFoundError: no such account.
    """
    check_name(name)
    secret = _new_secret()
    key = await store.insert(
        db,
        account_id=account_id,
        name=name,
        prefix=secret[:PREFIX_LENGTH],
        hash=hash_of(secret),
        scopes=resolve_scopes(None, scopes),
        allowlist=check_allowlist(allowlist),
        expires_at=expires_at,
    )
    if key is None:
        raise NotFoundError(f"no account {account_id} in this region")
    return IssuedKey(secret, key)


async def rotate(
    db: Database | Any, account_id: UUID | None, key_id: UUID, *, grace_hours: int = DEFAULT_GRACE_HOURS
) -> Rotation:
    """Replace an active key by one with the same name, scopes, allowlist and expiry.

    The old one goes on working for the grace period, or until it expires if that is sooner. Of two rotations at
    once one wins.

    Raises:
        ValueError: a grace period that there is not.
        NotFoundError: no such key.
        KeyStateError: it is rotated, expired or revoked.
    """
    check_grace(grace_hours)
    secret = _new_secret()
    keys = await store.rotate(
        db, key_id, account_id, grace_hours=grace_hours, prefix=secret[:PREFIX_LENGTH], hash=hash_of(secret)
    )
    if keys is None:
        key = await find(db, account_id, key_id)
        raise KeyStateError(f"only an active key can be rotated, and key {key_id} is {key.state}")
    old, new = keys
    return Rotation(old, IssuedKey(secret, new))


async def revoke(db: Database | Any, account_id: UUID | None, key_id: UUID) -> ApiKey:
    """End a key for ever, in any state; every API process refuses it within a second.

    Again changes nothing. The key that replaced it, and the one it replaced, go on working.

    Raises:
        NotFoundError: no such key.
    """
    return _found(await store.revoke(db, key_id, account_id), key_id)


async def delete(db: Database | Any, account_id: UUID | None, key_id: UUID) -> ApiKey:
    """Delete a key in any state, and so end it as `revoke` does; returns what it was.

    What was made or logged with it keeps its id.

    Raises:
        NotFoundError: no such key.
    """
    return _found(await store.delete(db, key_id, account_id), key_id)


async def find(db: Database | Any, account_id: UUID | None, key_id: UUID) -> ApiKey:
    """One key.

    Raises:
        NotFoundError: no such key.
    """
    return _found(await store.get(db, key_id, account_id), key_id)


async def find_by_prefix(db: Database, prefix: str) -> ApiKey:
    """The key of any account that begins with these nine characters.

    Raises:
        NotFoundError: none does.
        AmbiguousPrefixError: several do.
    """
    keys = await store.with_prefix(db, prefix, limit=_AMBIGUOUS_MAX)
    if not keys:
        raise NotFoundError(f"no key {prefix}... in this region")
    if len(keys) > 1:
        ids = ", ".join(str(key.id) for key in keys)
        raise AmbiguousPrefixError(f"several keys begin with {prefix}, name one by its id: {ids}")
    return keys[0]


def _new_secret() -> str:
    return "bye_" + secrets.token_urlsafe(_RANDOM_BYTES)


def _found(key: ApiKey | None, key_id: UUID) -> ApiKey:
    if key is None:
        raise NotFoundError(f"no key {key_id} in this region")
    return key
