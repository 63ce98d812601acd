"""The outbox: every transition is written once for whoever subscribed, in its own transaction, by whatever path."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from tests.execution.conftest import COST, House
from tests.execution.scripted import DONE, Gate, Script, Scripted, accepted
from tests.support import eventually, make_account
from tests.webhooks.conftest import Post

from babysea_server.execution import store as execution
from babysea_server.execution.types import AcceptedAttempt, Claim, OpenAttempt, Settlement
from babysea_server.generations import store as generations
from babysea_server.providers.base import Failure, Refused

STARTED, COMPLETED = "generation.started", "generation.completed"
FAILED, CANCELED = "generation.failed", "generation.canceled"
ALL = (STARTED, COMPLETED, FAILED, CANCELED)


@pytest.fixture
def told(house: House, post: Post) -> Post:
    """The house's account has endpoints where the test says so."""
    post.account_id = house.account_id
    return post


async def _messages(post: Post) -> set[tuple[UUID, str]]:
    rows = await post.db.fetch("SELECT generation_id, event FROM webhook_messages")
    assert len(rows) == len(set(map(tuple, rows)))
    return {(row["generation_id"], row["event"]) for row in rows}


async def _transitions(house: House) -> set[tuple[UUID, str]]:
    """What the rows of generations and attempts say has happened, however it did."""
    rows = await house.db.fetch(
        """SELECT g.id, g.status::text AS status,
                  EXISTS (SELECT FROM attempts a WHERE a.generation_id = g.id AND a.accepted_at IS NOT NULL
                          AND a.accepted_at <= coalesce(g.completed_at, now())) AS taken
           FROM generations g"""
    )
    final = {"succeeded": COMPLETED, "failed": FAILED, "canceled": CANCELED}
    found = {(row["id"], final[row["status"]]) for row in rows if row["status"] in final}
    return found | {(row["id"], STARTED) for row in rows if row["taken"]}


async def _data(post: Post, event: str) -> dict[str, Any]:
    data: dict[str, Any] = await post.db.fetchval("SELECT data FROM webhook_messages WHERE event = $1", event)
    return data


def _opening(claim: Claim) -> OpenAttempt:
    return OpenAttempt(
        claim.prediction_id, claim.id, claim.account_id, claim.fence, claim.model, 1, "replicate", "scripted"
    )


async def test_a_polled_success_is_told_as_started_and_completed(house: House, told: Post) -> None:
    hook = await told.hook(events=ALL)
    house.provider = Scripted(replicate=Script([accepted()]))
    generation = await house.admit()
    await house.worker()
    row = await house.finished(generation)
    assert (
        await _messages(told) == {(generation, STARTED), (generation, COMPLETED)} == await _transitions(house)
    )
    common = {
        "account_id": str(house.account_id),
        "model_identifier": "bfl/flux-schnell",
        "generation_id": str(generation),
        "generation_prediction_id": str(row["prediction_id"]),
    }
    assert await _data(told, STARTED) == {
        **common,
        "generation_status": "processing",
        "generation_provider_initialize": "replicate",
    }
    assert await _data(told, COMPLETED) == {
        **common,
        "generation_status": "succeeded",
        "generation_provider_used": "replicate",
        "generation_output_file": [output["key"] for output in row["outputs"]],
    }
    assert [delivery["endpoint_id"] for delivery in await told.deliveries()] == [hook.id, hook.id]


async def test_an_inline_success_was_never_processing_and_is_told_as_completed_alone(
    house: House, told: Post
) -> None:
    await told.hook(events=ALL)
    generation = await house.admit()
    await house.worker()
    await house.finished(generation)
    assert await _messages(told) == {(generation, COMPLETED)}


async def test_a_failure_tells_its_code_and_sentence(house: House, told: Post) -> None:
    await told.hook(events=ALL)
    house.provider = Scripted(replicate=Script([Refused(Failure.REFUSED_POLICY, "no")]))
    generation = await house.admit()
    await house.worker()
    row = await house.finished(generation)
    assert await _messages(told) == {(generation, FAILED)}
    assert await _data(told, FAILED) == {
        "account_id": str(house.account_id),
        "model_identifier": "bfl/flux-schnell",
        "generation_id": str(generation),
        "generation_status": "failed",
        "generation_error": row["error_message"],
        "generation_error_code": row["error_code"],
    }


