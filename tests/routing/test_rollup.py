"""Counting the attempt log piece by piece, and the rankings that come of it."""

import asyncio
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import asyncpg
import pytest
from bench.routing.simulate import SlotLog
from tests.routing.attempts import AGAINST, resolve
from tests.support import ManualClock

from babysea_server.db.pool import Database
from babysea_server.routing import store
from babysea_server.routing.job import RankingJob, read_records
from babysea_server.routing.ranking import DECAYED, PUBLISHED, Rule, read_ranking
from babysea_server.routing.rankings import PostgresRankings
from babysea_server.routing.statistics import NO_SUCCESS, SLOT_S, WINDOW_S, Counts, Record, bucket_of


def job(db: Database, **options: Any) -> RankingJob:
    """A job that is due at once, and waits for no late statement."""
    return RankingJob(
        db, "us", ManualClock(), **{"failures": AGAINST, "every_s": 0.0, "lag_s": 0.0, **options}
    )


async def counted(db: Database, provider: str = "a", rule: Rule = PUBLISHED) -> Record:
    """What is known of a provider after everything has been counted."""
    await job(db).run()
    return (await read_records(db, rule)).get("m/m", {}).get(provider, Record())


def figures(counts: Counts) -> tuple[float, float, float, float]:
    return counts.attempts, counts.successes, counts.failures, counts.wasted


@pytest.mark.parametrize(
    ("outcome", "columns", "expected"),
    [
        ("used", {}, (1, 1, 0, 0)),
        ("used", {"cost": 40_000}, (1, 1, 0, 0)),
        ("failed", {"failure": "failed"}, (1, 0, 1, 0)),
        ("failed", {"failure": "failed", "cost": 1}, (1, 0, 1, 1)),
        ("failed", {"failure": "never_sent"}, (1, 0, 1, 0)),
        ("failed", {"failure": "refused_busy"}, (1, 0, 1, 0)),
        ("failed", {"failure": "refused_auth"}, (1, 0, 1, 0)),
        ("failed", {"failure": "timed_out"}, (1, 0, 1, 1)),
        ("failed", {"failure": "outcome_unknown"}, (1, 0, 1, 1)),
        ("failed", {"failure": "bad_output"}, (1, 0, 1, 1)),
        ("failed", {"failure": "bad_output", "code": "BSE5003", "cost": 1}, (0, 0, 0, 0)),
        ("failed", {"failure": "refused_input", "cost": 1}, (0, 0, 0, 0)),
        ("failed", {"failure": "refused_policy", "cost": 1}, (0, 0, 0, 0)),
        ("discarded", {}, (0, 0, 0, 0)),
        ("discarded", {"cost": 1}, (1, 0, 0, 1)),
        ("cancelled", {"cost": 1}, (0, 0, 0, 0)),
        ("pending", {}, (0, 0, 0, 0)),
    ],
)
async def test_what_an_attempt_counts_as(
    db: Database, outcome: str, columns: dict[str, Any], expected: tuple[int, ...]
) -> None:
    await resolve(db, "a", outcome, 10, **columns)
    assert figures((await counted(db)).day) == expected


async def test_each_attempt_is_counted_once_however_often_it_is_looked_at(db: Database) -> None:
    await resolve(db, "a", "used", 3 * SLOT_S, took_s=2, times=7)
    assert (await counted(db)).day.attempts == 7
    await resolve(db, "a", "used", 0, took_s=2, times=2)
    assert (await counted(db)).day.attempts == 9
    found = (await counted(db)).day
    assert (found.attempts, found.latencies) == (9, {bucket_of(2.0): 9})


async def test_a_day_that_nobody_counted_is_caught_up_with_in_one_run_and_no_more_than_a_day(
    db: Database,
) -> None:
    for hours in (1, 5, 23, 25, 40):
        await resolve(db, "a", "used", hours * 3600)
    await db.execute("UPDATE attempt_rollup SET upto = now() - interval '30 days'")
    assert (await counted(db)).day.attempts == 3
    assert await db.fetchval("SELECT now() - upto < interval '1 minute' FROM attempt_rollup")


async def test_what_has_ended_only_just_is_left_for_the_next_time(db: Database) -> None:
    await resolve(db, "a", "used", 5)
    await resolve(db, "a", "used", 100)
    await job(db, lag_s=60.0).run()
    assert (await read_records(db, PUBLISHED))["m/m"]["a"].day.attempts == 1
    assert (await counted(db)).day.attempts == 2


