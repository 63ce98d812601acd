"""Stability AI: what is sent for every model, what is made of every answer, and both against the emulator."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image
from tests.emulators.kit import Emulator, Received, picture, running
from tests.emulators.stability import StabilityEmulator, complaints, typed
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of
from tests.providers.adapters.forms import parts_of
from tests.support import ManualClock

from babysea_server.catalog.catalog import load_catalog
from babysea_server.catalog.limits import admits
from babysea_server.providers.base import Answer, Check, Failure, Finished, Job, Output, Refused, Request
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.inputs import InputRefusedError, check_input
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Runner
from babysea_server.providers.stability import Stability
from babysea_server.settings import ProviderSettings

MODELS = models_of("stability")
PROVIDER = Stability(ProviderSettings(api_key="sk-1"))
ROOT = "https://api.stability.ai/v2beta/stable-image/generate/"
URL = "https://files.example.com/a.png"
LARGE, TURBO = "stability/sd-3.5-large", "stability/sd-3.5-large-turbo"


def job(model: str = LARGE, **inputs: Any) -> Job:
    return Job(ATTEMPT, "stability", MODELS[model], {"generation_prompt": "a red fox", **inputs})


def built(asked: Job) -> Request:
    """The request for the job as the runner hands it over: its files fetched and checked."""
    files = {url: check_input(picture(), rule) for url, rule in PROVIDER.input_files(asked).items()}
    request = PROVIDER.build_submit(replace(asked, files=files))
    assert request.method == "POST"
    assert (request.headers["authorization"], request.headers["accept"]) == (
        "Bearer sk-1",
        "application/json",
    )
    return request


def answer(status: int, body: Any, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "application/json", **named}, msgspec.json.encode(body))


def error(status: int, name: str, *errors: str) -> Answer:
    return answer(status, {"id": "a1b2", "name": name, "errors": list(errors)})


# ------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("model", MODELS)
def test_every_admissible_request_is_one_that_stability_documents(model: str) -> None:
    count = 0
    for asked in jobs("stability", MODELS[model]):
        request = built(asked)
        form = typed(parts_of(request))
        assert complaints(request.url.removeprefix(ROOT), form) == []
        assert not any(name.startswith("generation_") for name in form)
        count += 1
    assert count > 10


def test_it_serves_the_models_of_stable_diffusion_35_after_all_others() -> None:
    assert set(MODELS) == {LARGE, TURBO, "stability/sd-3.5-medium"}
    assert all(model.provider_ids[-1] == "stability" for model in MODELS.values())
    assert "stability" not in load_catalog(None).models[LARGE].provider_ids


def test_a_prompt_alone_is_a_form_of_texts() -> None:
    asked = job(
        generation_ratio="16:9", generation_output_format="jpg", generation_cfg_scale=4.5, generation_seed=7
    )
    request = built(asked)
    assert request.url == f"{ROOT}sd3"
    assert parts_of(request) == {
        "prompt": ["a red fox"],
        "aspect_ratio": ["16:9"],
        "output_format": ["jpeg"],
        "cfg_scale": ["4.5"],
        "seed": ["7"],
        "model": ["sd3.5-large"],
        "mode": ["text-to-image"],
    }


@pytest.mark.parametrize(("given", "strength"), [({}, "0.85"), ({"generation_prompt_strength": 0.3}, "0.3")])
def test_a_picture_is_a_part_and_decides_the_ratio(given: dict[str, Any], strength: str) -> None:
    asked = job(TURBO, generation_input_file=[URL], generation_ratio="16:9", **given)
    parts = parts_of(built(asked))
    assert parts["image"] == [("image.png", "image/png", picture())]
    assert (parts["mode"], parts["strength"]) == (["image-to-image"], [strength])
    assert "aspect_ratio" not in parts


def test_how_far_a_picture_may_change_is_not_said_without_one() -> None:
    assert "strength" not in parts_of(built(job(TURBO, generation_prompt_strength=0.3)))


def test_a_picture_that_is_too_small_is_refused() -> None:
    file = io.BytesIO()
    Image.new("RGB", (63, 64)).save(file, "PNG")
    [rule] = PROVIDER.input_files(job(TURBO, generation_input_file=[URL])).values()
    with pytest.raises(InputRefusedError) as refused:
        check_input(file.getvalue(), rule)
    assert refused.value.code == "BSE2003"


def test_an_operator_can_add_models_of_the_other_endpoints(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "stability.toml").write_text(
        """
        [core]
        media = "image"
        name = "Stable Image Core"
        description = "Fast."
        workflows = ["text-to-image"]
        pricing = 0.03
        pricing_unit = "generation"
        provider_order = ["stability"]
        fields.generation_prompt = {}
        [core.providers.stability]
        model = "stable-image-core"
        route = "/v2beta/stable-image/generate/core"
        params.generation_prompt = "prompt"
        """
    )
    core = load_catalog(tmp_path, joined=["stability"]).models["stability/core"]
    request = built(Job(ATTEMPT, "stability", core, {"generation_prompt": "a red fox"}))
    assert (request.url, parts_of(request)) == (f"{ROOT}core", {"prompt": ["a red fox"]})


@pytest.mark.parametrize(
    ("inputs", "taken"),
    [
        ({"generation_ratio": "16:9"}, True),
        ({"generation_ratio": "4:3"}, False),
        ({"generation_cfg_scale": 10}, True),
        ({"generation_cfg_scale": 10.5}, False),
        ({"generation_seed": 4_294_967_294}, True),
        ({"generation_seed": 4_294_967_295}, False),
    ],
)
def test_its_limits_are_those_it_documents(inputs: dict[str, Any], taken: bool) -> None:
    asked = job(**inputs)
    assert admits(asked.offer, asked.inputs, asked.model) is taken


# ------------------------------------------------------------------------------- what is read


def test_a_picture_comes_as_json_or_as_it_is() -> None:
    told = answer(200, {"image": "aGk=", "finish_reason": "SUCCESS", "seed": 7}, x_request_id="r1")
    assert PROVIDER.read_submit(job(), told) == Finished([Output(url="data:;base64,aGk=")], upstream_id="r1")
    headers = {"content-type": "image/png", "finish-reason": "SUCCESS", "seed": "7", "x-request-id": "r2"}
    assert PROVIDER.read_submit(job(), Answer(200, headers, b"png")) == Finished(
        [Output(data=b"png")], upstream_id="r2"
    )


def test_a_blurred_picture_is_a_refusal_for_content() -> None:
    told = answer(200, {"image": "aGk=", "finish_reason": "CONTENT_FILTERED", "seed": 7})
    raw = Answer(200, {"content-type": "image/png", "finish-reason": "CONTENT_FILTERED"}, b"png")
    for given in (told, raw):
        read = PROVIDER.read_submit(job(), given)
        assert isinstance(read, Refused)
        assert read.failure is Failure.REFUSED_POLICY


def test_success_without_a_picture_has_no_output() -> None:
    assert PROVIDER.read_submit(job(), answer(200, {"finish_reason": "SUCCESS", "seed": 7})) == Finished([])


@pytest.mark.parametrize(
    ("given", "failure", "code"),
    [
        (error(400, "bad_request", "aspect_ratio: is wrong"), Failure.REFUSED_INPUT, None),
        (error(401, "unauthorized"), Failure.REFUSED_AUTH, None),
        (error(402, "payment_required"), Failure.REFUSED_FUNDS, None),
        (error(403, "content_moderation", "was flagged"), Failure.REFUSED_POLICY, None),
        (error(403, "forbidden"), Failure.REFUSED_AUTH, None),
        (error(404, "not_found"), Failure.REFUSED_INPUT, None),
        (error(413, "payload_too_large"), Failure.REFUSED_INPUT, "BSE2007"),
        (error(422, "unprocessable_entity"), Failure.REFUSED_INPUT, None),
        (error(429, "rate_limit_exceeded"), Failure.REFUSED_BUSY, "BSE4003"),
        (error(500, "internal_error"), Failure.FAILED, None),
        (Answer(504, {}, b"<html>"), Failure.OUTCOME_UNKNOWN, None),
        (Answer(524, {}, b""), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {"content-type": "text/html"}, b"<html>"), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {}, b'{"image":"aG'), Failure.OUTCOME_UNKNOWN, None),
        (answer(200, {"id": "f" * 64}), Failure.OUTCOME_UNKNOWN, None),
    ],
)
def test_each_refusal_is_of_one_class(given: Answer, failure: Failure, code: str | None) -> None:
    read = PROVIDER.read_submit(job(), given)
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)


def test_what_was_said_is_in_the_log() -> None:
    read = PROVIDER.read_submit(job(), error(400, "bad_request", "seed: is too large", "prompt: is empty"))
    assert isinstance(read, Refused)
    assert read.message == "HTTP 400: seed: is too large; prompt: is empty"


@pytest.mark.parametrize("status", [200, 202, 403, 500])
@pytest.mark.parametrize("kind", ["", "application/json", "image/png"])
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 50_000, b'{"image":1,"finish_reason":[],"name":{}}']
)
def test_no_answer_is_too_odd_to_read(status: int, kind: str, body: bytes) -> None:
    given = Answer(status, {"content-type": kind}, body)
    assert isinstance(PROVIDER.read_submit(job(), given), Finished | Refused)
    assert isinstance(PROVIDER.read_check(given), Check)


def test_the_check_tells_the_balance() -> None:
    request = PROVIDER.build_check()
    assert request is not None
    assert (request.method, request.url) == ("GET", "https://api.stability.ai/v1/user/balance")
    assert PROVIDER.read_check(answer(200, {"credits": 12.3})) == Check(True, "12.3 credits left")
    assert PROVIDER.read_check(error(401, "unauthorized", "missing")) == Check(False, "HTTP 401: missing")


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Emulator, Runner]]:
    async with running(StabilityEmulator()) as emulator:
        provider = Stability(ProviderSettings(**emulator.settings()))
        transport, files = HttpTransport(private_networks=True), FileTransport(private_networks=True)
        runner = Runner(Registry({"stability": Route(provider, transport, files)}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


@pytest.mark.parametrize("model", MODELS)
async def test_a_picture_is_bought_once_and_is_whole(model: str) -> None:
    async with wired() as (emulator, runner):
        asked = job(model, generation_seed=7)
        read = await runner.submit(asked)
        assert isinstance(read, Finished), read
        [output] = read.outputs
        assert await runner.fetch(asked, output, body_max=100_000) == picture()
        assert (emulator.purchases, emulator.files_fetched) == (1, 0)
        assert await runner.check("stability") == Check(True, "12.3 credits left")


async def test_an_input_picture_is_fetched_and_understood() -> None:
    async with wired() as (emulator, runner):
        source = emulator.new_job("source", "", Received("GET", "", {}, {}, None))
        read = await runner.submit(job(TURBO, generation_input_file=[emulator.file_url(source)]))
        assert isinstance(read, Finished), read
        assert emulator.files_fetched == 1
        assert emulator.submits()[-1].body["image"] == [("image.png", "image/png", picture())]


@pytest.mark.parametrize(
    ("word", "failure"),
    [
        ("unprocessable", Failure.REFUSED_INPUT),
        ("forbidden", Failure.REFUSED_AUTH),
        ("gateway", Failure.OUTCOME_UNKNOWN),
    ],
)
async def test_its_own_ways_of_failing(word: str, failure: Failure) -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(job(generation_prompt=f"[stability:{word}] a fox"))
        assert isinstance(read, Refused)
        assert (read.failure, emulator.purchases) == (failure, 0)


async def test_the_emulator_refuses_what_stability_would() -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(job(generation_ratio="4:3"))
        assert isinstance(read, Refused)
        assert (read.failure, emulator.purchases) == (Failure.REFUSED_INPUT, 0)
