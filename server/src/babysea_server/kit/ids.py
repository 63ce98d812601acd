"""Identifiers: time-ordered UUIDs for rows, opaque tokens for everything a stranger may see."""

import os
import secrets
import time
import uuid

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62


def uuid7() -> uuid.UUID:
    """A version 7 UUID (RFC 9562, method 3): Unix time to a quarter of a microsecond, then 62 random bits.

    Rows with such ids are inserted at the right-hand edge of their index and sort by creation time.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | _VERSION_7 | (nanoseconds * 4096 // 1_000_000) << 64
    value |= _VARIANT | int.from_bytes(os.urandom(8), "big") >> 2
    return uuid.UUID(int=value)


def request_id() -> str:
    """`req_` and 24 hex digits: enough to be unique among all requests of a deployment's life."""
    return "req_" + os.urandom(12).hex()


def token(random_bytes: int = 24) -> str:
    """An unguessable base64url token of `random_bytes` random bytes."""
    return secrets.token_urlsafe(random_bytes)
