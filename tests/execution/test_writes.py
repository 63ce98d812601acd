"""Writes while the database is away or refuses one of them; outputs while the storage is away."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import msgspec
import pytest
from tests.execution.conftest import BALANCE, COST, House
from tests.execution.scripted import PICTURE, Script, Scripted, accepted
from tests.support import ManualClock, eventually

from babysea_server.db.pool import Database, DatabaseUnavailableError, fault_of
from babysea_server.execution.types import AcceptedAttempt, OpenAttempt, Settlement
from babysea_server.execution.writes import Writes
from babysea_server.kit.clock import SystemClock
from babysea_server.kit.ids import uuid7
from babysea_server.providers.base import Finished, Output


async def test_connections_that_break_again_and_again_cost_nothing_but_time(house: House) -> None:
    house.provider = Scripted(replicate=Script([accepted()]))
    for _ in range(4):
        await asyncio.gather(*(house.admit() for _ in range(30)))
    await house.worker(concurrency=25)

    for more in range(0, 90, 10):

        async def further(more: int = more) -> bool:
            done = await house.db.fetchval("SELECT count(*) FROM generations WHERE status = 'succeeded'")
            return bool(done >= more)

        await eventually(further)
        await house.db.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'test-worker'"""
        )
    await house.all_finished()
    statuses = await house.db.fetch("SELECT status, count(*) FROM generations GROUP BY 1")
    assert [tuple(row) for row in statuses] == [("succeeded", 120)]
    assert house.provider.purchases == house.provider.count("submit") == 120
    assert await house.balance() == BALANCE - 120 * COST
    await house.check()


async def test_a_record_that_the_database_refuses_does_not_take_its_neighbours_with_it(house: House) -> None:
    worker = await house.bare_worker()
    settlements = []
    for _ in range(6):
        await house.admit()
        claim = await house.claimed(worker)
        settlements.append(
            Settlement(claim.id, claim.account_id, claim.fence, "succeeded", None, "fal", outputs=[])
        )
    settlements[2] = msgspec.structs.replace(settlements[2], predict_ms=-1)
    settlements[4] = msgspec.structs.replace(settlements[4], provider="\0")
    writes = Writes(house.db, SystemClock(), worker, lease_s=5, queue_max=100)
    results = await asyncio.gather(*(writes.settle(item) for item in settlements), return_exceptions=True)
    assert [result is True for result in results] == [True, True, False, True, False, True]
    assert isinstance(results[2], asyncpg.CheckViolationError)
    assert isinstance(results[4], asyncpg.CharacterNotInRepertoireError)
    await writes.close()
    await house.check()


async def test_what_a_fault_says_in_the_log_quotes_no_record(house: House) -> None:
    await house.admit(inputs={"generation_prompt": "a private matter"})
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await house.db.execute("UPDATE generations SET charged = -1")
    assert "a private matter" in str(caught.value)
    assert fault_of(caught.value) == "CheckViolationError 23514 (generations_charged_check)"


async def test_before_anything_is_bought_the_database_is_waited_for_half_a_lease() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        db = Database(f"postgresql://nobody@127.0.0.1:{port}/none", name="test", size=2)
        await db.open()
        clock = ManualClock()
        writes = Writes(db, clock, uuid7(), lease_s=30, queue_max=10)
        opening = asyncio.create_task(
            writes.open_attempt(OpenAttempt(uuid7(), uuid7(), uuid7(), 1, "m", 1, "p", "a"))
        )

        async def given_up() -> bool:
            if clock.sleeping:
                clock.advance(1.0)
            return opening.done()

        await eventually(given_up)
        with pytest.raises(DatabaseUnavailableError):
            await opening
        assert 15 <= clock.monotonic() <= 20
        await writes.close()
        await db.close()


# On a loop of its own: whatever else lives on the suite's loop would be put to sleep by a clock that jumps.
@pytest.mark.asyncio(loop_scope="function")
async def test_what_has_been_bought_waits_in_the_queue_as_long_as_for_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(f"postgresql:///none?host={tmp_path}", name="test", size=2)
    await db.open()
    clock, loop = ManualClock(), asyncio.get_running_loop()
    writes = Writes(db, clock, uuid7(), lease_s=30, queue_max=10)
    accepting = []
    for calls, waiting in ((1, 0), (2, 0), (2, 1)):  # two calls at once; the third waits behind them
        note = AcceptedAttempt(uuid7(), uuid7(), 1, "up-1", None)
        accepting.append(asyncio.create_task(writes.accept(note)))

        async def there(calls: int = calls, waiting: int = waiting) -> bool:
            return (clock.sleeping, writes._accept.waiting) == (calls, waiting)

        await eventually(there)
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + 300.0)
    later = loop.create_future()
    loop.call_later(0.01, later.set_result, None)
    await later
    monkeypatch.undo()
    assert not accepting[2].done()
    for task in accepting:
        task.cancel()
    await asyncio.gather(*accepting, return_exceptions=True)

    async def given_up() -> bool:
        clock.advance(60.0)
        return not writes._accept._calls

    await eventually(given_up)
    await writes.close()
    await db.close()


# ----------------------------------------------------------------------------------------- storage


def _turning(clock: ManualClock, ask: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    async def turn() -> bool:
        clock.advance(0.5)
        return await ask()

    return turn


def _break(folder: Path) -> None:
    (folder / "files").rename(folder / "away")
    (folder / "files").write_text("not a folder")


def _repair(folder: Path) -> None:
    (folder / "files").unlink()
    (folder / "away").rename(folder / "files")


async def test_a_storage_that_is_away_is_waited_for_without_buying_again(house: House) -> None:
    clock = ManualClock()
    house.provider = Scripted(replicate=Script([accepted()]))
    generation = await house.admit(("replicate", "fal"))
    _break(house.folder)
    await house.worker(clock=clock, lease_s=300.0)

    async def long_ago() -> bool:
        return house.provider.count("poll") == 1 and clock.monotonic() > 20

    await eventually(_turning(clock, long_ago))
    assert (await house.generation(generation))["status"] == "processing"
    _repair(house.folder)

    async def final() -> bool:
        return (await house.generation(generation))["completed_at"] is not None

    await eventually(_turning(clock, final))
    row = await house.generation(generation)
    assert (row["status"], row["provider_used"]) == ("succeeded", "replicate")
    assert (house.provider.count("submit"), house.provider.count("poll")) == (1, 1)
    assert len(house.files()) == 1
    await house.check()


async def test_a_storage_that_stays_away_ends_the_generation_without_another_provider(house: House) -> None:
    clock = ManualClock()
    house.provider = Scripted(replicate=Script([accepted()]))
    generation = await house.admit(("replicate", "fal"))
    _break(house.folder)
    await house.worker(clock=clock, lease_s=300.0)

    async def final() -> bool:
        return (await house.generation(generation))["completed_at"] is not None

    await eventually(_turning(clock, final))
    row = await house.generation(generation)
    assert (row["status"], row["error_code"], row["refunded"]) == ("failed", "BSE5003", COST)
    assert house.provider.count("submit") == 1
    assert await house.outcomes(generation) == [("replicate", "failed", "bad_output")]
    await house.check()


async def test_files_of_an_attempt_that_fails_half_way_are_not_left_behind(house: House) -> None:
    half = Finished([Output(data=PICTURE), Output(data=PICTURE[:50])])
    house.provider = Scripted(replicate=Script([half]), fal=Script())
    generation = await house.admit(("replicate", "fal"))
    await house.worker()
    row = await house.finished(generation)
    assert row["provider_used"] == "fal"
    assert len(house.files()) == len(row["outputs"]) == 1
    await house.check()
