"""Accounts as they are stored."""

from babysea_server.accounts import store as accounts
from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7


async def test_a_new_account_is_as_it_was_given_and_has_no_credits(db: Database) -> None:
    made = await accounts.create(db, name="Ann", plan="pro", email="ann@example.org")
    assert (made.name, made.plan, made.email, made.credit_balance) == ("Ann", "pro", "ann@example.org", 0)
    assert await accounts.get(db, made.id) == made
    assert await accounts.balance(db, made.id) == 0
    assert await accounts.get(db, uuid7()) is None
    assert await accounts.balance(db, uuid7()) == 0


async def test_accounts_are_listed_oldest_first_in_pages(db: Database) -> None:
    assert await accounts.first(db) is None
    made = [await accounts.create(db, name=name, plan="free") for name in "abc"]
    assert await accounts.first(db) == made[0]
    assert await accounts.page(db, limit=10) == made
    assert await accounts.page(db, limit=2, offset=1) == made[1:]
    assert await accounts.page(db, limit=2, offset=3) == []
