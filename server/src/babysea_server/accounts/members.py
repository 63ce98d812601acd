"""Who is in an account, and what becomes of roles: each change under the account's lock, with its activity."""

from collections.abc import Sequence
from uuid import UUID

from babysea_server.accounts import activity, member_store
from babysea_server.accounts.activity import Actor
from babysea_server.accounts.member_store import Member
from babysea_server.accounts.roles import MANAGES, ROLES, Role
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError


class RoleRefusedError(Exception):
    """The role of whoever asks does not allow it; the message says what, for people."""


def check_role(text: str) -> Role:
    """A role as it was written.

    Raises:
        ValueError: there is no such role.
    """
    for role in ROLES:
        if role == text:
            return role
    raise ValueError(f"{text!r} is no role; roles are {', '.join(ROLES)}")


async def members_of(db: Database, account_id: UUID) -> Sequence[Member]:
    """The members of an account, strongest role first."""
    return await member_store.of_account(db, account_id)


async def change_role(
    db: Database, account_id: UUID, user_id: UUID, role: Role, *, by_role: Role, actor: Actor
) -> Member:
    """Give a member another role; returns the member as it was.

    Raises:
        NotFoundError: no such member.
        RoleRefusedError: the asker's role does not manage both roles, the old one and the new one.
    """
    async with db.transaction() as connection:
        member = await _managed(connection, account_id, user_id, by_role)
        if role not in MANAGES[by_role]:
            raise RoleRefusedError(f"The role {by_role} cannot make anybody {role}.")
        if role != member.role:
            await member_store.set_role(connection, account_id, user_id, role)
            description = f"{member.email} is {role} now, was {member.role}"
            await activity.record(connection, account_id, actor, "membership.role_changed", description)
    return member


async def remove(db: Database, account_id: UUID, user_id: UUID, *, by_role: Role, actor: Actor) -> Member:
    """Remove a member; returns who it was.

    Raises:
        NotFoundError: no such member.
        RoleRefusedError: the asker's role does not manage this one.
    """
    async with db.transaction() as connection:
        member = await _managed(connection, account_id, user_id, by_role)
        await member_store.remove(connection, account_id, user_id)
        await activity.record(
            connection, account_id, actor, "membership.removed", f"{member.email} was removed"
        )
    return member


async def leave(db: Database, account_id: UUID, user_id: UUID, *, actor: Actor) -> None:
    """Leave an account.

    Raises:
        NotFoundError: not a member.
        RoleRefusedError: the primary owner stays until the account is transferred or deleted.
    """
    async with db.transaction() as connection:
        member = await _member(connection, account_id, user_id)
        if member.role == "primary-owner":
            raise RoleRefusedError(
                "The primary owner cannot leave: transfer the account first, or delete it."
            )
        await member_store.remove(connection, account_id, user_id)
        await activity.record(connection, account_id, actor, "membership.left", f"{member.email} left")


async def transfer(db: Database, account_id: UUID, to: UUID, *, by: UUID, actor: Actor) -> Member:
    """Make another member the primary owner; who it was before is an owner then.

    A personal account becomes a team's. Its mail goes on to the new primary owner where it went to the old one.

    Raises:
        NotFoundError: not a member.
        RoleRefusedError: the asker is not the primary owner.
    """
    async with db.transaction() as connection:
        asker = await _member(connection, account_id, by)
        if asker.role != "primary-owner":
            raise RoleRefusedError("Only the primary owner transfers an account.")
        heir = await _member(connection, account_id, to)
        if to != by:
            await member_store.set_role(connection, account_id, by, "owner")
            await member_store.set_role(connection, account_id, to, "primary-owner")
            await member_store.hand_over(connection, account_id, asker.email, heir.email)
            await activity.record(
                connection, account_id, actor, "account.transferred", f"{heir.email} is the primary owner now"
            )
    return heir


async def _managed(connection: object, account_id: UUID, user_id: UUID, by_role: Role) -> Member:
    member = await _member(connection, account_id, user_id)
    if member.role not in MANAGES[by_role]:
        raise RoleRefusedError(f"The role {by_role} does not manage a {member.role}.")
    return member


async def _member(connection: object, account_id: UUID, user_id: UUID) -> Member:
    found = None
    if await member_store.lock(connection, account_id):
        found = await member_store.get(connection, account_id, user_id)
    if found is None:
        raise NotFoundError("There is no such member.")
    return found
