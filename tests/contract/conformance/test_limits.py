"""Limits at their exact boundaries: body, depth, queries, rate, concurrency, credits."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.contract.conformance.target import Issuer, Model, Target, code

MAX_BODY_BYTES = 100 * 1024
MAX_DEPTH = 16
#: How often the count of a window is begun again because the window ended meanwhile.
_WINDOWS = 3


async def post(target: Target, model: Model, content: bytes) -> httpx.Response:
    return await target.request(
        "POST",
        f"/v1/generate/{model.media}/{model.identifier}",
        content=content,
        headers={"Content-Type": "application/json"},
    )


async def test_a_body_may_have_exactly_100_kib(target: Target, image: Model) -> None:
    body = json.dumps(image.body).encode()
    largest = await post(target, image, body.ljust(MAX_BODY_BYTES))
    assert largest.status_code == 200, largest.text
    beyond = await post(target, image, body.ljust(MAX_BODY_BYTES + 1))
    assert (beyond.status_code, code(beyond)) == (413, "BSE2010")


async def test_a_body_in_chunks_is_read_no_further_than_the_limit(target: Target, image: Model) -> None:
    line = f"POST /v1/generate/image/{image.identifier}"
    head = target.head(line, "Content-Type: application/json", "Transfer-Encoding: chunked")
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    (answer,) = await target.raw(head, *[chunk] * 26, b"0\r\n\r\n")
    target.published.check("generate", answer)
    assert (answer.status, answer.code) == (413, "BSE2010")


async def test_json_may_be_sixteen_levels_deep(target: Target, image: Model) -> None:
    """The body itself is the first level; what is deeper than the limit cannot be read at all."""

    def nested(levels: int) -> bytes:
        arrays = levels - 1
        return b'{"generation_prompt": ' + b"[" * arrays + b"]" * arrays + b"}"

    for levels, field in ((MAX_DEPTH, "generation_prompt"), (MAX_DEPTH + 1, "body")):
        response = await post(target, image, nested(levels))
        assert (response.status_code, code(response)) == (400, "BSE2001")
        assert response.json()["error"]["details"]["field"] == field


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"generation_prompt": "a", "generation_prompt": "b"}',
        b'{"generation_prompt": "a", "generation_output_number": NaN}',
        b'{"generation_prompt": "a", "generation_output_number": 1e999}',
        b'{"generation_prompt": "\xff"}',
        b'{"generation_prompt": "a",}',
    ],
)
async def test_a_body_that_is_no_strict_json_object_is_invalid_input(
    target: Target, image: Model, content: bytes
) -> None:
    response = await post(target, image, content)
    assert (response.status_code, code(response)) == (400, "BSE2001")


async def test_an_unknown_field_is_named_with_the_nearest_known_one(target: Target, image: Model) -> None:
    response = await target.generate(image, generation_promt="a")
    error = response.json()["error"]
    assert (error["code"], error["details"]["field"]) == ("BSE2001", "generation_promt")
    assert "generation_prompt" in error["message"]


async def test_a_prompt_has_1_to_5000_characters(target: Target, image: Model) -> None:
    assert (await target.generate(image, prompt="x" * 5000)).status_code == 200
    for prompt in ("", "x" * 5001):
        response = await target.generate(image, prompt=prompt)
        assert code(response) == "BSE2001"
        assert response.json()["error"]["details"]["field"] == "generation_prompt"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://localhost/a.png",
        "https://10.0.0.1/a.png",
        "https://192.168.1.1/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.png",
        "http://[::ffff:10.0.0.1]/a.png",
        "http://2130706433/a.png",
        "https://user:secret@example.com/a.png",
        "ftp://example.com/a.png",
        "file:///etc/passwd",
    ],
)
async def test_an_input_file_is_public_and_plain(target: Target, image: Model, url: str) -> None:
    response = await target.generate(image, generation_input_file=[url])
    assert code(response) == "BSE2001"
    assert response.json()["error"]["details"]["field"].startswith("generation_input_file")


@pytest.mark.parametrize("path", ["/v1/usage?days={}", "/v1/content/list?limit={}"])
async def test_bounds_of_queries_are_inclusive(target: Target, path: str) -> None:
    most = 90 if "days" in path else 100
    for value, status in ((1, 200), (most, 200), (0, 403), (most + 1, 403)):
        assert (await target.request("GET", path.format(value))).status_code == status


async def test_a_model_is_made_as_its_own_media(target: Target, image: Model, video: Model) -> None:
    for model in (image, video):
        other = "video" if model.media == "image" else "image"
        response = await target.request(
            "POST", f"/v1/generate/{other}/{model.identifier}", json=dict(model.body)
        )
        assert (response.status_code, code(response)) == (400, "BSE2012")


async def test_a_provider_order_names_the_models_own_providers(target: Target, image: Model) -> None:
    response = await target.generate(image, generation_provider_order="nobody")
    assert (response.status_code, code(response)) == (400, "BSE2013")
    models = (await target.ask("GET", "/v1/library/models"))["models"]
    (model,) = [item for item in models if item["model_identifier"] == image.identifier]
    order = model["model_supported_provider"][::-1]
    accepted = await target.generate(image, generation_provider_order=", ".join(order))
    assert accepted.json()["data"]["generation_provider_order"] == order


async def test_the_61st_request_of_a_minute_is_one_too_many_for_plan_free(
    target: Target, issuer: Issuer
) -> None:
    for _ in range(_WINDOWS):
        caller = target.seen_with(await issuer.issue(plan="free"), patient=False)
        answers = [await caller.request("GET", "/v1/status") for _ in range(61)]
        windows = {answer.headers["x-ratelimit-reset"] for answer in answers}
        if len(windows) == 1:
            break
    *within, beyond = answers
    assert [answer.status_code for answer in within] == [200] * 60
    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
    assert left == [*range(59, -1, -1), 0]
    assert (beyond.status_code, code(beyond)) == (429, "BSE1005")
    error = beyond.json()["error"]
    assert error["retryable"] is True
    assert error["details"]["limit"] == int(beyond.headers["x-ratelimit-limit"]) == 60
    assert 1 <= error["details"]["retry_after_seconds"] == int(beyond.headers["retry-after"]) <= 60


async def test_a_request_beyond_the_rate_does_nothing(target: Target, issuer: Issuer, image: Model) -> None:
    caller = target.seen_with(await issuer.issue(plan="free"), patient=False)
    answers = [await caller.request("GET", "/v1/status") for _ in range(61)]
    if answers[-1].status_code != 429:
        pytest.skip("the minute ended while it was counted")
    refused = await caller.generate(image)
    assert code(refused) == "BSE1005"
    for answer in (answers[-1], refused):
        assert {"retry-after", "x-ratelimit-limit"} <= set(answer.headers)


async def test_the_third_generation_in_flight_is_one_too_many_for_plan_free(
    target: Target, issuer: Issuer, image: Model
) -> None:
    caller = target.seen_with(await issuer.issue(plan="free", credits="1"), patient=False)
    slow = [await caller.started(image, prompt="[sandbox:slow:60] a test") for _ in range(2)]
    third = await caller.generate(image, key="third")
    assert (third.status_code, code(third)) == (429, "BSE1009")
    error = third.json()["error"]
    assert (error["retryable"], error["details"]) == (True, {"limit": 2, "in_flight": 2})
    assert int(third.headers["retry-after"]) >= 1
    await caller.ask("POST", f"/v1/content/generation/cancel/{slow[0]}")
    assert (await caller.generate(image, key="third")).status_code == 200
    await caller.ask("POST", f"/v1/content/generation/cancel/{slow[1]}")


async def test_what_the_balance_does_not_cover_is_not_accepted(
    target: Target, issuer: Issuer, image: Model
) -> None:
    caller = target.seen_with(await issuer.issue(credits="0"))
    response = await caller.generate(image)
    assert (response.status_code, code(response)) == (402, "BSE1004")
    assert (await caller.request("GET", "/v1/content/list")).json()["total"] == 0


async def test_parallel_requests_are_given_what_can_be_paid_for(
    target: Target, issuer: Issuer, image: Model
) -> None:
    estimate = await target.ask("GET", f"/v1/estimate/{image.identifier}")
    credits = f"{3 * estimate['cost_per_generation']:.6f}"
    caller = target.seen_with(await issuer.issue(credits=credits))
    answers = await asyncio.gather(*(caller.generate(image) for _ in range(8)))
    found: list[Any] = sorted(answer.status_code for answer in answers)
    assert found == [200] * 3 + [402] * 5
    assert (await caller.ask("GET", "/v1/user/billing"))["billing_credit_balance"] == 0
