"""One Idempotency-Key, one generation."""

import asyncio
import json

import pytest
from tests.contract.conformance.contract import ACCEPTED, CANCELED_MEANWHILE
from tests.contract.conformance.shapes import differences
from tests.contract.conformance.target import Issuer, Model, Target, code

from babysea_server.kit.ids import uuid7


def fresh() -> str:
    """A key that nobody used."""
    return f"conformance:{uuid7()}"


async def test_a_repetition_is_the_first_answer_again(target: Target, image: Model) -> None:
    key = fresh()
    first = await target.generate(image, key=key)
    assert differences(first.json()["data"], ACCEPTED) == []
    assert first.json()["message"] == "Generation initialized"
    assert "idempotency-replayed" not in first.headers
    again = await target.generate(image, key=key)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["data"] == first.json()["data"]
    assert again.json()["request_id"] != first.json()["request_id"]


async def test_parallel_repetitions_are_one_generation(target: Target, issuer: Issuer, image: Model) -> None:
    caller = target.seen_with(await issuer.issue())
    key = fresh()
    answers = await asyncio.gather(*(caller.generate(image, key=key) for _ in range(20)))
    accepted = [answer for answer in answers if answer.status_code == 200]
    assert {code(answer) for answer in answers} <= {None, "BSE2016"}
    assert len({answer.json()["data"]["generation_id"] for answer in accepted}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in accepted) == 1
    assert (await caller.request("GET", "/v1/content/list")).json()["total"] == 1


async def test_the_spelling_of_the_body_does_not_matter(target: Target, image: Model) -> None:
    key, path = fresh(), f"/v1/generate/image/{image.identifier}"
    body = {**image.body, "generation_output_number": 1}
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    first = await target.request("POST", path, content=json.dumps(body), headers=headers)
    turned = json.dumps(dict(reversed(body.items())), indent=2).replace(": 1", ": 1.0")
    again = await target.request("POST", path, content=turned, headers=headers)
    assert again.headers.get("idempotency-replayed") == "true", again.text
    assert again.json()["data"] == first.json()["data"]


async def test_a_different_request_with_the_key_is_refused(
    target: Target, image: Model, video: Model
) -> None:
    key = fresh()
    await target.started(image, key=key)
    for model, prompt in ((image, "something else"), (video, None)):
        response = await target.generate(model, key=key, prompt=prompt)
        assert (response.status_code, code(response)) == (409, "BSE2015")
        assert "idempotency-replayed" not in response.headers


async def test_an_error_is_not_remembered(target: Target, image: Model) -> None:
    key = fresh()
    assert code(await target.generate(image, key=key, prompt="")) == "BSE2001"
    response = await target.generate(image, key=key)
    assert response.status_code == 200
    assert "idempotency-replayed" not in response.headers


async def test_a_key_is_an_accounts_own(target: Target, issuer: Issuer, image: Model) -> None:
    key = fresh()
    other = target.seen_with(await issuer.issue())
    assert await target.started(image, key=key) != await other.started(image, key=key)


@pytest.mark.parametrize("length", [1, 255])
async def test_a_key_has_up_to_255_characters(target: Target, image: Model, length: int) -> None:
    """With a body that is refused, so that the shortest keys are not used up."""
    key = ("aZ0_.:-" * 40)[:length]
    assert code(await target.generate(image, key=key, prompt="")) == "BSE2001"


@pytest.mark.parametrize("key", ["", "a" * 256, "with space", "slash/", "quote'", "ümlaut"])
async def test_any_other_key_is_invalid(target: Target, image: Model, key: str) -> None:
    body = json.dumps(dict(image.body)).encode()
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}", f"Idempotency-Key: {key}")
    (answer,) = await target.raw(target.head(f"POST /v1/generate/image/{image.identifier}", *lines) + body)
    target.published.check("generate", answer)
    assert (answer.status, answer.code) == (400, "BSE2014")


async def test_a_repetition_after_the_cancel_says_so(target: Target, issuer: Issuer, image: Model) -> None:
    key, prompt = fresh(), "[sandbox:slow:60] a test"
    generation_id = await target.started(image, key=key, prompt=prompt)
    await target.ask("POST", f"/v1/content/generation/cancel/{generation_id}")
    again = await target.generate(image, key=key, prompt=prompt)
    assert again.headers["idempotency-replayed"] == "true"
    assert differences(again.json()["data"], CANCELED_MEANWHILE) == []
    assert again.json()["data"]["generation_id"] == generation_id


async def test_the_header_is_for_generate_only(target: Target) -> None:
    response = await target.request("GET", "/v1/status", headers={"Idempotency-Key": "with space"})
    assert response.status_code == 200
