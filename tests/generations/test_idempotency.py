"""One Idempotency-Key, one generation; errors are never remembered."""

import asyncio
import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.contract.published import Published, answer_of
from tests.generations import admitting
from tests.support import Customer, Deployment, make_customer

BODY: dict[str, Any] = {"generation_prompt": "a test", "generation_output_number": 1}


async def send(customer: Customer, content: str | bytes, key: str, **options: Any) -> httpx.Response:
    """POST these very bytes."""
    path = options.pop("path", "/v1/generate/image/sandbox/image")
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    return await customer.request("POST", path, content=content, headers=headers)


def accepted(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    assert "idempotency-replayed" not in response.headers
    return response.json()["data"]


def replayed(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    assert response.headers["idempotency-replayed"] == "true"
    return response.json()["data"]


def refused(response: httpx.Response) -> str:
    assert response.status_code != 200, response.text
    assert "idempotency-replayed" not in response.headers
    return str(response.json()["error"]["code"])


async def generations(deployment: Deployment) -> int:
    return int(await deployment.db.fetchval("SELECT count(*) FROM generations"))


async def test_two_hundred_parallel_submits_are_one_generation_and_199_replays(
    make_deployment: MakeDeployment,
) -> None:
    first = await make_deployment(worker=False, admission_deadline_s=60)
    second = await make_deployment(worker=False, admission_deadline_s=60)
    customer = await make_customer(first)
    elsewhere = Customer(second, customer.account_id, customer.key)
    responses = await asyncio.gather(
        *[(customer, elsewhere)[number % 2].generate(key="order-7301") for number in range(200)]
    )
    assert {response.status_code for response in responses} == {200}
    headers = [response.headers.get("idempotency-replayed") for response in responses]
    assert sorted(map(str, headers)) == ["None"] + ["true"] * 199
    data = [response.json()["data"] for response in responses]
    assert data == [data[0]] * 200
    assert await generations(first) == 1
    reserves = await first.db.fetch("SELECT amount FROM ledger WHERE kind = 'reserve'")
    assert [row["amount"] for row in reserves] == [1000]
    assert await first.differences() == []


async def test_the_same_key_for_anything_else_is_refused(caller: Customer) -> None:
    first = accepted(await caller.generate(key="k", **BODY))
    others: list[tuple[str, str, dict[str, Any]]] = [
        ("sandbox/image", "image", {**BODY, "generation_prompt": "another test"}),
        ("sandbox/image", "image", {**BODY, "generation_ratio": "1:1"}),  # the default, but another body
        ("sandbox/image", "image", {"generation_prompt": "a test"}),
        ("bfl/flux-schnell", "image", BODY),
        ("sandbox/video", "video", {"generation_prompt": "a test", "generation_duration": 5}),
    ]
    for model, media, body in others:
        response = await caller.generate(model, media, key="k", **body)
        assert (response.status_code, refused(response)) == (409, "BSE2015")
    assert replayed(await caller.generate(key="k", **BODY)) == first
    assert await generations(caller.deployment) == 1


async def test_keys_belong_to_their_account(caller: Customer) -> None:
    stranger = await make_customer(caller.deployment)
    mine = accepted(await caller.generate(key="k", **BODY))
    theirs = accepted(await stranger.generate(key="k", **BODY))
    assert mine["generation_id"] != theirs["generation_id"]


async def test_bodies_that_mean_the_same_json_replay(caller: Customer) -> None:
    first = accepted(await send(caller, json.dumps(BODY), "k"))
    for content in (
        '{"generation_output_number": 1, "generation_prompt": "a test"}',
        '\n{ "generation_prompt" :\t"a test",\r\n "generation_output_number" : 1.0 } ',
        '{"generation_prompt": "\\u0061 test", "generation_output_number": 1e0}',
        '{"generation_prompt": "a test", "generation_output_number": 10e-1}',
    ):
        assert replayed(await send(caller, content, "k")) == first
    for content in (
        '{"generation_prompt": "a test", "generation_output_number": 2}',
        '{"generation_prompt": "a test ", "generation_output_number": 1}',
        '{"generation_prompt": "A test", "generation_output_number": 1}',
    ):
        assert refused(await send(caller, content, "k")) == "BSE2015"


async def test_an_alias_of_the_model_is_the_same_model(caller: Customer) -> None:
    content = '{"generation_prompt": "a test"}'
    first = accepted(await send(caller, content, "k", path="/v1/generate/image/bfl/flux-schnell"))
    alias = "/v1/generate/image/black-forest-labs/flux-schnell"
    assert replayed(await send(caller, content, "k", path=alias)) == first
    assert first["model_identifier"] == "bfl/flux-schnell"


async def test_a_key_is_remembered_for_24_hours_and_then_new_again(caller: Customer) -> None:
    first = accepted(await caller.generate(key="k", **BODY))
    await admitting.age_keys(caller.deployment.db, caller.account_id, "k", hours=23)
    assert replayed(await caller.generate(key="k", **BODY)) == first
    await admitting.age_keys(caller.deployment.db, caller.account_id, "k", hours=1)
    second = accepted(await caller.generate(key="k", generation_prompt="something else"))
    assert second["generation_id"] != first["generation_id"]
    assert replayed(await caller.generate(key="k", generation_prompt="something else")) == second
    assert refused(await caller.generate(key="k", **BODY)) == "BSE2015"


@pytest.mark.parametrize("status", ["succeeded", "failed"])
async def test_a_replay_answers_as_at_first_whatever_became_of_the_generation(
    caller: Customer, status: str
) -> None:
    first = accepted(await caller.generate(key="k", **BODY))
    generation_id = UUID(first["generation_id"])
    assert await admitting.settle(caller.deployment.db, caller.account_id, generation_id, status)
    assert replayed(await caller.generate(key="k", **BODY)) == first


async def test_a_replay_of_a_canceled_generation_says_that_it_was_canceled(caller: Customer) -> None:
    first = accepted(await caller.generate(key="k", **BODY))
    generation_id = UUID(first["generation_id"])
    assert await admitting.settle(caller.deployment.db, caller.account_id, generation_id, "canceled")
    response = await caller.generate(key="k", **BODY)
    assert replayed(response) == {"generation_id": str(generation_id), "generation_status": "canceled"}
    document = (await caller.deployment.client.get("/openapi.json")).json()
    Published(document).check("generate", answer_of(response))


async def test_errors_are_never_remembered(api: Deployment) -> None:
    poor = await make_customer(api, credits="0.001", plan="free")
    assert refused(await poor.generate(key="k", generation_output_number=2)) == "BSE1004"
    assert refused(await poor.generate(key="k", generation_output_number=9)) == "BSE2001"
    assert refused(await poor.generate("sandbox/no-such", key="k")) == "BSE2011"
    first = accepted(await poor.generate(key="k"))
    assert replayed(await poor.generate(key="k")) == first, "although nothing is left to pay with"

    busy = await make_customer(api, plan="free")
    running = [accepted(await busy.generate())["generation_id"] for _ in range(2)]
    assert refused(await busy.generate(key="k")) == "BSE1009"
    assert await admitting.settle(api.db, busy.account_id, UUID(running[0]), "canceled")
    second = accepted(await busy.generate(key="k"))
    assert replayed(await busy.generate(key="k")) == second, "although the plan is full again"


async def test_a_key_must_be_well_formed(caller: Customer) -> None:
    content = json.dumps(BODY)
    for good in ("a", "A-Z_a.z:0-9", "x" * 255):
        accepted(await send(caller, content, good))
    before = await generations(caller.deployment)
    invalid: list[Any] = [
        "",
        " ",
        "a b",
        "a/b",
        'a"b',
        "x" * 256,
        "a\tb",
        "a,b",
        "ключ".encode(),
        b"\xff\x00",
    ]
    for bad in invalid:
        response = await send(caller, content, bad)
        assert (response.status_code, refused(response)) == (400, "BSE2014"), repr(bad)
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a"), ("Content-Type", "application/json")]
    response = await caller.deployment.client.post(
        "/v1/generate/image/sandbox/image",
        content=content,
        headers=[*twice, ("Authorization", f"Bearer {caller.key}")],
    )
    assert refused(response) == "BSE2014", "which of the two would it be?"
    assert await generations(caller.deployment) == before
