"""Whatever is asked in whatever batches, the database decides and books as the reference does."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.effort import effort
from tests.generations import admitting
from tests.generations.reference import Ask, Purse, Reference, Verdict

from babysea_server.db.pool import Database
from babysea_server.ledger import store as ledger
from babysea_server.ledger.verify import verify

GONE = 3  # the number of an account that does not exist


@dataclass(frozen=True)
class Wish:
    """One request as drawn: who, how much, under which limit and key."""

    account: int
    cost: int
    limit: int | None
    key: str | None
    fingerprint: bytes


@dataclass(frozen=True)
class Batch:
    wishes: Sequence[Wish]


@dataclass(frozen=True)
class End:
    """The n-th generation in flight ends so."""

    number: int
    status: str


@dataclass(frozen=True)
class Add:
    account: int
    amount: int


@dataclass(frozen=True)
class Age:
    account: int
    key: str


Step = Batch | End | Add | Age

keys = st.sampled_from(["a", "b"])
numbers = st.integers(0, GONE - 1)
wishes = st.builds(
    Wish,
    account=st.sampled_from([0, 0, 0, 1, 1, 2, GONE]),
    cost=st.sampled_from([0, 1, 2, 3, 5, 8]),
    limit=st.sampled_from([None, None, 0, 1, 2, 3, 5]),
    key=st.none() | keys,
    fingerprint=st.sampled_from([b"x", b"x", b"y"]),
)
steps = st.lists(
    st.one_of(
        st.builds(Batch, st.lists(wishes, min_size=1, max_size=8)),
        st.builds(Batch, st.lists(wishes, min_size=1, max_size=8)),
        st.builds(End, st.integers(0, 9), st.sampled_from(["succeeded", "failed", "canceled"])),
        st.builds(Add, numbers, st.integers(1, 6)),
        st.builds(Age, numbers, keys),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=effort(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(credits=st.tuples(*[st.sampled_from([0, 3, 10, 20])] * GONE), steps=steps)
async def test_batches_are_decided_and_booked_as_the_reference_does(
    db: Database, credits: tuple[int, ...], steps: list[Step]
) -> None:
    reference = Reference()
    ids = [await admitting.account(db, amount) for amount in credits]
    for account_id, amount in zip(ids, credits, strict=True):
        reference.purses[account_id] = Purse()
        reference.purses[account_id].book(None, "add", amount)
    ids.append(uuid4())
    for step in steps:
        await _take(db, reference, ids, step)
    for account_id, purse in reference.purses.items():
        await _compare(db, account_id, purse)


async def _take(db: Database, reference: Reference, ids: list[UUID], step: Step) -> None:
    match step:
        case Batch(wishes):
            batch = [
                admitting.ask(
                    ids[wish.account],
                    wish.cost,
                    limit=wish.limit,
                    key=wish.key,
                    fingerprint=wish.fingerprint,
                    order=("fal", "replicate") if wish.cost % 2 else ("sandbox",),
                    inputs={"generation_prompt": f"number {index}"},
                )
                for index, wish in enumerate(wishes)
            ]
            await _admit(db, reference, batch)
        case End(number, status):
            running = [
                (account_id, generation_id)
                for account_id, purse in reference.purses.items()
                for generation_id, kept in purse.generations.items()
                if kept.running
            ]
            if running:
                account_id, generation_id = running[number % len(running)]
                assert await admitting.settle(db, account_id, generation_id, status)
                reference.purses[account_id].settle(generation_id, status)
        case Add(number, amount):
            await ledger.add(db, ids[number], amount, "test")
            reference.purses[ids[number]].book(None, "add", amount)
        case Age(number, key):
            purse = reference.purses[ids[number]]
            assert await admitting.age_keys(db, ids[number], key) == (key in purse.keys)
            purse.aged.update({key} & purse.keys.keys())


async def _admit(db: Database, reference: Reference, batch: list[Ask]) -> None:
    rows = await admitting.admit(db, batch)
    assert [row["n"] for row in rows] == list(range(1, len(batch) + 1))
    found = [
        Verdict(row["result"], row["generation_id"], row["status"], row["balance"], row["in_flight"])
        for row in rows
    ]
    assert found == reference.admit(batch)
    for item, row in zip(batch, rows, strict=True):
        if row["result"] == "replayed":
            first = reference.purses[item.account_id].generations[row["generation_id"]].ask
            assert (row["model"], row["provider_order"], row["prediction_id"]) == (
                first.model,
                list(first.order),
                first.prediction_id,
            )


async def _compare(db: Database, account_id: UUID, purse: Purse) -> None:
    row = await db.fetchrow("SELECT * FROM accounts WHERE id = $1", account_id)
    assert (row["credit_balance"], row["generations_total"]) == (purse.balance, len(purse.generations))
    booked = await db.fetch(
        """SELECT generation_id, kind::text, amount, balance_after FROM ledger
           WHERE account_id = $1 ORDER BY id""",
        account_id,
    )
    assert [tuple(entry) for entry in booked] == purse.ledger
    generations = await db.fetch("SELECT * FROM generations WHERE account_id = $1", account_id)
    assert {generation["id"]: _facts(generation) for generation in generations} == {
        generation_id: (
            kept.status,
            kept.ask.cost,
            kept.charged,
            kept.refunded,
            kept.ask.model,
            kept.ask.media,
            kept.ask.inputs,
            list(kept.ask.order),
            kept.ask.prediction_id,
        )
        for generation_id, kept in purse.generations.items()
    }
    remembered = await db.fetch(
        "SELECT key, fingerprint, generation_id FROM idempotency_keys WHERE account_id = $1", account_id
    )
    assert {
        entry["key"]: (entry["fingerprint"], entry["generation_id"]) for entry in remembered
    } == purse.keys


def _facts(row: dict[str, object]) -> tuple[object, ...]:
    names = ("status", "reserved", "charged", "refunded", "model", "media", "inputs", "provider_order")
    return (*(row[name] for name in names), row["prediction_id"])


async def test_after_all_of_it_the_books_are_right(db: Database) -> None:
    """The reference and `ledger verify` judge independently; here a long mixed run is given to the second."""
    ids = [await admitting.account(db, amount) for amount in (40, 7, 0)]
    for round_number in range(12):
        batch = [
            admitting.ask(ids[n % 3], n % 5, limit=4 if n % 2 else None, key=f"{round_number % 4}-{n % 7}")
            for n in range(30)
        ]
        await admitting.admit(db, batch)
        rows = await db.fetch("SELECT id, account_id FROM generations WHERE status = 'pending' LIMIT 5")
        for index, row in enumerate(rows):
            status = ("succeeded", "failed", "canceled")[index % 3]
            assert await admitting.settle(db, row["account_id"], row["id"], status)
    assert await verify(db) == []
