"""Identifiers: time-ordered UUIDs for rows, opaque tokens for everything a stranger may see.

Ids of rows and requests only have to be unique: they open nothing, so they come from a fast generator that the
system seeds at start. What must not be guessed is a `token`.
"""

import os
import random
import secrets
import time
from uuid import UUID

from asyncpg.pgproto import pgproto

# A generator of our own: seeding the common one, as test tools do, must not make ids repeat, nor must a fork.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62


def uuid7() -> UUID:
    """A version 7 UUID (RFC 9562, method 3): Unix time to a quarter of a microsecond, then 62 random bits.

    Rows with such ids are inserted at the right-hand edge of their index and sort by creation time.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | _VERSION_7 | (nanoseconds * 4096 // 1_000_000) << 64
    value |= _VARIANT | _random.getrandbits(62)
    # asyncpg's kind of UUID, as it is read from a row: made and spelled in a tenth of the time.
    return pgproto.UUID(value.to_bytes(16, "big"))


def request_id() -> str:
    """`req_` and 24 hex digits: enough to be unique among all requests of a deployment's life."""
    return f"req_{_random.getrandbits(96):024x}"


def token(random_bytes: int = 24) -> str:
    """An unguessable base64url token of `random_bytes` random bytes."""
    return secrets.token_urlsafe(random_bytes)
