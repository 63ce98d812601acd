"""Within an account requests are decided in arrival order, each against what its predecessors left."""

import asyncio

import pytest
from tests.generations import admitting

from babysea_server.db.pool import Database
from babysea_server.generations.admission import Admissions
from babysea_server.kit.clock import SystemClock
from babysea_server.ledger.verify import verify

FIT, NOT = "accepted", "insufficient_credits"


@pytest.mark.parametrize(
    ("credit", "costs", "expected"),
    [
        (3, [1, 1, 1, 1, 1], [FIT, FIT, FIT, NOT, NOT]),
        (30, [10, 10, 10, 10, 10], [FIT, FIT, FIT, NOT, NOT]),
        (10, [6, 6, 4, 1, 1], [FIT, NOT, FIT, NOT, NOT]),
        (10, [11, 10, 1], [NOT, FIT, NOT]),
        (10, [11, 4, 0, 7, 6, 0], [NOT, FIT, FIT, NOT, FIT, FIT]),
        (0, [0, 1, 0], [FIT, NOT, FIT]),
    ],
)
async def test_credit_goes_to_the_first_that_fit(
    db: Database, credit: int, costs: list[int], expected: list[str]
) -> None:
    account_id = await admitting.account(db, credit)
    admissions = Admissions(db, SystemClock(), lambda: None)
    requests = [admitting.request(account_id, cost) for cost in costs]
    decided = await asyncio.gather(*[admissions.admit(asked) for asked in requests])
    assert [admission.result for admission in decided] == expected
    rows = await db.fetch("SELECT id FROM generations WHERE account_id = $1", account_id)
    written = [asked.generation_id for asked, result in zip(requests, expected, strict=True) if result == FIT]
    assert {row["id"] for row in rows} == set(written)
    booked = await db.fetch("SELECT generation_id FROM ledger WHERE kind = 'reserve' ORDER BY id")
    assert [row["generation_id"] for row in booked] == [
        asked.generation_id for asked in requests if asked.generation_id in written and asked.cost
    ]
    assert await verify(db) == []


async def test_accounts_in_one_batch_do_not_see_each_other(db: Database) -> None:
    first, second = await admitting.account(db, 2), await admitting.account(db, 1)
    batch = [admitting.ask(account) for account in (first, second, first, second, first)]
    rows = await admitting.admit(db, batch)
    assert [row["result"] for row in rows] == [FIT, FIT, FIT, NOT, NOT]


async def test_requests_under_different_limits_count_each_other_in_one_batch(db: Database) -> None:
    """As when the plan of an account changes while its requests queue up."""
    account_id = await admitting.account(db, 10)
    batch = [admitting.ask(account_id, limit=limit) for limit in (None, None, 2, 3, 3, None)]
    rows = await admitting.admit(db, batch)
    assert [(row["result"], row["in_flight"]) for row in rows] == [
        (FIT, None),
        (FIT, None),
        ("over_concurrency", 2),
        (FIT, 2),
        ("over_concurrency", 3),
        (FIT, None),
    ]