async def test_a_failover_after_acceptance_is_not_started_twice(house: House, told: Post) -> None:
    await told.hook(events=ALL)
    house.provider = Scripted(
        replicate=Script([accepted()], [Refused(Failure.FAILED, "broke")]), fal=Script([accepted()])
    )
    generation = await house.admit(("replicate", "fal"))
    await house.worker()
    await house.finished(generation)
    assert await _messages(told) == {(generation, STARTED), (generation, COMPLETED)}
    assert (await _data(told, STARTED))["generation_provider_initialize"] == "replicate"
    assert (await _data(told, COMPLETED))["generation_provider_used"] == "fal"


async def test_a_cancellation_tells_what_was_refunded(house: House, told: Post) -> None:
    await told.hook(events=ALL)
    generation = await house.admit()
    for _ in range(2):
        await generations.cancel(house.db, house.account_id, generation)
    row = await house.generation(generation)
    assert await _messages(told) == {(generation, CANCELED)}
    assert await _data(told, CANCELED) == {
        "account_id": str(house.account_id),
        "model_identifier": "bfl/flux-schnell",
        "generation_id": str(generation),
        "generation_status": "canceled",
        "generation_prediction_id": str(row["prediction_id"]),
        "credits_refunded": COST / 1_000_000,
    }


async def test_an_expiry_is_told_as_a_failure(house: House, told: Post) -> None:
    await told.hook(events=ALL)
    generation = await house.admit()
    await house.db.execute("UPDATE generations SET expires_at = now() - interval '1 second'")
    assert [await execution.expire(house.db) for _ in range(2)] == [1, 0]
    assert await _messages(told) == {(generation, FAILED)}
    assert (await _data(told, FAILED))["generation_error_code"] == "BSE5004"


async def test_a_resumed_run_tells_nothing_twice(house: House, told: Post) -> None:
    await told.hook(events=ALL)
    house.provider = Scripted(replicate=Script([accepted()], [DONE], on_poll=Gate()))
    gate = house.provider.script("replicate").on_poll
    assert isinstance(gate, Gate)
    generation = await house.admit()
    first = await house.worker()
    await asyncio.wait_for(gate.entered.wait(), 20)
    await first.kill()
    house.workers.remove(first)
    gate.opened.set()
    await house.expire_leases()
    await house.worker()
    await house.finished(generation)
    assert (await house.generation(generation))["fence"] == 2
    assert await _messages(told) == {(generation, STARTED), (generation, COMPLETED)}
    assert len(await told.deliveries()) == 2


async def test_statements_that_are_repeated_after_a_lost_answer_tell_nothing_twice(
    house: House, told: Post
) -> None:
    await told.hook(events=ALL)
    generation = await house.admit()
    worker = await house.bare_worker()
    claim = await house.claimed(worker)
    await execution.open_attempts(house.db, worker, [_opening(claim)])
    taken = AcceptedAttempt(claim.prediction_id, claim.id, claim.fence, "up-1", None)
    ends = Settlement(
        claim.id, claim.account_id, claim.fence, "succeeded", None, provider="replicate", outputs=[]
    )
    for _ in range(2):
        assert await execution.accept_attempts(house.db, worker, [taken]) == ["ours"]
    for _ in range(2):
        await execution.settle(house.db, worker, [ends])
    await execution.accept_attempts(house.db, worker, [taken])
    assert await _messages(told) == {(generation, STARTED), (generation, COMPLETED)}
    assert len(await told.deliveries()) == 2


async def test_whoever_loses_the_race_tells_nothing(house: House, told: Post) -> None:
    generation = await house.admit()
    worker = await house.bare_worker()
    claim = await house.claimed(worker)
    await generations.cancel(house.db, house.account_id, generation)
    # Subscribed after what happened: neither that nor the late settlement is for this endpoint.
    await told.hook(events=ALL)
    ends = Settlement(
        claim.id, claim.account_id, claim.fence, "succeeded", None, provider="replicate", outputs=[]
    )
    assert await execution.settle(house.db, worker, [ends]) == [False]
    assert await _messages(told) == set()


async def test_nothing_is_written_when_nobody_subscribed(house: House, told: Post) -> None:
    other, _ = await make_account(house.db)
    await told.hook(events=ALL, account_id=other)
    await told.hook(events=["credits.low_balance", FAILED])
    house.provider = Scripted(replicate=Script([accepted()]))
    generation = await house.admit()
    await house.worker()
    await house.finished(generation)
    assert await _messages(told) == set()
    assert await told.deliveries() == []


