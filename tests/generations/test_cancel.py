"""Cancel over HTTP: what is told, what is refunded, who wins, and what an answer that was lost turns into."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.generations import admitting
from tests.generations.conftest import MakeDatabase
from tests.generations.wire import Wire
from tests.support import Customer, Deployment, eventually, make_customer

from babysea_server.app.shared import build_shared
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.errors import ApiError
from babysea_server.generations.cancel import Canceled, Canceling
from babysea_server.generations.reading import Reader
from babysea_server.kit.clock import SystemClock
from babysea_server.providers.registry import Registry
from babysea_server.providers.runner import Runner


async def accepted(customer: Customer, **body: Any) -> str:
    response = await customer.generate(**body)
    assert response.status_code == 200, response.text
    return str(response.json()["data"]["generation_id"])


async def cancel(customer: Customer, generation_id: str) -> httpx.Response:
    return await customer.request("POST", f"/v1/content/generation/cancel/{generation_id}")


def refused(response: httpx.Response) -> tuple[int, Any, Any]:
    error = response.json()["error"]
    assert error["retryable"] is False
    return response.status_code, error["code"], error.get("details")


async def attempts(deployment: Deployment, generation_id: str) -> list[Any]:
    return await deployment.db.fetch(
        "SELECT * FROM attempts WHERE generation_id = $1 ORDER BY attempt_order", UUID(generation_id)
    )


async def canceled_jobs(deployment: Deployment) -> int:
    return int(
        await deployment.db.fetchval("SELECT count(*) FROM sandbox.jobs WHERE canceled_at IS NOT NULL")
    )


async def taken(deployment: Deployment, generation_id: str) -> None:
    """Wait until a provider has the job."""

    async def upstream() -> bool:
        return any(row["upstream_id"] for row in await attempts(deployment, generation_id))

    await eventually(upstream)


async def test_a_pending_generation_is_canceled_refunded_and_no_provider_is_asked(caller: Customer) -> None:
    before = await caller.balance()
    generation = await accepted(caller)
    assert await caller.balance() < before
    reserved = before - await caller.balance()
    response = await cancel(caller, generation)
    assert response.status_code == 200
    body = response.json()
    assert body["message"] == "Generation canceled successfully"
    assert body["data"] == {
        "generation_id": generation,
        "generation_status": "canceled",
        "provider_cancel_sent": False,
        "credits_refunded": reserved / 1_000_000,
    }
    assert await caller.balance() == before
    data = await caller.generation(generation)
    assert (data["generation_status"], data["generation_output_file"]) == ("canceled", None)
    assert data["generation_provider_used"] is None
    assert data["generation_completed_at"] is not None
    assert "generation_error" not in data
    assert await caller.deployment.differences() == []


async def test_a_provider_that_has_the_job_is_asked_to_stop(
    deployment: Deployment, customer: Customer
) -> None:
    generation = await accepted(customer, generation_prompt="[sandbox:slow:600]")
    await taken(deployment, generation)
    before = await customer.balance()
    response = await cancel(customer, generation)
    data = response.json()["data"]
    assert data["provider_cancel_sent"] is True
    assert await customer.balance() == before + round(data["credits_refunded"] * 1_000_000)
    [attempt] = await attempts(deployment, generation)
    assert (attempt["outcome"], await canceled_jobs(deployment)) == ("cancelled", 1)
    assert deployment.workers is not None
    worker = deployment.workers.regions["us"].worker

    async def let_go() -> bool:
        return worker.running == 0

    await eventually(let_go)
    assert await deployment.differences() == []


async def test_a_provider_that_does_not_confirm_was_asked_all_the_same(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(worker=False)
    customer = await make_customer(deployment)
    generation = await accepted(customer)
    await deployment.db.execute(
        """INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter, upstream_id)
           SELECT prediction_id, id, account_id, model, 1, 'sandbox', 'sandbox', 'sbx_unknown' FROM generations"""
    )
    assert (await cancel(customer, generation)).json()["data"]["provider_cancel_sent"] is True
    assert [row["outcome"] for row in await attempts(deployment, generation)] == ["discarded"]


async def test_what_is_final_is_not_cancelable_and_says_what_it_is(caller: Customer) -> None:
    db = caller.deployment.db
    for status in ("succeeded", "failed", "canceled"):
        generation = await accepted(caller)
        await admitting.settle(db, caller.account_id, UUID(generation), status)
        balance = await caller.balance()
        expected = (409, "BSE3002", {"generation_status": status})
        assert refused(await cancel(caller, generation)) == expected
        assert await caller.balance() == balance
    assert await caller.deployment.differences() == []


async def test_a_second_cancel_finds_a_canceled_one(caller: Customer) -> None:
    generation = await accepted(caller)
    assert (await cancel(caller, generation)).status_code == 200
    balance = await caller.balance()
    assert refused(await cancel(caller, generation)) == (409, "BSE3002", {"generation_status": "canceled"})
    assert await caller.balance() == balance


async def test_a_foreign_generation_looks_exactly_like_a_missing_one(caller: Customer) -> None:
    stranger = await make_customer(caller.deployment)
    generation = await accepted(caller)
    foreign, missing = await cancel(stranger, generation), await cancel(stranger, str(uuid4()))
    answers = []
    for response, id in ((foreign, generation), (missing, missing.url.path.rpartition("/")[2])):
        error = response.json()["error"]
        answers.append((response.status_code, {**error, "message": error["message"].replace(id, "ID")}))
    assert answers[0] == answers[1]
    assert answers[0][1]["code"] == "BSE3001"
    assert (await caller.generation(generation))["generation_status"] == "pending"


async def test_of_parallel_cancels_one_wins_and_there_is_one_refund(caller: Customer) -> None:
    before = await caller.balance()
    for _ in range(10):
        generation = await accepted(caller)
        responses = await asyncio.gather(*(cancel(caller, generation) for _ in range(8)))
        assert sorted(response.status_code for response in responses) == [200] + [409] * 7
    assert await caller.balance() == before
    assert await caller.deployment.differences() == []


async def test_a_replay_of_a_canceled_request_says_so(caller: Customer) -> None:
    response = await caller.generate(key="order-1")
    generation = response.json()["data"]["generation_id"]
    await cancel(caller, generation)
    replay = await caller.generate(key="order-1")
    assert replay.headers["idempotency-replayed"] == "true"
    assert replay.json()["data"] == {"generation_id": generation, "generation_status": "canceled"}


async def test_a_freed_slot_is_free_at_once(caller: Customer) -> None:
    customer = await make_customer(caller.deployment, plan="free")
    first, _ = await accepted(customer), await accepted(customer)
    assert (await customer.generate()).json()["error"]["code"] == "BSE1009"
    await cancel(customer, first)
    await accepted(customer)


async def test_cancels_and_ends_at_once_have_one_winner_each_and_the_loser_is_told(
    make_deployment: MakeDeployment,
) -> None:
    """Hundreds of generations that a worker makes without delay, canceled while it does."""
    deployment = await make_deployment(sandbox_latency_s=0)
    customer = await make_customer(deployment)
    before = await customer.balance()
    many, costs = 160, set[int]()

    async def one(n: int) -> tuple[str, httpx.Response]:
        generation = await accepted(
            customer, generation_prompt="no picture [sandbox:no_output]" if n % 4 else "a test"
        )
        for _ in range(n % 5):  # each meets the worker at another place
            await customer.generation(generation)
        answer = await cancel(customer, generation)
        while answer.status_code == 503:  # a slow machine: nothing was done, and it may be asked for again
            answer = await cancel(customer, generation)
        return generation, answer

    results = await asyncio.gather(*(one(n) for n in range(many)))
    winners = 0
    for generation, response in results:
        status = (await customer.finished(generation))["generation_status"]
        if response.status_code == 200:
            winners += 1
            assert status == "canceled"
            costs.add(round(response.json()["data"]["credits_refunded"] * 1_000_000))
        else:
            assert refused(response) == (409, "BSE3002", {"generation_status": status})
            assert status in ("succeeded", "failed")
    assert winners > 0
    [cost] = costs
    charged = await deployment.db.fetchval("SELECT count(*) FROM generations WHERE status = 'succeeded'")
    assert await customer.balance() == before - charged * cost
    assert await deployment.db.fetchval("SELECT count(*) FROM ledger WHERE kind = 'refund'") == many - charged
    assert await deployment.differences() == []


# ----------------------------------------------------------------------------------------- a database that goes away


async def canceling(deployment: Deployment, changing: Database) -> Canceling:
    """Cancels over these connections, and reads over the deployment's."""
    shared = build_shared(deployment.settings)
    clock = SystemClock()
    return Canceling(changing, Reader(deployment.db), Runner(Registry({}), clock), shared.catalog, clock)


