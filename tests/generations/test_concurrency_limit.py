"""Generations in flight never exceed the plan: they are counted from their rows, under the account's lock."""

import asyncio
from uuid import UUID

from tests.conftest import MakeDeployment
from tests.contract.published import Published, answer_of
from tests.generations import admitting
from tests.support import Customer, make_customer


async def test_parallel_submits_get_exactly_the_plans_slots_and_freed_ones_are_used_again(
    make_deployment: MakeDeployment,
) -> None:
    first = await make_deployment(worker=False, admission_deadline_s=60)
    second = await make_deployment(worker=False, admission_deadline_s=60)
    published = Published((await first.client.get("/openapi.json")).json())
    customer = await make_customer(first, plan="free")
    elsewhere = Customer(second, customer.account_id, customer.key)
    for ending in ("succeeded", "failed", "canceled"):
        responses = await asyncio.gather(
            *[(customer, elsewhere)[number % 2].generate() for number in range(20)]
        )
        refused = [response for response in responses if response.status_code != 200]
        assert len(refused) == 18
        for response in refused:
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["retryable"]) == (429, "BSE1009", True)
            assert error["details"] == {"limit": 2, "in_flight": 2}
            assert response.headers["retry-after"] == "1"
            published.check("generate", answer_of(response))
        assert await admitting.settle_all(first.db, ending) == 2
    assert await first.differences() == []


async def test_a_started_generation_holds_its_slot_until_it_ends(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False)
    customer = await make_customer(deployment, plan="free")
    ids = [(await customer.generate()).json()["data"]["generation_id"] for _ in range(2)]
    await deployment.db.execute("UPDATE generations SET status = 'processing', started_at = now()")
    assert (await customer.generate()).json()["error"]["details"] == {"limit": 2, "in_flight": 2}
    assert await admitting.settle(deployment.db, customer.account_id, UUID(ids[0]), "succeeded")
    assert (await customer.generate()).status_code == 200
    assert (await customer.generate()).status_code == 429


async def test_slots_free_themselves_when_a_worker_ends_generations(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment()
    customer = await make_customer(deployment, plan="free")
    for prompt in ("a test", "[sandbox:fail]", "a test"):
        pair = await asyncio.gather(*[customer.generate(generation_prompt=prompt) for _ in range(2)])
        assert [response.status_code for response in pair] == [200, 200]
        for response in pair:
            await customer.finished(response.json()["data"]["generation_id"])
