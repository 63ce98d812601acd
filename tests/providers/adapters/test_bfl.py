"""Black Forest Labs: what is sent for every model, what is made of every answer, and both against the emulator."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from tests.emulators.bfl import SCHEMAS, BflEmulator
from tests.emulators.kit import Received, picture, running
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of
from tests.support import ManualClock

from babysea_server.providers.base import (
    Accepted,
    Answer,
    Callback,
    Check,
    Failure,
    Finished,
    Job,
    Output,
    Refused,
    Running,
)
from babysea_server.providers.bfl import Bfl
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.inputs import check_input
from babysea_server.providers.registry import GuardedTransport, Registry, Route
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.settings import ProviderSettings

MODELS = models_of("bfl")
PROVIDER = Bfl(ProviderSettings(api_key="bfl_key"))
REGIONAL = Bfl(
    ProviderSettings(api_key="bfl_key", base_url="https://api.eu.bfl.ai/v1/", webhook_secret="hush")
)
POLLING_URL = "https://api.us2.bfl.ai/v1/get_result?id=0f1c"
SAMPLE = "https://delivery-us1.bfl.ai/results/ab/1.png?se=2026-11-23T02%3A25%3A00Z&sig=x"
PRO, FLEX, KONTEXT, FILL = "bfl/flux-2-pro", "bfl/flux-2-flex", "bfl/flux-kontext-pro", "bfl/flux-fill-pro"
TICKET = Accepted("0f1c", {"polling_url": POLLING_URL, "credits": 3.0}, 0.5)
#: Bounds that are BFL's own: a request outside them is refused there, and the next provider is asked.
STEERED = {("minimum", "steps"), ("minimum", "guidance"), ("maximum", "guidance")}


def job(model: str = PRO, **inputs: Any) -> Job:
    return Job(ATTEMPT, "bfl", MODELS[model], {"generation_prompt": "a red fox", **inputs})


def with_files(asked: Job, provider: Bfl = PROVIDER) -> Job:
    """The job as the runner hands it over: its files fetched and checked."""
    rules = provider.input_files(asked)
    return replace(asked, files={url: check_input(picture(), rule) for url, rule in rules.items()})


def sent(asked: Job, provider: Bfl = PROVIDER) -> tuple[str, dict[str, Any]]:
    request = provider.build_submit(with_files(asked, provider))
    assert (request.method, request.headers["x-key"]) == ("POST", "bfl_key")
    return request.url, msgspec.json.decode(request.body or b"")


def answer(status: int, body: Any, **headers: str) -> Answer:
    return Answer(status, {"content-type": "application/json", **headers}, msgspec.json.encode(body))


def polled(body: Any, status: int = 200, ticket: Accepted = TICKET) -> Running | Finished | Refused:
    return PROVIDER.read_poll(job(), ticket, answer(status, body))


def task(status: str, **beside: Any) -> dict[str, Any]:
    return {
        "id": "0f1c",
        "status": status,
        "result": None,
        "progress": None,
        "details": None,
        "preview": None,
    } | beside


# ------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("model", MODELS)
def test_every_admissible_request_is_one_that_bfl_documents(model: str) -> None:
    built = 0
    for asked in jobs("bfl", MODELS[model]):
        url, body = sent(asked)
        path = url.removeprefix("https://api.bfl.ai/v1/")
        faults = jsonschema_rs.Draft202012Validator(SCHEMAS[path]).iter_errors(body)
        beyond = {(fault.kind.name, *fault.instance_path) for fault in faults}
        assert beyond <= STEERED, body
        assert not any(name.startswith("generation_") for name in body)
        built += 1
    assert built > 3


def test_it_serves_twelve_models_by_their_own_names() -> None:
    assert {model.providers["bfl"].model for model in MODELS.values()} == set(SCHEMAS)


@pytest.mark.parametrize(
    ("model", "ratio", "size"),
    [
        (PRO, "1:1", (1024, 1024)),
        (PRO, "16:9", (1360, 768)),
        (PRO, "3:4", (880, 1184)),
        ("bfl/flux-1.1-pro", "16:9", (1376, 768)),
        ("bfl/flux-dev", "9:16", (768, 1376)),
        ("bfl/flux-pro", "4:5", (928, 1152)),
    ],
)
def test_ratios_are_pixels_on_the_grid_of_the_family(model: str, ratio: str, size: tuple[int, int]) -> None:
    _, body = sent(job(model, generation_ratio=ratio))
    assert (body["width"], body["height"]) == size
    assert "aspect_ratio" not in body


def test_kontext_and_ultra_take_the_ratio_itself() -> None:
    for model in (KONTEXT, "bfl/flux-1.1-pro-ultra"):
        _, body = sent(job(model, generation_ratio="21:9"))
        assert body["aspect_ratio"] == "21:9"
        assert "width" not in body


def test_a_request_with_everything() -> None:
    asked = job(
        FLEX,
        generation_ratio="1:1",
        generation_output_format="jpg",
        generation_output_number=1,
        generation_input_file=[f"https://files.example.com/{index}.png" for index in range(3)],
        generation_guidance_scale=5,
        generation_moderation=True,
        generation_num_inference_steps=50,
        generation_prompt_extend=False,
        generation_seed=7,
    )
    assert sent(asked) == (
        "https://api.bfl.ai/v1/flux-2-flex",
        {
            "prompt": "a red fox",
            "width": 1024,
            "height": 1024,
            "output_format": "jpeg",
            "input_image": "https://files.example.com/0.png",
            "input_image_2": "https://files.example.com/1.png",
            "input_image_3": "https://files.example.com/2.png",
            "guidance": 5,
            "safety_tolerance": 0,
            "steps": 50,
            "prompt_upsampling": False,
            "seed": 7,
        },
    )


def test_no_seed_of_ours_is_sent_and_moderation_is_the_usual_one() -> None:
    _, body = sent(job(generation_moderation=False, generation_output_format="png"))
    assert body == {"prompt": "a red fox", "safety_tolerance": 2, "output_format": "png"}


def test_pictures_go_as_base64_where_no_address_is_taken() -> None:
    image, mask = "https://files.example.com/a.png", "https://files.example.com/mask.png"
    _, body = sent(job(FILL, generation_input_file=[image], generation_mask=mask))
    encoded = base64.b64encode(picture()).decode()
    assert (body["image"], body["mask"]) == (encoded, encoded)
    _, body = sent(job("bfl/flux-1.1-pro-ultra", generation_input_file=[image]))
    assert body["image_prompt"] == encoded
    assert PROVIDER.input_files(job(KONTEXT, generation_input_file=[image])) == {}
    assert sent(job(KONTEXT, generation_input_file=[image]))[1]["input_image"] == image


# ------------------------------------------------------------------------------- the answer to a submit


def test_the_address_and_the_cost_are_kept() -> None:
    body = {"id": "0f1c", "polling_url": POLLING_URL, "cost": 3.0, "input_mp": 0.0, "output_mp": 1.05}
    assert PROVIDER.read_submit(job(), answer(200, body)) == TICKET
    older = {"id": "0f1c", "polling_url": POLLING_URL}
    assert PROVIDER.read_submit(job(), answer(200, older)) == Accepted(
        "0f1c", {"polling_url": POLLING_URL}, 0.5
    )


def test_a_task_that_calls_back_has_no_address() -> None:
    body = {"id": "0f1c", "status": "Pending", "webhook_url": "https://us.example.com/callbacks/bfl/t"}
    accepted = REGIONAL.read_submit(job(), answer(200, body))
    assert accepted == Accepted("0f1c", {}, 0.5)
    assert isinstance(accepted, Accepted)
    assert REGIONAL.build_poll(job(), accepted).url == "https://api.eu.bfl.ai/v1/get_result?id=0f1c"
    assert REGIONAL.build_poll(job(), Accepted("a&b", None)).url.endswith("/get_result?id=a%26b")


@pytest.mark.parametrize(
    ("status", "body", "failure", "code"),
    [
        (400, {"detail": "Bad format"}, Failure.REFUSED_INPUT, None),
        (401, {"detail": "Not authenticated"}, Failure.REFUSED_AUTH, None),
        (403, {"detail": "Not authenticated"}, Failure.REFUSED_AUTH, None),
        (402, {"detail": "Insufficient credits"}, Failure.REFUSED_FUNDS, None),
        (402, {"detail": "Earlier work is still settling"}, Failure.REFUSED_BUSY, None),
        (404, {"detail": "Not Found"}, Failure.REFUSED_INPUT, None),
        (
            422,
            {"detail": [{"loc": ["body", "seed"], "msg": "Input should be a valid integer", "type": "int"}]},
            Failure.REFUSED_INPUT,
            None,
        ),
        (
            422,
            {
                "detail": [
                    {
                        "loc": ["body", "width"],
                        "msg": "Input should be a multiple of 32",
                        "type": "multiple_of",
                    }
                ]
            },
            Failure.REFUSED_INPUT,
            "BSE2008",
        ),
        (
            422,
            {
                "detail": [
                    {
                        "loc": ["body", "steps"],
                        "msg": "Input should be less than or equal to 50",
                        "type": "le",
                    }
                ]
            },
            Failure.REFUSED_INPUT,
            "BSE2008",
        ),
        (422, {"detail": "Invalid or corrupted image input"}, Failure.REFUSED_INPUT, "BSE2005"),
        (429, {"detail": "Too many active tasks"}, Failure.REFUSED_BUSY, "BSE4003"),
        (500, {"detail": "Internal Server Error"}, Failure.FAILED, None),
        (503, {"detail": "Service unavailable"}, Failure.REFUSED_BUSY, None),
        (504, {}, Failure.OUTCOME_UNKNOWN, None),
        (200, {"polling_url": POLLING_URL}, Failure.OUTCOME_UNKNOWN, None),
        (200, ["a list"], Failure.OUTCOME_UNKNOWN, None),
    ],
)
def test_refusals_of_a_submit(status: int, body: Any, failure: Failure, code: str | None) -> None:
    read = PROVIDER.read_submit(job(), answer(status, body))
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)


def test_the_pause_that_is_asked_for_is_told() -> None:
    read = PROVIDER.read_submit(job(), answer(429, {"detail": "slow down"}, **{"retry-after": "4"}))
    assert isinstance(read, Refused)
    assert read.retry_after_s == 4.0


# ------------------------------------------------------------------------------- polling


def test_a_task_is_asked_for_at_its_own_address() -> None:
    request = PROVIDER.build_poll(job(), TICKET)
    assert (request.method, request.url, dict(request.headers)) == ("GET", POLLING_URL, {"x-key": "bfl_key"})


@pytest.mark.parametrize("status", ["Pending", "Reasoning", "Generating", "Something new"])
def test_a_task_runs_until_it_says_otherwise(status: str) -> None:
    assert polled(task(status, progress=0.4)) == Running()


def test_a_ready_task_has_its_file_its_time_and_its_cost() -> None:
    result = {"sample": SAMPLE, "prompt": "x", "seed": 42, "start_time": 100.5, "end_time": 105.0}
    assert polled(task("Ready", result=result)) == Finished([Output(url=SAMPLE)], 30_000, 4.5)
    assert polled(task("Ready", result={**result, "duration": 1.9}, cost=4.8)) == Finished(
        [Output(url=SAMPLE)], 48_000, 1.9
    )
    bare = Accepted("0f1c", None)
    assert polled(task("Ready", result={"sample": SAMPLE}), ticket=bare) == Finished([Output(url=SAMPLE)])
    assert polled(task("Ready"), ticket=bare) == Finished([])


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            200,
            task("Request Moderated", details={"Moderation Reasons": ["Safety Filter"]}),
            Refused(Failure.REFUSED_POLICY, "Request Moderated"),
        ),
        (
            200,
            {"id": "0f1c", "status": "Content Moderated", "result": None},
            Refused(Failure.REFUSED_POLICY, "Content Moderated", cost_micro=30_000),
        ),
        (
            422,
            task("Error", details={"error": "Invalid or corrupted image input"}),
            Refused(Failure.REFUSED_INPUT, "Invalid or corrupted image input", "BSE2005"),
        ),
        (
            200,
            task("Error", details={"error": "Failed to download image from url"}),
            Refused(Failure.REFUSED_INPUT, "Failed to download image from url", "BSE2009"),
        ),
        (200, task("Error"), Refused(Failure.FAILED, "the job failed")),
        (
            200,
            task("Failed", details={"error": "out of memory"}),
            Refused(Failure.FAILED, "out of memory"),
        ),
        (
            404,
            task("Task not found"),
            Refused(Failure.FAILED, "BFL does not know the task any more"),
        ),
        (
            200,
            task("Task not found"),
            Refused(Failure.FAILED, "BFL does not know the task any more"),
        ),
        (404, {"detail": "Not Found"}, Refused(Failure.FAILED, "BFL does not know the task any more")),
        (422, {"detail": [{"msg": "Field required"}]}, Running()),
        (429, {"detail": "Rate limit exceeded"}, Running()),
        (403, {"detail": "Not authenticated"}, Running()),
        (500, {"status": "Error"}, Running()),
    ],
)
def test_ends_of_a_task(status: int, body: Any, expected: Running | Refused) -> None:
    assert polled(body, status) == expected


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"status":', b"[]", b'{"status": []}', b"\xff\xfe", b"null"]
)
@pytest.mark.parametrize("status", [200, 404, 422, 500])
def test_no_answer_is_too_strange(status: int, body: bytes) -> None:
    strange = Answer(status, {}, body)
    PROVIDER.read_submit(job(), strange)
    PROVIDER.read_poll(job(), Accepted("1", {"polling_url": 5, "credits": "x"}), strange)
    PROVIDER.read_check(strange)


# ------------------------------------------------------------------------------- callbacks, cancel, check


def test_only_regional_hosts_call_back() -> None:
    assert not PROVIDER.calls_back(job())
    assert REGIONAL.calls_back(job())
    assert not Bfl(ProviderSettings(api_key="x", base_url="https://api.bfl.ai/v1/")).calls_back(job())


def test_a_callback_is_asked_for_with_the_secret() -> None:
    called_back = replace(job(), callback_url="https://us.example.com/callbacks/bfl/token")
    url, body = sent(called_back, REGIONAL)
    assert url == "https://api.eu.bfl.ai/v1/flux-2-pro"
    assert (body["webhook_url"], body["webhook_secret"]) == (called_back.callback_url, "hush")
    assert "webhook_secret" not in sent(called_back)[1]


def test_a_callback_with_a_signature_of_another_secret_is_refused() -> None:
    body = b'{"id":"0f1c","status":"Ready"}'
    signature = "sha256=" + hmac.new(b"hush", body, hashlib.sha256).hexdigest()

    def believed(provider: Bfl, **headers: str) -> bool:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return provider.verify_callback(Callback(given, body, 0.0), ())

    assert believed(REGIONAL, x_bfl_signature=signature)
    assert not believed(REGIONAL, x_bfl_signature=f"{signature[:-1]}é")
    assert not believed(REGIONAL, x_bfl_signature="sha256=00")
    assert believed(REGIONAL, x_bfl_signature="another scheme")
    assert believed(REGIONAL)
    assert believed(PROVIDER, x_bfl_signature="sha256=00")


def test_what_it_cannot_do_it_does_not_offer() -> None:
    assert PROVIDER.build_cancel(job(), TICKET) is None
    assert PROVIDER.build_reconcile(job()) is None


def test_the_check_tells_the_balance() -> None:
    request = PROVIDER.build_check()
    assert request is not None
    assert request.url == "https://api.bfl.ai/v1/credits"
    assert PROVIDER.read_check(answer(200, {"credits": 123.4})) == Check(True, "123.4 credits left")
    assert PROVIDER.read_check(answer(403, {"detail": "Not authenticated"})) == Check(
        False, "HTTP 403: Not authenticated"
    )


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[BflEmulator, Runner]]:
    emulator = BflEmulator()
    async with running(emulator):
        provider = Bfl(ProviderSettings(**{**emulator.settings(), "base_url": emulator.base_url}))
        transport = GuardedTransport(HttpTransport(private_networks=True), provider.base, provider.hosts)
        route = Route(provider, transport, FileTransport(private_networks=True))
        runner = Runner(Registry({"bfl": route}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


async def finished(runner: Runner, asked: Job) -> Finished | Refused:
    ticket = await runner.submit(asked)
    assert isinstance(ticket, Accepted), ticket
    while isinstance(read := await runner.poll(asked, ticket), Running):
        pass
    return read


@pytest.mark.parametrize("model", [PRO, KONTEXT, "bfl/flux-1.1-pro"])
async def test_a_picture_is_bought_once_followed_and_fetched(model: str) -> None:
    async with wired() as (emulator, runner):
        asked = job(model, generation_ratio="4:3", generation_output_format="png")
        read = await finished(runner, asked)
        assert isinstance(read, Finished), read
        assert (read.cost_micro, read.predict_seconds) == (30_000 if model == PRO else None, 4.7)
        assert await runner.fetch(asked, read.outputs[0], body_max=100_000) == picture()
        assert emulator.purchases == 1
        assert await runner.cancel(asked, TICKET) is Cancellation.NOT_SUPPORTED


async def test_input_pictures_are_fetched_and_understood() -> None:
    async with wired() as (emulator, runner):
        source = emulator.new_job("source", "", Received("GET", "", {}, {}, None), extra={"over": True})
        asked = job(FILL, generation_input_file=[emulator.file_url(source)])
        assert isinstance(await finished(runner, asked), Finished)
        assert emulator.files_fetched == 1


async def test_a_task_that_calls_back_is_found_at_the_regional_host() -> None:
    async with wired() as (emulator, runner):
        asked = replace(job(), callback_url=f"{emulator.origin}/nowhere")
        assert isinstance(await finished(runner, asked), Finished)
        await emulator.settle()
        assert emulator.callbacks == {None: [404]}


async def test_the_emulator_refuses_what_bfl_would() -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(job("bfl/flux-dev", generation_guidance_scale=7.5))
        assert isinstance(read, Refused)
        assert (read.failure, read.code) == (Failure.REFUSED_INPUT, "BSE2008")
        emulator.active_max = 1
        assert isinstance(await runner.submit(job()), Accepted)
        read = await runner.submit(job())
        assert isinstance(read, Refused)
        assert (read.failure, read.code, emulator.purchases) == (Failure.REFUSED_BUSY, "BSE4003", 1)


async def test_a_task_is_not_known_elsewhere_and_the_key_is_needed() -> None:
    async with wired() as (_, runner):
        assert (await runner.check("bfl")).ok
        ticket = await runner.submit(job())
        assert isinstance(ticket, Accepted)
        lost = await runner.poll(job(), msgspec.structs.replace(ticket, state=None))
        assert lost == Refused(Failure.FAILED, "BFL does not know the task any more")