async def test_each_endpoint_gets_what_it_subscribed_to_whatever_its_state(house: House, told: Post) -> None:
    both = await told.hook("/both", events=ALL)
    started = await told.hook("/started", events=[STARTED], state="disabled")
    final = await told.hook("/final", events=[COMPLETED, FAILED], state="failing")
    house.provider = Scripted(replicate=Script([accepted()]))
    generation = await house.admit()
    await house.worker()
    await house.finished(generation)
    assert await _messages(told) == {(generation, STARTED), (generation, COMPLETED)}
    rows = await house.db.fetch(
        """SELECT d.endpoint_id, m.event, d.due_at = 'infinity' AS queued FROM webhook_deliveries d
           JOIN webhook_messages m ON m.id = d.message_id"""
    )
    assert {tuple(row) for row in rows} == {
        (both.id, STARTED, False),
        (both.id, COMPLETED, False),
        (started.id, STARTED, True),
        (final.id, COMPLETED, True),
    }


async def test_messages_and_transitions_are_one_transaction(house: House, told: Post) -> None:
    await told.hook(events=ALL)
    generation = await house.admit()
    async with house.db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetch("SELECT * FROM cancel_generation_v1($1, $2)", house.account_id, generation)
        assert await connection.fetchval("SELECT count(*) FROM webhook_deliveries") == 1
        await transaction.rollback()
    assert await _messages(told) == set()
    assert (await house.generation(generation))["status"] == "pending"


async def test_an_endpoint_that_is_being_deleted_does_not_fail_the_settlement(
    house: House, told: Post
) -> None:
    await told.hook("/going", events=ALL)
    staying = await told.hook("/staying", events=ALL)
    generation = await house.admit()
    async with house.db.transaction() as deleting:
        await deleting.execute("DELETE FROM webhook_endpoints WHERE id <> $1", staying.id)
        canceling = asyncio.create_task(generations.cancel(house.db, house.account_id, generation))

        async def waits() -> bool:
            return await house.waits_for_lock("%cancel_generation_v1%")

        await eventually(waits)
    await canceling
    assert await _messages(told) == {(generation, CANCELED)}
    assert [delivery["endpoint_id"] for delivery in await told.deliveries()] == [staying.id]


async def test_many_generations_of_every_kind_are_told_exactly_as_they_happened(
    house: House, told: Post
) -> None:
    hook = await told.hook(events=ALL)
    refused = Refused(Failure.REFUSED_INPUT, "no")
    house.provider = Scripted(
        replicate=Script([accepted(), DONE, refused]),
        fal=Script([accepted()], [Refused(Failure.FAILED, "broke")]),
        cloudflare=Script([refused, accepted(), DONE]),
    )
    orders = [("replicate",), ("fal", "replicate"), ("cloudflare",), ("fal",)]
    ids = [await house.admit(orders[number % 4]) for number in range(80)]
    for id in ids[::10]:
        await generations.cancel(house.db, house.account_id, id)
    first = await house.worker(concurrency=20)
    for id in ids[5::10]:
        await generations.cancel(house.db, house.account_id, id)
    await first.kill()
    house.workers.remove(first)
    await house.expire_leases()
    await house.worker()
    await house.all_finished()
    happened = await _transitions(house)
    assert await _messages(told) == happened
    assert len({id for id, event in happened if event != STARTED}) == 80
    told.deliverer()
    await told.receiver.has("/hook", len(happened))
    await told.settled(hook)
    received = [(UUID(each.data["generation_id"]), each.event) for each in told.receiver.received]
    assert len(received) == len(happened)
    assert set(received) == happened
    await house.check()


async def test_bodies_leave_out_what_is_not_there_and_keep_the_contracts_order(
    house: House, told: Post
) -> None:
    await told.hook(events=ALL)
    house.provider = Scripted(replicate=Script([accepted()]))
    generation = await house.admit()
    await house.worker()
    await house.finished(generation)
    told.deliverer()
    got = {each.event: each.data for each in await told.receiver.has("/hook", 2)}
    common = ["account_id", "model_identifier", "generation_id", "generation_status"]
    assert list(got[STARTED]) == [*common, "generation_provider_initialize", "generation_prediction_id"]
    assert list(got[COMPLETED]) == [
        *common,
        "generation_provider_used",
        "generation_prediction_id",
        "generation_output_file",
    ]
