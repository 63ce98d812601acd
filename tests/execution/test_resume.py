"""A worker dies at each stage: the next one ends the generation, and the upstream saw at most one purchase."""

import asyncio
from typing import Any

import pytest
from tests.execution.conftest import BALANCE, COST, House
from tests.execution.scripted import DONE, Gate, Script, Scripted, accepted
from tests.support import eventually

from babysea_server.execution import store
from babysea_server.execution.types import AcceptedAttempt, Claim, OpenAttempt
from babysea_server.execution.writes import Writes
from babysea_server.kit.clock import SystemClock
from babysea_server.providers.base import Accepted, Failure, NotFound, Refused, Running, Unclear

CHAIN = ("replicate", "fal")


def _opening(claim: Claim) -> OpenAttempt:
    return OpenAttempt(
        claim.prediction_id,
        claim.id,
        claim.account_id,
        claim.fence,
        claim.model,
        1,
        claim.provider_order[0],
        "scripted",
    )


async def test_claimed_and_nothing_more(house: House) -> None:
    generation = await house.admit()
    await house.claimed(await house.bare_worker())
    await house.expire_leases()
    await house.worker()
    row = await house.finished(generation)
    assert (row["status"], row["fence"]) == ("succeeded", 2)
    assert house.provider.count("submit") == 1
    await house.check()


async def test_an_attempt_opened_and_certainly_not_submitted_is_submitted_once(house: House) -> None:
    house.provider = Scripted(replicate=Script([accepted()], reconcile="jobs"))
    generation = await house.admit(CHAIN)
    worker = await house.bare_worker()
    claim = await house.claimed(worker)
    assert await store.open_attempts(house.db, worker, [_opening(claim)]) == [True]
    await house.expire_leases()
    await house.worker()
    row = await house.finished(generation)
    assert row["provider_used"] == "replicate"
    assert await house.outcomes(generation) == [("replicate", "used", None)]
    assert (house.provider.count("reconcile"), house.provider.count("submit")) == (1, 1)
    await house.check()


async def test_a_job_that_is_submitted_after_a_long_absence_gets_its_whole_time(house: House) -> None:
    house.provider = Scripted(replicate=Script([accepted()], [Running(0.05), DONE], reconcile="jobs"))
    generation = await house.admit(CHAIN)
    worker = await house.bare_worker()
    await store.open_attempts(house.db, worker, [_opening(await house.claimed(worker))])
    await house.db.execute("UPDATE attempts SET submitted_at = now() - interval '1 hour'")
    await house.expire_leases()
    await house.worker()
    assert (await house.finished(generation))["provider_used"] == "replicate"


async def test_an_attempt_of_unknown_fate_is_never_submitted_again(house: House) -> None:
    generation = await house.admit(CHAIN)
    worker = await house.bare_worker()
    await store.open_attempts(house.db, worker, [_opening(await house.claimed(worker))])
    await house.expire_leases()
    await house.worker()
    row = await house.finished(generation)
    assert (row["error_code"], row["refunded"]) == ("BSE4009", COST)
    assert house.provider.count("submit") == 0
    assert await house.outcomes(generation) == [("replicate", "failed", "outcome_unknown")]
    await house.check()


@pytest.mark.parametrize(
    ("reconcile", "status", "error"),
    [("jobs", "succeeded", None), (Unclear(), "failed", "BSE4009"), (None, "failed", "BSE4009")],
)
async def test_killed_after_the_purchase_and_before_its_id_was_kept(
    house: House, reconcile: Any, status: str, error: str | None
) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], reconcile=reconcile, on_submit=gate))
    generation = await house.admit(CHAIN)
    first = await house.worker()
    await gate.entered.wait()
    await first.kill()
    await house.expire_leases()
    await house.worker()
    row = await house.finished(generation)
    assert (row["status"], row["error_code"]) == (status, error)
    assert (house.provider.count("submit"), house.provider.purchases) == (1, 1)
    await house.check()


async def test_killed_while_polling_goes_on_by_the_upstream_id(house: House) -> None:
    gate = Gate()
    script = Script([accepted()], on_poll=gate)
    house.provider = Scripted(replicate=script)
    generation = await house.admit(CHAIN)
    first = await house.worker()
    await gate.entered.wait()
    await first.kill()
    await house.expire_leases()
    gate.opened.set()
    await house.worker()
    assert (await house.finished(generation))["status"] == "succeeded"
    assert (house.provider.count("submit"), house.provider.count("reconcile")) == (1, 0)
    polls = [call for call in house.provider.calls if call.verb == "poll"]
    assert {call.upstream_id for call in polls} == {f"up-{polls[0].reference}"}
    await house.check()


