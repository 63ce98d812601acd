"""Adding credits, and `verify`: clean books are clean, and every planted difference is found."""

import asyncio
from uuid import UUID

import asyncpg
import pytest
from tests.support import Customer

from babysea_server.accounts import store as accounts
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import uuid7
from babysea_server.ledger import store as ledger
from babysea_server.ledger.store import CHECKS
from babysea_server.ledger.verify import verify


@pytest.fixture
async def account(db: Database) -> UUID:
    return (await accounts.create(db, name="A", plan="free")).id


# ------------------------------------------------------------------------------------------ add


async def test_adding_credits_moves_the_balance_and_writes_a_row(db: Database, account: UUID) -> None:
    assert await ledger.add(db, account, 7, "seven") == 7
    assert await ledger.add(db, account, 3, "three") == 10
    rows = await db.fetch("SELECT kind::text, amount, balance_after, description FROM ledger ORDER BY id")
    assert [tuple(row) for row in rows] == [("add", 7, 7, "seven"), ("add", 3, 10, "three")]
    assert await accounts.balance(db, account) == 10


async def test_what_cannot_be_added_changes_nothing(db: Database, account: UUID) -> None:
    for amount in (0, -1):
        with pytest.raises(ValueError, match="more than zero"):
            await ledger.add(db, account, amount, "")
    missing = uuid7()
    with pytest.raises(NotFoundError, match=f"no account {missing}"):
        await ledger.add(db, missing, 1, "")
    await ledger.add(db, account, 2**63 - 1, "all there is")
    with pytest.raises(asyncpg.NumericValueOutOfRangeError):
        await ledger.add(db, account, 1, "one too many")
    assert await db.fetchval("SELECT count(*) FROM ledger") == 1
    assert await accounts.balance(db, account) == 2**63 - 1


async def test_concurrent_adds_all_count_and_each_row_follows_from_the_one_before(
    db: Database, account: UUID
) -> None:
    balances = await asyncio.gather(*(ledger.add(db, account, n, str(n)) for n in range(1, 41)))
    assert len(set(balances)) == 40
    assert await accounts.balance(db, account) == max(balances) == sum(range(1, 41))
    assert await verify(db) == []


# ------------------------------------------------------------------------------------------ verify


async def test_the_books_of_a_server_at_work_are_clean(customer: Customer) -> None:
    await customer.made(generation_output_number=2)
    await customer.made(generation_prompt="[sandbox:fail]")
    response = await customer.generate()
    assert response.status_code == 200
    assert await verify(customer.deployment.db) == []
    await customer.finished(response.json()["data"]["generation_id"])
    assert await verify(customer.deployment.db) == []


async def test_an_empty_database_is_clean(db: Database) -> None:
    assert await verify(db) == []


BALANCE, RUNNING, ROW, SETTLED, ONCE, BOUNDED, COUNT, GRANT = (promise for promise, _ in CHECKS)

