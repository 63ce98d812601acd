"""Rankings as processes share them: in PostgreSQL and in Redis, missing, stale, malformed, away."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from tests.limits.servers import RedisServer, Wire, needs_redis
from tests.routing.attempts import AGAINST, resolve
from tests.support import ManualClock, eventually

from babysea_server.db.pool import Database
from babysea_server.routing.job import RankingJob
from babysea_server.routing.ranking import STALE_AFTER_S, Ranking
from babysea_server.routing.rankings import (
    REFRESH_EVERY_S,
    Rankings,
    RankingStore,
    RankingsUnavailableError,
    ranking_store,
)


def ranking(*providers: str, age_s: float = 0.0) -> bytes:
    return msgspec.json.encode(
        Ranking(
            providers_ranked=providers,
            scores=dict.fromkeys(providers, 0.5),
            attempts_total=9,
            window_hours=24,
            computed_at=datetime.now(UTC) - timedelta(seconds=age_s),
        )
    )


class Place:
    """Where a region's rankings are: its database, and perhaps a Redis."""

    def __init__(self, db: Database, stack: AsyncExitStack, redis: RedisServer | None) -> None:
        self.db = db
        self.redis_url = None if redis is None else redis.url
        self.clock = ManualClock(datetime.now(UTC))
        self._stack = stack

    def store(self, region: str = "us") -> RankingStore:
        store = ranking_store(self.db, region, self.redis_url)
        self._stack.push_async_callback(store.close)
        return store

    def rankings(self, region: str = "us") -> Rankings:
        rankings = Rankings(self.db, region, self.clock, self.redis_url)
        self._stack.push_async_callback(rankings.close)
        return rankings

    async def publish(self, documents: Mapping[str, bytes], region: str = "us") -> None:
        await self.store(region).publish(documents)


