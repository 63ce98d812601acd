"""Database facts: what the schema itself refuses, whatever code runs above it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.databases import Databases

from babysea_server.db.pool import Database
from babysea_server.kit.ids import uuid7


class Facts:
    """Statements inside one transaction; one that is refused changes nothing and the next may follow."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def execute(self, query: str, *arguments: Any) -> int:
        async with self._connection.transaction():
            status: str = await self._connection.execute(query, *arguments)
        return int(status.rpartition(" ")[2])

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        async with self._connection.transaction():
            return await self._connection.fetchval(query, *arguments)


@pytest.fixture(scope="module")
async def facts(databases: Databases) -> AsyncIterator[Database]:
    """A migrated database for all tests of this file: none of them leaves anything in it."""
    async with databases.fresh() as dsn:
        database = Database(dsn, name="facts", size=1)
        await database.open()
        yield database
        await database.close()


@pytest.fixture
async def db(facts: Database) -> AsyncIterator[Facts]:
    async with facts.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield Facts(connection)
        await transaction.rollback()


@pytest.fixture
async def account(db: Facts) -> UUID:
    account_id = uuid7()
    await insert(db, "accounts", id=account_id, name="A", plan="free", credit_balance=100)
    return account_id


async def insert(db: Facts, table: str, **values: Any) -> None:
    columns, places = ", ".join(values), ", ".join(f"${n}" for n in range(1, len(values) + 1))
    await db.execute(f"INSERT INTO {table} ({columns}) VALUES ({places})", *values.values())


async def new_generation(db: Facts, account: UUID, **values: Any) -> UUID:
    generation_id = uuid7()
    row = {
        "id": generation_id, "account_id": account, "apikey_id": uuid7(), "model": "a/b", "media": "image",
        "inputs": {}, "provider_order": ["fal"], "prediction_id": uuid7(), "reserved": 10,
    }  # fmt: skip
    row |= values
    columns, places = ", ".join(row), ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await db.execute(
        f"INSERT INTO generations ({columns}, expires_at) VALUES ({places}, now() + interval '1 hour')",
        *row.values(),
    )
    return generation_id


async def new_attempt(db: Facts, generation: UUID, order: int = 1, **values: Any) -> None:
    row = {
        "id": uuid7(), "generation_id": generation, "account_id": uuid7(), "model": "a/b", "attempt_order": order,
        "provider": "fal", "adapter": "sandbox",
    }  # fmt: skip
    await insert(db, "attempts", **row, **values)


async def new_key(db: Facts, account: UUID, **values: Any) -> None:
    row = {
        "id": uuid7(),
        "account_id": account,
        "name": "K",
        "prefix": "bye_12345",
        "hash": uuid7().bytes * 2,
    }
    await insert(db, "api_keys", **{**row, "scopes": ["account:read"], **values})