async def test_killed_between_the_output_and_its_settlement(house: House) -> None:
    house.provider = Scripted(replicate=Script([accepted()]))
    generation = await house.admit(CHAIN)
    async with house.db.transaction() as blocking:
        await blocking.execute("SELECT FROM accounts FOR UPDATE")
        first = await house.worker()

        async def settling() -> bool:
            return await house.waits_for_lock("%settle_generations_v1%")

        await eventually(settling)
        await first.kill()
        # Nor may the server finish what the dead worker had asked of it.
        await house.db.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'test-worker'"""
        )
    assert (await house.generation(generation))["status"] == "processing"
    await house.expire_leases()
    await house.worker()
    row = await house.finished(generation)
    assert (row["status"], row["charged"]) == ("succeeded", COST)
    assert house.provider.count("submit") == 1
    assert await house.balance() == BALANCE - COST
    await house.check()


async def test_an_upstream_id_that_was_written_late_is_found(house: House) -> None:
    """The dead worker's note may land after its successor has read the attempt."""
    gate = Gate()

    generation = await house.admit(CHAIN)
    old = await house.bare_worker()
    claim = await house.claimed(old)
    await store.open_attempts(house.db, old, [_opening(claim)])
    await house.expire_leases()
    await house.worker()

    async def claimed_again() -> bool:
        row = await house.generation(generation)
        return bool(row["fence"] == 2)

    await eventually(claimed_again)
    note = AcceptedAttempt(claim.prediction_id, claim.id, claim.fence, "up-late", None)
    assert await store.accept_attempts(house.db, old, [note]) == ["taken"]
    row = await house.finished(generation)
    assert row["status"] == "succeeded"
    assert house.provider.count("submit") == 0
    assert [call.upstream_id for call in house.provider.calls] == ["up-late"]
    assert not gate.entered.is_set()


async def test_a_generation_canceled_while_its_attempt_is_looked_for_buys_nothing(house: House) -> None:
    house.provider = Scripted(replicate=Script(reconcile=NotFound()))
    generation = await house.admit(CHAIN)
    worker = await house.bare_worker()
    await store.open_attempts(house.db, worker, [_opening(await house.claimed(worker))])
    killable = await house.worker()
    # One that begins to hear looks at once which of its generations have ended; here nobody tells it.
    await eventually(killable.hears)
    await house.db.execute("UPDATE workers SET lease_until = now() WHERE id = $1", worker)

    async def claimed_again() -> bool:
        return bool((await house.generation(generation))["fence"] == 2)

    await eventually(claimed_again)
    await house.db.execute(
        """SELECT count(*) FROM settle_generations_v1(NULL, $1, $2, '{0}', '{canceled}', '{NULL}', '{NULL}', '{NULL}',
                                                      '{NULL}', '{NULL}', '{NULL}')""",
        [generation],
        [house.account_id],
    )

    async def reconciled() -> bool:
        return house.provider.count("reconcile") == 1

    await eventually(reconciled)

    async def idle() -> bool:
        return killable.worker.running == 0

    await eventually(idle)
    assert house.provider.count("submit") == 0
    assert await house.balance() == BALANCE


async def test_earlier_failures_count_after_a_death(house: House) -> None:
    gate = Gate()
    house.provider = Scripted(
        replicate=Script([Refused(Failure.REFUSED_BUSY, "full")]),
        fal=Script([accepted()], [Refused(Failure.FAILED, "boom")], on_poll=gate),
    )
    generation = await house.admit(CHAIN)
    first = await house.worker()
    await gate.entered.wait()
    await first.kill()
    await house.expire_leases()
    gate.opened.set()
    await house.worker()
    assert (await house.finished(generation))["error_code"] == "BSE4006"
    assert await house.outcomes(generation) == [
        ("replicate", "failed", "refused_busy"),
        ("fal", "failed", "failed"),
    ]
    assert house.provider.count("submit") == 2
    await house.check()


async def test_a_finished_job_is_kept_however_long_nobody_looked(house: House) -> None:
    house.provider = Scripted(replicate=Script([Accepted("", poll_after_s=30.0)]))
    generation = await house.admit(CHAIN)
    first = await house.worker()

    async def kept() -> bool:
        return bool([a for a in await house.attempts(generation) if a["upstream_id"]])

    await eventually(kept)
    await first.kill()
    await house.db.execute("UPDATE attempts SET submitted_at = now() - interval '1 hour'")
    await house.expire_leases()
    await house.worker()
    assert (await house.finished(generation))["status"] == "succeeded"
    await house.check()


async def test_what_many_resumed_runs_ask_at_once_is_answered_to_each(house: House) -> None:
    worker = await house.bare_worker()
    writes = Writes(house.db, SystemClock(), worker, lease_s=30, queue_max=100)
    asked = []
    for number in range(9):
        await house.admit()
        claim = await house.claimed(worker)
        assert await writes.open_attempt(_opening(claim))
        if number % 3:
            kept = AcceptedAttempt(
                claim.prediction_id, claim.id, claim.fence, f"job-{number}", {"of": number}
            )
            assert await writes.accept(kept) == "ours"
        asked.append(claim.prediction_id)

    found = await asyncio.gather(*(writes.accepted(attempt) for attempt in asked))
    await writes.close()
    told = [None if answer is None else (answer.upstream_id, answer.state) for answer in found]
    assert told == [(f"job-{n}", {"of": n}) if n % 3 else None for n in range(9)]
