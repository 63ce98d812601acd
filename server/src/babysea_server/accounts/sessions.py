"""Sessions: opaque tokens that only the browser has, and what is kept of them."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.accounts import session_store as store
from babysea_server.accounts import user_store as users
from babysea_server.accounts.session_store import Session
from babysea_server.accounts.user_store import User
from babysea_server.db.pool import Database

IDLE_S = 14 * 86_400
LIFETIME_S = 90 * 86_400
#: Between the password and the second step.
TOTP_WAIT_S = 10 * 60
_TOUCH_S = 300
_TOKEN_BYTES = 32
_USER_AGENT_MAX = 300


class Visitor(msgspec.Struct, frozen=True):
    """Where a request came from, as far as it is kept."""

    user_agent: str
    address_hash: str


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session as it comes with a request."""

    session: Session
    user: User
    token: str = field(repr=False)


def token_hash(token: str) -> bytes:
    """What is kept of a token: it has 256 random bits, so its SHA-256 tells nothing."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def new_token() -> str:
    """256 random bits in base64url."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def csrf_token(secret: str, key: bytes) -> str:
    """The token that a form carries, so that only pages of ours can send it.

    Args:
        secret: what the browser's cookie holds; whoever can read it needs no form.
        key: of the server, so that a cookie set by somebody else is not enough.
    """
    return hmac.new(key, b"form\0" + secret.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class Sessions:
    """The sessions of one region."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(
        self, user_id: UUID, visitor: Visitor, *, awaits_totp: bool = False, flash: Any = None
    ) -> str:
        """A new session; returns its token, which is always fresh: nobody can have planted it."""
        token = new_token()
        async with self._db.transaction() as connection:
            await store.remove_expired(connection, idle_s=IDLE_S)
            await store.insert(
                connection,
                user_id,
                token_hash(token),
                awaits_totp=awaits_totp,
                lifetime_s=TOTP_WAIT_S if awaits_totp else LIFETIME_S,
                user_agent="".join(filter(str.isprintable, visitor.user_agent))[:_USER_AGENT_MAX],
                address_hash=visitor.address_hash,
                flash=flash,
            )
            if not awaits_totp:
                await users.note_signed_in(connection, user_id)
        return token

    async def find(self, token: str) -> SignedIn | None:
        """Who a token belongs to, or None."""
        found = await store.open_session(self._db, token_hash(token), idle_s=IDLE_S, touch_s=_TOUCH_S)
        return None if found is None else SignedIn(*found, token)

    async def renew(self, signed_in: SignedIn, visitor: Visitor, *, flash: Any = None) -> str:
        """Another token in place of this one, after what changes what it can do."""
        token = await self.begin(signed_in.user.id, visitor, flash=flash)
        await store.end(self._db, signed_in.session.id, signed_in.user.id)
        return token

    async def end(self, signed_in: SignedIn) -> None:
        """Sign this browser out."""
        await store.end(self._db, signed_in.session.id, signed_in.user.id)

    async def end_one(self, user_id: UUID, session_id: UUID) -> bool:
        """Sign one browser of the user's out; whether there was it."""
        return await store.end(self._db, session_id, user_id)

    async def end_all(self, user_id: UUID, *, but: UUID | None = None) -> None:
        """Sign the user out everywhere, perhaps but here."""
        await store.end_all(self._db, user_id, but=but)

    async def all_of(self, user_id: UUID) -> Sequence[Session]:
        """Where the user is signed in."""
        return await store.of_user(self._db, user_id, idle_s=IDLE_S)

    async def set_flash(self, session: Session, flash: Any) -> None:
        """Have the next page tell this, or nothing any more."""
        await store.set_flash(self._db, session.id, flash)
