"""Who runs what: one worker for a generation, as many generations as there is room for, oldest first."""

import asyncio

import pytest
from tests.execution.conftest import BALANCE, COST, House
from tests.execution.scripted import DONE, AdapterError, Call, Gate, Script, Scripted, accepted
from tests.support import eventually

from babysea_server.execution import store
from babysea_server.execution.wakeup import Wakeup


async def test_two_workers_never_run_the_same_generation(house: House) -> None:
    house.provider = Scripted(replicate=Script([accepted()]))
    for _ in range(10):
        await asyncio.gather(*(house.admit() for _ in range(30)))
    await house.worker(concurrency=40)
    await house.worker(concurrency=40)
    await house.all_finished()
    rows = await house.db.fetch("SELECT status, fence, count(*) FROM generations GROUP BY 1, 2")
    assert [tuple(row) for row in rows] == [("succeeded", 1, 300)]
    assert house.provider.count("submit") == house.provider.purchases == 300
    assert await house.balance() == BALANCE - 300 * COST
    await house.check()


async def test_claims_from_two_sides_are_disjoint_and_bounded(house: House) -> None:
    await asyncio.gather(*(house.admit() for _ in range(50)))
    workers = [await house.bare_worker() for _ in range(2)]
    taken = await asyncio.gather(*(store.claim(house.db, workers[n % 2], 8) for n in range(8)))
    assert max(len(claims) for claims in taken) <= 8
    ids = [claim.id for claims in taken for claim in claims]
    rest = await store.claim(house.db, workers[0], 100)
    ids += [claim.id for claim in rest]
    assert len(ids) == len(set(ids)) == 50
    assert {claim.fence for claims in taken for claim in claims} == {1}


async def test_who_has_no_lease_claims_nothing(house: House) -> None:
    await house.admit()
    worker = await house.bare_worker()
    await store.leave(house.db, worker)
    assert await store.claim(house.db, worker, 10) == []


async def test_what_is_due_longest_is_run_first(house: House) -> None:
    order = [await house.admit() for _ in range(8)]
    later = order.pop(2)
    await house.db.execute(
        "UPDATE generations SET due_at = now() + interval '0.3 seconds' WHERE id = $1", later
    )
    await house.worker(concurrency=1)
    await house.all_finished()
    rows = await house.db.fetch("SELECT id FROM generations ORDER BY completed_at")
    assert [row["id"] for row in rows if row["id"] != later] == order


async def test_no_more_run_at_once_than_there_is_room_for(house: House) -> None:
    gate, inside, most = Gate(), 0, 0

    async def count(call: Call) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await gate(call)
        inside -= 1

    house.provider = Scripted(replicate=Script(on_submit=count))
    for _ in range(12):
        await house.admit()
    killable = await house.worker(concurrency=3)

    async def full() -> bool:
        return inside == 3

    await eventually(full)
    leased = await house.db.fetchval("SELECT count(*) FROM generations WHERE worker_id IS NOT NULL")
    assert leased == killable.worker.running == 3
    gate.opened.set()
    await house.all_finished()
    assert most == 3


async def test_room_is_filled_again_without_waiting_for_the_next_look(house: House) -> None:
    for _ in range(60):
        await house.admit()
    await house.worker(concurrency=10, poll_s=1000.0)
    await house.all_finished(within_s=15)


async def test_work_is_found_without_any_notification(house: House) -> None:
    await house.worker()
    assert (await house.finished(await house.admit()))["status"] == "succeeded"


async def test_a_notification_wakes_a_worker_that_looks_rarely(house: House) -> None:
    wakeup = Wakeup(house.db)
    wakeup.start()
    first = await house.admit()
    killable = await house.worker(poll_s=1000.0)
    await house.finished(first)  # found by its first look, or when it began to listen
    listener = killable.db._listeners[0]

    async def hearing() -> bool:
        return listener.hearing

    await eventually(hearing)
    generation = await house.admit()
    wakeup.poke()
    assert (await house.finished(generation))["status"] == "succeeded"
    await wakeup.close()


