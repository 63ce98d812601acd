"""Reading generations: all inputs back, nulls until there is something to say, nobody else's."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.contract.published import Published, answer_of
from tests.generations import admitting
from tests.support import Customer, Deployment, make_customer

UNFINISHED = {
    "generation_provider_used": None,
    "generation_output_file": None,
    "generation_completed_at": None,
    "generation_metrics_total_time": None,
    "generation_metrics_predict_time": None,
}
INPUT_FILE = "https://example.com/source.png"


@pytest.fixture
async def published(api: Deployment) -> Published:
    return Published((await api.client.get("/openapi.json")).json())


async def accepted(customer: Customer, model: str, media: str, **body: Any) -> Any:
    response = await customer.generate(model, media, **body)
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def test_a_new_image_echoes_every_input_and_is_null_where_nothing_happened_yet(
    caller: Customer, published: Published
) -> None:
    inputs = {
        "generation_prompt": 'a "test" \u2013 \u6e2c\u8a66 \U0001f30a\n',
        "generation_ratio": "16:9",
        "generation_output_format": "webp",
        "generation_output_number": 3,
        "generation_input_file": [INPUT_FILE, INPUT_FILE + "?x=%20"],
        "generation_seed": 2_147_483_647,
    }
    answer = await accepted(caller, "sandbox/image", "image", **inputs)
    response = await caller.request("GET", f"/v1/content/{answer['generation_id']}")
    published.check("get_generation", answer_of(response))
    data = response.json()["data"]
    created = data.pop("generation_created_at")
    assert created.endswith("Z")
    assert data == {
        "account_id": str(caller.account_id),
        "generation_id": answer["generation_id"],
        "model_identifier": "sandbox/image",
        "generation_provider_order": ["sandbox"],
        "generation_prediction_id": answer["generation_prediction_id"],
        "generation_status": "pending",
        "generation_started_at": None,
        **UNFINISHED,
        **inputs,
    }
    await caller.deployment.db.execute("UPDATE generations SET status = 'processing', started_at = now()")
    data = await caller.generation(answer["generation_id"])
    assert data["generation_status"] == "processing"
    assert data["generation_started_at"] >= created
    assert {name: data[name] for name in UNFINISHED} == UNFINISHED


@pytest.mark.parametrize(("audio", "mode"), [(None, "noaudio"), (False, "noaudio"), (True, "audio")])
async def test_a_video_tells_its_length_resolution_and_sound(
    caller: Customer, published: Published, audio: bool | None, mode: str
) -> None:
    asked: dict[str, Any] = {"generation_duration": 5}
    if audio is not None:
        asked["generation_generate_audio"] = audio
    answer = await accepted(caller, "sandbox/video", "video", **asked)
    response = await caller.request("GET", f"/v1/content/{answer['generation_id']}")
    published.check("get_generation", answer_of(response))
    data = response.json()["data"]
    facts = {name: data[name] for name in data if name.startswith("generation_") and name not in answer}
    assert (
        facts.items()
        >= {
            "generation_duration": 5,
            "generation_resolution": "360p",  # the default
            "generation_ratio": "16:9",
            "generation_generate_audio": bool(audio),
            "generation_audio_mode": mode,
        }.items()
    )


async def test_defaults_are_told_and_unused_inputs_are_not(caller: Customer) -> None:
    answer = await accepted(caller, "sandbox/image", "image", generation_input_file=[])
    data = await caller.generation(answer["generation_id"])
    assert (data["generation_ratio"], data["generation_output_format"]) == ("1:1", "png")
    assert data["generation_output_number"] == 1
    unused = {"generation_seed", "generation_input_file", "generation_duration", "generation_audio_mode"}
    assert not unused & data.keys()
    assert not {"generation_error", "generation_error_code", "generation_removed"} & data.keys()


async def test_failure_is_told_only_on_failure(caller: Customer, published: Published) -> None:
    for status in ("succeeded", "failed", "canceled"):
        answer = await accepted(caller, "sandbox/image", "image")
        generation_id = answer["generation_id"]
        db = caller.deployment.db
        assert await admitting.settle(db, caller.account_id, UUID(generation_id), status)
        response = await caller.request("GET", f"/v1/content/{generation_id}")
        published.check("get_generation", answer_of(response))
        data = response.json()["data"]
        assert data["generation_status"] == status
        assert data["generation_completed_at"] >= data["generation_created_at"]
        assert data["generation_metrics_total_time"] >= 0
        assert data["generation_provider_used"] == (None if status == "canceled" else "sandbox")
        assert data["generation_output_file"] == ([] if status == "succeeded" else None)
        failure = {name: data.get(name) for name in ("generation_error", "generation_error_code")}
        if status == "failed":
            assert failure == {"generation_error": "It failed.", "generation_error_code": "BSE4001"}
        else:
            assert failure == {"generation_error": None, "generation_error_code": None}
            assert not failure.keys() & data.keys()


async def test_files_are_signed_on_the_callers_own_origin(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment()
    customer = await make_customer(deployment)
    published = Published((await deployment.client.get("/openapi.json")).json())
    made = await customer.made(generation_output_number=2)
    path = f"/v1/content/{made['generation_id']}"
    assert made["generation_metrics_predict_time"] >= 0
    for origin in ("http://localhost", "http://localhost:8123", "https://api.us.localhost"):
        response = await customer.request("GET", f"{origin}{path}")
        published.check("get_generation", answer_of(response))
        listed = (await customer.request("GET", f"{origin}/v1/content/list")).json()["data"]["generations"]
        for data in (response.json()["data"], listed[0]):
            assert len(data["generation_output_file"]) == 2
            for url in data["generation_output_file"]:
                assert url.startswith(f"{origin}/files/")
                file = await deployment.client.get(url)
                assert (file.status_code, file.headers["content-type"]) == (200, "image/png")

    fixed = await make_deployment(worker=False, public_url="https://cdn.example.com")
    there = Customer(fixed, customer.account_id, customer.key)
    data = await there.generation(made["generation_id"])
    assert all(url.startswith("https://cdn.example.com/files/") for url in data["generation_output_file"])


async def test_a_foreign_generation_looks_exactly_like_a_missing_one(
    caller: Customer, published: Published
) -> None:
    stranger = await make_customer(caller.deployment)
    foreign = (await accepted(stranger, "sandbox/image", "image"))["generation_id"]
    missing = str(uuid4())
    answers = []
    for generation_id in (foreign, missing):
        response = await caller.request("GET", f"/v1/content/{generation_id}")
        published.check("get_generation", answer_of(response))
        assert (response.status_code, response.json()["error"]["code"]) == (404, "BSE3001")
        answers.append(_without_ids(response, generation_id))
    assert answers[0] == answers[1]
    listed = await caller.request("GET", "/v1/content/list")
    assert (listed.json()["total"], listed.json()["data"]["generations"]) == (0, [])


def _without_ids(response: httpx.Response, generation_id: str) -> tuple[Any, ...]:
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in ("x-request-id", "server-timing", "date")
    }
    body = response.text.replace(generation_id, "ID").replace(response.headers["x-request-id"], "REQUEST")
    return response.status_code, headers, body


async def test_an_id_is_found_in_either_case(caller: Customer) -> None:
    generation_id = (await accepted(caller, "sandbox/image", "image"))["generation_id"]
    data = await caller.generation(generation_id.upper())
    assert data["generation_id"] == generation_id


async def test_the_list_is_newest_first_and_pages_without_gaps(
    caller: Customer, published: Published
) -> None:
    stranger = await make_customer(caller.deployment)
    newest_first: list[str] = []
    for number in range(23):
        prompt = f"number {number}"
        model, media, body = (
            ("sandbox/video", "video", {"generation_duration": 1})
            if number % 2
            else ("sandbox/image", "image", {})
        )
        answer = await accepted(caller, model, media, generation_prompt=prompt, **body)
        newest_first.insert(0, answer["generation_id"])
        if number % 5 == 0:
            await accepted(stranger, "sandbox/image", "image")

    async def page(query: str) -> Any:
        response = await caller.request("GET", f"/v1/content/list{query}")
        published.check("list_generations", answer_of(response))
        return response.json()

    def ids(answer: Any) -> list[str]:
        return [generation["generation_id"] for generation in answer["data"]["generations"]]

    whole = await page("")
    assert (whole["total"], whole["limit"], whole["offset"]) == (23, 50, 0)
    assert ids(whole) == newest_first
    collected: list[str] = []
    for offset in range(0, 23, 7):
        part = await page(f"?limit=7&offset={offset}")
        assert (part["total"], part["limit"], part["offset"]) == (23, 7, offset)
        collected += ids(part)
    assert collected == newest_first
    for query, expected in (
        ("?limit=1", newest_first[:1]),
        ("?limit=100&offset=22", newest_first[22:]),
        ("?offset=23", []),
        ("?offset=2147483647", []),
    ):
        assert ids(await page(query)) == expected, query
    one = await caller.generation(newest_first[3])
    assert one in whole["data"]["generations"], "a list shows each generation as reading it does"


async def test_a_query_that_is_not_the_contracts_is_rejected(caller: Customer, published: Published) -> None:
    for query in (
        *("limit=0", "limit=101", "limit=-1", "limit=", "limit=x", "limit=1.0", "limit=1&limit=2"),
        *("offset=-1", "offset=2147483648", "offset=99999999999999999999", "offset=%31%00", "page=2"),
    ):
        response = await caller.request("GET", f"/v1/content/list?{query}")
        published.check("list_generations", answer_of(response))
        assert (response.status_code, response.json()["error"]["code"]) == (403, "BSE1010"), query
