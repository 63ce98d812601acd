"""Invitations into an account: a link that works once, for seven days, for whoever has it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from babysea_server.accounts import activity, member_store
from babysea_server.accounts import invitation_store as store
from babysea_server.accounts.activity import Actor
from babysea_server.accounts.invitation_store import Invitation
from babysea_server.accounts.members import RoleRefusedError
from babysea_server.accounts.roles import INVITES, Role
from babysea_server.accounts.sessions import new_token, token_hash
from babysea_server.accounts.users import check_email
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError

DAYS = 7


async def invite(
    db: Database,
    account_id: UUID,
    *,
    email: str,
    role: Role,
    by_role: Role,
    actor: Actor,
) -> tuple[UUID, str]:
    """Invite somebody; returns the invitation's id and its token, which is never to be had again.

    An open invitation to the same address gets this role and a new link.

    Raises:
        ValueError: not an address, or a member has it already.
        RoleRefusedError: the asker's role does not invite to this one.
        NotFoundError: no such account.
    """
    email = check_email(email)
    if role not in INVITES[by_role]:
        raise RoleRefusedError(f"The role {by_role} does not invite anybody to be {role}.")
    token = new_token()
    async with db.transaction() as connection:
        if not await member_store.lock(connection, account_id):
            raise NotFoundError(f"no account {account_id} in this region")
        members = await member_store.of_account(connection, account_id)
        if any(member.email.lower() == email.lower() for member in members):
            raise ValueError(f"{email} is a member already.")
        invitation_id = await store.put(
            connection,
            account_id,
            email=email,
            role=role,
            token_hash=token_hash(token),
            invited_by=actor.id if actor.kind == "user" else None,
            days=DAYS,
        )
        await activity.record(
            connection, account_id, actor, "invitation.created", f"{email} was invited as {role}"
        )
    return invitation_id, token


async def open_of(db: Database, account_id: UUID) -> Sequence[Invitation]:
    """The open invitations of an account, expired ones too."""
    return await store.open_of_account(db, account_id)


async def find(db: Database, token: str) -> Invitation:
    """The invitation behind a link.

    Raises:
        NotFoundError: used, revoked, expired or unknown.
    """
    found = await store.by_token(db, token_hash(token))
    if found is None:
        raise NotFoundError("This invitation is no longer valid.")
    return found


async def accept(connection: Any, token: str, user_id: UUID, actor: Actor) -> Invitation:
    """Make a user a member by a link, in the caller's transaction; who is one already stays as it is.

    Raises:
        NotFoundError: see `find`.
    """
    hash = token_hash(token)
    invitation = await store.by_token(connection, hash)
    if invitation is None or not await member_store.lock(connection, invitation.account_id):
        raise NotFoundError("This invitation is no longer valid.")
    if await store.accept(connection, hash) is None:
        raise NotFoundError("This invitation is no longer valid.")
    if await member_store.add(connection, invitation.account_id, user_id, invitation.role):
        description = f"{actor.name} joined as {invitation.role}"
        await activity.record(connection, invitation.account_id, actor, "invitation.accepted", description)
    return invitation


async def revoke(db: Database, account_id: UUID, invitation_id: UUID, *, by_role: Role, actor: Actor) -> None:
    """Make an open invitation useless.

    Raises:
        NotFoundError: there is none.
        RoleRefusedError: the asker's role does not invite to its role.
    """
    async with db.transaction() as connection:
        invitation = await store.get(connection, account_id, invitation_id)
        if invitation is None:
            raise NotFoundError("There is no such invitation.")
        if invitation.role not in INVITES[by_role]:
            raise RoleRefusedError(
                f"The role {by_role} does not revoke an invitation of a {invitation.role}."
            )
        await store.revoke(connection, account_id, invitation_id)
        await activity.record(
            connection,
            account_id,
            actor,
            "invitation.revoked",
            f"The invitation of {invitation.email} was revoked",
        )