async def test_a_thousand_pokes_are_one_notification(house: House) -> None:
    heard: list[str] = []
    async with house.db.connection() as connection:
        await connection.add_listener("generations_due", lambda *notice: heard.append(notice[-1]))
        wakeup = Wakeup(house.db)
        wakeup.start()
        for _ in range(1000):
            wakeup.poke()

        async def told() -> bool:
            return bool(heard)

        await eventually(told)
        await wakeup.close()
        await house.db.execute("SELECT pg_notify('generations_due', 'end')")

        async def ended() -> bool:
            return heard[-1] == "end"

        await eventually(ended)
        assert heard == ["", "end"]
        await connection.reset()


# ----------------------------------------------------------------------------------------- crashes


async def test_a_run_that_crashes_is_put_back_for_longer_each_time_and_given_up_at_its_limit(
    house: House,
) -> None:
    script = Script([accepted()], [AdapterError("a mistake")])
    house.provider = Scripted(replicate=script)
    generation = await house.admit()
    await house.worker()

    async def put_back(fence: int) -> float:
        async def free() -> float | None:
            pause: float | None = await house.db.fetchval(
                """SELECT extract(epoch FROM due_at - now())::float8 FROM generations
                   WHERE id = $1 AND fence = $2 AND worker_id IS NULL AND due_at > now()""",
                generation,
                fence,
            )
            return pause

        pause = await eventually(free)
        await house.db.execute("UPDATE generations SET due_at = now() WHERE id = $1", generation)
        return pause

    pauses = [await put_back(fence) for fence in (1, 2, 3, 4)]
    # Doubling from one second; a little of it is over when we look.
    assert [pause <= 2**n and pause > 2 ** (n - 1) for n, pause in enumerate(pauses)] == [True] * 4
    await house.db.execute("UPDATE generations SET expires_at = now()")
    await house.worker()  # looks for what is past its limit as soon as it starts
    row = await house.finished(generation)
    assert (row["error_code"], row["refunded"]) == ("BSE5004", COST)
    assert house.provider.count("submit") == 1
    await house.check()


async def test_a_crash_while_reading_the_answer_to_a_submit_never_submits_again(house: House) -> None:
    house.provider = Scripted(replicate=Script([AdapterError("a mistake")], reconcile="jobs"))
    generation = await house.admit()
    await house.worker()

    async def free() -> bool:
        row = await house.generation(generation)
        return bool(row["fence"] == 1 and row["worker_id"] is None)

    await eventually(free)
    await house.db.execute("UPDATE generations SET due_at = now()")
    assert (await house.finished(generation))["status"] == "succeeded"
    assert house.provider.count("submit") == 1
    await house.check()


async def test_what_a_worker_holds_without_knowing_is_freed(house: House) -> None:
    """As after a claim whose answer was lost on its way back."""
    await house.worker()
    await house.finished(await house.admit())
    stray = await house.admit(("fal",), lifetime_s=600)
    [worker] = await house.db.fetch("SELECT id FROM workers")
    async with house.db.transaction() as blocking:
        await blocking.execute("LOCK TABLE workers IN ACCESS EXCLUSIVE MODE")
        await house.db.execute(
            "UPDATE generations SET worker_id = $1, fence = fence + 1 WHERE worker_id IS NULL AND id = $2",
            worker["id"],
            stray,
        )

        async def claim_broken() -> bool:
            return bool(
                await house.db.fetchval(
                    """SELECT bool_or(pg_cancel_backend(pid)) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'
                         AND query LIKE '%FOR UPDATE SKIP LOCKED%UPDATE generations g SET worker_id%'"""
                )
            )

        await eventually(claim_broken)
    assert (await house.finished(stray))["status"] == "succeeded"
    await house.check()


# ----------------------------------------------------------------------------------------- the hard limit


