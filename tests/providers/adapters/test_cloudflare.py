"""Workers AI: what is sent for every model, what is made of every answer, and both against the emulator."""

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from PIL import Image
from tests.emulators.cloudflare import ACCOUNT, RAW, SCHEMAS, CloudflareEmulator, complaint, takes_form, typed
from tests.emulators.kit import Emulator, Received, picture, running
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of
from tests.providers.adapters.forms import parts_of
from tests.support import ManualClock

from babysea_server.catalog.limits import admits
from babysea_server.providers.base import Answer, Check, Failure, Finished, Job, Output, Refused
from babysea_server.providers.cloudflare import Cloudflare
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.inputs import InputRefusedError, InputRule, check_input
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Runner
from babysea_server.settings import ProviderSettings

MODELS = models_of("cloudflare")
PROVIDER = Cloudflare(ProviderSettings(api_key="token", account_id="acc"))
ROOT = "https://api.cloudflare.com/client/v4/accounts/acc/ai/run/"
URL = "https://files.example.com/a.png"
SCHNELL, KLEIN, PHOENIX = "bfl/flux-schnell", "bfl/flux-2-klein-9b", "leonardo/phoenix-1.0"


def job(model: str = SCHNELL, **inputs: Any) -> Job:
    return Job(ATTEMPT, "cloudflare", MODELS[model], {"generation_prompt": "a red fox", **inputs})


def drawn(width: int, height: int, format: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), 0).save(file, format, **options)
    return file.getvalue()


def with_files(asked: Job, data: bytes | None = None) -> Job:
    """The job as the runner hands it over: its files fetched and checked."""
    rules: Mapping[str, InputRule] = PROVIDER.input_files(asked)
    return replace(asked, files={url: check_input(data or picture(), rule) for url, rule in rules.items()})


def sent(asked: Job) -> tuple[str, dict[str, Any], bool]:
    """Model, inputs, and whether they were sent as a form."""
    request = PROVIDER.build_submit(with_files(asked))
    assert (request.method, request.headers["authorization"]) == ("POST", "Bearer token")
    assert request.url.startswith(ROOT)
    model, body = request.url.removeprefix(ROOT), request.body or b""
    if request.headers["content-type"] == "application/json":
        return model, msgspec.json.decode(body), False
    return model, typed(parts_of(request)), True


def envelope(status: int, *errors: tuple[int, str], result: Any = None, success: bool = False) -> Answer:
    body = {
        "result": result,
        "success": success,
        "errors": [{"code": code, "message": message} for code, message in errors],
        "messages": [],
    }
    return Answer(status, {"content-type": "application/json", "cf-ray": "ray-1"}, msgspec.json.encode(body))


# ------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("model", MODELS)
def test_every_admissible_request_is_one_that_cloudflare_documents(model: str) -> None:
    built = 0
    for asked in jobs("cloudflare", MODELS[model]):
        upstream, inputs, is_form = sent(asked)
        files = {name: None if isinstance(value, tuple) else value for name, value in inputs.items()}
        jsonschema_rs.validate(SCHEMAS[upstream], files)
        assert complaint(upstream, inputs) is None
        assert is_form is takes_form(upstream)
        assert not any(name.startswith("generation_") for name in inputs)
        count = len(asked.inputs.get("generation_input_file", ()))
        assert sum(name.startswith("input_image_") for name in inputs) == count
        built += 1
    assert built > 3


def test_it_serves_eight_models_by_their_own_names() -> None:
    assert {model.providers["cloudflare"].model for model in MODELS.values()} == set(SCHEMAS)


def test_json_models_get_json() -> None:
    asked = job(
        PHOENIX,
        generation_ratio="16:9",
        generation_negative_prompt="rain",
        generation_guidance_scale=3.5,
        generation_num_inference_steps=25,
        generation_seed=7,
    )
    assert sent(asked) == (
        "@cf/leonardo/phoenix-1.0",
        {
            "prompt": "a red fox",
            "width": 1360,
            "height": 768,
            "negative_prompt": "rain",
            "guidance": 3.5,
            "num_steps": 25,
            "seed": 7,
        },
        False,
    )


