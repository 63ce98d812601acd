"""Both stores of counters: exact under concurrency, probed for real, cleaned of what is over."""

import asyncio
import random

import pytest
from tests.limits.conftest import MakeCounters
from tests.limits.counting import caller, patient
from tests.limits.servers import RedisServer, Wire, free_port, needs_redis
from tests.support import ManualClock

from babysea_server.db.pool import Database
from babysea_server.limits.counters import KEEP_S, WINDOW_S, Addition, CountersUnavailableError
from babysea_server.limits.rate import RateLimiter
from babysea_server.limits.redis import RedisCounters
from babysea_server.limits.store import PostgresCounters, delete_old


async def test_sums_come_in_the_order_of_the_additions(make_counters: MakeCounters) -> None:
    counters = await make_counters()
    keys = [f"key-{number}" for number in range(600)]
    random.Random(1).shuffle(keys)
    additions = [Addition(key, 7, int(key[4:]) + 1) for key in keys]
    assert await counters.add(additions) == [addition.amount for addition in additions]
    assert await counters.add(additions[:3]) == [2 * addition.amount for addition in additions[:3]]
    assert await counters.add([Addition(keys[0], 8, 5)]) == [5]


async def test_additions_in_opposite_orders_never_wait_in_a_circle(make_counters: MakeCounters) -> None:
    one, two = await make_counters(), await make_counters()
    forward = [Addition(f"key-{number}", 7, 1) for number in range(50)]
    sums = await asyncio.gather(
        *(one.add(forward) for _ in range(4)), *(two.add(forward[::-1]) for _ in range(4))
    )
    assert sorted([each[0] for each in sums[:4]] + [each[-1] for each in sums[4:]]) == list(range(1, 9))
    assert await one.add(forward) == [9] * 50


async def test_two_processes_let_exactly_the_limit_pass(make_counters: MakeCounters) -> None:
    clock = ManualClock()
    windows = [patient(await make_counters(), clock) for _ in range(2)]
    limiters = [RateLimiter(each, clock) for each in windows]
    chance = random.Random(2)
    for _ in range(3):
        asked = [chance.choice(limiters).take(caller(100, account)) for account in (1, 2) for _ in range(300)]
        answers = [answer for answer in await asyncio.gather(*asked) if answer is not None]
        for of_account in (answers[:300], answers[300:]):
            passed = [answer for answer in of_account if not answer.exceeded]
            assert sorted(answer.remaining for answer in passed) == list(range(100))
        clock.advance(WINDOW_S)
    for each in windows:
        await each.close()


async def test_a_probe_is_a_round_trip(make_counters: MakeCounters) -> None:
    counters = await make_counters()
    await asyncio.gather(*(counters.probe() for _ in range(3)))


async def test_a_database_that_is_away_is_unavailable() -> None:
    counters = PostgresCounters(Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none", name="limits"))
    await counters.open()
    with pytest.raises(CountersUnavailableError, match="did not take the counts"):
        await counters.add([Addition("key", 1, 1)])
    with pytest.raises(CountersUnavailableError):
        await counters.probe()
    await counters.close()


async def test_old_windows_are_deleted_and_present_ones_stay(db: Database) -> None:
    counters = PostgresCounters(db)
    now_s = 1_000_000 * WINDOW_S
    old, present = now_s // WINDOW_S - KEEP_S // WINDOW_S - 1, now_s // WINDOW_S
    await counters.add([Addition(f"key-{number}", old, 1) for number in range(5001)])
    await counters.add([Addition("key-0", present, 1), Addition("key-0", present - 1, 1)])
    await delete_old(db, now_s)
    rows = await db.fetch("SELECT window_no FROM window_counts ORDER BY window_no")
    assert [row["window_no"] for row in rows] == [present - 1, present]


@needs_redis
class TestRedis:
    async def test_regions_that_share_a_server_count_apart_and_keys_expire(
        self, redis_server: RedisServer
    ) -> None:
        us, eu = RedisCounters(redis_server.url, "us"), RedisCounters(redis_server.url, "eu")
        assert await us.add([Addition("rate:a", 7, 3)]) == [3]
        assert await eu.add([Addition("rate:a", 7, 1)]) == [1]
        seconds = await us._redis.ttl("babysea:us:rate:a:7")
        assert WINDOW_S < seconds <= KEEP_S
        for counters in (us, eu):
            await counters.close()

    async def test_one_that_stalls_or_is_gone_is_unavailable_and_not_quoted(
        self, redis_server: RedisServer
    ) -> None:
        async with Wire(redis_server.port).open() as wire:
            counters = RedisCounters(wire.url + "?socket_timeout=0.05", "us")
            await counters.probe()
            wire.flowing.clear()
            with pytest.raises(CountersUnavailableError, match="in time"):
                await counters.probe()
            wire.flowing.set()
            await counters.probe()
            redis_server.kill()
            with pytest.raises(CountersUnavailableError) as raised:
                await counters.add([Addition("key", 1, 1)])
            assert "127.0.0.1" not in str(raised.value)
            await counters.close()

    async def test_a_lost_answer_is_not_taken_for_the_next_one(self, redis_server: RedisServer) -> None:
        async with Wire(redis_server.port).open() as wire:
            counters = RedisCounters(wire.url, "us")
            await counters.probe()
            wire.flowing.clear()
            adding = asyncio.create_task(counters.add([Addition("key", 1, 1)]))
            await asyncio.sleep(0)
            adding.cancel()
            await asyncio.gather(adding, return_exceptions=True)
            wire.flowing.set()
            assert (await counters.add([Addition("other", 1, 50)])) == [50]
            await counters.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "redis://:hunter#2@example.com",
        "redis://example.com?colour=blue",
        "example.com:6379",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="not a redis://, rediss:// or unix:// URL") as raised:
        RedisCounters(url, "us")
    assert "hunter" not in str(raised.value)
    assert raised.value.__suppress_context__