async def test_an_answer_that_was_lost_is_asked_for_again(
    caller: Customer, wire: Wire, make_database: MakeDatabase
) -> None:
    generation = UUID(await accepted(caller))
    service = await canceling(caller.deployment, await make_database(wire.dsn))
    async with caller.deployment.db.transaction() as holding:
        # Held until the call is on its way: then it is cut off without an answer, and takes effect.
        await holding.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", caller.account_id)
        task = asyncio.create_task(service.cancel(caller.account_id, generation))

        async def waiting() -> bool:
            return bool(
                await caller.deployment.db.fetchval(
                    """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND wait_event_type = 'Lock' AND query LIKE '%cancel_generation_v1%'"""
                )
            )

        await eventually(waiting)
        wire.cut()
    canceled = await asyncio.wait_for(task, 30)
    assert canceled == Canceled(refunded=canceled.refunded, provider_asked=False)
    assert canceled.refunded > 0
    assert (await caller.generation(str(generation)))["generation_status"] == "canceled"
    assert await caller.deployment.differences() == []


async def test_a_database_that_cannot_be_reached_has_canceled_nothing(
    caller: Customer, wire: Wire, make_database: MakeDatabase
) -> None:
    generation = UUID(await accepted(caller))
    service = await canceling(caller.deployment, await make_database(wire.dsn))
    wire.refusing = True
    with pytest.raises(DatabaseUnavailableError) as caught:
        await service.cancel(caller.account_id, generation)
    assert caught.value.sent is False
    wire.refusing = False
    await service.cancel(caller.account_id, generation)
    with pytest.raises(ApiError, match="BSE3002"):
        await service.cancel(caller.account_id, generation)
