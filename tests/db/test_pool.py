"""The pool: whether a lost statement may have had an effect, recovery, and hearing NOTIFY."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from tests.support import eventually

from babysea_server.db.pool import Database, DatabaseUnavailableError


@asynccontextmanager
async def opened(dsn: str, *, size: int = 2, statement_timeout_s: float = 10) -> AsyncIterator[Database]:
    database = Database(dsn, name="pool-test", size=size, statement_timeout_s=statement_timeout_s)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def terminate(db: Database, application: str) -> int:
    """End every backend of an application, as an administrator would; returns how many."""
    ended: int = await db.fetchval(
        """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
           WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid()""",
        application,
    )
    return ended


# ------------------------------------------------------------------------------------------ unavailable


async def test_nothing_was_sent_when_nothing_listens(tmp_path: Path) -> None:
    async with opened(f"postgresql://postgres@/db?host={quote(str(tmp_path))}") as db:
        with pytest.raises(DatabaseUnavailableError) as refused:
            await db.fetchval("SELECT 1")
    assert refused.value.sent is False


@pytest.mark.parametrize("broken", [("/test_", "/missing_"), ("postgres@", "nobody@")])
async def test_nothing_was_sent_when_the_server_refuses_the_connection(
    dsn: str, broken: tuple[str, str]
) -> None:
    async with opened(dsn.replace(*broken)) as db:
        with pytest.raises(DatabaseUnavailableError) as refused:
            await db.fetchval("SELECT 1")
    assert refused.value.sent is False


async def test_nothing_was_sent_when_all_connections_are_busy(dsn: str) -> None:
    async with opened(dsn, size=1) as db, db.connection():
        with pytest.raises(DatabaseUnavailableError) as refused:
            async with db.connection(acquire_timeout_s=0.01):
                pass
    assert refused.value.sent is False


async def test_a_statement_cut_off_may_have_had_an_effect_and_the_pool_recovers(
    db: Database, dsn: str
) -> None:
    async with opened(dsn) as victim:
        await victim.fetchval("SELECT 1")
        running = asyncio.create_task(victim.fetchval("SELECT pg_sleep(60)"))

        async def cut() -> bool:
            active = await db.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool-test' AND state = 'active'"
            )
            return bool(active) and await terminate(db, "pool-test") > 0

        await eventually(cut)
        with pytest.raises(DatabaseUnavailableError) as lost:
            await running
        assert lost.value.sent is True
        assert await victim.fetchval("SELECT 1") == 1


async def test_the_pool_recovers_when_its_idle_connections_were_cut(db: Database, dsn: str) -> None:
    async with opened(dsn) as victim:
        await asyncio.gather(*(victim.fetchval("SELECT pg_sleep(0.01)") for _ in range(2)))
        assert await terminate(db, "pool-test") == 2

        async def answers() -> bool:
            try:
                return bool(await victim.fetchval("SELECT true"))
            except DatabaseUnavailableError:
                return False  # a connection whose end has not been noticed yet

        await eventually(answers)
        assert await asyncio.gather(*(victim.fetchval("SELECT 1") for _ in range(4))) == [1] * 4


async def test_what_the_caller_did_wrong_is_not_a_lost_database(db: Database) -> None:
    for query, argument in (
        ("SELECT $1::int", 2**40),
        ("SELECT $1::bigint", "one"),
        ("SELECT $1::uuid", "x"),
    ):
        with pytest.raises(asyncpg.DataError, match="invalid input"):
            await db.fetchval(query, argument)
    with pytest.raises(asyncpg.UndefinedColumnError):
        await db.fetchval("SELECT nothing")


async def test_a_transaction_is_whole_or_nothing(db: Database) -> None:
    await db.execute("CREATE TABLE notes (n int)")

    async def insert_then_fail() -> None:
        async with db.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES (1)")
            await connection.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await insert_then_fail()
    assert await db.fetchval("SELECT count(*) FROM notes") == 0
    assert await db.execute("INSERT INTO notes SELECT generate_series(1, 3)") == 3


async def test_statements_are_limited_by_the_server_itself(dsn: str) -> None:
    async with opened(dsn, statement_timeout_s=0.05) as db:
        with pytest.raises(asyncpg.QueryCanceledError):
            await db.fetchval("SELECT pg_sleep(60)")
        assert await db.fetchval("SELECT 1") == 1


async def test_a_cancelled_caller_gives_its_connection_back(dsn: str, db: Database) -> None:
    async with opened(dsn, size=1) as small:
        await small.fetchval("SELECT 1")
        waiting = asyncio.create_task(small.fetchval("SELECT pg_sleep(60)"))
        await eventually(lambda: busy(db))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await small.fetchval("SELECT 1") == 1


async def busy(db: Database) -> bool:
    return bool(
        await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool-test' AND state = 'active'"
        )
    )


async def test_jsonb_goes_in_and_out_as_values(db: Database) -> None:
    value = {"a": [1, 2.5, None, True, "ü😀"], "b": {}}
    assert await db.fetchval("SELECT $1::jsonb", value) == value
    assert await db.fetchval("SELECT ($1::jsonb)->'a'->>4", value) == "ü😀"


# ------------------------------------------------------------------------------------------ listening


class Ears:
    """What a listener said, and a way to wait for it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def __call__(self, channel: str, payload: str) -> None:
        self.heard.append((channel, payload))

    async def hears(self, *expected: tuple[str, str]) -> None:
        async def there() -> bool:
            return all(notice in self.heard for notice in expected)

        await eventually(there)


async def test_a_listener_announces_every_channel_and_then_hears(db: Database) -> None:
    ears = Ears()
    listener = db.listen(["one", "other"], ears)
    await ears.hears(("one", ""), ("other", ""))
    assert listener.hearing
    await db.execute("SELECT pg_notify('other', 'x')")
    await ears.hears(("other", "x"))
    await db.execute("SELECT pg_notify('third', 'y')")
    await db.execute("SELECT pg_notify('one', 'z')")
    await ears.hears(("one", "z"))
    assert ("third", "y") not in ears.heard


async def test_a_listener_that_was_cut_off_hears_again_and_announces_what_it_may_have_missed(
    db: Database,
) -> None:
    ears = Ears()
    listener = db.listen(["one", "other"], ears)
    await ears.hears(("one", ""), ("other", ""))
    for _ in range(2):
        ears.heard.clear()
        assert await terminate(db, "test-listen") == 1
        await ears.hears(("one", ""), ("other", ""))
        await db.execute("SELECT pg_notify('one', 'again')")
        await ears.hears(("one", "again"))
        assert listener.hearing


async def test_a_listener_whose_backend_hangs_knows_that_it_is_deaf(db: Database) -> None:
    ears = Ears()
    listener = db.listen(["one"], ears)
    await ears.hears(("one", ""))
    backend = await db.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'test-listen'")

    async def deaf() -> bool:
        return not listener.hearing

    async def hearing() -> bool:
        return listener.hearing

    os.kill(backend, signal.SIGSTOP)
    try:
        await eventually(deaf)
    finally:
        os.kill(backend, signal.SIGCONT)
    await eventually(hearing)


async def test_a_listener_starts_before_its_database_does_and_ends_when_closed(tmp_path: Path) -> None:
    ears, others = Ears(), asyncio.all_tasks()
    async with opened(f"postgresql://postgres@/db?host={quote(str(tmp_path))}") as db:
        listener = db.listen(["one"], ears)
        await asyncio.sleep(0)
        assert not listener.hearing
    assert ears.heard == []
    assert not [task for task in asyncio.all_tasks() - others if task.get_name() == "listen"]
