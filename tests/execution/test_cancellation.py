"""A cancellation meets a generation at every stage of its run: the run ends, and leaves nothing behind."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from tests.execution.conftest import BALANCE, House
from tests.execution.scripted import DONE, PICTURE, Gate, Script, Scripted, accepted
from tests.support import eventually

from babysea_server.execution import store as execution
from babysea_server.execution.abandoned import end_abandoned_attempts
from babysea_server.execution.types import (
    AcceptedAttempt,
    OpenAttempt,
    Resolution,
    ResolvedAttempt,
    Settlement,
)
from babysea_server.generations import store
from babysea_server.outputs.store import ObjectStore
from babysea_server.providers.base import Accepted, Failure, Finished, Output, Refused, Running


async def canceled(house: House, generation_id: UUID) -> Any:
    """Cancel it as an API process does, which dies before it asks the provider."""
    found = await store.cancel(house.db, house.account_id, generation_id)
    assert found["canceled"]
    return found


async def idle(house: House) -> None:
    """Wait until no worker carries anything."""

    async def nothing() -> bool:
        return all(killable.worker.running == 0 for killable in house.workers)

    await eventually(nothing)


async def nothing_left(house: House, *generations: UUID) -> None:
    """Canceled and refunded whole, without a file."""
    for generation in generations:
        assert (await house.generation(generation))["status"] == "canceled"
    assert await house.balance() == BALANCE
    assert house.files() == []


async def test_what_was_never_claimed_is_never_bought(house: House) -> None:
    generation = await house.admit()
    found = await canceled(house, generation)
    assert (found["refunded"], found["attempt_id"]) == (10_000, None)
    await house.worker()
    assert (await house.finished(await house.admit()))["status"] == "succeeded"
    assert (house.provider.purchases, await house.outcomes(generation)) == (1, [])
    await house.check()


async def test_canceled_while_it_is_submitted_the_job_is_stopped_by_its_worker(house: House) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], cancel=True, on_submit=gate))
    generation = await house.admit()
    await house.worker()
    await gate.entered.wait()
    assert (await canceled(house, generation))["upstream_id"] is None
    gate.opened.set()
    await idle(house)
    assert (house.provider.count("cancel"), house.provider.count("poll")) == (1, 0)
    assert await house.outcomes(generation) == [("replicate", "cancelled", None)]
    await nothing_left(house, generation)
    await house.check()


async def test_an_output_that_comes_with_the_answer_is_not_stored_and_its_cost_is_kept(house: House) -> None:
    gate = Gate()
    done = Finished([Output(data=PICTURE)], cost_micro=700)
    house.provider = Scripted(replicate=Script([done], on_submit=gate))
    generation = await house.admit()
    await house.worker()
    await gate.entered.wait()
    await canceled(house, generation)
    gate.opened.set()
    await idle(house)
    [attempt] = await house.attempts(generation)
    assert (attempt["outcome"], attempt["estimated_cost"]) == ("discarded", 700)
    await nothing_left(house, generation)
    await house.check()


async def test_a_refusal_after_the_cancellation_ends_the_attempt_and_no_other_provider_is_asked(
    house: House,
) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([Refused(Failure.REFUSED_BUSY, "full")], on_submit=gate))
    generation = await house.admit(("replicate", "fal"))
    await house.worker()
    await gate.entered.wait()
    await canceled(house, generation)
    gate.opened.set()
    await idle(house)
    assert await house.outcomes(generation) == [("replicate", "failed", "refused_busy")]
    assert house.provider.count("submit") == 1
    await nothing_left(house, generation)
    await house.check()


async def test_runs_that_wait_for_a_provider_end_at_once_and_ask_no_more(house: House) -> None:
    house.provider = Scripted(replicate=Script([Accepted("", poll_after_s=1000.0)]))
    generations = [await house.admit() for _ in range(10)]
    kept = await house.admit()
    await house.worker()

    async def all_waiting() -> bool:
        count = await house.db.fetchval("SELECT count(*) FROM attempts WHERE upstream_id IS NOT NULL")
        return bool(count == len(generations) + 1)

    await eventually(all_waiting)
    found = await asyncio.gather(*(canceled(house, generation) for generation in generations))
    assert [row["upstream_id"] for row in found] == [f"up-{row['attempt_id']}" for row in found]

    async def one_left() -> bool:
        return house.workers[0].worker.running == 1

    await eventually(one_left)
    assert house.provider.count("poll") == 0
    assert (await house.generation(kept))["status"] == "processing"


class SlowStore(ObjectStore):
    """A store whose second file does not come through before the test says so."""

    def __init__(self, house: House, gate: asyncio.Event) -> None:
        super().__init__(house.store._backend, name="slow")
        self.gate = gate
        self.begun: list[str] = []

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        self.begun.append(key)
        if len(self.begun) == 2:
            await self.gate.wait()
        await super().put(key, data, content_type)


@pytest.mark.parametrize("inline", [True, False])
async def test_canceled_while_its_files_are_stored_none_of_them_stays(house: House, inline: bool) -> None:
    finished = Finished([Output(data=PICTURE)] * 3, cost_micro=900)
    script = Script([finished]) if inline else Script([accepted()], [finished])
    house.provider = Scripted(replicate=script)
    gate = asyncio.Event()
    slow = SlowStore(house, gate)
    generation = await house.admit()
    await house.worker(store=slow)

    async def storing() -> bool:
        return len(slow.begun) == 2 and len(house.files()) == 1

    await eventually(storing)
    await canceled(house, generation)

    async def told() -> bool:
        return all(run._dropped for run in house.workers[0].worker._runs.values())

    await eventually(told)
    gate.set()
    await idle(house)
    assert len(slow.begun) == 2
    [attempt] = await house.attempts(generation)
    assert (attempt["outcome"], attempt["estimated_cost"]) == ("discarded", 900)
    await nothing_left(house, generation)
    await house.check()


async def test_canceled_while_a_file_is_fetched_those_before_it_are_deleted(house: House) -> None:
    entered = asyncio.Event()

    class Fetching(Scripted):
        async def send(self, request: Any, *, timeout_s: float, body_max: int) -> Any:
            if request.url.endswith("/two"):
                entered.set()
                await asyncio.Event().wait()
            return await super().send(request, timeout_s=timeout_s, body_max=body_max)

    outputs = [Output(url="file/replicate/one"), Output(url="file/replicate/two")]
    script = Script([accepted()], [Finished(outputs, cost_micro=500)], files={"one": PICTURE})
    house.provider = Fetching(replicate=script)
    generation = await house.admit()
    await house.worker()
    await entered.wait()
    assert len(house.files()) == 1
    await canceled(house, generation)
    await idle(house)
    [attempt] = await house.attempts(generation)
    assert (attempt["outcome"], attempt["estimated_cost"]) == ("discarded", 500)
    await nothing_left(house, generation)
    await house.check()


async def test_a_worker_that_was_deaf_learns_of_it_when_it_hears_again(house: House) -> None:
    house.provider = Scripted(replicate=Script([Accepted("", poll_after_s=1000.0)]))
    generation, other = await house.admit(), await house.admit()
    await house.worker()

    async def both_waiting() -> bool:
        return bool(
            await house.db.fetchval("SELECT count(*) = 2 FROM attempts WHERE upstream_id IS NOT NULL")
        )

    await eventually(both_waiting)
    await house.db.execute(
        """SELECT count(*) FROM settle_generations_v1(
               NULL, ARRAY[$1::uuid], ARRAY[$2::uuid], '{0}', '{canceled}', '{NULL}', '{NULL}', '{NULL}', '{NULL}',
               '{NULL}', '{NULL}')""",
        generation,
        house.account_id,
    )
    await house.db.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test-worker-listen'"
    )

    async def one_left() -> bool:
        return house.workers[0].worker.running == 1

    await eventually(one_left)
    assert (await house.generation(other))["status"] == "processing"


async def test_an_announcement_that_means_nothing_harms_nothing(house: House) -> None:
    house.provider = Scripted(replicate=Script([Accepted("", poll_after_s=1000.0)]))
    await house.worker()
    generation = await house.admit()

    async def waiting() -> bool:
        return any(row["upstream_id"] for row in await house.attempts(generation))

    await eventually(waiting)
    await house.db.execute("SELECT pg_notify('generations_canceled', 'not an id')")
    await canceled(house, generation)
    await idle(house)


# ----------------------------------------------------------------------------------------- nobody is left to end it


async def _opened(house: House, *, upstream_id: str | None) -> tuple[UUID, Any]:
    generation = await house.admit()
    worker = await house.bare_worker()
    claim = await house.claimed(worker)
    opening = OpenAttempt(
        claim.prediction_id, claim.id, claim.account_id, claim.fence, claim.model, 1, "replicate", "scripted"
    )
    assert await execution.open_attempts(house.db, worker, [opening]) == [True]
    if upstream_id is not None:
        kept = AcceptedAttempt(claim.prediction_id, claim.id, claim.fence, upstream_id, None)
        assert await execution.accept_attempts(house.db, worker, [kept]) == ["ours"]
    return generation, claim


async def test_attempts_that_nobody_ended_are_ended_after_a_minute_and_their_providers_asked(
    house: House,
) -> None:
    house.provider = Scripted(replicate=Script(cancel=True))
    known, _ = await _opened(house, upstream_id="up-1")
    unknown, _ = await _opened(house, upstream_id=None)
    running, _ = await _opened(house, upstream_id="up-2")
    deleted, _ = await _opened(house, upstream_id=None)
    for generation in (known, unknown, deleted):
        await canceled(house, generation)
    assert await store.delete(house.db, house.account_id, deleted) == []
    await end_abandoned_attempts(house.db, house.runner(), house.catalog)
    assert await house.outcomes(known) == [("replicate", "pending", None)]
    await house.db.execute(
        "UPDATE generations SET completed_at = now() - interval '61 s' WHERE status = 'canceled'"
    )
    await house.db.execute("UPDATE attempts SET submitted_at = now() - interval '61 s'")
    await end_abandoned_attempts(house.db, house.runner(), house.catalog)
    for generation in (known, unknown, deleted):
        assert await house.outcomes(generation) == [("replicate", "discarded", None)]
    assert await house.outcomes(running) == [("replicate", "pending", None)]
    assert [call.upstream_id for call in house.provider.calls] == ["up-1"]
    await house.check()


async def test_a_job_that_was_bought_by_a_dead_worker_is_looked_for_and_stopped(house: House) -> None:
    """The customer canceled while it was being bought, and whoever bought it never told its id."""
    house.provider = Scripted(replicate=Script(cancel=True, reconcile=Accepted("up-7")))
    generation, _ = await _opened(house, upstream_id=None)
    await canceled(house, generation)
    await house.db.execute("UPDATE generations SET completed_at = now() - interval '61 s'")
    await end_abandoned_attempts(house.db, house.runner(), house.catalog)
    assert await house.outcomes(generation) == [("replicate", "discarded", None)]
    assert [call.upstream_id for call in house.provider.calls if call.verb == "cancel"] == ["up-7"]
    await house.check()


async def test_what_a_late_output_cost_is_kept_and_nothing_is_refunded_again(house: House) -> None:
    """The API has ended the attempt; then a worker that heard nothing brings its output."""
    generation, claim = await _opened(house, upstream_id="up-1")
    await canceled(house, generation)
    end = ResolvedAttempt(claim.prediction_id, "cancelled")
    await execution.discard_attempts(house.db, [Resolution(generation, claim.fence, end)])
    used = ResolvedAttempt(claim.prediction_id, "used", cost=1234)
    late = Settlement(
        generation, claim.account_id, claim.fence, "succeeded", used, "replicate", outputs=[{"key": "a"}]
    )
    worker = await house.db.fetchval("SELECT id FROM workers")
    for _ in range(2):
        assert await execution.settle(house.db, worker, [late]) == [False]
    [attempt] = await house.attempts(generation)
    assert (attempt["outcome"], attempt["estimated_cost"]) == ("cancelled", 1234)
    await nothing_left(house, generation)
    await house.check()


async def test_a_worker_killed_after_the_cancellation_leaves_an_attempt_that_the_next_one_ends(
    house: House,
) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], cancel=True, on_submit=gate))
    generation = await house.admit()
    killable = await house.worker()
    await gate.entered.wait()
    await canceled(house, generation)
    await killable.kill()
    house.workers.clear()
    await house.db.execute("UPDATE generations SET completed_at = now() - interval '61 s'")
    await house.worker()

    async def ended() -> bool:
        return await house.outcomes(generation) == [("replicate", "discarded", None)]

    await eventually(ended)
    await nothing_left(house, generation)
    await house.check()


# ----------------------------------------------------------------------------------------- races


async def _race(house: House, generations: Sequence[UUID]) -> int:
    """Cancel them in an order of our own while the worker finishes them; how many were canceled."""
    results = await asyncio.gather(
        *(store.cancel(house.db, house.account_id, generation) for generation in generations)
    )
    await house.all_finished()
    await idle(house)
    won = 0
    for generation, found in zip(generations, results, strict=True):
        row = await house.generation(generation)
        assert (row["status"] == "canceled") is found["canceled"]
        assert found["canceled"] or found["status"] == row["status"] == "succeeded"
        won += found["canceled"]
    return won


async def test_hundreds_of_cancellations_and_ends_at_once_have_one_winner_each(house: House) -> None:
    house.provider = Scripted(replicate=Script([accepted(0.0)], [Running(0.0), DONE], cancel=True))
    won = total = 0
    killable = await house.worker(concurrency=400)
    for size in (20, 60, 120):
        generations = await asyncio.gather(*(house.admit() for _ in range(size)))
        won += await _race(house, generations)
        total += size
    charged = total - won
    assert await house.balance() == BALANCE - 10_000 * charged
    refunds = await house.db.fetchval("SELECT count(*) FROM ledger WHERE kind = 'refund'")
    assert refunds == won
    assert len(house.files()) == charged
    await killable.worker.stop()
    # What a run was told too late to end, the job for such attempts does.
    await house.db.execute("UPDATE generations SET completed_at = now() - interval '61 s'")
    await end_abandoned_attempts(house.db, house.runner(), house.catalog)
    await house.check()
