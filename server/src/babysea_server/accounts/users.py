"""Users: signing up, signing in, the second step, one-time links, team accounts."""

from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec

from babysea_server.accounts import activity, member_store
from babysea_server.accounts import session_store as sessions
from babysea_server.accounts import store as accounts
from babysea_server.accounts import user_store as store
from babysea_server.accounts.activity import Actor
from babysea_server.accounts.passwords import Passwords, check_password
from babysea_server.accounts.service import enter_plan
from babysea_server.accounts.sessions import new_token, token_hash
from babysea_server.accounts.store import Account
from babysea_server.accounts.totp import looks_like_totp, matching_step, new_recovery_codes, recovery_hash
from babysea_server.accounts.user_store import User
from babysea_server.db.pool import Database
from babysea_server.kit.calls import Plan
from babysea_server.kit.faults import NotFoundError

EMAIL_MAX = 254
NAME_MAX = 100
RESET_HOURS = 1
SIGN_IN_LINK_HOURS = 1
#: Team accounts that one user may be the primary owner of.
TEAMS_MAX = 20

SignUp = Literal["open", "invite", "closed"]


class SignUpRefusedError(Exception):
    """Nobody, or not this person, may sign up; the message says why, for people."""


class Box(Protocol):
    """Whoever seals secrets for keeping."""

    def seal(self, text: str) -> bytes:
        """The text, unreadable without the key."""
        ...

    def open(self, sealed: bytes) -> str:
        """The text that was sealed."""
        ...


class SignedUp(msgspec.Struct, frozen=True):
    """A new user and the personal account."""

    user: User
    account: Account


def check_email(text: str) -> str:
    """An e-mail address as it is kept: without white space around it.

    Raises:
        ValueError: not an address.
    """
    email = text.strip()
    try:
        address = Address(addr_spec=email)
    except (MessageError, ValueError, IndexError):
        raise ValueError("This is not an e-mail address.") from None
    plain = address.username and address.domain and email.isprintable() and " " not in email
    if not plain or len(email) > EMAIL_MAX or address.addr_spec != email:
        raise ValueError("This is not an e-mail address.")
    return email


def check_user_name(text: str) -> str:
    """A person's name as it is kept.

    Raises:
        ValueError: nothing, more than 100 characters, or control characters in it.
    """
    name = " ".join(text.split())
    if not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise ValueError(f"A name has 1 to {NAME_MAX} characters.")
    return name


def actor_of(user: User) -> Actor:
    """A user as activity names it."""
    return Actor("user", user.email, user.id)


async def sign_up(
    connection: Any, *, email: str, name: str, password: str | None, plan: Plan, user_id: UUID | None = None
) -> SignedUp:
    """Make a user with a personal account on a plan, in the caller's transaction.

    Args:
        password: its hash.

    Raises:
        ValueError: bad name or address.
        SignUpRefusedError: the address is taken.
    """
    user = await store.insert(
        connection, email=check_email(email), name=check_user_name(name), password=password, user_id=user_id
    )
    if user is None:
        raise SignUpRefusedError("There is a user with this e-mail address already.")
    account = await _new_account(connection, user, user.name, plan, is_personal=True)
    return SignedUp(user, account)


async def create_team(db: Database, user: User, name: str, plan: Plan) -> Account:
    """Make a team account that the user is the primary owner of.

    Raises:
        ValueError: bad name, or the user has as many as one may have.
    """
    name = check_user_name(name)
    async with db.transaction() as connection:
        await connection.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", user.id)
        if await member_store.owned_teams(connection, user.id) >= TEAMS_MAX:
            raise ValueError(f"One user owns at most {TEAMS_MAX} team accounts.")
        return await _new_account(connection, user, name, plan, is_personal=False)


async def adopt(connection: Any, account_id: UUID, user: User) -> None:
    """Make a user the primary owner of an account that has no members yet."""
    await member_store.plain_slug(connection, account_id)
    await member_store.set_personal(connection, account_id, is_personal=True, email=None)
    await member_store.add(connection, account_id, user.id, "primary-owner")
    await activity.record(
        connection, account_id, activity.OPERATOR, "membership.added", f"{user.email} is the primary owner"
    )


async def check_credentials(db: Database, passwords: Passwords, email: str, password: str) -> User | None:
    """The user with this address and password, or None; which of the two was wrong takes no other time."""
    user = await store.by_email(db, email.strip())
    if not await passwords.verify(None if user is None else user.password, password):
        return None
    assert user is not None
    assert user.password is not None
    if passwords.is_outdated(user.password):
        await store.set_password(db, user.id, await passwords.hash(password))
    return user


