"""Passwords: argon2id, in threads, so many at once and no more."""

import asyncio
import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

LENGTH_MIN = 12
LENGTH_MAX = 200
#: Each takes tens of MiB and all of a core while it lasts.
_AT_ONCE = 2


def check_password(password: str) -> None:
    """What may be a password: length is all that helps.

    Raises:
        ValueError: too short or too long, or one character over and over.
    """
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise ValueError(f"A password has {LENGTH_MIN} to {LENGTH_MAX} characters.")
    if len(set(password)) < 5:
        raise ValueError("This password is too easy to guess.")


class Passwords:
    """Hashes and verifies.

    Args:
        hasher: by default with the library's own parameters, which follow RFC 9106.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """What is kept of a password."""
        async with self._places:
            return await asyncio.to_thread(self._hasher.hash, _normal(password))

    async def verify(self, kept: str | None, password: str) -> bool:
        """Whether it is the password that was kept; with nothing kept it costs the same time, and is not."""
        if self._nobodys is None:
            self._nobodys = await self.hash(secrets.token_urlsafe(16))
        async with self._places:
            right = await asyncio.to_thread(self._verify, kept or self._nobodys, _normal(password))
        return right and kept is not None

    def is_outdated(self, kept: str) -> bool:
        """Whether a hash was made with other parameters than are in use now."""
        return self._hasher.check_needs_rehash(kept)

    def _verify(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False


def _normal(password: str) -> str:
    """Typed on another keyboard, the same password may come as other code points; cut, so that no text is dear."""
    return unicodedata.normalize("NFKC", password[: LENGTH_MAX + 1])
