"""A worker that lost its lease writes nothing any more, and comes back under a new name."""

import asyncio
from uuid import UUID

import pytest
from tests.execution.conftest import House
from tests.execution.scripted import DONE, Gate, Script, Scripted, accepted
from tests.support import ManualClock, eventually

from babysea_server.execution import store
from babysea_server.execution.lease import Lease, LeaseLostError
from babysea_server.execution.types import (
    AcceptedAttempt,
    Claim,
    OpenAttempt,
    Resolution,
    ResolvedAttempt,
    Settlement,
)
from babysea_server.kit.ids import uuid7
from babysea_server.providers.base import Failure, Running


def _opening(claim: Claim, attempt_id: UUID | None = None, order: int = 1) -> OpenAttempt:
    return OpenAttempt(
        attempt_id or claim.prediction_id,
        claim.id,
        claim.account_id,
        claim.fence,
        claim.model,
        order,
        "replicate",
        "scripted",
    )


def _accepting(claim: Claim, upstream_id: str = "up-1") -> AcceptedAttempt:
    return AcceptedAttempt(claim.prediction_id, claim.id, claim.fence, upstream_id, None)


def _success(claim: Claim) -> Settlement:
    used = ResolvedAttempt(claim.prediction_id, "used")
    return Settlement(claim.id, claim.account_id, claim.fence, "succeeded", used, "replicate", outputs=[])


def _failure(claim: Claim) -> ResolvedAttempt:
    return ResolvedAttempt(claim.prediction_id, "failed", Failure.FAILED)


async def _overtaken(house: House) -> tuple[UUID, Claim, UUID, Claim]:
    """One worker has opened an attempt and been given up; another holds its generation."""
    await house.admit()
    old = await house.bare_worker()
    before = await house.claimed(old)
    assert await store.open_attempts(house.db, old, [_opening(before)]) == [True]
    await house.db.execute("DELETE FROM workers WHERE id = $1", old)
    assert await store.reap(house.db) == 1
    new = await house.bare_worker()
    return old, before, new, await house.claimed(new)


async def test_no_write_of_the_old_worker_changes_what_the_new_one_holds(house: House) -> None:
    old, before, new, now = await _overtaken(house)
    assert (before.fence, now.fence) == (1, 2)
    assert await store.open_attempts(house.db, old, [_opening(before)]) == [False]
    assert await store.open_attempts(house.db, old, [_opening(before, uuid7(), 2)]) == [False]
    ended = Resolution(before.id, before.fence, _failure(before))
    assert await store.resolve_attempts(house.db, old, [ended]) == [False]
    assert await store.discard_attempts(house.db, [ended]) == [False]
    assert await store.settle(house.db, old, [_success(before)]) == [False]
    row = await house.generation(before.id)
    assert (row["status"], row["worker_id"], row["fence"]) == ("pending", new, 2)
    assert await house.outcomes(before.id) == [("replicate", "pending", None)]
    # The new one goes on unharmed.
    assert await store.accept_attempts(house.db, new, [_accepting(now)]) == ["ours"]
    assert await store.settle(house.db, new, [_success(now)]) == [True]
    await house.check()


async def test_an_old_fence_of_the_same_worker_is_no_better(house: House) -> None:
    await house.admit()
    worker = await house.bare_worker()
    before = await house.claimed(worker)
    await store.put_back(house.db, worker, before.id, before.fence, pause_s=0)
    now = await house.claimed(worker)
    assert await store.open_attempts(house.db, worker, [_opening(before)]) == [False]
    assert await store.settle(house.db, worker, [_success(before)]) == [False]
    await store.put_back(house.db, worker, before.id, before.fence, pause_s=0)
    assert (await house.generation(now.id))["worker_id"] == worker
    assert await store.open_attempts(house.db, worker, [_opening(now)]) == [True]


async def test_the_upstream_id_is_kept_whoever_brings_it_and_only_once(house: House) -> None:
    old, before, new, now = await _overtaken(house)
    assert await store.accept_attempts(house.db, old, [_accepting(before)]) == ["taken"]
    assert (await house.generation(before.id))["status"] == "pending"
    assert await store.accept_attempts(house.db, new, [_accepting(now, "up-2")]) == ["ours"]
    [attempt] = await house.attempts(before.id)
    assert attempt["upstream_id"] == "up-1"


