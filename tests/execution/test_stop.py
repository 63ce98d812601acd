"""A graceful stop: what waits is let go at once, what is being bought reaches the database first."""

import asyncio

import pytest
from tests.execution.conftest import COST, House, Killable
from tests.execution.scripted import DONE, Gate, Script, Scripted, accepted
from tests.support import eventually

from babysea_server.providers.base import Accepted, Failure, Refused

CHAIN = ("replicate", "fal")


async def _nothing_is_leased(house: House) -> None:
    assert await house.db.fetchval("SELECT count(*) FROM workers") == 0
    assert await house.db.fetchval("SELECT count(*) FROM generations WHERE worker_id IS NOT NULL") == 0


async def _stopping(killable: Killable) -> "asyncio.Task[None]":
    """Begin a graceful stop and let it come to where it waits for its runs."""
    stop = asyncio.create_task(killable.worker.stop())
    [run] = killable.worker._runs.values()

    async def told() -> bool:
        return run._stopping

    await eventually(told)
    return stop


async def test_runs_that_wait_are_let_go_at_once_and_resumed_by_the_next_worker(house: House) -> None:
    house.provider = Scripted(replicate=Script([Accepted("", poll_after_s=1000.0)]))
    generations = [await house.admit() for _ in range(20)]
    killable = await house.worker(attempt_timeout_s={"image": 5000.0, "video": 5000.0})

    async def all_waiting() -> bool:
        kept = await house.db.fetchval("SELECT count(*) FROM attempts WHERE upstream_id IS NOT NULL")
        return bool(kept == len(generations))

    await eventually(all_waiting)
    async with asyncio.timeout(10):
        await killable.worker.stop()
    await _nothing_is_leased(house)
    assert house.provider.count("cancel") == 0
    await house.worker()
    await house.all_finished()
    assert house.provider.count("submit") == len(generations)
    await house.check()


async def test_a_purchase_under_way_is_written_down_before_the_run_lets_go(house: House) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], on_submit=gate))
    generation = await house.admit(CHAIN)
    killable = await house.worker()
    await gate.entered.wait()
    stop = await _stopping(killable)
    assert not stop.done()
    gate.opened.set()
    await stop
    await _nothing_is_leased(house)
    [attempt] = await house.attempts(generation)
    assert (attempt["upstream_id"], attempt["outcome"]) == (f"up-{attempt['id']}", "pending")
    assert house.provider.count("poll") == 0
    await house.worker()
    assert (await house.finished(generation))["provider_used"] == "replicate"
    await house.check()


async def test_a_refusal_under_way_is_written_down_before_the_run_lets_go(house: House) -> None:
    """Else the next worker would find an open attempt of unknown fate and end the generation."""
    gate = Gate()
    house.provider = Scripted(replicate=Script([Refused(Failure.REFUSED_BUSY, "full")], on_submit=gate))
    generation = await house.admit(CHAIN)
    killable = await house.worker()
    await gate.entered.wait()
    stop = await _stopping(killable)
    gate.opened.set()
    await stop
    await _nothing_is_leased(house)
    assert await house.outcomes(generation) == [("replicate", "failed", "refused_busy")]
    assert house.provider.count("submit", "fal") == 0
    await house.worker()
    row = await house.finished(generation)
    assert (row["status"], row["provider_used"]) == ("succeeded", "fal")
    await house.check()


async def test_a_result_that_comes_with_the_answer_is_settled_before_the_run_lets_go(house: House) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([DONE], on_submit=gate))
    generation = await house.admit(CHAIN)
    killable = await house.worker()
    await gate.entered.wait()
    stop = await _stopping(killable)
    gate.opened.set()
    await stop
    row = await house.generation(generation)
    assert (row["status"], row["charged"]) == ("succeeded", COST)
    await _nothing_is_leased(house)
    await house.check()


async def test_a_provider_that_never_answers_does_not_hold_up_the_stop(house: House) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], reconcile="jobs", on_submit=gate))
    generation = await house.admit(CHAIN)
    killable = await house.worker()
    await gate.entered.wait()
    async with asyncio.timeout(10):
        await killable.worker.stop(within_s=0.1)
    await _nothing_is_leased(house)
    house.provider.script("replicate").on_submit = None
    await house.worker()
    assert (await house.finished(generation))["status"] == "succeeded"
    assert house.provider.count("submit") == 1
    await house.check()


@pytest.mark.parametrize("table", ["workers", "attempts"])
async def test_a_database_that_does_not_answer_does_not_hold_up_the_stop(house: House, table: str) -> None:
    generation = await house.admit(CHAIN)
    async with house.db.transaction() as blocking:
        if table == "attempts":
            await blocking.execute("LOCK TABLE attempts IN SHARE ROW EXCLUSIVE MODE")
        killable = await house.worker()
        if table == "attempts":

            async def opening() -> bool:
                return await house.waits_for_lock("%INSERT INTO attempts%")

            await eventually(opening)
        else:
            await house.finished(generation)
            await blocking.execute("LOCK TABLE workers IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(10):
            await killable.worker.stop(within_s=0.1)
    if table == "attempts":
        await house.expire_leases()
        await house.worker()
        await house.finished(generation)
    await house.check()


async def test_a_stop_right_after_the_start_and_a_second_stop_are_harmless(house: House) -> None:
    await house.admit()
    killable = await house.worker()
    await killable.worker.stop()
    await killable.worker.stop()
    await _nothing_is_leased(house)
