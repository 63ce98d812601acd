"""Runway: requests hold against what is documented, every answer has one meaning, and a task runs over real HTTP."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from tests.emulators.kit import SECRET, picture, running
from tests.emulators.runway import SCHEMAS, RunwayEmulator
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of
from tests.support import ManualClock

from babysea_server.catalog.types import Model
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Check,
    Failure,
    Finished,
    Job,
    Output,
    Refused,
    Request,
    Running,
)
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.inputs import InputRefusedError
from babysea_server.providers.registry import GuardedTransport, Registry, Route
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.providers.runway import Runway
from babysea_server.settings import ProviderSettings

MODELS = models_of("runway")
RUNWAY = Runway(ProviderSettings(api_key="key_1"))
BASE = "https://api.dev.runwayml.com/v1"
ID = "497f6eca-6276-4993-bfeb-53cbbbba6f08"
TICKET = Accepted(ID, poll_after_s=6.0)
PICTURE, CLIP, OTHER = (f"https://files.example.com/{name}" for name in ("a.png", "a.mp4", "b.mp4"))
TASK = {"id": ID, "createdAt": "2026-11-23T02:15:00.448Z"}


def job(model: str = "runway/gen-4-image", **inputs: Any) -> Job:
    fields = MODELS[model].fields
    defaults = {name: spec.default for name, spec in fields.items() if spec.default is not None}
    if "generation_prompt" in fields:
        defaults["generation_prompt"] = "a hero"
    return Job(ATTEMPT, "runway", MODELS[model], {**defaults, **inputs})


IMAGE = job()


def answer(status: int, body: Any, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def sent(request: Request) -> tuple[str, dict[str, Any]]:
    assert request.method == "POST"
    assert request.body is not None
    assert request.headers["authorization"] == "Bearer key_1"
    assert request.headers["x-runway-version"] == "2024-11-06"
    return request.url.removeprefix(f"{BASE}/"), msgspec.json.decode(request.body)


# ------------------------------------------------------------------------------- requests


def _admissible(model: Model) -> Iterator[Job]:
    for one in jobs("runway", model):
        if model.identifier == "runway/act-two":
            clips = [CLIP] if "generation_input_file" in one.inputs else [CLIP, OTHER]
            yield replace(one, inputs={**one.inputs, "generation_input_video_file": clips})
        else:
            yield one
        for ratio, resolution in itertools.product(model.schema.ratios, model.schema.resolutions or ()):
            both = {"generation_ratio": ratio, "generation_resolution": resolution}
            yield replace(one, inputs={**one.inputs, **both})


@pytest.mark.parametrize("identifier", MODELS)
def test_every_admissible_request_is_one_that_is_documented(identifier: str) -> None:
    seen = 0
    for one in _admissible(MODELS[identifier]):
        path, body = sent(RUNWAY.build_submit(one))
        jsonschema_rs.validate(SCHEMAS[path, body["model"]], body)
        seen += 1
    assert seen > 5


def test_every_served_model_has_its_documented_endpoint() -> None:
    assert {model.providers["runway"].model for model in MODELS.values()} == {name for _, name in SCHEMAS}


def test_a_picture_is_asked_for_in_pixels_with_its_references_as_objects() -> None:
    asked = job(
        generation_ratio="21:9",
        generation_resolution="1080p",
        generation_input_file=[PICTURE],
        generation_moderation=True,
        generation_seed=7,
    )
    assert sent(RUNWAY.build_submit(asked)) == (
        "text_to_image",
        {
            "model": "gen4_image",
            "promptText": "a hero",
            "ratio": "2112:912",
            "referenceImages": [{"uri": PICTURE}],
            "contentModeration": {"publicFigureThreshold": "auto"},
            "seed": 7,
        },
    )
    _, body = sent(RUNWAY.build_submit(job()))
    assert body["ratio"] == "720:720"
    assert body["contentModeration"] == {"publicFigureThreshold": "auto"}
    assert "seed" not in body


def test_a_picture_makes_the_difference_between_the_endpoints_of_clips() -> None:
    path, body = sent(RUNWAY.build_submit(job("runway/gen-4.5", generation_duration=5)))
    assert (path, body["ratio"], body["duration"]) == ("text_to_video", "1280:720", 5)
    asked = job("runway/gen-4.5", generation_duration=5, generation_input_file=[PICTURE])
    path, body = sent(RUNWAY.build_submit(asked))
    assert (path, body["promptImage"]) == ("image_to_video", PICTURE)


def test_a_performance_needs_exactly_one_character() -> None:
    def act(*clips: str, **inputs: Any) -> dict[str, Any]:
        asked = job("runway/act-two", generation_input_video_file=list(clips), **inputs)
        path, body = sent(RUNWAY.build_submit(asked))
        assert path == "character_performance"
        return {name: body[name] for name in ("character", "reference")}

    reference = {"type": "video", "uri": CLIP}
    assert act(CLIP, generation_input_file=[PICTURE]) == {
        "character": {"type": "image", "uri": PICTURE},
        "reference": reference,
    }
    assert act(CLIP, OTHER) == {"character": {"type": "video", "uri": OTHER}, "reference": reference}
    for clips, inputs in (((CLIP,), {}), ((CLIP, OTHER), {"generation_input_file": [PICTURE]})):
        with pytest.raises(InputRefusedError) as refusal:
            act(*clips, **inputs)
        assert refusal.value.code == "BSE2008"


def test_keyframes_are_spread_over_the_clip() -> None:
    files = [f"{PICTURE}?{index}" for index in range(2)]
    asked = job("runway/aleph-2", generation_input_video_file=[CLIP], generation_input_file=files)
    _, body = sent(RUNWAY.build_submit(asked))
    assert body["keyframes"] == [{"uri": files[0], "at": 0.0}, {"uri": files[1], "at": 0.5}]
    assert body["targetAspectRatio"] == "16:9"


def test_tasks_are_created_on_behalf_of_somebody_where_that_is_a_setting() -> None:
    runway = Runway(ProviderSettings(api_key="key_1", options={"on_behalf_of": "org_2"}))
    assert runway.build_submit(IMAGE).headers["x-runway-on-behalf-of"] == "org_2"
    assert "x-runway-on-behalf-of" not in runway.build_poll(IMAGE, TICKET).headers
    assert "x-runway-on-behalf-of" not in RUNWAY.build_submit(IMAGE).headers


# ------------------------------------------------------------------------------- answers


def test_a_task_is_accepted_and_not_asked_about_within_five_seconds() -> None:
    read = RUNWAY.read_submit(IMAGE, answer(200, {"id": ID, "estimatedCost": {"credits": 25}}))
    assert read == Accepted(ID, poll_after_s=6.0)
    odd: list[Any] = [b"<html>", b"", {"estimatedCost": {}}, {"id": 7}]
    for body in odd:
        read = RUNWAY.read_submit(IMAGE, answer(200, body))
        assert isinstance(read, Refused)
        assert read.failure is Failure.OUTCOME_UNKNOWN


VALIDATION = "Validation of body failed"


@pytest.mark.parametrize(
    ("status", "body", "failure", "code"),
    [
        (400, {"error": "You do not have enough credits to run this task."}, Failure.REFUSED_FUNDS, None),
        (400, {"error": VALIDATION, "issues": []}, Failure.REFUSED_INPUT, None),
        (
            400,
            {"error": VALIDATION, "issues": [{"message": 'Failed to fetch asset. Received "404".'}, 7]},
            Failure.REFUSED_INPUT,
            "BSE2009",
        ),
        (400, {"error": "Only HTTPS URLs are allowed"}, Failure.REFUSED_INPUT, "BSE2009"),
        (
            400,
            {"error": "X-Runway-On-Behalf-Of request header was not specified for task creation"},
            Failure.REFUSED_AUTH,
            None,
        ),
        (401, {"error": "No API key was provided."}, Failure.REFUSED_AUTH, None),
        (404, {"error": "Not found"}, Failure.REFUSED_INPUT, None),
        (405, b"", Failure.REFUSED_INPUT, None),
        (429, {"error": "Your daily task limit has been reached."}, Failure.REFUSED_BUSY, "BSE4003"),
        (502, b"<html>", Failure.REFUSED_BUSY, None),
        (503, b"", Failure.REFUSED_BUSY, None),
        (504, b"<html>", Failure.OUTCOME_UNKNOWN, None),
        (500, {"error": "Internal"}, Failure.FAILED, None),
    ],
)
def test_each_refusal_has_its_class(status: int, body: Any, failure: Failure, code: str | None) -> None:
    read = RUNWAY.read_submit(IMAGE, answer(status, body))
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)


@pytest.mark.parametrize("status", ["PENDING", "THROTTLED", "RUNNING", "SOMETHING_NEW", None, 7])
def test_a_task_that_has_not_ended_is_running(status: Any) -> None:
    read = RUNWAY.read_poll(IMAGE, TICKET, answer(200, {**TASK, "status": status, "progress": 0.42}))
    assert read == Running(6.0)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_an_error_in_place_of_a_task_ends_nothing(status: int) -> None:
    assert RUNWAY.read_poll(IMAGE, TICKET, answer(status, {"error": "no"})) == Running(6.0)


def test_a_finished_task_tells_its_outputs_and_its_cost() -> None:
    url = "https://dnznrvs05pmza.cloudfront.net/a.png?_jwt=x"
    body: dict[str, Any] = {
        **TASK,
        "status": "SUCCEEDED",
        "output": [url, 7, "runway://x"],
        "cost": {"credits": 5},
    }
    assert RUNWAY.read_poll(IMAGE, TICKET, answer(200, body)) == Finished(
        [Output(url=url)], cost_micro=50_000
    )
    del body["output"], body["cost"]
    assert RUNWAY.read_poll(IMAGE, TICKET, answer(200, body)) == Finished([])


@pytest.mark.parametrize(
    ("code", "failure", "narrow"),
    [
        ("SAFETY.INPUT.TEXT", Failure.REFUSED_POLICY, None),
        ("SAFETY.OUTPUT.VIDEO", Failure.REFUSED_POLICY, None),
        ("INPUT_PREPROCESSING.SAFETY.TEXT", Failure.REFUSED_POLICY, None),
        ("INPUT_PREPROCESSING.INTERNAL", Failure.FAILED, None),
        ("ASSET.INVALID", Failure.REFUSED_INPUT, "BSE2005"),
        ("INTERNAL.BAD_OUTPUT.CODE01", Failure.FAILED, None),
        ("THIRD_PARTY.UNAVAILABLE", Failure.FAILED, None),
        ("INTERNAL", Failure.FAILED, None),
        (None, Failure.FAILED, None),
    ],
)
def test_each_end_of_a_task_has_its_class(code: str | None, failure: Failure, narrow: str | None) -> None:
    body = {**TASK, "status": "FAILED", "failure": "It failed.", "failureCode": code, "cost": {"credits": 3}}
    read = RUNWAY.read_poll(IMAGE, TICKET, answer(200, body))
    assert isinstance(read, Refused)
    assert (read.failure, read.code, read.cost_micro) == (failure, narrow, 30_000)
    assert read.message == f"{code or ''} It failed.".strip()


def test_a_task_that_was_cancelled_or_forgotten_has_failed() -> None:
    read = RUNWAY.read_poll(
        IMAGE, TICKET, answer(200, {**TASK, "status": "CANCELLED", "cost": {"credits": 2}})
    )
    assert isinstance(read, Refused)
    assert (read.failure, read.cost_micro) == (Failure.FAILED, 20_000)
    read = RUNWAY.read_poll(IMAGE, TICKET, answer(404, {"error": "Could not find Task"}))
    assert isinstance(read, Refused)
    assert read.failure is Failure.FAILED


def test_a_deletion_is_asked_for_and_confirms_nothing() -> None:
    request = RUNWAY.build_cancel(IMAGE, TICKET)
    assert request is not None
    assert (request.method, request.url) == ("DELETE", f"{BASE}/tasks/{ID}")
    assert RUNWAY.read_cancel(IMAGE, answer(204, b"")) is False


def test_nothing_can_be_reconciled_and_nothing_calls_back() -> None:
    assert RUNWAY.build_reconcile(IMAGE) is None
    assert not RUNWAY.calls_back(IMAGE)
    assert not RUNWAY.inline(IMAGE)


def test_an_id_stays_within_its_address() -> None:
    assert (
        RUNWAY.build_poll(IMAGE, Accepted("../organization?x")).url == f"{BASE}/tasks/..%2Forganization%3Fx"
    )


@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 50_000, b'{"id":{},"status":[],"cost":7,"issues":{}}']
)
def test_no_answer_is_too_odd_to_read(status: int, body: bytes) -> None:
    given = Answer(status, {}, body)
    assert isinstance(RUNWAY.read_submit(IMAGE, given), Refused)
    assert isinstance(RUNWAY.read_poll(IMAGE, TICKET, given), Running | Refused)
    assert isinstance(RUNWAY.read_check(given), Check)


def test_the_check_tells_the_balance() -> None:
    request = RUNWAY.build_check()
    assert request is not None
    assert (request.method, request.url) == ("GET", f"{BASE}/organization")
    assert RUNWAY.read_check(answer(200, {"creditBalance": 5000})) == Check(True, "5000 credits")
    assert RUNWAY.read_check(answer(401, {"error": "No API key."})) == Check(False, "HTTP 401: No API key.")


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired(**settings: Any) -> AsyncIterator[tuple[RunwayEmulator, Runner]]:
    async with running(RunwayEmulator()) as emulator:
        assert isinstance(emulator, RunwayEmulator)
        provider = Runway(ProviderSettings(**{**emulator.settings(), **settings}))
        transport = GuardedTransport(HttpTransport(private_networks=True), provider.base, provider.hosts)
        files = FileTransport(private_networks=True)
        runner = Runner(Registry({"runway": Route(provider, transport, files)}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


async def test_a_task_runs_from_its_creation_to_its_file() -> None:
    async with wired() as (emulator, runner):
        emulator.polls_until_done = 2
        asked = replace(IMAGE, inputs={**IMAGE.inputs, "generation_prompt": "[runway:throttled] a hero"})
        ticket = await runner.submit(asked)
        assert isinstance(ticket, Accepted)
        assert [await runner.poll(asked, ticket) for _ in range(2)] == [Running(6.0)] * 2
        finished = await runner.poll(asked, ticket)
        assert isinstance(finished, Finished)
        assert finished.cost_micro == 50_000
        assert await runner.fetch(asked, finished.outputs[0], body_max=10**6) == picture()
        # Read again, the task has its addresses signed anew.
        again = await runner.poll(asked, ticket)
        assert isinstance(again, Finished)
        assert again.outputs[0].url != finished.outputs[0].url
        assert (await runner.check("runway")).ok


async def test_a_deleted_task_is_forgotten() -> None:
    async with wired() as (emulator, runner):
        asked = job("runway/gen-4.5", generation_duration=5)
        ticket = await runner.submit(asked)
        assert isinstance(ticket, Accepted)
        assert await runner.cancel(asked, ticket) is Cancellation.SENT
        read = await runner.poll(asked, ticket)
        assert isinstance(read, Refused)
        assert read.failure is Failure.FAILED
        assert [received.method for received in emulator.requests] == ["POST", "DELETE", "GET"]


@pytest.mark.parametrize(
    ("word", "failure", "code"),
    [
        ("on-behalf-of", Failure.REFUSED_AUTH, None),
        ("asset", Failure.REFUSED_INPUT, "BSE2009"),
        ("gateway", Failure.OUTCOME_UNKNOWN, None),
        ("shed", Failure.REFUSED_BUSY, None),
    ],
)
async def test_what_only_runway_refuses_has_its_class(word: str, failure: Failure, code: str | None) -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(job(generation_prompt=f"[runway:{word}]"))
        assert isinstance(read, Refused)
        assert (read.failure, read.code, emulator.purchases) == (failure, code, 0)
        assert SECRET not in read.message


@pytest.mark.parametrize(
    ("word", "failure", "code"),
    [("bad-asset", Failure.REFUSED_INPUT, "BSE2005"), ("cancelled", Failure.FAILED, None)],
)
async def test_how_only_runway_ends_a_task_has_its_class(
    word: str, failure: Failure, code: str | None
) -> None:
    async with wired() as (_, runner):
        asked = job(generation_prompt=f"[runway:{word}]")
        ticket = await runner.submit(asked)
        assert isinstance(ticket, Accepted)
        read = await runner.poll(asked, ticket)
        assert isinstance(read, Refused)
        assert (read.failure, read.code, read.cost_micro) == (failure, code, 50_000)


async def test_an_organisation_is_named_where_it_must_be() -> None:
    async with wired(options={"on_behalf_of": "org_2"}) as (_, runner):
        assert isinstance(await runner.submit(job(generation_prompt="[runway:on-behalf-of]")), Accepted)


async def test_a_wrong_key_is_told_by_the_check() -> None:
    async with wired(api_key="wrong") as (_, runner):
        assert await runner.check("runway") == Check(
            False, "HTTP 401: The API key you provided is not valid."
        )