async def test_what_the_window_has_left_is_deleted(db: Database) -> None:
    await resolve(db, "a", "used", 10, times=3)
    await counted(db)
    await db.execute("UPDATE attempt_slots SET slot = slot - make_interval(secs => $1)", WINDOW_S)
    assert (await counted(db)).day.attempts == 0
    await db.execute("UPDATE attempt_slots SET slot = slot - make_interval(secs => $1)", 2 * SLOT_S)
    await counted(db)
    assert await db.fetchval("SELECT count(*) FROM attempt_slots") == 0


async def test_of_workers_that_count_at_once_each_attempt_is_counted_once(dsn: str, db: Database) -> None:
    for age_s in range(0, 20 * SLOT_S, SLOT_S // 2):
        await resolve(db, "a", "used", age_s, times=3)
    await db.execute("UPDATE attempt_rollup SET upto = now() - make_interval(secs => $1)", 30.0 * SLOT_S)
    async with AsyncExitStack() as stack:
        workers = []
        for _ in range(4):
            own = Database(dsn, name="worker", size=1)
            await own.open()
            stack.push_async_callback(own.close)
            workers.append(own)

        async def count(worker: Database) -> None:
            for _ in range(30):
                await store.roll_up(worker, lag_s=0.0, failures=AGAINST)

        await asyncio.gather(*(count(worker) for worker in workers))
    assert (await counted(db)).day.attempts == 120


async def test_of_workers_whose_turn_it_is_one_does_the_work(dsn: str, db: Database) -> None:
    jobs = [job(db, every_s=30.0) for _ in range(6)]
    assert sum(await asyncio.gather(*(each.run() for each in jobs))) == 1
    assert not any([await each.run() for each in jobs])
    await db.execute("UPDATE attempt_rollup SET ranked_at = ranked_at - interval '30 seconds'")
    assert sum(await asyncio.gather(*(each.run() for each in jobs))) == 1


async def test_a_worker_that_dies_while_it_counts_leaves_nothing_half_counted(dsn: str, db: Database) -> None:
    await resolve(db, "a", "used", 10, times=5)
    dying = await asyncpg.connect(dsn)
    await dying.execute("BEGIN")
    await dying.execute("SELECT FROM attempt_rollup FOR UPDATE")
    await dying.execute("UPDATE attempt_rollup SET upto = now()")
    assert not await store.roll_up(db, lag_s=0.0, failures=AGAINST)  # it is held: nobody waits
    dying.terminate()
    await db.fetchval("SELECT count(*) FROM (SELECT FROM attempt_rollup FOR UPDATE) AS held")
    assert (await counted(db)).day.attempts == 5


async def test_the_simulations_slots_count_as_the_databases_do(db: Database) -> None:
    """What the simulation shows holds for the server: both make the same of the same attempts."""
    random, twin = Random(3), SlotLog()
    now = float(await db.fetchval("SELECT extract(epoch FROM now())::float8"))
    for _ in range(150):
        provider, age_s, took_s = random.choice("ab"), random.uniform(1, 3000), random.uniform(0.5, 50)
        if random.random() < 0.7:
            await resolve(db, provider, "used", age_s, took_s=took_s)
            twin.add(provider, now - age_s, bucket_of(took_s))
        else:
            cost = random.choice([0, 5])
            await resolve(db, provider, "failed", age_s, failure="failed", cost=cost)
            twin.add(provider, now - age_s, NO_SUCCESS, 1, int(cost > 0))
    await job(db).run()
    # Writing took a while, so an attempt in a hundred may have fallen into the next slot or faded a little more.
    for provider, record in (await read_records(db, DECAYED))["m/m"].items():
        expected = twin.records(now, DECAYED.half_life_s)[provider]
        assert figures(record.day) == figures(expected.day)
        assert record.day.latencies == expected.day.latencies
        assert figures(record.lately) == pytest.approx(figures(expected.lately), rel=0.2, abs=1)


async def test_every_model_is_ranked_and_published(db: Database) -> None:
    for model, good, bad in (("m/m", "a", "b"), ("n/n", "b", "a")):
        await resolve(db, good, "used", 10, took_s=2, times=20, model=model)
        await resolve(db, bad, "used", 10, took_s=9, times=20, model=model)
    assert await job(db).run()
    documents = await PostgresRankings(db, "us").read()
    rankings = {model: read_ranking(document) for model, document in documents.items()}
    assert {model: found and found.providers_ranked for model, found in rankings.items()} == {
        "m/m": ("a", "b"),
        "n/n": ("b", "a"),
    }
    assert await db.fetchval("SELECT min(key) FROM rankings") == "predictive:ranking:us:m/m"
    assert rankings["m/m"] is not None
    assert (rankings["m/m"].attempts_total, rankings["m/m"].window_hours) == (40, 24)