async def test_what_is_past_its_limit_is_refunded_and_never_bought(house: House) -> None:
    generation = await house.admit(lifetime_s=-1)
    await house.worker()
    row = await house.finished(generation)
    assert (row["error_code"], row["refunded"]) == ("BSE5004", COST)
    assert row["error_message"].endswith("You were not charged.")
    assert house.provider.calls == []
    await house.check()


async def test_the_limit_holds_while_a_worker_has_the_lease_and_its_output_comes_too_late(
    house: House,
) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], on_poll=gate))
    generation = await house.admit()
    first = await house.worker()
    await gate.entered.wait()
    await house.db.execute("UPDATE generations SET expires_at = now()")
    await house.worker()
    row = await house.finished(generation)
    assert (row["error_code"], row["refunded"], row["worker_id"]) == ("BSE5004", COST, None)
    gate.opened.set()

    async def idle() -> bool:
        return first.worker.running == 0

    await eventually(idle)
    assert (await house.generation(generation))["outputs"] is None
    assert [outcome for _, outcome, _ in await house.outcomes(generation)] == ["discarded"]
    assert house.files() == []
    assert await house.balance() == BALANCE
    await house.check()


async def test_many_past_their_limit_are_given_up_at_once(house: House) -> None:
    for _ in range(15):
        await asyncio.gather(*(house.admit(lifetime_s=-1) for _ in range(30)))
    await house.worker()
    await house.all_finished(within_s=4)
    assert await house.balance() == BALANCE
    await house.check()


async def test_a_settlement_that_waited_for_a_cancellation_discards_its_output(house: House) -> None:
    """The race that one statement cannot see: it starts before the generation ends and decides after."""
    house.provider = Scripted(replicate=Script([accepted()], [DONE]))
    generation = await house.admit()
    async with house.db.transaction() as canceling:
        await canceling.execute("SELECT FROM accounts FOR UPDATE")
        first = await house.worker()

        async def settling() -> bool:
            return await house.waits_for_lock("%settle_generations_v1%")

        await eventually(settling)
        await canceling.execute(
            """SELECT count(*) FROM settle_generations_v1(NULL, $1, $2, '{0}', '{canceled}', '{NULL}', '{NULL}',
                                                          '{NULL}', '{NULL}', '{NULL}', '{NULL}')""",
            [generation],
            [house.account_id],
        )

    async def idle() -> bool:
        return first.worker.running == 0

    await eventually(idle)
    assert (await house.generation(generation))["status"] == "canceled"
    assert [outcome for _, outcome, _ in await house.outcomes(generation)] == ["discarded"]
    assert house.files() == []
    await house.check()


@pytest.mark.parametrize("statement", ["_OPEN", "_ACCEPT", "_RESOLVE"])
async def test_a_batch_of_writes_does_not_read_all_that_is_in_flight(house: House, statement: str) -> None:
    # Statistics of a quiet moment: nothing was in flight when they were made.
    await asyncio.gather(*(house.admit() for _ in range(300)))
    await house.db.execute("ANALYZE generations")
    worker = await house.bare_worker()
    claims = await store.claim(house.db, worker, 300)
    sql: str = getattr(store, statement)
    ids = [claim.id for claim in claims[:8]]
    arguments = {
        "_OPEN": (worker, ids, ids, ids, [1] * 8, ["m"] * 8, [1] * 8, ["p"] * 8, ["a"] * 8, [1] * 8),
        "_ACCEPT": (worker, ids, ids, [1] * 8, ["up"] * 8, [None] * 8),
        "_RESOLVE": (ids, ["failed"] * 8, *[[None] * 8] * 4, ids, [1] * 8, worker),
    }[statement]
    plan = "\n".join(row[0] for row in await house.db.fetch(f"EXPLAIN {sql}", *arguments))
    assert "generations_leased" not in plan, plan
    assert "attempts_one_open" not in plan, plan
