"""OpenAI: what is sent for every model, what is made of every answer, and both against the emulator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from tests.emulators.kit import SECRET, Emulator, picture, running
from tests.emulators.openai import EDIT, GENERATION, OpenAIEmulator, complaint
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of
from tests.support import ManualClock

from babysea_server.catalog.limits import admits
from babysea_server.providers.base import Answer, Check, Failure, Finished, Job, Refused
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.openai import OpenAI
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Runner
from babysea_server.settings import ProviderSettings

MODELS = models_of("openai")
PROVIDER = OpenAI(ProviderSettings(api_key="sk-1"))
SCHEMAS = {
    "https://api.openai.com/v1/images/generations": GENERATION,
    "https://api.openai.com/v1/images/edits": EDIT,
}
URL = "https://files.example.com/a.png"


def job(model: str = "gpt/image-1.5", **inputs: Any) -> Job:
    return Job(ATTEMPT, "openai", MODELS[model], {"generation_prompt": "a red fox", **inputs})


def sent(asked: Job) -> dict[str, Any]:
    body = PROVIDER.build_submit(asked).body
    assert body is not None
    found = msgspec.json.decode(body)
    assert isinstance(found, dict)
    return found


def answer(status: int, body: Any, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "application/json", **named}, msgspec.json.encode(body))


def error(status: int, code: str | None, message: str = "no", type: str = "invalid_request_error") -> Answer:
    return answer(status, {"error": {"message": message, "type": type, "param": None, "code": code}})


# ------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("model", MODELS)
def test_every_admissible_request_is_one_that_openai_documents(model: str) -> None:
    built = 0
    for asked in jobs("openai", MODELS[model]):
        request = PROVIDER.build_submit(asked)
        body = sent(asked)
        jsonschema_rs.validate(SCHEMAS[request.url], body)
        endpoint = request.url.rpartition("/")[2]
        assert complaint(endpoint, body) is None, body
        assert endpoint == ("edits" if "generation_input_file" in asked.inputs else "generations")
        assert not any(name.startswith("generation_") for name in body)
        built += 1
    assert built > 10


def test_it_serves_the_models_that_are_not_retired() -> None:
    assert set(MODELS) == {"gpt/image-1-mini", "gpt/image-1.5", "gpt/image-2"}


def test_a_prompt_alone_is_a_generation_with_the_catalogs_spellings() -> None:
    asked = job(
        "gpt/image-2",
        generation_ratio="16:9",
        generation_output_format="jpg",
        generation_output_number=2,
        generation_quality="high",
        generation_moderation=True,
        generation_output_compression=80,
        generation_background="opaque",
    )
    request = PROVIDER.build_submit(asked)
    assert (request.method, request.url) == ("POST", "https://api.openai.com/v1/images/generations")
    assert dict(request.headers) == {"authorization": "Bearer sk-1", "content-type": "application/json"}
    assert sent(asked) == {
        "model": "gpt-image-2",
        "prompt": "a red fox",
        "size": "1536x864",
        "output_format": "jpeg",
        "n": 2,
        "quality": "high",
        "moderation": "auto",
        "output_compression": 80,
        "background": "opaque",
    }


def test_input_images_and_a_mask_are_an_edit_of_addresses() -> None:
    asked = job("gpt/image-2", generation_input_file=[URL, f"{URL}?2"], generation_mask=f"{URL}?mask")
    assert PROVIDER.build_submit(asked).url == "https://api.openai.com/v1/images/edits"
    assert sent(asked) == {
        "model": "gpt-image-2",
        "prompt": "a red fox",
        "images": [{"image_url": URL}, {"image_url": f"{URL}?2"}],
        "mask": {"image_url": f"{URL}?mask"},
    }
    assert PROVIDER.input_files(asked) == {}


def test_compression_is_not_asked_of_a_format_that_has_none() -> None:
    png = job(generation_output_format="png", generation_output_compression=50)
    webp = job(generation_output_format="webp", generation_output_compression=50)
    assert "output_compression" not in sent(png)
    assert sent(webp)["output_compression"] == 50


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("gpt/image-2", {"generation_mask": URL}),
        (
            "gpt/image-1.5",
            {"generation_background": "transparent", "generation_output_format": "jpg"},
        ),
    ],
)
def test_what_openai_always_refuses_is_not_routed_to_it(model: str, inputs: dict[str, Any]) -> None:
    asked = job(model, **inputs)
    assert not admits(asked.offer, asked.inputs, asked.model)


def test_organization_and_project_are_headers() -> None:
    options = {"organization": "org-1", "project": "proj-1"}
    provider = OpenAI(ProviderSettings(api_key="sk-1", options=options))
    headers = provider.build_submit(job()).headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")


# ------------------------------------------------------------------------------- what is read

USAGE = {
    "input_tokens": 244,
    "input_tokens_details": {"text_tokens": 50, "image_tokens": 194},
    "output_tokens": 1056,
    "output_tokens_details": {"image_tokens": 1056, "text_tokens": 0},
    "total_tokens": 1300,
}


def test_pictures_are_finished_with_their_cost() -> None:
    body = {
        "created": 1_795_400_100,
        "output_format": "png",
        "data": [{"b64_json": "aGk="}, {"b64_json": "aG8=", "revised_prompt": "a fox"}],
        "usage": USAGE,
    }
    read = PROVIDER.read_submit(job(), answer(200, body, x_request_id="req_1"))
    assert isinstance(read, Finished)
    assert [output.url for output in read.outputs] == ["data:;base64,aGk=", "data:;base64,aG8="]
    # 50 x 5 + 194 x 8 + 1056 x 32, in dollars per million tokens.
    assert (read.cost_micro, read.upstream_id) == (250 + 1552 + 33_792, "req_1")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_prices_for_its_tokens(model: str) -> None:
    read = PROVIDER.read_submit(job(model), answer(200, {"data": [], "usage": USAGE}))
    assert isinstance(read, Finished)
    assert read.cost_micro


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (None, None),
        ({}, None),
        ("many", None),
        ({**USAGE, "input_tokens_details": None}, None),
        ({**USAGE, "output_tokens_details": None}, 35_594),
        # Text that was drawn with has no price in the catalog: better none than a wrong one.
        ({**USAGE, "output_tokens_details": {"image_tokens": 1000, "text_tokens": 56}}, None),
    ],
)
def test_a_cost_is_told_only_where_everything_is_known(usage: Any, cost: int | None) -> None:
    read = PROVIDER.read_submit(job(), answer(200, {"data": [], "usage": usage}))
    assert isinstance(read, Finished)
    assert read.cost_micro == cost


def test_without_prices_in_the_catalog_there_is_no_cost() -> None:
    asked = job()
    offer = msgspec.structs.replace(asked.offer, raw={})
    bare = replace(asked, model=replace(asked.model, providers={"openai": offer}))
    read = PROVIDER.read_submit(bare, answer(200, {"data": [], "usage": USAGE}))
    assert read == Finished([])


REJECTED = "Your request was rejected by the safety system. safety_violations=[sexual]."


@pytest.mark.parametrize(
    ("given", "failure", "code"),
    [
        (
            error(400, "moderation_blocked", REJECTED, "image_generation_user_error"),
            Failure.REFUSED_POLICY,
            None,
        ),
        (error(400, "content_policy_violation"), Failure.REFUSED_POLICY, None),
        (
            error(400, "invalid_value", "moderation must be one of 'low', 'auto'"),
            Failure.REFUSED_INPUT,
            None,
        ),
        (error(400, "unknown_parameter"), Failure.REFUSED_INPUT, None),
        (error(400, "invalid_image_url"), Failure.REFUSED_INPUT, "BSE2009"),
        (error(400, None, "Error while downloading the file."), Failure.REFUSED_INPUT, "BSE2009"),
        (error(400, "invalid_image_file"), Failure.REFUSED_INPUT, "BSE2005"),
        (error(400, "billing_hard_limit_reached"), Failure.REFUSED_FUNDS, None),
        (error(401, "invalid_api_key"), Failure.REFUSED_AUTH, None),
        (error(403, None, "Your organization must be verified"), Failure.REFUSED_AUTH, None),
        (error(404, "model_not_found"), Failure.REFUSED_INPUT, None),
        (error(429, "rate_limit_exceeded"), Failure.REFUSED_BUSY, "BSE4003"),
        (error(429, "insufficient_quota", type="insufficient_quota"), Failure.REFUSED_FUNDS, None),
        (error(500, None, type="server_error"), Failure.FAILED, None),
        (error(503, None, type="server_error"), Failure.REFUSED_BUSY, None),
        (Answer(502, {}, b"<html>bad gateway</html>"), Failure.FAILED, None),
        (Answer(504, {}, b"<html>gateway time-out</html>"), Failure.OUTCOME_UNKNOWN, None),
        (Answer(524, {}, b""), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {}, b"<html>hello</html>"), Failure.OUTCOME_UNKNOWN, None),
        (answer(200, {"data": "nothing"}), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {}, b'{"data":[{"b64_json":"aG'), Failure.OUTCOME_UNKNOWN, None),
    ],
)
def test_each_refusal_is_of_one_class(given: Answer, failure: Failure, code: str | None) -> None:
    read = PROVIDER.read_submit(job(), given)
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)


def test_a_wait_is_told_with_a_rate_limit() -> None:
    limited = answer(429, {"error": {"code": "rate_limit_exceeded", "message": "slow"}}, retry_after="20")
    read = PROVIDER.read_submit(job(), limited)
    assert isinstance(read, Refused)
    assert (read.message, read.retry_after_s) == ("HTTP 429: slow", 20.0)


@pytest.mark.parametrize("status", [200, 400, 429, 500])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"error":"x","data":[1,null,{"url":2}]}',
    ],
)
def test_no_answer_is_too_odd_to_read(status: int, body: bytes) -> None:
    assert isinstance(PROVIDER.read_submit(job(), Answer(status, {}, body)), Finished | Refused)
    assert isinstance(PROVIDER.read_check(Answer(status, {}, body)), Check)


def test_the_check_lists_models() -> None:
    request = PROVIDER.build_check()
    assert request is not None
    assert (request.method, request.url) == ("GET", "https://api.openai.com/v1/models")
    assert PROVIDER.read_check(answer(200, {"data": []})) == Check(True, "the key is good")
    assert PROVIDER.read_check(error(401, "invalid_api_key", "Incorrect API key provided.")) == Check(
        False, "HTTP 401: Incorrect API key provided."
    )


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Emulator, Runner]]:
    async with running(OpenAIEmulator()) as emulator:
        settings = ProviderSettings(**emulator.settings())
        transport = HttpTransport(private_networks=True)
        runner = Runner(Registry({"openai": Route(OpenAI(settings), transport)}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


async def test_pictures_are_bought_once_and_are_whole() -> None:
    async with wired() as (emulator, runner):
        asked = job(generation_output_number=2, generation_ratio="3:2")
        read = await runner.submit(asked)
        assert isinstance(read, Finished)
        files = [await runner.fetch(asked, output, body_max=100_000) for output in read.outputs]
        assert files == [picture(), picture()]
        assert (emulator.purchases, emulator.files_fetched) == (1, 0)
        assert (await runner.check("openai")) == Check(True, "the key is good")


async def test_an_edit_is_understood() -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(job("gpt/image-2", generation_input_file=[URL], generation_mask=URL))
        assert isinstance(read, Finished)
        assert read.cost_micro == 50 * 5 + 194 * 8 + 1056 * 30
        assert emulator.requests[-1].path == "/v1/images/edits"


@pytest.mark.parametrize(
    ("word", "failure", "code"),
    [
        ("quota", Failure.REFUSED_FUNDS, None),
        ("hard-limit", Failure.REFUSED_FUNDS, None),
        ("unverified", Failure.REFUSED_AUTH, None),
        ("bad-url", Failure.REFUSED_INPUT, "BSE2009"),
        ("bad-file", Failure.REFUSED_INPUT, "BSE2005"),
        ("gateway", Failure.OUTCOME_UNKNOWN, None),
    ],
)
async def test_its_own_ways_of_failing(word: str, failure: Failure, code: str | None) -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(job(generation_prompt=f"[openai:{word}] a fox"))
        assert isinstance(read, Refused)
        assert (read.failure, read.code, emulator.purchases) == (failure, code, 0)


async def test_a_key_that_is_repeated_to_us_is_not_kept() -> None:
    async with wired() as (_, runner):
        read = await runner.submit(job(generation_prompt="[emulate:bad-key] a fox"))
        assert isinstance(read, Refused)
        assert read.message == "HTTP 401: Incorrect API key provided: [hidden]."
        assert SECRET not in repr(read)


async def test_the_emulator_refuses_what_openai_would() -> None:
    async with wired() as (_, runner):
        retired = job()
        offer = msgspec.structs.replace(retired.offer, model="gpt-image-1")
        retired = replace(retired, model=replace(retired.model, providers={"openai": offer}))
        read = await runner.submit(retired)
        assert isinstance(read, Refused)
        assert (read.failure, "does not exist" in read.message) == (Failure.REFUSED_INPUT, True)