async def test_every_write_may_be_repeated_after_a_lost_answer(house: House) -> None:
    await house.admit()
    worker = await house.bare_worker()
    claim = await house.claimed(worker)
    other = uuid7()
    failed = Resolution(claim.id, claim.fence, _failure(claim))
    used = Settlement(
        claim.id,
        claim.account_id,
        claim.fence,
        "succeeded",
        ResolvedAttempt(other, "used"),
        "fal",
        outputs=[],
    )
    for _ in range(2):
        assert await store.open_attempts(house.db, worker, [_opening(claim)]) == [True]
    for _ in range(2):
        assert await store.accept_attempts(house.db, worker, [_accepting(claim)]) == ["ours"]
    for _ in range(2):
        assert await store.resolve_attempts(house.db, worker, [failed]) == [True]
    assert await store.open_attempts(house.db, worker, [_opening(claim, other, 2)]) == [True]
    for _ in range(2):
        assert await store.settle(house.db, worker, [used]) == [True]
    assert await house.outcomes(claim.id) == [("replicate", "failed", "failed"), ("replicate", "used", None)]
    await house.check()


async def test_a_generation_that_ended_or_is_gone_is_over(house: House) -> None:
    await house.admit(lifetime_s=-1)
    await house.db.execute("UPDATE generations SET expires_at = now() + interval '1 minute'")
    worker = await house.bare_worker()
    claim = await house.claimed(worker)
    await store.open_attempts(house.db, worker, [_opening(claim)])
    await house.db.execute("UPDATE generations SET expires_at = now()")
    assert await store.expire(house.db) == 1
    assert await store.accept_attempts(house.db, worker, [_accepting(claim)]) == ["over"]
    assert await store.open_attempts(house.db, worker, [_opening(claim)]) == [False]
    await house.db.execute("DELETE FROM generations")
    assert await store.accept_attempts(house.db, worker, [_accepting(claim)]) == ["over"]


async def test_a_claim_that_was_under_way_while_its_worker_was_deleted_is_not_lost(house: House) -> None:
    generation = await house.admit()
    worker = await house.bare_worker()
    async with house.db.transaction() as claiming:
        [row] = await claiming.fetch(store._CLAIM, worker, 1)
        assert row["id"] == generation
        await house.expire_leases()
        await store.reap(house.db)
    # Committed under a worker that no longer exists.
    assert (await house.generation(generation))["worker_id"] == worker
    assert await store.reap(house.db) == 1
    assert (await house.generation(generation))["worker_id"] is None


async def _waits_for_a_lock(house: House) -> bool:
    return bool(
        await house.db.fetch(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


async def test_what_a_new_worker_claims_while_another_reaps_stays_its_own(house: House) -> None:
    """The reaper began before the worker registered, and comes to the generation only after it was claimed."""
    generation = await house.admit()
    await house.claimed(await house.bare_worker())
    await house.expire_leases()
    async with house.db.transaction() as others:
        await others.execute("SELECT FROM generations FOR UPDATE")
        reaping = asyncio.create_task(store.reap(house.db))
        await eventually(lambda: _waits_for_a_lock(house))
        new = await house.bare_worker()  # what another reaper freed a moment ago, this one claims
        await others.execute("UPDATE generations SET worker_id = $1, fence = fence + 1", new)
    assert await reaping == 0
    assert (await house.generation(generation))["worker_id"] == new


async def test_an_attempt_is_not_opened_beside_a_claim_that_is_under_way(house: House) -> None:
    """Else both would be right to buy: the claim does not see the attempt, nor the attempt the claim."""
    generation = await house.admit()
    old, new = await house.bare_worker(), await house.bare_worker()
    before = await house.claimed(old)
    async with house.db.transaction() as claiming:
        await claiming.execute("UPDATE generations SET worker_id = NULL")
        [row] = await claiming.fetch(store._CLAIM, new, 1)
        assert not row["attempts"]
        opening = asyncio.create_task(store.open_attempts(house.db, old, [_opening(before)]))
        await eventually(lambda: _waits_for_a_lock(house))
    assert await opening == [False]
    assert await house.attempts(generation) == []


async def test_no_claim_passes_an_attempt_that_is_being_opened(house: House) -> None:
    await house.admit()
    old, new = await house.bare_worker(), await house.bare_worker()
    before = await house.claimed(old)
    async with house.db.transaction() as opening:
        assert await store.open_attempts(opening, old, [_opening(before)]) == [True]
        await house.db.execute("UPDATE generations SET worker_id = NULL")
        assert await store.claim(house.db, new, 1) == []
    claim = await house.claimed(new)
    assert [attempt.id for attempt in claim.attempts] == [before.prediction_id]


async def test_freed_work_keeps_its_place_in_line(house: House) -> None:
    first = await house.admit()
    worker = await house.bare_worker()
    await house.claimed(worker)
    await house.admit()
    await house.expire_leases()
    await store.reap(house.db)
    assert (await house.claimed(await house.bare_worker())).id == first


# ----------------------------------------------------------------------------------------- a whole worker


async def test_a_worker_whose_row_was_deleted_comes_back_and_its_work_goes_on(house: House) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], on_submit=gate))
    bought = await house.admit()
    await house.worker(lease_s=0.9)
    await gate.entered.wait()
    [old] = [row["id"] for row in await house.db.fetch("SELECT id FROM workers")]
    await house.db.execute("DELETE FROM workers")

    async def new_name() -> bool:
        names = [row["id"] for row in await house.db.fetch("SELECT id FROM workers")]
        return bool(names) and old not in names

    await eventually(new_name)
    gate.opened.set()
    row = await house.finished(bought)
    assert (row["status"], row["fence"]) == ("succeeded", 2)
    assert house.provider.purchases == 1
    assert (await house.finished(await house.admit()))["status"] == "succeeded"
    await house.check()


