"""The log by the day: days are made when they are needed, dropped when they are over, beside running writers."""

import asyncio
from datetime import date, timedelta

import asyncpg
import pytest
from tests.support import ManualClock
from tests.telemetry.conftest import MakeLog, logged, served
from tests.telemetry.test_writing import assert_counted

from babysea_server.db.pool import Database
from babysea_server.telemetry import store
from babysea_server.telemetry.partitions import Retention

DAY = 86_400.0
_DAYS = """SELECT right(inhrelid::regclass::text, 8) AS day FROM pg_inherits
    WHERE inhparent = 'request_log'::regclass ORDER BY 1"""
_ACCOUNT = "'00000000-0000-0000-0000-000000000001'"


async def today(db: Database) -> date:
    found: date = await db.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    return found


async def days(db: Database) -> list[str]:
    """The days that have a partition, oldest first."""
    return [row["day"] for row in await db.fetch(_DAYS)]


def named(*some: date) -> list[str]:
    return [f"{day:%Y%m%d}" for day in some]


async def forget_all(db: Database) -> None:
    """Take away every partition, as if the log had none."""
    while await store.drop_day(db, keep_days=-10):
        pass
    assert await days(db) == []


async def test_a_worker_makes_today_and_the_next_two_days(db: Database) -> None:
    await forget_all(db)
    await Retention(db, keep_days=30).run()
    first = await today(db)
    assert await days(db) == named(first, first + timedelta(1), first + timedelta(2))


async def test_days_that_are_over_are_dropped_and_no_others(
    make_log: MakeLog, db: Database, clock: ManualClock
) -> None:
    log = make_log()
    for _ in range(6):
        log.record(served())
        clock.advance(DAY)
    await log.flush()
    assert await logged(db) == 6
    await Retention(db, keep_days=3).run()
    first = await today(db)
    assert await days(db) == named(*(first + timedelta(offset) for offset in range(-3, 3)))
    assert await logged(db) == 3
    # What was counted of the dropped days is still there.
    assert await db.fetchval("SELECT sum(requests) FROM usage_daily") == 6


async def test_each_row_is_in_the_partition_of_its_own_day(
    make_log: MakeLog, db: Database, clock: ManualClock
) -> None:
    """Two rows around midnight, UTC, in one batch: neither day has a partition yet."""
    await forget_all(db)
    log = make_log(batch_max=10)
    clock.advance(DAY)
    log.record(served(request_id="before"))
    clock.advance(1)
    log.record(served(request_id="after"))
    # Wait, on our clock, so long that midnight lies between the two.
    seconds = await db.fetchval("SELECT extract(epoch FROM now() - date_trunc('day', now(), 'UTC'))::float8")
    clock.advance(seconds - 0.5)
    assert await log.flush()
    first = await today(db)
    found = await db.fetch("SELECT tableoid::regclass::text AS name, request_id FROM request_log ORDER BY at")
    yesterday, present = named(first - timedelta(1), first)
    assert [tuple(row) for row in found] == [
        (f"request_log_{yesterday}", "before"),
        (f"request_log_{present}", "after"),
    ]
    await assert_counted(db)


async def test_a_clock_that_jumps_and_comes_back_finds_its_days_made(make_log: MakeLog, db: Database) -> None:
    first = await today(db)
    ahead = first + timedelta(45)
    await store.make_day(db, ahead=0, today=ahead)
    while await store.drop_day(db, keep_days=30, today=ahead):
        pass
    assert await days(db) == named(ahead)
    log = make_log()
    log.record(served())
    assert await log.flush()
    assert (await logged(db), log.lost) == (1, 0)
    assert await days(db) == named(first, ahead)


async def test_missing_days_are_made_once_by_many_writers_at_once(
    make_log: MakeLog, db: Database, other: Database, clock: ManualClock
) -> None:
    await forget_all(db)
    logs = [make_log(database) for database in (db, other) for _ in range(3)]
    for _ in range(3):
        for log in logs:
            log.record(served())
        clock.advance(DAY)
    assert all(await asyncio.gather(*(log.flush() for log in logs)))
    assert [log.lost for log in logs] == [0] * 6
    assert await logged(db) == 18
    assert len(await days(db)) == 3
    await assert_counted(db)


async def test_a_day_is_made_beside_a_writer_and_a_writer_goes_on_beside_it(
    make_log: MakeLog, db: Database, other: Database
) -> None:
    log = make_log(other)
    async with db.transaction() as writer, db.transaction() as maker:
        await writer.execute("LOCK TABLE request_log IN ROW EXCLUSIVE MODE")  # as any insert does
        assert await store.make_day(maker, ahead=9)
        log.record(served())
        assert await log.flush()
    assert await logged(db) == 1


async def test_two_workers_at_once_do_not_disturb_each_other(db: Database, other: Database) -> None:
    for offset in range(-40, -30):
        await store.make_day(db, ahead=offset)
    await asyncio.gather(Retention(db, keep_days=30).run(), Retention(other, keep_days=30).run())
    # Whoever found the other at it left the rest to it.
    first = await today(db)
    assert (await days(db))[-3:] == named(first, first + timedelta(1), first + timedelta(2))
    await Retention(db, keep_days=30).run()
    assert len(await days(db)) == 3


async def test_a_reader_that_stays_long_puts_the_drop_off(db: Database) -> None:
    await store.make_day(db, ahead=-40)
    async with db.transaction() as reader:
        await reader.execute("SELECT count(*) FROM request_log")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await store.drop_day(db, keep_days=30)
    assert await store.drop_day(db, keep_days=30) == await today(db) - timedelta(40)
    assert await store.drop_day(db, keep_days=30) is None


async def test_a_table_that_an_operator_attached_is_left_alone(db: Database) -> None:
    await db.execute("CREATE TABLE archive (LIKE request_log)")
    await db.execute(
        "ALTER TABLE request_log ATTACH PARTITION archive FOR VALUES FROM ('2001-01-01') TO ('2002-01-01')"
    )
    await Retention(db, keep_days=1).run()
    assert await db.fetchval("SELECT to_regclass('archive')") == "archive"


async def test_roll_ups_are_kept_as_long_as_somebody_reads_them(db: Database) -> None:
    await db.execute(
        f"""INSERT INTO usage_hourly SELECT {_ACCOUNT}, now() - make_interval(days => age), 'e', 2, '', 1, 0, 0
            FROM generate_series(90, 100) AS age"""
    )
    for columns in ("usage_daily SELECT {}, day, 'e', 2, '', 1, 0", "usage_providers SELECT {}, day, 'p'"):
        await db.execute(
            f"""INSERT INTO {columns.format(_ACCOUNT)} FROM (
                    SELECT (now() AT TIME ZONE 'UTC')::date - age AS day FROM generate_series(395, 405) AS age
                ) AS d"""
        )
    assert await store.forget_usage(db, limit=2) == 6
    await Retention(db, keep_days=30).run()
    oldest = await db.fetchrow(
        """SELECT (SELECT count(*) FROM usage_hourly),
                  (SELECT min(hour) > now() - interval '95 days' FROM usage_hourly),
                  (SELECT min(day) FROM usage_daily) = (now() AT TIME ZONE 'UTC')::date - 400,
                  (SELECT min(day) FROM usage_providers) = (now() AT TIME ZONE 'UTC')::date - 400"""
    )
    assert tuple(oldest) == (5, True, True, True)