async def new_entry(db: Facts, account: UUID, kind: str, generation: UUID | None, amount: int = 10) -> None:
    await insert(
        db, "ledger",
        account_id=account, generation_id=generation, kind=kind, amount=amount, balance_after=0, description="",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ accounts, keys


async def test_a_balance_never_becomes_negative(db: Facts, account: UUID) -> None:
    await db.execute("UPDATE accounts SET credit_balance = credit_balance - 100 WHERE id = $1", account)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute("UPDATE accounts SET credit_balance = credit_balance - 1 WHERE id = $1", account)


@pytest.mark.parametrize(
    "values",
    [{"name": ""}, {"name": "n" * 101}, {"email": "a@"}, {"email": "e" * 321}, {"generations_total": -1}],
)
async def test_an_account_is_well_formed(db: Facts, values: dict[str, Any]) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await insert(db, "accounts", **{"id": uuid7(), "name": "A", "plan": "free", **values})


@pytest.mark.parametrize(
    "values",
    [
        {"name": ""}, {"name": "n" * 101}, {"prefix": "bye_1234"}, {"hash": b"short"}, {"scopes": []},
        {"allowlist": ["10.0.0.1"] * 51}, {"state": "rotated"},
    ],
)  # fmt: skip
async def test_a_key_is_well_formed(db: Facts, account: UUID, values: dict[str, Any]) -> None:
    await new_key(db, account)
    with pytest.raises(asyncpg.CheckViolationError):
        await new_key(db, account, **values)


async def test_a_hash_belongs_to_one_key(db: Facts, account: UUID) -> None:
    await new_key(db, account, hash=b"h" * 32)
    with pytest.raises(asyncpg.UniqueViolationError):
        await new_key(db, account, hash=b"h" * 32)


# ------------------------------------------------------------------------------------------ generations


@pytest.mark.parametrize(
    "final",
    [
        "status = 'succeeded', outputs = '[]', completed_at = now(), charged = 10",
        "status = 'succeeded', outputs = '[]', completed_at = now(), charged = 4, refunded = 6",
        "status = 'failed', error_code = 'BSE4001', completed_at = now(), refunded = 10",
        "status = 'canceled', completed_at = now(), refunded = 10",
        "status = 'processing', worker_id = gen_random_uuid(), started_at = now()",
    ],
)
async def test_what_is_settled_exactly_is_accepted(db: Facts, account: UUID, final: str) -> None:
    generation = await new_generation(db, account)
    assert await db.execute(f"UPDATE generations SET {final} WHERE id = $1", generation) == 1


@pytest.mark.parametrize(
    "change",
    [
        "status = 'succeeded', outputs = '[]', completed_at = now(), charged = 9",
        "status = 'succeeded', outputs = '[]', completed_at = now(), charged = 11",
        "status = 'succeeded', outputs = '[]', completed_at = now(), charged = 10, refunded = 1",
        "status = 'succeeded', outputs = '[]', completed_at = now(), refunded = 10",
        "status = 'failed', error_code = 'BSE4001', completed_at = now(), refunded = 9",
        "status = 'failed', error_code = 'BSE4001', completed_at = now(), charged = 10",
        "status = 'failed', error_code = 'BSE4001', completed_at = now(), charged = 1, refunded = 9",
        "status = 'canceled', completed_at = now()",
        "status = 'canceled', completed_at = now(), charged = 10",
        "status = 'processing', charged = 10",
        "charged = 1",
        "refunded = 1",
        "charged = -1, refunded = 11",
    ],
)
async def test_what_is_not_settled_exactly_is_refused(db: Facts, account: UUID, change: str) -> None:
    generation = await new_generation(db, account)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(f"UPDATE generations SET {change} WHERE id = $1", generation)


@pytest.mark.parametrize(
    "change",
    [
        "completed_at = now()",
        "status = 'canceled', refunded = 10",
        "outputs = '[]'",
        "status = 'succeeded', completed_at = now(), charged = 10",
        "error_code = 'BSE4001'",
        "status = 'failed', completed_at = now(), refunded = 10",
        "status = 'canceled', completed_at = now(), refunded = 10, worker_id = gen_random_uuid()",
        "provider_order = '{}'",
        "reserved = -1",
        "predict_ms = -1",
        "rate_per_second = 0",
    ],
)
async def test_a_generation_is_consistent_with_its_status(db: Facts, account: UUID, change: str) -> None:
    generation = await new_generation(db, account)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(f"UPDATE generations SET {change} WHERE id = $1", generation)


async def test_a_generation_has_an_account(db: Facts, account: UUID) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await new_generation(db, uuid7())
    await new_generation(db, account)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await db.execute("DELETE FROM accounts WHERE id = $1", account)


async def test_an_idempotency_key_stands_for_one_generation_of_an_account(db: Facts, account: UUID) -> None:
    row = {"account_id": account, "key": "k", "fingerprint": b""}
    await insert(db, "idempotency_keys", **row, generation_id=uuid7())
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert(db, "idempotency_keys", **row, generation_id=uuid7())


# ------------------------------------------------------------------------------------------ attempts


async def test_a_generation_has_at_most_one_open_attempt(db: Facts, account: UUID) -> None:
    generation = await new_generation(db, account)
    await new_attempt(db, generation, 1)
    with pytest.raises(asyncpg.UniqueViolationError, match="attempts_one_open"):
        await new_attempt(db, generation, 2)


async def test_a_generation_has_at_most_one_used_attempt(db: Facts, account: UUID) -> None:
    generation = await new_generation(db, account)
    for order in (1, 2):
        await new_attempt(db, generation, order)
        use = db.execute(
            "UPDATE attempts SET outcome = 'used', resolved_at = now() WHERE generation_id = $1 AND attempt_order = $2",
            generation,
            order,
        )
        if order == 1:
            assert await use == 1
        else:
            with pytest.raises(asyncpg.UniqueViolationError, match="attempts_one_used"):
                await use


async def test_attempts_are_numbered_once_and_from_one(db: Facts, account: UUID) -> None:
    generation = await new_generation(db, account)
    with pytest.raises(asyncpg.CheckViolationError):
        await new_attempt(db, generation, 0)
    await new_attempt(db, generation, 1)
    await db.execute("UPDATE attempts SET outcome = 'cancelled', resolved_at = now()")
    with pytest.raises(asyncpg.UniqueViolationError):
        await new_attempt(db, generation, 1)


@pytest.mark.parametrize(
    "change",
    [
        "resolved_at = now()",
        "outcome = 'used'",
        "outcome = 'failed', resolved_at = now()",
        "estimated_cost = -1",
    ],
)
async def test_an_attempt_is_consistent_with_its_outcome(db: Facts, account: UUID, change: str) -> None:
    await new_attempt(db, await new_generation(db, account))
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(f"UPDATE attempts SET {change}")


# ------------------------------------------------------------------------------------------ ledger


@pytest.mark.parametrize("kind", ["reserve", "charge", "refund"])
async def test_a_generation_is_reserved_charged_and_refunded_once(
    db: Facts, account: UUID, kind: str
) -> None:
    generation = await new_generation(db, account)
    await new_entry(db, account, kind, generation)
    with pytest.raises(asyncpg.UniqueViolationError, match="ledger_once"):
        await new_entry(db, account, kind, generation, 1)


@pytest.mark.parametrize("amount", [0, -1])
async def test_every_amount_is_positive(db: Facts, account: UUID, amount: int) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await new_entry(db, account, "add", None, amount)


async def test_only_added_credits_have_no_generation(db: Facts, account: UUID) -> None:
    for kind, generation in (("add", uuid7()), ("reserve", None), ("charge", None), ("refund", None)):
        with pytest.raises(asyncpg.CheckViolationError):
            await new_entry(db, account, kind, generation)


async def test_no_row_says_that_a_balance_was_negative(db: Facts, account: UUID) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await insert(
            db, "ledger", account_id=account, kind="add", amount=1, balance_after=-1, description=""
        )  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET amount = amount + 1",
        "UPDATE ledger SET description = 'other'",
        "DELETE FROM ledger",
        "TRUNCATE ledger",
        "TRUNCATE ledger, accounts CASCADE",
    ],
)
async def test_the_ledger_is_append_only(db: Facts, account: UUID, statement: str) -> None:
    await new_entry(db, account, "add", None)
    with pytest.raises(asyncpg.RestrictViolationError, match="immutable"):
        await db.execute(statement)
    assert await db.fetchval("SELECT amount FROM ledger") == 10


async def test_ledger_rows_outlive_their_account(db: Facts, account: UUID) -> None:
    await new_entry(db, account, "add", None)
    await db.execute("DELETE FROM accounts WHERE id = $1", account)
    assert await db.fetchval("SELECT count(*) FROM ledger WHERE account_id = $1", account) == 1