async def test_a_job_bought_for_another_workers_generation_is_not_stopped(house: House) -> None:
    """The row is deleted, the worker does not know yet, and another has its generation."""
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], cancel=True, on_submit=gate))
    generation = await house.admit()
    await house.worker(lease_s=60.0)
    await gate.entered.wait()
    await house.db.execute("DELETE FROM workers")
    await store.reap(house.db)
    claim = await house.claimed(await house.bare_worker())
    gate.opened.set()

    async def kept() -> bool:
        return (await house.attempts(generation))[0]["upstream_id"] is not None

    await eventually(kept)
    await house.workers[0].worker.stop()
    assert house.provider.count("cancel") == 0
    assert (await house.outcomes(generation)) == [("replicate", "pending", None)]
    assert (await house.generation(generation))["fence"] == claim.fence


async def test_a_job_bought_for_a_generation_that_ended_is_stopped_and_discarded(house: House) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], cancel=True, on_submit=gate))
    generation = await house.admit()
    await house.worker()
    await gate.entered.wait()
    await house.db.execute("UPDATE generations SET expires_at = now()")
    await store.expire(house.db)
    gate.opened.set()

    async def stopped() -> bool:
        return house.provider.count("cancel") == 1

    await eventually(stopped)
    assert (await house.generation(generation))["error_code"] == "BSE5004"
    await house.check()


async def test_a_lease_is_renewed_for_as_long_as_the_worker_lives(house: House) -> None:
    clock = ManualClock()
    await house.worker(clock=clock, lease_s=30.0)

    async def registered() -> bool:
        return bool(await house.db.fetchval("SELECT count(*) FROM workers"))

    await eventually(registered)
    await house.db.execute("UPDATE workers SET lease_until = now() + interval '1 second'")

    async def asleep() -> bool:
        return clock.sleeping >= 5

    await eventually(asleep)
    clock.advance(10.0)

    async def renewed() -> bool:
        left = await house.db.fetchval("SELECT extract(epoch FROM lease_until - now()) FROM workers")
        return bool(left > 20)

    await eventually(renewed)


def test_a_lease_ends_for_its_holder_before_it_ends_for_the_others() -> None:
    clock = ManualClock()
    lease = Lease(uuid7(), clock, lease_s=30)
    with pytest.raises(LeaseLostError):
        lease.check()
    sent_at = clock.monotonic()
    clock.advance(5)  # the renewal's answer takes its time
    lease.renewed(sent_at)
    clock.advance(24.9)
    lease.check()
    clock.advance(0.1)
    with pytest.raises(LeaseLostError):
        lease.check()
    lease.renewed(clock.monotonic())
    lease.check()
    lease.lose()
    with pytest.raises(LeaseLostError):
        lease.check()


async def test_nothing_is_bought_on_a_lease_that_is_in_doubt(house: House) -> None:
    """The database keeps the worker, but no renewal has been confirmed for a whole lease."""
    clock = ManualClock()
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], [Running(1000.0), DONE], on_poll=gate))
    await house.admit()
    killable = await house.worker(clock=clock, lease_s=30.0)
    await gate.entered.wait()
    async with house.db.transaction() as blocking:
        await blocking.execute("SELECT FROM workers FOR UPDATE")
        clock.advance(31.0)
        waiting = await house.admit(("fal",))

        async def renewing() -> bool:
            return await house.waits_for_lock("UPDATE workers%")

        await eventually(renewing)
        assert killable.worker.running == 1
        assert (await house.generation(waiting))["worker_id"] is None
    # Confirmed again, it claims and buys: the loop that claims has survived the doubt.
    row = await house.finished(waiting)
    assert row["fence"] == 1