def test_flux_2_gets_a_form_also_for_a_prompt_alone() -> None:
    asked = job(KLEIN, generation_ratio="1:1", generation_seed=7)
    inputs = {"prompt": "a red fox", "width": 1024, "height": 1024, "seed": 7}
    assert sent(asked) == ("@cf/black-forest-labs/flux-2-klein-9b", inputs, True)


def test_input_pictures_are_parts_of_the_form_as_they_are() -> None:
    _, inputs, _ = sent(job(KLEIN, generation_input_file=[URL, f"{URL}?2"]))
    assert inputs["input_image_0"] == ("input_image_0.png", "image/png", picture())
    assert inputs["input_image_1"] == ("input_image_1.png", "image/png", picture())


@pytest.mark.parametrize(
    ("data", "size", "mode"),
    [
        (drawn(511, 300), (511, 300), "RGB"),
        (drawn(512, 512), (511, 511), "RGB"),
        (drawn(2000, 1000, "JPEG"), (511, 256), "RGB"),
        (drawn(1000, 2000, "WEBP"), (256, 511), "RGB"),
        (drawn(1024, 1024, mode="RGBA"), (511, 511), "RGBA"),
        (drawn(1024, 1024, mode="L"), (511, 511), "RGB"),
        (
            drawn(600, 300, "JPEG", exif=b"Exif\0\0II*\0\b\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
            (256, 511),
            "RGB",
        ),
    ],
    ids=["small", "512", "jpeg", "webp", "transparent", "grey", "turned"],
)
def test_larger_input_pictures_are_scaled_down(data: bytes, size: tuple[int, int], mode: str) -> None:
    asked = with_files(job(KLEIN, generation_input_file=[URL]), data)
    [(_, content_type, scaled)] = parts_of(PROVIDER.build_submit(asked))["input_image_0"]
    with Image.open(io.BytesIO(scaled)) as image:
        assert (image.size, image.mode) == (size, mode)
    assert content_type == "image/png"


def test_input_pictures_that_are_too_large_to_scale_are_refused() -> None:
    with pytest.raises(InputRefusedError) as refused:
        with_files(job(KLEIN, generation_input_file=[URL]), drawn(2100, 2100))
    assert refused.value.code == "BSE2002"


def test_an_input_picture_that_cannot_be_decoded_is_refused() -> None:
    whole = drawn(600, 600)
    # Large pictures are not decoded when they are checked: only the scaling finds that the pixels are no pixels.
    asked = with_files(job(KLEIN, generation_input_file=[URL]), whole)
    file = msgspec.structs.replace(asked.files[URL], data=whole.replace(b"IDAT", b"IDOT"))
    with pytest.raises(InputRefusedError) as refused:
        PROVIDER.build_submit(replace(asked, files={URL: file}))
    assert refused.value.code == "BSE2005"


def test_a_model_without_input_pictures_asks_for_none() -> None:
    assert PROVIDER.input_files(job(SCHNELL, generation_input_file=[URL])) == {}
    assert PROVIDER.input_files(job(KLEIN)) == {}


@pytest.mark.parametrize(
    ("model", "inputs", "taken"),
    [
        (SCHNELL, {"generation_ratio": "1:1", "generation_output_format": "jpg"}, True),
        (SCHNELL, {"generation_ratio": "16:9"}, False),
        (SCHNELL, {"generation_output_format": "png"}, False),
        (SCHNELL, {"generation_output_number": 2}, False),
        (SCHNELL, {"generation_num_inference_steps": 9}, False),
        ("stability/sdxl", {"generation_num_inference_steps": 20}, True),
        ("stability/sdxl", {"generation_num_inference_steps": 21}, False),
        ("bytedance/sdxl-lightning", {"generation_num_inference_steps": 21}, False),
        (KLEIN, {"generation_input_file": [URL] * 3}, True),
    ],
)
def test_its_limits_are_those_it_documents(model: str, inputs: dict[str, Any], taken: bool) -> None:
    asked = job(model, **inputs)
    assert admits(asked.offer, asked.inputs, asked.model) is taken


# ------------------------------------------------------------------------------- what is read


def test_a_picture_comes_in_an_envelope_or_as_it_is() -> None:
    wrapped = envelope(200, result={"image": "aGk="}, success=True)
    assert PROVIDER.read_submit(job(), wrapped) == Finished(
        [Output(url="data:;base64,aGk=")], upstream_id="ray-1"
    )
    for kind in ("image/jpeg", "image/png", "Image/PNG; foo=bar"):
        raw = Answer(200, {"content-type": kind, "cf-ray": "ray-2"}, b"\xff\xd8")
        assert PROVIDER.read_submit(job(PHOENIX), raw) == Finished(
            [Output(data=b"\xff\xd8")], upstream_id="ray-2"
        )


def test_success_without_a_picture_has_no_output() -> None:
    assert PROVIDER.read_submit(job(), envelope(200, result={}, success=True)) == Finished(
        [], upstream_id="ray-1"
    )


FLAGGED = "AiError: AiError: Your output has been flagged. Please choose another prompt (e900ad1a)"


@pytest.mark.parametrize(
    ("given", "failure", "code"),
    [
        (envelope(429, (3036, "Account limited")), Failure.REFUSED_FUNDS, None),
        (envelope(429, (4006, "upgrade to the paid plan")), Failure.REFUSED_FUNDS, None),
        (envelope(429, (1, "your daily free allocation of 10,000 neurons")), Failure.REFUSED_FUNDS, None),
        (envelope(429, (3040, "try again")), Failure.REFUSED_BUSY, None),
        (envelope(429, (971, "throttling")), Failure.REFUSED_BUSY, "BSE4003"),
        (envelope(400, (3030, FLAGGED), result={}), Failure.REFUSED_POLICY, None),
        (
            envelope(400, (8007, "Input prompt contains NSFW content.")),
            Failure.REFUSED_POLICY,
            None,
        ),
        (envelope(400, (3030, "unable to decode image file")), Failure.REFUSED_INPUT, "BSE2005"),
        (envelope(400, (3030, "Max context reached")), Failure.REFUSED_INPUT, None),
        # Words that are the customer's own prove nothing under another code.
        (envelope(400, (5006, "'nsfw' is not a property")), Failure.REFUSED_INPUT, None),
        (envelope(400, (5007, "AiError: No such model")), Failure.REFUSED_INPUT, None),
        (envelope(400, (5004, "bad base64")), Failure.REFUSED_INPUT, None),
        (envelope(404, (3042, "invalid model id")), Failure.REFUSED_INPUT, None),
        (envelope(405, (5019, "deprecated SDK")), Failure.REFUSED_INPUT, None),
        (envelope(413, (3006, "request too large")), Failure.REFUSED_INPUT, None),
        (envelope(403, (5018, "not allowed")), Failure.REFUSED_AUTH, None),
        (envelope(403, (3041, "blocked")), Failure.REFUSED_AUTH, None),
        (envelope(401, (10000, "Authentication error")), Failure.REFUSED_AUTH, None),
        (envelope(400, (10000, "Authentication error")), Failure.REFUSED_AUTH, None),
        (envelope(408, (3007, "timeout")), Failure.TIMED_OUT, None),
        (envelope(408, (3008, "aborted")), Failure.FAILED, None),
        (envelope(500, (3000, "internal")), Failure.FAILED, None),
        (envelope(200, (3040, "capacity")), Failure.REFUSED_BUSY, None),
        (envelope(200, (1, "something else")), Failure.FAILED, None),
        (Answer(504, {}, b"<html>"), Failure.OUTCOME_UNKNOWN, None),
        (Answer(524, {}, b""), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {"content-type": "text/html"}, b"<html>"), Failure.OUTCOME_UNKNOWN, None),
        (
            Answer(200, {"content-type": "application/json"}, b'{"result":{"image":"a'),
            Failure.OUTCOME_UNKNOWN,
            None,
        ),
    ],
)
def test_each_refusal_is_of_one_class(given: Answer, failure: Failure, code: str | None) -> None:
    read = PROVIDER.read_submit(job(), given)
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)


