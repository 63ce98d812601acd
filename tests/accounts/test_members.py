"""Members and invitations: who changes whom, and what the database itself refuses."""

from functools import partial
from uuid import UUID

import asyncpg
import pytest

from babysea_server.accounts import activity, invitations, member_store, user_store
from babysea_server.accounts import store as accounts
from babysea_server.accounts.activity import OPERATOR
from babysea_server.accounts.members import RoleRefusedError, change_role, leave, members_of, remove, transfer
from babysea_server.accounts.roles import ROLES, Role
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError


async def _account(db: Database) -> tuple[UUID, dict[Role, UUID]]:
    """An account with one user of each role."""
    account = await accounts.create(db, name="Acme & Söhne!", plan="free")
    people: dict[Role, UUID] = {}
    for role in ROLES:
        user = await user_store.insert(db, email=f"{role}@example.com", name=role, password=None)
        assert user is not None
        await member_store.add(db, account.id, user.id, role)
        people[role] = user.id
    return account.id, people


@pytest.mark.parametrize("by", ROLES)
@pytest.mark.parametrize("of", ROLES)
@pytest.mark.parametrize("to", ROLES)
async def test_a_role_changes_only_those_it_manages(db: Database, by: Role, of: Role, to: Role) -> None:
    account_id, people = await _account(db)
    manages = {"primary-owner": ("owner", "member"), "owner": ("member",), "member": ()}[by]
    if of in manages and to in manages:
        await change_role(db, account_id, people[of], to, by_role=by, actor=OPERATOR)
        found = await member_store.get(db, account_id, people[of])
        assert found is not None
        assert found.role == to
    else:
        with pytest.raises(RoleRefusedError):
            await change_role(db, account_id, people[of], to, by_role=by, actor=OPERATOR)


async def test_the_primary_owner_neither_leaves_nor_is_removed_but_transfers(db: Database) -> None:
    account_id, people = await _account(db)
    first, second = people["primary-owner"], people["member"]
    with pytest.raises(RoleRefusedError):
        await leave(db, account_id, first, actor=OPERATOR)
    with pytest.raises(RoleRefusedError):
        await remove(db, account_id, first, by_role="primary-owner", actor=OPERATOR)
    with pytest.raises(RoleRefusedError):
        await transfer(db, account_id, second, by=people["owner"], actor=OPERATOR)
    await transfer(db, account_id, second, by=first, actor=OPERATOR)
    roles = {member.user_id: member.role for member in await members_of(db, account_id)}
    assert roles == {second: "primary-owner", first: "owner", people["owner"]: "owner"}
    await leave(db, account_id, first, actor=OPERATOR)
    entries = await activity.page(db, account_id, limit=10)
    assert [entry.action for entry in entries] == ["membership.left", "account.transferred"]


async def test_the_database_has_one_primary_owner_of_an_account(db: Database) -> None:
    account_id, people = await _account(db)
    with pytest.raises(asyncpg.UniqueViolationError):
        await member_store.set_role(db, account_id, people["owner"], "primary-owner")


async def test_activity_is_never_changed(db: Database) -> None:
    account_id, _ = await _account(db)
    await activity.record(db, account_id, OPERATOR, "account.created", "x" * 600)
    assert len((await activity.page(db, account_id, limit=1))[0].description) == 500
    for statement in ("UPDATE activity SET description = 'y'", "DELETE FROM activity", "TRUNCATE activity"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await db.execute(statement)
    with pytest.raises(ValueError, match="no category"):
        await activity.record(db, account_id, OPERATOR, "nothing.done", "x")


async def test_an_address_is_invited_once_and_the_newer_link_counts(db: Database) -> None:
    account_id, _ = await _account(db)
    invite = partial(
        invitations.invite, db, account_id, email="New@example.com", by_role="owner", actor=OPERATOR
    )
    first_id, first = await invite(role="member")
    second_id, second = await invite(role="owner")
    assert first_id == second_id
    with pytest.raises(NotFoundError):
        await invitations.find(db, first)
    assert (await invitations.find(db, second)).role == "owner"
    with pytest.raises(ValueError, match="member already"):
        await invitations.invite(
            db, account_id, email="OWNER@example.com", role="member", by_role="owner", actor=OPERATOR
        )
    with pytest.raises(RoleRefusedError):
        await invitations.revoke(db, account_id, second_id, by_role="member", actor=OPERATOR)
    await invitations.revoke(db, account_id, second_id, by_role="owner", actor=OPERATOR)
    with pytest.raises(NotFoundError):
        await invitations.find(db, second)


async def test_every_account_has_a_name_for_addresses(db: Database) -> None:
    made = [
        await accounts.create(db, name=name, plan="free")
        for name in ("Acme & Söhne!", "Acme & Söhne!", "東京")
    ]
    slugs = [await db.fetchval("SELECT slug FROM accounts WHERE id = $1", each.id) for each in made]
    assert len(set(slugs)) == 3
    assert slugs[0].startswith("acme-sohne-")
    assert slugs[2].startswith("account-")
    async with db.transaction() as connection:
        await member_store.plain_slug(connection, made[0].id)
        await member_store.plain_slug(connection, made[1].id)
    assert await db.fetchval("SELECT slug FROM accounts WHERE id = $1", made[0].id) == "acme-sohne"
    assert await db.fetchval("SELECT slug FROM accounts WHERE id = $1", made[1].id) == slugs[1]