@pytest.fixture(params=["postgres", pytest.param("redis", marks=needs_redis)])
async def place(request: pytest.FixtureRequest, db: Database, tmp_path: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        server = None
        if request.param == "redis":
            server = RedisServer(tmp_path)
            await server.start()
            stack.callback(server.kill)
        yield Place(db, stack, server)


async def test_what_was_published_is_read_region_by_region(place: Place) -> None:
    assert await place.store().read() == {}
    documents = {"lab/one": ranking("a", "b"), "lab/two": b"anything"}
    await place.publish(documents)
    await place.publish({"lab/one": ranking("b")}, region="eu")
    assert await place.store().read() == documents
    replaced = {"lab/one": ranking("b")}
    await place.publish(replaced)
    assert (await place.store().read())["lab/one"] == replaced["lab/one"]


async def test_a_process_knows_the_order_of_what_was_published(place: Place) -> None:
    rankings = place.rankings()
    assert rankings.order("lab/one") is None
    await place.publish({"lab/one": ranking("b", "a")})
    await rankings.refresh()
    assert (rankings.order("lab/one"), rankings.order("lab/two")) == (("b", "a"), None)


async def test_what_is_stale_or_malformed_is_not_there(place: Place) -> None:
    rankings = place.rankings()
    await place.publish(
        {
            "lab/old": ranking("a", age_s=STALE_AFTER_S + 60),
            "lab/ahead": ranking("a", age_s=-STALE_AFTER_S - 60),
            "lab/none": "ä{".encode(),
            "lab/twice": ranking("a", "a"),
            "lab/good": ranking("a"),
        }
    )
    await rankings.refresh()
    names = ("old", "ahead", "none", "twice", "good")
    assert [rankings.order(f"lab/{name}") for name in names] == [None] * 4 + [("a",)]
    place.clock.advance(STALE_AFTER_S + 60)
    assert rankings.order("lab/good") is None


async def test_a_process_reads_them_in_the_background(place: Place) -> None:
    await place.publish({"lab/one": ranking("b", "a")})
    rankings = place.rankings()
    rankings.start()

    async def order() -> tuple[str, ...] | None:
        return rankings.order("lab/one")

    assert await eventually(order) == ("b", "a")
    await place.publish({"lab/one": ranking("a", "b")})

    async def read_again() -> bool:
        place.clock.advance(REFRESH_EVERY_S)
        return rankings.order("lab/one") == ("a", "b")

    assert await eventually(read_again)


async def test_a_job_publishes_where_processes_read(place: Place) -> None:
    await resolve(place.db, "slow", "used", 10, took_s=9, times=10, model="lab/one")
    await resolve(place.db, "quick", "used", 10, took_s=1, times=10, model="lab/one")
    job = RankingJob(
        place.db, "us", place.clock, failures=AGAINST, redis_url=place.redis_url, every_s=0.0, lag_s=0.0
    )
    assert await job.run()
    await job.close()
    rankings = place.rankings()
    await rankings.refresh()
    assert rankings.order("lab/one") == ("quick", "slow")
    place.clock.advance(STALE_AFTER_S + 1)
    assert rankings.order("lab/one") is None


async def test_a_database_that_is_away_leaves_what_is_known(dsn: str, db: Database) -> None:
    own = Database(dsn, name="own", size=1)
    await own.open()
    clock = ManualClock(datetime.now(UTC))
    rankings = Rankings(own, "us", clock)
    await ranking_store(db, "us", None).publish({"lab/one": ranking("b", "a")})
    await rankings.refresh()
    await db.execute("ALTER TABLE rankings RENAME TO away")
    with capture_logs() as logs:
        await rankings.refresh()
        await rankings.refresh()
        await db.execute("ALTER TABLE away RENAME TO rankings")
        assert rankings.order("lab/one") == ("b", "a")
        await rankings.refresh()
    assert [entry["event"] for entry in logs] == ["rankings_away", "rankings_back"]
    await rankings.close()
    await own.close()


@needs_redis
async def test_a_redis_that_stalls_dies_or_forgets_leaves_what_is_known_until_it_is_stale(
    db: Database, tmp_path: Path
) -> None:
    server, clock = RedisServer(tmp_path), ManualClock(datetime.now(UTC))
    await server.start()
    async with Wire(server.port).open() as wire:
        rankings = Rankings(db, "us", clock, wire.url)
        store = ranking_store(db, "us", server.url)
        await store.publish({"lab/one": ranking("b", "a")})

        async def known() -> bool:
            await rankings.refresh()
            return rankings.order("lab/one") == ("b", "a")

        assert await eventually(known)
        wire.flowing.clear()
        with capture_logs() as logs:
            await rankings.refresh()
        assert [entry["event"] for entry in logs] == ["rankings_away"]
        assert rankings.order("lab/one") == ("b", "a")
        wire.flowing.set()
        server.kill()
        await rankings.refresh()
        assert rankings.order("lab/one") == ("b", "a")
        with pytest.raises(RankingsUnavailableError):
            await store.publish({"lab/one": ranking("a")})
        clock.advance(STALE_AFTER_S + 1)
        assert rankings.order("lab/one") is None
        await store.close()
        await rankings.close()


@needs_redis
async def test_redis_forgets_by_itself_and_a_strange_list_of_models_is_none(
    db: Database, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path)
    await server.start()
    store = ranking_store(db, "us", server.url)
    await store.publish({"lab/one": ranking("a")})
    client: Any = Redis.from_url(server.url)
    assert 0 < await client.ttl("predictive:ranking:us:lab/one") <= STALE_AFTER_S
    await client.set("predictive:rankings:us", b'{"strange": 1}')
    assert await store.read() == {}
    await client.aclose()
    await store.close()
    server.kill()


def test_a_redis_url_that_cannot_be_used_is_refused_without_repeating_it(db: Database) -> None:
    with pytest.raises(ValueError, match="not a redis://") as raised:
        Rankings(db, "us", ManualClock(), "http://user:secret@host")
    assert "secret" not in str(raised.value)