async def check_second_step(db: Database, box: Box, user: User, code: str, now: datetime) -> bool:
    """Whether a code of the authenticator, or an unused recovery code, is right; it is used up then."""
    if user.totp_secret is None:
        return False
    if not looks_like_totp(code):
        return await store.use_recovery_code(db, user.id, recovery_hash(code))
    step = matching_step(box.open(user.totp_secret), code, now, after=user.totp_step)
    return step is not None and await store.take_totp_step(db, user.id, step)


async def set_password(db: Database, passwords: Passwords, user_id: UUID, password: str) -> None:
    """Give a user another password: every session and every link of theirs ends.

    Raises:
        ValueError: it may not be one.
    """
    check_password(password)
    hash = await passwords.hash(password)
    async with db.transaction() as connection:
        await store.set_password(connection, user_id, hash)
        await store.end_links(connection, user_id)
        await sessions.end_all(connection, user_id)


async def reset_password(db: Database, passwords: Passwords, token: str, password: str) -> User:
    """Set a password by a link: the link, all others, and every session end.

    Raises:
        ValueError: it may not be a password.
        NotFoundError: the link is used, expired or unknown.
    """
    check_password(password)
    if await store.link_user(db, "password_resets", token_hash(token)) is None:
        raise NotFoundError("This link is no longer valid.")
    hash = await passwords.hash(password)
    async with db.transaction() as connection:
        user_id = await store.use_link(connection, "password_resets", token_hash(token))
        if user_id is None:
            raise NotFoundError("This link is no longer valid.")
        await store.set_password(connection, user_id, hash)
        await store.end_links(connection, user_id)
        await sessions.end_all(connection, user_id)
        user = await store.get(connection, user_id)
        assert user is not None
        await note_everywhere(connection, user, "auth.password_reset", f"{user.email} reset the password")
    return user


async def new_reset_link(db: Database | Any, user_id: UUID) -> str:
    """The token of a link that sets a password: once, within an hour."""
    token = new_token()
    await store.add_link(db, "password_resets", user_id, token_hash(token), hours=RESET_HOURS)
    return token


async def new_sign_in_link(db: Database | Any, user_id: UUID) -> str:
    """The token of a link that signs in: once, within an hour."""
    token = new_token()
    await store.add_link(db, "sign_in_links", user_id, token_hash(token), hours=SIGN_IN_LINK_HOURS)
    return token


async def use_sign_in_link(db: Database, token: str) -> User:
    """Whom a link signs in; it is used up.

    Raises:
        NotFoundError: used, expired or unknown.
    """
    user_id = await store.use_link(db, "sign_in_links", token_hash(token))
    user = None if user_id is None else await store.get(db, user_id)
    if user is None:
        raise NotFoundError("This link is no longer valid.")
    return user


async def confirm_totp(db: Database, box: Box, user: User, code: str, now: datetime) -> list[str]:
    """Take the pending secret into use, once its first code is right; returns the recovery codes.

    Raises:
        ValueError: nothing is pending, or the code is wrong.
    """
    step = None
    if user.totp_pending is not None:
        step = matching_step(box.open(user.totp_pending), code, now, after=0)
    if step is None:
        raise ValueError("This code is not right. Codes change every 30 seconds.")
    codes = list(new_recovery_codes())
    async with db.transaction() as connection:
        await store.confirm_totp(connection, user.id, step, [recovery_hash(code) for code in codes])
        await note_everywhere(connection, user, "auth.totp_enabled", f"{user.email} set up a second step")
    return codes


async def note_everywhere(connection: Any, user: User, action: str, description: str) -> None:
    """Note what a user did to themselves where it matters: in the accounts that they answer for."""
    for membership in await member_store.of_user(connection, user.id):
        if membership.role == "primary-owner":
            await activity.record(connection, membership.account_id, actor_of(user), action, description)


async def _new_account(connection: Any, user: User, name: str, plan: Plan, *, is_personal: bool) -> Account:
    created = await accounts.create(connection, name=name, plan=plan.name, email=user.email)
    await member_store.plain_slug(connection, created.id)
    await member_store.set_personal(connection, created.id, is_personal=is_personal, email=user.email)
    await member_store.add(connection, created.id, user.id, "primary-owner")
    kind = "personal" if is_personal else "team"
    await activity.record(
        connection, created.id, actor_of(user), "account.created", f"{user.email} created this {kind} account"
    )
    return await enter_plan(connection, created, plan)
