"""A streaming replica takes reads while it keeps up; when it does not, nobody notices but the primary."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest
from tests.conftest import deployment_settings
from tests.console.support import console_of, deployed
from tests.postgres15 import Postgres15, needs_postgres15, postgres15
from tests.support import ManualClock, eventually, make_customer

from babysea_server.app.shared import build_shared
from babysea_server.db.migrate import migrate
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.db.replica import ReplicaReads

pytestmark = [needs_postgres15, pytest.mark.timeout(400)]

_WHERE = "SELECT pg_is_in_recovery()"


@dataclass
class Pair:
    """A primary, its replica, and the reads over both; the clock is what lag is measured with."""

    primary: Postgres15
    replica: Postgres15
    db: Database
    reads: ReplicaReads
    clock: ManualClock

    async def caught_up(self) -> None:
        """Wait until what is written now is on the replica, and it is known."""

        async def usable() -> bool:
            await self.reads.look()
            return self.reads.usable

        self.clock.advance(60)  # what was known before is too old to count
        await eventually(usable)


@asynccontextmanager
async def held_back(replica: Postgres15) -> AsyncIterator[None]:
    """It gets what is written, and shows none of it."""
    connection = await asyncpg.connect(replica.dsn("postgres"))

    async def paused() -> bool:
        return bool(await connection.fetchval("SELECT pg_get_wal_replay_pause_state()") == "paused")

    try:
        await connection.execute("SELECT pg_wal_replay_pause()")
        await eventually(paused)
        yield
    finally:
        await connection.execute("SELECT pg_wal_replay_resume()")
        await connection.close()


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[tuple[Postgres15, Postgres15]]:
    with (
        TemporaryDirectory(prefix="babysea-replica-", ignore_cleanup_errors=True) as name,
        postgres15(settings={"synchronous_commit": "on"}) as primary,
    ):
        await asyncio.to_thread(Path(name).chmod, 0o711)
        await primary.execute("CREATE TABLE counts (n int)")
        replica = primary.standby(Path(name) / "replica")
        yield primary, replica
        replica.remove()


@pytest.fixture
async def pair(servers: tuple[Postgres15, Postgres15]) -> AsyncIterator[Pair]:
    primary, replica = servers
    clock = ManualClock()
    db = Database(primary.dsn("postgres"), name="test")
    await db.open()
    reads = ReplicaReads(db, replica.dsn("postgres"), clock, lag_max_s=10)
    await reads.open()
    yield Pair(primary, replica, db, reads, clock)
    await reads.close()
    await db.close()


async def test_reads_go_to_the_replica_and_everything_else_to_the_primary(pair: Pair) -> None:
    await pair.caught_up()
    assert await pair.reads.fetchval(_WHERE) is True
    assert [row[0] for row in await pair.reads.fetch(_WHERE)] == [True]
    assert (await pair.reads.fetchrow(_WHERE))[0] is True
    assert await pair.reads.execute("INSERT INTO counts VALUES (1)") == 1
    async with pair.reads.transaction() as connection:
        assert await connection.fetchval(_WHERE) is False


async def test_a_replica_that_is_killed_costs_no_read_and_is_read_again_when_it_is_back(pair: Pair) -> None:
    await pair.caught_up()
    pair.replica.kill()
    assert await pair.reads.fetchval(_WHERE) is False
    assert not pair.reads.usable
    pair.replica.start()
    await pair.caught_up()
    assert await pair.reads.fetchval(_WHERE) is True


async def test_a_replica_that_lags_is_not_read_once_it_is_too_old(pair: Pair) -> None:
    await pair.caught_up()
    async with held_back(pair.replica):
        await pair.db.execute("INSERT INTO counts VALUES (2)")
        for _ in range(10):
            await pair.reads.look()
            assert pair.reads.usable
            pair.clock.advance(1)
        pair.clock.advance(1)
        await pair.reads.look()
        assert not pair.reads.usable
        assert await pair.reads.fetchval(_WHERE) is False
    await pair.caught_up()
    assert await pair.reads.fetchval("SELECT count(*) FROM counts WHERE n = 2") == 1


async def test_a_replica_that_hears_nothing_of_the_primary_any_more_lags(pair: Pair) -> None:
    """Its own word is that it has replayed all that it got."""
    await pair.caught_up()
    cut_off = await asyncpg.connect(pair.replica.dsn("postgres"))
    way = str(await cut_off.fetchval("SELECT quote_literal(current_setting('primary_conninfo'))"))
    await cut_off.execute("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'")
    await cut_off.execute("SELECT pg_reload_conf()")

    async def alone() -> bool:
        return not await cut_off.fetchval("SELECT count(*) FROM pg_stat_wal_receiver")

    await eventually(alone)
    await pair.db.execute("INSERT INTO counts VALUES (3)")
    await pair.reads.look()
    pair.clock.advance(11)
    await pair.reads.look()
    assert not pair.reads.usable
    await cut_off.execute(f"ALTER SYSTEM SET primary_conninfo = {way}")
    await cut_off.execute("SELECT pg_reload_conf()")
    await cut_off.close()
    await pair.caught_up()


async def test_an_api_and_its_console_read_figures_from_it_as_long_as_it_keeps_up(
    pair: Pair, tmp_path: Path
) -> None:
    dsn = await pair.primary.database("babysea_us")
    await migrate(dsn)
    settings = deployment_settings(tmp_path, database_replica_url_us=pair.replica.dsn("babysea_us"))
    async with deployed(build_shared(settings, pair.clock), dsn) as deployment:
        customer = await make_customer(deployment)
        region = deployment.api.regions["us"]
        assert isinstance(region.reads, ReplicaReads)
        assert console_of(deployment).regions["us"].reads is region.reads
        reads = Pair(pair.primary, pair.replica, deployment.db, region.reads, pair.clock)

        async def requests() -> int:
            response = await customer.request("GET", "/v1/usage")
            assert response.status_code == 200, response.text
            total: int = response.json()["data"]["usage_total_requests"]
            return total

        assert await requests() < 7000  # also where the replica does not know the account yet
        await reads.caught_up()
        async with held_back(pair.replica):
            await deployment.db.execute(
                "INSERT INTO usage_daily VALUES ($1, (now() AT TIME ZONE 'UTC')::date, '/v1/status', 2, '', 7000, 0)",
                customer.account_id,
            )
            assert await requests() < 7000
            pair.clock.advance(11)
            assert await requests() >= 7000
        await reads.caught_up()
        assert await requests() >= 7000


async def test_what_both_cannot_do_is_told(pair: Pair) -> None:
    await pair.caught_up()
    with pytest.raises(asyncpg.UndefinedTableError):
        await pair.reads.fetchval("SELECT n FROM nothing")
    await pair.caught_up()
    pair.primary.stop("immediate")
    try:
        pair.replica.stop("immediate")
        with pytest.raises(DatabaseUnavailableError):
            await pair.reads.fetchval(_WHERE)
    finally:
        pair.primary.start()
        pair.replica.start()


async def test_a_promoted_replica_is_not_read(pair: Pair) -> None:
    """It goes its own way from then on. Last, because there is no way back."""
    await pair.caught_up()
    pair.replica.promote()
    await pair.reads.look()
    assert not pair.reads.usable
    assert await pair.reads.fetchval("SELECT count(*) FROM counts") >= 0
