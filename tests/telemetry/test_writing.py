"""The buffer between requests and the log: bounds, failures of the database, exact sums."""

import asyncio
import random
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import structlog
from tests.support import ManualClock, eventually
from tests.telemetry.conftest import SECRET, MakeLog, logged, served

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database
from babysea_server.kit.calls import ServedRequest
from babysea_server.telemetry.requests import RequestLog, address_key

_HOURLY = """SELECT account_id, hour, endpoint, status_class, error_code, requests, replays, duration_us
    FROM usage_hourly ORDER BY 1, 2, 3, 4, 5"""
_HOURLY_RECOUNT = """
    SELECT account_id, date_trunc('hour', at, 'UTC') AS hour, endpoint, (status / 100)::smallint AS status_class,
        coalesce(error_code, '') AS error_code, count(*) AS requests, count(*) FILTER (WHERE replayed) AS replays,
        sum(duration_us) AS duration_us
    FROM request_log GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"""
_DAILY = """SELECT account_id, day, endpoint, status_class, error_code, requests, replays
    FROM usage_daily ORDER BY 1, 2, 3, 4, 5"""
_DAILY_RECOUNT = """
    SELECT account_id, (at AT TIME ZONE 'UTC')::date AS day, endpoint, (status / 100)::smallint AS status_class,
        coalesce(error_code, '') AS error_code, count(*) AS requests, count(*) FILTER (WHERE replayed) AS replays
    FROM request_log GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"""


async def assert_counted(db: Database) -> None:
    """The roll-ups are what a recount of the log gives."""
    assert await db.fetch(_HOURLY) == await db.fetch(_HOURLY_RECOUNT)
    assert await db.fetch(_DAILY) == await db.fetch(_DAILY_RECOUNT)


def any_request(chance: random.Random) -> ServedRequest:
    status, code = chance.choice(
        [(200, None), (200, None), (400, "BSE2001"), (404, "BSE3001"), (500, "BSE5001")]
    )
    return served(
        UUID(int=chance.randint(1, 5)),
        endpoint=f"GET /v1/{chance.randint(1, 4)}",
        status=status,
        error_code=code,
        replayed=chance.random() < 0.2,
        duration_s=chance.random(),
    )


async def test_rows_are_written_after_a_moment(make_log: MakeLog, db: Database, clock: ManualClock) -> None:
    log = make_log()
    log.start()
    log.record(served())
    await eventually(lambda: _sleeping(clock))
    assert await logged(db) == 0
    clock.advance(0.2)

    async def written() -> bool:
        return await logged(db) == 1

    await eventually(written)
    await log.close()


async def _sleeping(clock: ManualClock) -> bool:
    return clock.sleeping > 0


async def test_the_moment_is_the_databases_however_long_a_row_waited(
    make_log: MakeLog, db: Database, clock: ManualClock
) -> None:
    log = make_log()
    log.record(served(request_id="first"))
    clock.advance(5400)
    log.record(served(request_id="second"))
    clock.advance(1800)
    before = await db.fetchval("SELECT clock_timestamp()")
    await log.flush()
    ages = await db.fetch(
        """SELECT request_id, $1 - at <= interval '2 hours' AND clock_timestamp() - at >= interval '2 hours' AS two,
                  $1 - at <= interval '30 minutes' AND clock_timestamp() - at >= interval '30 minutes' AS half
           FROM request_log ORDER BY at""",
        before,
    )
    assert [tuple(row) for row in ages] == [("first", True, False), ("second", False, True)]
    await assert_counted(db)


@pytest.mark.parametrize("seed", range(3))
async def test_the_roll_ups_are_a_recount_of_the_log_whatever_the_traffic(
    make_log: MakeLog, db: Database, clock: ManualClock, seed: int
) -> None:
    chance = random.Random(seed)
    log = make_log(batch_max=40)
    for _ in range(8):
        for _ in range(chance.randint(0, 100)):
            log.record(any_request(chance))
            clock.advance(chance.choice([0.0, 0.0, 0.5, 900.0, 20_000.0]))
        assert await log.flush()
    await assert_counted(db)
    assert await logged(db) > 50


async def test_writers_in_parallel_give_exact_sums(make_log: MakeLog, db: Database, other: Database) -> None:
    """Batches that meet in the same roll-ups in every order: nothing is lost, nobody deadlocks."""
    chance = random.Random(7)
    logs = [make_log(database, batch_max=15) for database in (db, other) for _ in range(3)]
    for log in logs:
        for _ in range(300):
            log.record(any_request(chance))
    assert all(await asyncio.gather(*(log.flush() for log in logs)))
    assert [log.lost for log in logs] == [0] * 6
    assert await logged(db) == 1800
    await assert_counted(db)


async def test_a_full_buffer_lets_the_oldest_go_and_says_so_once(make_log: MakeLog, db: Database) -> None:
    log = make_log(buffer_max=10)
    with structlog.testing.capture_logs() as said:
        for number in range(25):
            log.record(served(request_id=f"{number:02}"))
    assert log.lost == 15
    assert [entry["event"] for entry in said] == ["request_log_rows_lost"]
    await log.flush()
    kept = await db.fetch("SELECT request_id FROM request_log ORDER BY request_id")
    assert [row["request_id"] for row in kept] == [str(number) for number in range(15, 25)]