#: What is planted, as superuser with every guard off, and the promises that must be found broken.
PLANTED = {
    "a balance that grew by itself": ("UPDATE accounts SET credit_balance = credit_balance + 1", {BALANCE}),
    "an addition that was never booked": ("DELETE FROM ledger WHERE kind = 'add'", {BALANCE, RUNNING}),
    "an account whose ledger is gone": ("DELETE FROM ledger", {BALANCE, ROW}),
    "a wrong balance after": (
        "UPDATE ledger SET balance_after = balance_after + 1 WHERE kind = 'charge'",
        {RUNNING},
    ),
    "an amount changed later": (
        "UPDATE ledger SET amount = amount + 1 WHERE kind = 'charge'",
        {ROW, BOUNDED},
    ),
    "a charge that was lost": ("DELETE FROM ledger WHERE kind = 'charge'", {ROW}),
    "a reserve that was lost": (
        "DELETE FROM ledger WHERE kind = 'reserve' AND generation_id IN "
        "(SELECT id FROM generations WHERE status = 'succeeded')",
        {BALANCE, RUNNING, ROW, BOUNDED},
    ),
    "a refund that was lost": ("DELETE FROM ledger WHERE kind = 'refund'", {BALANCE, ROW}),
    "a reserve booked twice": (
        "INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description) "
        "SELECT account_id, generation_id, kind, amount, balance_after, '' FROM ledger WHERE kind = 'reserve' LIMIT 1",
        {BALANCE, RUNNING, ROW, ONCE},
    ),
    "a refund booked twice": (
        "INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description) "
        "SELECT account_id, generation_id, kind, amount, balance_after, '' FROM ledger WHERE kind = 'refund'",
        {BALANCE, RUNNING, ROW, ONCE, BOUNDED},
    ),
    "a success that was not charged": (
        "UPDATE generations SET charged = 0, refunded = reserved WHERE status = 'succeeded'",
        {ROW, SETTLED},
    ),
    "a failure that was charged": (
        "UPDATE generations SET charged = reserved, refunded = 0 WHERE status = 'failed'",
        {ROW, SETTLED},
    ),
    "a generation charged before its end": (
        "UPDATE generations SET status = 'processing' WHERE status = 'succeeded'",
        {SETTLED},
    ),
    "a generation charged less than was reserved": (
        "UPDATE generations SET charged = charged - 1 WHERE status = 'succeeded'",
        {ROW, SETTLED},
    ),
    "a generation that vanished": ("DELETE FROM generations WHERE status = 'failed'", {COUNT}),
    "a generation that vanished before it was settled": (
        "DELETE FROM generations WHERE status = 'succeeded'; DELETE FROM ledger WHERE kind = 'charge'",
        {BOUNDED, COUNT},
    ),
    "a count that is wrong": ("UPDATE accounts SET generations_total = generations_total + 1", {COUNT}),
    "a grant that was never added": (
        "INSERT INTO credit_grants (account_id, source, ledger_id) SELECT id, 'welcome', 0 FROM accounts",
        {GRANT},
    ),
    "a grant that names something else": (
        "INSERT INTO credit_grants (account_id, source, ledger_id) "
        "SELECT account_id, 'welcome', id FROM ledger WHERE kind = 'charge'",
        {GRANT},
    ),
}


async def test_every_planted_difference_is_found_and_nothing_else(customer: Customer) -> None:
    await customer.made()
    await customer.made(generation_prompt="[sandbox:fail]")
    db = customer.deployment.db
    async with db.connection() as connection:
        await _drop_guards(connection)
    clean = await verify(db)
    assert clean == []
    found = {}
    for name, (statement, _) in PLANTED.items():
        await _save(db)
        async with db.transaction() as connection:
            await connection.execute(statement)
        found[name] = {difference.promise for difference in await verify(db)}
        await _restore(db)
    assert found == {name: broken for name, (_, broken) in PLANTED.items()}
    assert set().union(*found.values()) == {promise for promise, _ in CHECKS}, "every check finds something"
    assert await verify(db) == []


async def _drop_guards(connection: asyncpg.Connection) -> None:
    await connection.execute("ALTER TABLE ledger DISABLE TRIGGER USER; DROP INDEX ledger_once")
    await connection.execute("ALTER TABLE accounts DISABLE TRIGGER USER")
    for (name,) in await connection.fetch(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'generations'::regclass AND contype = 'c'"
    ):
        await connection.execute(f'ALTER TABLE generations DROP CONSTRAINT "{name}"')


TABLES = ("accounts", "credit_grants", "generations", "ledger")


async def _save(db: Database) -> None:
    for table in TABLES:
        await db.execute(f"CREATE TABLE saved_{table} AS TABLE {table}")


async def _restore(db: Database) -> None:
    async with db.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")  # no foreign keys meanwhile
        for table in TABLES:
            await connection.execute(f"DELETE FROM {table}")
            await connection.execute(
                f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM saved_{table}"
            )
            await connection.execute(f"DROP TABLE saved_{table}")


async def test_a_difference_says_where_and_what(db: Database, account: UUID) -> None:
    await ledger.add(db, account, 5, "five")
    await db.execute("UPDATE accounts SET credit_balance = 4")
    (difference,) = await verify(db)
    assert difference.promise == BALANCE
    assert difference.account == str(account)
    assert difference.generation is None
    assert difference.difference == "balance is 4, the ledger says 5"


async def test_at_most_a_thousand_differences_of_a_promise_are_listed(db: Database) -> None:
    await db.execute(
        "INSERT INTO accounts (id, name, plan, credit_balance) "
        "SELECT gen_random_uuid(), 'A', 'free', 1 FROM generate_series(1, 1001)"
    )
    assert len(await verify(db)) == 1000
