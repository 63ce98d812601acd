"""Identifiers: time-ordered UUIDs for rows, opaque tokens for everything a stranger may see."""

import os
import secrets
import time
import uuid

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62


def uuid7() -> uuid.UUID:
    """A version 7 UUID (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits.

    Rows with such ids are inserted at the right-hand edge of their index and sort by creation time.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & 0xFFFFFFFFFFFF) << 80
    value |= _VERSION_7 | ((random >> 62) & 0xFFF) << 64
    value |= _VARIANT | (random & 0x3FFFFFFFFFFFFFFF)
    return uuid.UUID(int=value)


def request_id() -> str:
    """`req_` and 24 hex digits: enough to be unique among all requests of a deployment's life."""
    return "req_" + os.urandom(12).hex()


def token(random_bytes: int = 24) -> str:
    """An unguessable base64url token of `random_bytes` random bytes."""
    return secrets.token_urlsafe(random_bytes)