def test_what_was_said_is_in_the_log() -> None:
    read = PROVIDER.read_submit(job(), envelope(429, (3040, "Capacity temporarily exceeded.")))
    assert isinstance(read, Refused)
    assert read.message == "HTTP 429: Capacity temporarily exceeded."


@pytest.mark.parametrize("status", [200, 400, 408, 429, 500])
@pytest.mark.parametrize("kind", ["", "application/json", "image/png", "text/html"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 50_000,
        b'{"errors":[1,null,{"code":{}}],"result":[]}',
        b'{"result":{"image":1}}',
    ],
)
def test_no_answer_is_too_odd_to_read(status: int, kind: str, body: bytes) -> None:
    given = Answer(status, {"content-type": kind}, body)
    assert isinstance(PROVIDER.read_submit(job(), given), Finished | Refused)
    assert isinstance(PROVIDER.read_check(given), Check)


def test_the_check_needs_what_calls_need() -> None:
    request = PROVIDER.build_check()
    assert request is not None
    assert request.url == "https://api.cloudflare.com/client/v4/accounts/acc/ai/models/search?per_page=1"
    assert PROVIDER.read_check(envelope(200, result=[], success=True)).ok
    assert PROVIDER.read_check(envelope(401, (10000, "Authentication error"))) == Check(
        False, "HTTP 401: Authentication error"
    )


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Emulator, Runner]]:
    async with running(CloudflareEmulator()) as emulator:
        provider = Cloudflare(ProviderSettings(**emulator.settings()))
        transport, files = HttpTransport(private_networks=True), FileTransport(private_networks=True)
        runner = Runner(Registry({"cloudflare": Route(provider, transport, files)}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


@pytest.mark.parametrize("model", MODELS)
async def test_a_picture_of_every_model_is_bought_once_and_is_whole(model: str) -> None:
    async with wired() as (emulator, runner):
        asked = job(model)
        read = await runner.submit(asked)
        assert isinstance(read, Finished), read
        [output] = read.outputs
        data = await runner.fetch(asked, output, body_max=100_000)
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (64, 64)
        assert (output.data is not None) is (asked.offer.model in RAW)
        assert (emulator.purchases, emulator.files_fetched) == (1, 0)


async def test_input_pictures_are_fetched_and_understood() -> None:
    async with wired() as (emulator, runner):
        source = emulator.new_job("source", "", Received("GET", "", {}, {}, None), extra={"model": ""})
        read = await runner.submit(job(KLEIN, generation_input_file=[emulator.file_url(source)]))
        assert isinstance(read, Finished), read
        assert emulator.files_fetched == 1
        [(_, content_type, data)] = emulator.submits()[-1].body["input_image_0"]
        assert (content_type, data) == ("image/png", picture())


async def test_the_token_must_reach_the_account() -> None:
    async with wired() as (emulator, runner):
        assert (await runner.check("cloudflare")).ok
        settings = {**emulator.settings(), "account_id": "f" * len(ACCOUNT)}
        transport = HttpTransport(private_networks=True)
        route = Route(Cloudflare(ProviderSettings(**settings)), transport)
        other = Runner(Registry({"cloudflare": route}), ManualClock())
        assert await other.check("cloudflare") == Check(False, "HTTP 401: Authentication error")
        await other.close()


@pytest.mark.parametrize(
    ("word", "failure", "code"),
    [
        ("allowance", Failure.REFUSED_FUNDS, None),
        ("timeout", Failure.TIMED_OUT, None),
        ("aborted", Failure.FAILED, None),
        ("blocked", Failure.REFUSED_AUTH, None),
        ("undecodable", Failure.REFUSED_INPUT, "BSE2005"),
        ("gateway", Failure.OUTCOME_UNKNOWN, None),
    ],
)
async def test_its_own_ways_of_failing(word: str, failure: Failure, code: str | None) -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(job(generation_prompt=f"[cloudflare:{word}] a fox"))
        assert isinstance(read, Refused)
        assert (read.failure, read.code, emulator.purchases) == (failure, code, 0)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(SCHNELL, {"generation_num_inference_steps": 9}), (PHOENIX, {"generation_guidance_scale": 11})],
)
async def test_the_emulator_refuses_what_cloudflare_would(model: str, inputs: dict[str, Any]) -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(job(model, **inputs))
        assert isinstance(read, Refused)
        assert (read.failure, emulator.purchases) == (Failure.REFUSED_INPUT, 0)
