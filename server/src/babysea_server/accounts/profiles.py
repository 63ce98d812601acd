"""What users change about themselves: name, address, password, second step."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from babysea_server.accounts import session_store as sessions
from babysea_server.accounts import user_store as store
from babysea_server.accounts.passwords import Passwords, check_password
from babysea_server.accounts.totp import new_recovery_codes, new_secret, recovery_hash
from babysea_server.accounts.user_store import User
from babysea_server.accounts.users import Box, check_email, check_user_name, note_everywhere
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError

EMAIL_CHANGE_HOURS = 1
_TOKEN_MAX = 2_000


class EmailTakenError(Exception):
    """Another user has the address."""


class _EmailChange(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    user_id: UUID
    email: str
    expires_at: int


async def set_name(db: Database, user: User, name: str) -> None:
    """Call a user something else.

    Raises:
        ValueError: it may not be a name.
    """
    name = check_user_name(name)
    if name == user.name:
        return
    async with db.transaction() as connection:
        await connection.execute("UPDATE users SET name = $2 WHERE id = $1", user.id, name)
        await note_everywhere(connection, user, "auth.name_changed", f"{user.email} is called “{name}” now")


# ------------------------------------------------------------------------------- e-mail


def email_change_token(key: bytes, user: User, email: str, now: datetime) -> str:
    """What the link to a new address carries; no table knows of it.

    It is good for an hour, and only while address and password of the user are what they are: once used, it is used.

    Args:
        key: of the server, for forms.

    Raises:
        ValueError: not an address.
    """
    expires_at = int((now + timedelta(hours=EMAIL_CHANGE_HOURS)).timestamp())
    body = msgspec.json.encode(_EmailChange(user.id, check_email(email), expires_at))
    return f"{_base64(body)}.{_base64(_seal(key, body, user))}"


async def pending_email(
    db: Database | Any, key: bytes, token: str, now: datetime, other: bytes | None = None
) -> tuple[User, str]:
    """Whose link it is, and the address that it stands for; changes nothing.

    Args:
        other: a key that is accepted, too.

    Raises:
        NotFoundError: used, expired or never made.
    """
    gone = NotFoundError("This link is no longer valid. Links work once, for an hour.")
    body, _, seal = token[:_TOKEN_MAX].partition(".")
    try:
        change = msgspec.json.decode(_bytes(body), type=_EmailChange)
        given = _bytes(seal)
    except (binascii.Error, UnicodeEncodeError, msgspec.MsgspecError, ValueError):
        raise gone from None
    user = await store.get(db, change.user_id)
    keys = (each for each in (key, other) if each is not None)
    if user is None or not any(hmac.compare_digest(given, _seal(each, _bytes(body), user)) for each in keys):
        raise gone
    if datetime.fromtimestamp(change.expires_at, UTC) <= now:
        raise gone
    return user, change.email


async def change_email(
    db: Database, key: bytes, token: str, now: datetime, other: bytes | None = None
) -> tuple[User, str]:
    """Take a new address into use; returns the user as it was, and the new address.

    Accounts that the user answers for and that had the old address get the new one. Links that were sent to the old
    address are dead.

    Raises:
        NotFoundError: see `pending_email`.
        EmailTakenError
    """
    try:
        async with db.transaction() as connection:
            user, email = await pending_email(connection, key, token, now, other)
            # Of two that come at once, the second one finds another address than its link was made for.
            kept = await connection.fetchval("SELECT email FROM users WHERE id = $1 FOR UPDATE", user.id)
            if kept != user.email:
                raise NotFoundError("This link is no longer valid. Links work once, for an hour.")
            if not await store.set_profile(connection, user.id, name=user.name, email=email):
                raise EmailTakenError
            await connection.execute(
                """UPDATE accounts a SET email = $3 FROM memberships m
                   WHERE m.account_id = a.id AND m.user_id = $1 AND m.role = 'primary-owner'
                     AND lower(a.email) = lower($2)""",
                user.id,
                user.email,
                email,
            )
            await store.end_links(connection, user.id)
            told = f"{user.email} has the address {email} now"
            await note_everywhere(connection, user, "auth.email_changed", told)
    except asyncpg.UniqueViolationError:
        raise EmailTakenError from None
    return user, email


def _seal(key: bytes, body: bytes, user: User) -> bytes:
    state = "\0".join(("email", user.email, user.password or ""))
    return hmac.new(key, state.encode() + b"\0" + body, hashlib.sha256).digest()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


# ------------------------------------------------------------------------------- password


async def change_password(db: Database, passwords: Passwords, user: User, password: str) -> None:
    """Give a user another password, or the first one: every session and every link of theirs ends.

    Raises:
        ValueError: it may not be one.
    """
    check_password(password)
    hash = await passwords.hash(password)
    async with db.transaction() as connection:
        await store.set_password(connection, user.id, hash)
        await store.end_links(connection, user.id)
        await sessions.end_all(connection, user.id)
        verb = "set" if user.password is None else "changed"
        await note_everywhere(connection, user, "auth.password_changed", f"{user.email} {verb} the password")


# ------------------------------------------------------------------------------- the second step


async def begin_totp(db: Database | Any, box: Box, user: User) -> None:
    """Make a secret to be shown; it opens nothing before its first code has come back."""
    await store.set_totp_pending(db, user.id, box.seal(new_secret()))


async def turn_off_totp(db: Database, user: User) -> None:
    """Have no second step any more; recovery codes are gone with it."""
    async with db.transaction() as connection:
        await store.remove_totp(connection, user.id)
        await note_everywhere(
            connection, user, "auth.totp_disabled", f"{user.email} turned the second step off"
        )


async def renew_recovery_codes(db: Database, user: User) -> Sequence[str]:
    """New recovery codes in place of all that there were."""
    codes = new_recovery_codes()
    async with db.transaction() as connection:
        await store.replace_recovery_codes(connection, user.id, [recovery_hash(code) for code in codes])
        await note_everywhere(
            connection, user, "auth.recovery_codes_renewed", f"{user.email} made new recovery codes"
        )
    return codes