_HOSTILE = "\0'\";\\\ud800\udfff\x80é" + "x" * 10_000


async def test_no_header_can_break_a_row(make_log: MakeLog, db: Database) -> None:
    log = make_log()
    headers = dict.fromkeys(
        [
            "user-agent",
            "x-babysea-sdk-name",
            "x-babysea-sdk-version",
            "x-babysea-sdk-runtime",
            "x-babysea-sdk-runtime-version",
        ],
        _HOSTILE,
    )
    log.record(served(headers=headers, client_ip=_HOSTILE, query={"resolution": _HOSTILE}, duration_s=1e9))
    log.record(served(headers={"x-babysea-sdk-runtime": "only"}))
    assert await log.flush()
    first, second = await db.fetch("SELECT user_agent, sdk, query FROM request_log ORDER BY duration_us DESC")
    assert log.lost == 0
    assert first["user_agent"].startswith("?'\";\\??\x80éxxx")
    assert len(first["user_agent"]) == 256
    assert [len(value) for value in first["sdk"].values()] == [64] * 4
    assert len(first["query"]["resolution"]) == 256
    assert (second["user_agent"], second["sdk"]) == (None, {"runtime": "only"})


async def test_an_address_has_one_hash_per_region_and_secret(make_log: MakeLog, db: Database) -> None:
    log = make_log()
    for address in ("203.0.113.7", "203.0.113.7", "203.0.113.8"):
        log.record(served(client_ip=address))
    await log.flush()
    elsewhere = RequestLog(db, ManualClock(), address_key(SECRET, "eu"))
    elsewhere.record(served(client_ip="203.0.113.7"))
    await elsewhere.flush()
    hashes = await db.fetch("SELECT ip_hash, count(*) FROM request_log GROUP BY 1")
    assert sorted(row["count"] for row in hashes) == [1, 1, 2]
    assert address_key(SECRET, "us") != address_key(SECRET[::-1], "us")


# ------------------------------------------------------------------------------- failures of the database


async def test_while_the_database_is_away_rows_wait_and_are_written_when_it_is_back(
    make_log: MakeLog, db: Database, dsn: str, other: Database, postgres: EmbeddedPostgres
) -> None:
    log = make_log(other, buffer_max=5, batch_max=2)
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    name = dsn.partition("?")[0].rpartition("/")[2]
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    for number in range(4):
        log.record(served(request_id=str(number)))
    with structlog.testing.capture_logs() as said:
        assert not await log.flush()
        for number in range(4, 7):
            log.record(served(request_id=str(number)))
        assert not await log.flush()
    assert {entry["event"] for entry in said} == {"request_log_waits", "request_log_rows_lost"}
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    await admin.close()
    assert await log.flush()
    kept = await db.fetch("SELECT request_id FROM request_log ORDER BY request_id")
    assert [row["request_id"] for row in kept] == ["2", "3", "4", "5", "6"]
    assert log.lost == 2
    await assert_counted(db)


async def test_a_batch_whose_answer_was_lost_is_never_counted_twice(
    make_log: MakeLog, db: Database, other: Database
) -> None:
    """The connection breaks while the database is writing, and it goes on writing."""
    log = make_log(other)
    for _ in range(3):
        log.record(served())
    async with db.transaction() as blocker:
        await blocker.execute("LOCK TABLE usage_daily")
        flush = asyncio.create_task(log.flush())

        async def waits() -> Any:
            return await db.fetchval(
                """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND wait_event_type = 'Lock' AND query LIKE '%log_requests_v1%'"""
            )

        await eventually(waits)
        other._pool.terminate()
        assert await flush
    assert log.lost == 3  # as far as anybody can know

    async def written() -> bool:
        return await logged(db) == 3

    await eventually(written)
    await other.open()
    log.record(served())
    assert await log.flush()
    assert await logged(db) == 4
    await assert_counted(db)


async def test_rows_that_the_database_refuses_do_not_stop_the_log(make_log: MakeLog, db: Database) -> None:
    log = make_log()
    await db.execute("ALTER TABLE request_log ADD CHECK (status <> 418)")
    log.record(served(status=418, error_code="BSE418"))
    with structlog.testing.capture_logs() as said:
        assert await log.flush()
    assert log.lost == 1
    assert "418" not in str(said), "the values of a row are not for the log of the process"
    log.record(served())
    assert await log.flush()
    assert await logged(db) == 1
    await assert_counted(db)


async def test_closing_writes_what_is_left(make_log: MakeLog, db: Database) -> None:
    log = make_log()
    log.start()
    for _ in range(3):
        log.record(served())
    await log.close()
    assert (await logged(db), log.lost) == (3, 0)


async def test_closing_without_a_database_ends_and_says_what_was_lost(
    make_log: MakeLog, other: Database
) -> None:
    other._pool.terminate()
    log = make_log(other)
    log.start()
    log.record(served())
    with structlog.testing.capture_logs() as said:
        await log.close()
    assert log.lost == 1
    assert said[-1]["event"] == "request_log_rows_lost"
    await other.open()
