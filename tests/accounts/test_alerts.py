"""Low-balance alerts: what fires, once, whatever comes in between, and without holding anybody up."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tests.conftest import MakeDeployment
from tests.support import make_account, make_customer

from babysea_server.accounts import alert_store as store
from babysea_server.accounts import alerts, notices
from babysea_server.accounts.alerts import AlertJob
from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import uuid7
from babysea_server.kit.money import micros
from babysea_server.ledger import store as ledger

_SPEND = """
WITH spent AS (
    UPDATE accounts SET credit_balance = credit_balance - $2 WHERE id = $1 RETURNING id, credit_balance
)
INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description)
SELECT id, $3, 'reserve', $2, credit_balance, 'test' FROM spent
"""
_GIVE_BACK = """
WITH back AS (
    UPDATE accounts SET credit_balance = credit_balance + $2 WHERE id = $1 RETURNING id, credit_balance
)
INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description)
SELECT id, $3, 'refund', $2, credit_balance, 'test' FROM back
"""


async def spend(db: Database | Any, account_id: UUID, credits: str) -> UUID:
    """Reserve credits as an admission does."""
    generation_id = uuid7()
    await db.execute(_SPEND, account_id, micros(credits), generation_id)
    return generation_id


async def give_back(db: Database, account_id: UUID, credits: str, generation_id: UUID) -> None:
    """Refund a reserve."""
    await db.execute(_GIVE_BACK, account_id, micros(credits), generation_id)


async def account_with(db: Database, credits: str) -> UUID:
    return (await make_account(db, credits=credits))[0]


async def subscribe(db: Database, account_id: UUID) -> None:
    """An endpoint that hears of low balances; without one no message is written."""
    await db.execute(
        """INSERT INTO webhook_endpoints (id, account_id, url, events, secret)
           VALUES ($1, $2, 'https://example.com/', '{credits.low_balance}', 'x')""",
        uuid7(),
        account_id,
    )


def job(db: Database, **options: Any) -> AlertJob:
    """A job whose turn it always is."""
    return AlertJob(db, every_s=0, **options)


async def told(db: Database, account_id: UUID) -> list[list[tuple[float, float]]]:
    """What notices said, oldest first: of each the thresholds crossed, with the balance at that moment."""
    found = await notices.page(db, account_id)
    return [
        [(each["threshold"], each["balance_at"]) for each in notice.data["thresholds_crossed"]]
        for notice in reversed(found)
    ]


# ------------------------------------------------------------------------------- what fires


async def test_a_balance_below_the_default_is_told_once_in_the_product_and_by_webhook(db: Database) -> None:
    account_id = await account_with(db, "1")
    await subscribe(db, account_id)
    await spend(db, account_id, "0.75")

    assert await job(db).run()
    assert await job(db).run()

    (notice,) = await notices.page(db, account_id)
    assert notice.kind == "credits.low_balance"
    assert notice.text == "The balance fell below 0.5 credits. It is 0.25 credits now."
    (message,) = await db.fetch("SELECT account_id, event, generation_id, data FROM webhook_messages")
    assert message["data"] == notice.data
    assert dict(message) == {
        "account_id": account_id,
        "event": "credits.low_balance",
        "generation_id": None,
        "data": {
            "account_id": str(account_id),
            "current_balance": 0.25,
            "thresholds_crossed": [{"threshold": 0.5, "balance_at": 0.25}],
        },
    }


async def test_a_generation_that_spends_the_rest_is_told(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False)
    customer = await make_customer(deployment, credits="0.5")
    assert (await customer.generate()).status_code == 200
    await job(deployment.db).run()
    (crossed,) = await told(deployment.db, customer.account_id)
    assert [threshold for threshold, _ in crossed] == [0.5]


async def test_a_balance_at_the_threshold_is_not_below_it(db: Database) -> None:
    account_id = await account_with(db, "1")
    await spend(db, account_id, "0.5")
    await job(db).run()
    assert await told(db, account_id) == []
    await spend(db, account_id, "0.000001")
    await job(db).run()
    assert await told(db, account_id) == [[(0.5, 0.499999)]]


async def test_an_alert_fires_again_only_after_the_balance_was_at_the_threshold(db: Database) -> None:
    account_id = await account_with(db, "1")
    first = await spend(db, account_id, "0.6")
    await spend(db, account_id, "0.1")
    await job(db).run()
    await ledger.add(db, account_id, micros("0.1"), "test")
    await spend(db, account_id, "0.1")
    await job(db).run()
    assert await told(db, account_id) == [[(0.5, 0.4)]]
    await give_back(db, account_id, "0.6", first)
    await job(db).run()
    await spend(db, account_id, "0.45")
    await job(db).run()
    assert await told(db, account_id) == [[(0.5, 0.4)], [(0.5, 0.45)]]


async def test_a_dip_that_recovered_before_anybody_looked_is_told(db: Database) -> None:
    account_id = await account_with(db, "1")
    generation_id = await spend(db, account_id, "0.9")
    await give_back(db, account_id, "0.9", generation_id)
    await job(db).run()
    (notice,) = await notices.page(db, account_id)
    assert notice.data["thresholds_crossed"] == [{"threshold": 0.5, "balance_at": 0.1}]
    assert notice.data["current_balance"] == 1


async def test_thresholds_crossed_together_are_told_together_and_replace_the_default(db: Database) -> None:
    account_id = await account_with(db, "10")
    await alerts.set_thresholds(db, account_id, [micros(text) for text in ("5", "2", "0.25")])
    await spend(db, account_id, "4")
    await spend(db, account_id, "5")
    await job(db).run()
    await spend(db, account_id, "0.6")
    await job(db).run()
    assert await told(db, account_id) == [[(5, 1), (2, 1)]]
    found = await alerts.get_alerts(db, account_id)
    assert [(alert.threshold, alert.armed, alert.fired_at is not None) for alert in found.alerts] == [
        (micros("5"), False, True),
        (micros("2"), False, True),
        (micros("0.25"), True, False),
    ]


async def test_what_was_spent_before_there_were_alerts_is_not_told(db: Database) -> None:
    account_id = await account_with(db, "1")
    await spend(db, account_id, "0.9")
    await db.execute("UPDATE credit_alert_scan SET settled_id = (SELECT max(id) FROM ledger)")
    await job(db).run()
    await spend(db, account_id, "0.05")
    await job(db).run()
    assert await told(db, account_id) == []


@pytest.mark.parametrize("seed", range(3))
async def test_any_course_of_balances_is_told_as_a_plain_model_says(db: Database, seed: int) -> None:
    chance = random.Random(seed)
    limits = [micros(text) for text in ("8", "5", "0.5")]
    accounts = [await account_with(db, "10") for _ in range(2)]
    balances = dict.fromkeys(accounts, micros("10"))
    for account_id in accounts:
        await alerts.set_thresholds(db, account_id, limits)
    expected: Counter[tuple[UUID, int]] = Counter()
    crossed: set[tuple[UUID, int]] = set()
    for _ in range(120):
        account_id, amount = chance.choice(accounts), chance.randrange(1, 6) * 1_000_000
        before = balances[account_id]
        if amount <= before and chance.random() < 0.55:
            await db.execute(_SPEND, account_id, amount, uuid7())
            balances[account_id] = before - amount
            crossed |= {(account_id, limit) for limit in limits if before - amount < limit <= before}
        else:
            await ledger.add(db, account_id, amount, "test")
            balances[account_id] = before + amount
        if chance.random() < 0.4:
            await job(db, page_rows=chance.choice((1, 2, 100))).run()
            expected.update(crossed)
            crossed.clear()
    await job(db).run()
    expected.update(crossed)

    found: Counter[tuple[UUID, int]] = Counter()
    for account_id in accounts:
        for each in await told(db, account_id):
            found.update((account_id, micros(threshold)) for threshold, _ in each)
    assert found == expected


# ------------------------------------------------------------------------------- once, and none left out


async def test_many_workers_at_once_tell_once(db: Database) -> None:
    accounts = [await account_with(db, "1") for _ in range(5)]
    for account_id in accounts:
        await spend(db, account_id, "0.9")
    await asyncio.gather(*(job(db).run() for _ in range(4)))
    for account_id in accounts:
        assert await told(db, account_id) == [[(0.5, 0.1)]]


async def test_only_one_worker_has_its_turn(db: Database) -> None:
    jobs = [AlertJob(db, every_s=1000) for _ in range(3)]
    assert sorted(await asyncio.gather(*(each.run() for each in jobs))) == [False, False, True]


async def test_a_row_that_is_committed_late_is_told_however_long_it_took(db: Database) -> None:
    late, early = await account_with(db, "1"), await account_with(db, "1")
    async with db.transaction() as connection:
        await spend(connection, late, "0.9")
        await spend(db, early, "0.9")
        for _ in range(3):
            await job(db).run()
        assert await told(db, early) == [[(0.5, 0.1)]]
        assert await told(db, late) == []
    await job(db).run()
    await job(db).run()
    assert await told(db, late) == [[(0.5, 0.1)]]
    assert await told(db, early) == [[(0.5, 0.1)]]


async def test_everything_is_told_in_pages_and_then_left_behind(db: Database) -> None:
    accounts = [await account_with(db, "1") for _ in range(4)]
    for _ in range(3):
        for account_id in accounts:
            await spend(db, account_id, "0.2")
    await job(db, page_rows=2).run()
    for account_id in accounts:
        assert await told(db, account_id) == [[(0.5, 0.4)]]
    await job(db).run()
    position = await store.claim(db, seconds=0)
    assert position is not None
    assert position.settled_id == await db.fetchval("SELECT max(id) FROM ledger")


async def test_transactions_that_always_overlap_do_not_keep_the_whole_ledger_to_be_read(db: Database) -> None:
    accounts = [await account_with(db, "1") for _ in range(3)]
    end = await db.fetchval("SELECT max(id) FROM ledger")
    async with db.connection() as first, db.connection() as second:
        one, other = first.transaction(), second.transaction()
        await one.start()
        await spend(first, accounts[0], "0.1")
        await job(db).run()
        await other.start()
        await spend(second, accounts[1], "0.1")
        await job(db).run()
        await one.commit()
        await job(db).run()
        position = await store.claim(db, seconds=0)
        await other.commit()
    assert position is not None
    assert position.settled_id == end


async def test_a_restored_dump_whose_transaction_ids_began_anew_is_looked_at(db: Database) -> None:
    account_id = await account_with(db, "1")
    await db.execute("UPDATE credit_alert_scan SET seen_xid = '1000000000000'")
    await spend(db, account_id, "0.9")
    for _ in range(2):
        await job(db).run()
    position = await store.claim(db, seconds=0)
    assert position is not None
    assert position.settled_id == await db.fetchval("SELECT max(id) FROM ledger")
    assert await told(db, account_id) == [[(0.5, 0.1)]]


async def test_what_cannot_be_told_is_told_later_and_once(db: Database) -> None:
    account_id = await account_with(db, "1")
    await subscribe(db, account_id)
    await spend(db, account_id, "0.9")
    await db.execute(
        "ALTER TABLE webhook_messages ADD CONSTRAINT broken CHECK (event <> 'credits.low_balance')"
    )
    for _ in range(2):
        with pytest.raises(asyncpg.CheckViolationError):
            await job(db).run()
    assert await told(db, account_id) == []
    await db.execute("ALTER TABLE webhook_messages DROP CONSTRAINT broken")
    await job(db).run()
    await job(db).run()
    assert await told(db, account_id) == [[(0.5, 0.1)]]
    assert await db.fetchval("SELECT count(*) FROM webhook_messages") == 1


# ------------------------------------------------------------------------------- nobody waits, nothing grows


async def test_looking_and_reserving_do_not_wait_for_each_other(db: Database) -> None:
    account_id = await account_with(db, "1")
    await spend(db, account_id, "0.9")
    async with db.transaction() as reserving:
        await spend(reserving, account_id, "0.05")
        await job(db).run()
        assert await told(db, account_id) == [[(0.5, 0.1)]]
    async with db.transaction() as telling:
        watermark = await store.lock(telling, account_id)
        assert watermark is not None
        assert await store.walk(telling, account_id, after=watermark, upto=2**62, default=1) is not None
        await notices.notify(telling, account_id, "test", "A test.", {})
        async with db.transaction() as reserving:
            await reserving.execute("SET LOCAL lock_timeout = '5s'")
            await spend(reserving, account_id, "0.01")


def _reads(plan: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """How each node reads the ledger, and how many rows it touches."""
    if plan.get("Relation Name") == "ledger":
        rows = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        yield plan["Node Type"], rows * plan["Actual Loops"]
    for child in plan.get("Plans", []):
        yield from _reads(child)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_looking_reads_only_what_is_new_however_long_the_ledger_is(db: Database, mode: str) -> None:
    accounts = [await account_with(db, "100") for _ in range(3)]
    await job(db).run()
    await db.execute(
        """INSERT INTO ledger (account_id, kind, amount, balance_after, description)
           SELECT ($1::uuid[])[1 + n % 3], 'add', 1, 1000000, 'test' FROM generate_series(1, 100000) AS n""",
        accounts,
    )
    await db.execute("ANALYZE ledger")
    end = await db.fetchval("SELECT max(id) FROM ledger")
    await db.execute("UPDATE credit_alert_watermarks SET ledger_id = $1", end)
    for account_id in accounts:
        await spend(db, account_id, "1")

    ids = "{" + ",".join(map(str, accounts)) + "}"
    for statement, types, arguments in [
        (store._PAGE, "bigint, integer", f"{end}, 5000"),
        (store._LOOK, "uuid[], bigint, bigint, bigint", f"'{ids}', {end}, {end + 3}, 500000"),
        (store._WALK, "uuid, bigint, bigint, bigint", f"'{accounts[0]}', {end}, {end + 3}, 500000"),
    ]:
        async with db.transaction() as connection:
            await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
            await connection.execute(f"PREPARE looking ({types}) AS {statement}")
            plan = await connection.fetchval(
                f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) EXECUTE looking ({arguments})"
            )
            await connection.execute("DEALLOCATE looking")
        reads = list(_reads(json.loads(plan)[0]["Plan"]))
        assert reads
        assert all("Index" in kind for kind, _ in reads), reads
        assert sum(rows for _, rows in reads) <= 9, reads


# ------------------------------------------------------------------------------- thresholds


async def test_an_account_has_the_default_until_it_has_its_own(db: Database) -> None:
    account_id = await account_with(db, "1")
    found = await alerts.get_alerts(db, account_id)
    assert (found.is_default, [(alert.threshold, alert.armed) for alert in found.alerts]) == (
        True,
        [(500_000, True)],
    )

    own = await alerts.set_thresholds(db, account_id, [1, micros("7"), 1])
    assert (own.is_default, [(alert.threshold, alert.armed) for alert in own.alerts]) == (
        False,
        [(7_000_000, False), (1, True)],
    )
    assert await alerts.get_alerts(db, account_id) == own
    assert [
        alert.threshold for alert in (await alerts.remove_threshold(db, account_id, 7_000_000)).alerts
    ] == [1]
    assert (await alerts.set_thresholds(db, account_id, [])).is_default


async def test_a_threshold_that_stays_keeps_when_it_fired(db: Database) -> None:
    account_id = await account_with(db, "2")
    await alerts.set_thresholds(db, account_id, [1_000_000])
    await spend(db, account_id, "1.5")
    await job(db).run()
    changed = await alerts.set_thresholds(db, account_id, [1_000_000, 100_000])
    assert [alert.fired_at is not None for alert in changed.alerts] == [True, False]


async def test_thresholds_set_at_once_stay_within_the_limit(db: Database) -> None:
    account_id = await account_with(db, "1")
    sets = [range(1, 11), range(11, 21), range(21, 31)]
    await asyncio.gather(*(alerts.set_thresholds(db, account_id, list(each)) for each in sets))
    found = await alerts.get_alerts(db, account_id)
    assert sorted(alert.threshold for alert in found.alerts) in [list(each) for each in sets]


@pytest.mark.parametrize("thresholds", [list(range(1, 12)), [0], [-1], [10**15 + 1]])
async def test_thresholds_that_cannot_be_are_refused(db: Database, thresholds: list[int]) -> None:
    account_id = await account_with(db, "1")
    with pytest.raises(ValueError, match="threshold"):
        await alerts.set_thresholds(db, account_id, thresholds)
    assert (await alerts.get_alerts(db, account_id)).is_default


async def test_alerts_of_nobody_are_not_found(db: Database) -> None:
    nobody = uuid7()
    with pytest.raises(NotFoundError):
        await alerts.get_alerts(db, nobody)
    with pytest.raises(NotFoundError):
        await alerts.set_thresholds(db, nobody, [1])
    with pytest.raises(NotFoundError):
        await alerts.remove_threshold(db, await account_with(db, "1"), 1)
