"""ModelArk: what is sent for every model, what is made of every answer, and both against the emulator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from tests.emulators.byteplus import IMAGES, VIDEOS, BytePlusEmulator, picture_fault, task_fault
from tests.emulators.kit import clip, picture, running
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of
from tests.support import ManualClock

from babysea_server.providers.base import (
    Accepted,
    Answer,
    Check,
    Failure,
    Finished,
    Job,
    Output,
    Refused,
    Running,
    Unclear,
)
from babysea_server.providers.byteplus import BytePlus
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.inputs import InputRefusedError
from babysea_server.providers.registry import GuardedTransport, Registry, Route
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.settings import ProviderSettings

MODELS = models_of("byteplus")
PROVIDER = BytePlus(ProviderSettings(api_key="ark"))
BASE = "https://ark.ap-southeast.bytepluses.com/api/v3"
TASKS = f"{BASE}/contents/generations/tasks"
SEEDREAM, LITE_5 = "bytedance/seedream-4.5", "bytedance/seedream-5-lite"
LITE, PRO, PRO_15, TWO = (f"bytedance/seedance-{name}" for name in ("1-lite", "1-pro", "1.5-pro", "2.0"))
TICKET = Accepted("cgt-20261123021500-abcde")
IMAGE, LAST = "https://files.example.com/a.png", "https://files.example.com/z.png"
VIDEO, AUDIO = "https://files.example.com/a.mp4", "https://files.example.com/a.mp3"


def job(model: str = SEEDREAM, **inputs: Any) -> Job:
    return Job(ATTEMPT, "byteplus", MODELS[model], {"generation_prompt": "a red fox", **inputs})


def sent(asked: Job) -> tuple[str, dict[str, Any]]:
    request = PROVIDER.build_submit(asked)
    assert (request.method, request.headers["authorization"]) == ("POST", "Bearer ark")
    return request.url, msgspec.json.decode(request.body or b"")


def answer(status: int, body: Any, **headers: str) -> Answer:
    return Answer(status, {"content-type": "application/json", **headers}, msgspec.json.encode(body))


def error(code: str, message: str = "something") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "param": "", "type": "x"}}


def part(kind: str, url: str, role: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}, "role": role}


TEXT = {"type": "text", "text": "a red fox"}


# ------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("model", MODELS)
def test_every_admissible_request_is_one_that_byteplus_documents(model: str) -> None:
    built = 0
    for asked in jobs("byteplus", MODELS[model]):
        pictures = len(asked.inputs.get("generation_input_file", ())) + asked.inputs.get(
            "generation_output_number", 1
        )
        if pictures > 15:
            with pytest.raises(InputRefusedError) as refused:
                PROVIDER.build_submit(asked)
            assert refused.value.code == "BSE2008"
            continue
        for timed in (asked, replace(asked, timeout_s=900.0)):
            url, body = sent(timed)
            is_video = url == TASKS
            assert is_video is (MODELS[model].media == "video")
            jsonschema_rs.validate(VIDEOS if is_video else IMAGES, body)
            fault = (task_fault if is_video else picture_fault)(body)
            assert fault is None, (body, getattr(fault, "body", None))
        built += 1
    assert built > 3


def test_it_serves_nine_models() -> None:
    assert len(MODELS) == 9


def test_one_picture_with_everything() -> None:
    asked = job(
        LITE_5,
        generation_ratio="16:9",
        generation_output_format="jpg",
        generation_output_number=1,
        generation_input_file=[IMAGE],
        generation_resolution="3K",
        generation_prompt_extend_mode="standard",
        generation_sequential_image_generation="disabled",
        generation_watermark=False,
    )
    assert sent(asked) == (
        f"{BASE}/images/generations",
        {
            "model": "seedream-5-0-lite-260128",
            "prompt": "a red fox",
            "size": "4096x2304",
            "output_format": "jpeg",
            "image": [IMAGE],
            "optimize_prompt_options": {"mode": "standard"},
            "sequential_image_generation": "disabled",
            "watermark": False,
            "response_format": "url",
        },
    )


def test_several_pictures_are_a_set_whose_size_is_said_twice() -> None:
    _, body = sent(job(generation_output_number=4, generation_sequential_image_generation="disabled"))
    assert body["sequential_image_generation"] == "auto"
    assert body["sequential_image_generation_options"] == {"max_images": 4}
    assert body["prompt"] == "a red fox\n\nMake 4 images."


def test_a_set_of_one_may_be_asked_for() -> None:
    _, body = sent(job(generation_output_number=1, generation_sequential_image_generation="auto"))
    assert body["sequential_image_generation_options"] == {"max_images": 1}
    assert body["prompt"] == "a red fox"


def test_a_set_holds_fifteen_pictures_with_its_sources() -> None:
    sources = [f"https://files.example.com/{index}.png" for index in range(10)]
    assert sent(job(generation_input_file=sources, generation_output_number=5))
    with pytest.raises(InputRefusedError) as refused:
        sent(job(generation_input_file=sources, generation_output_number=6))
    assert refused.value.code == "BSE2008"


def test_a_clip_with_everything() -> None:
    asked = job(
        PRO_15,
        generation_ratio="9:16",
        generation_input_file=[IMAGE],
        generation_duration=5,
        generation_resolution="480p",
        generation_generate_audio=False,
        generation_camera_fixed=True,
        generation_draft=False,
        generation_input_file_last_content=LAST,
        generation_return_last_frame=True,
        generation_seed=7,
        generation_service_tier="flex",
        generation_watermark=False,
    )
    called_back = replace(asked, callback_url="https://us.example.com/callbacks/byteplus/t", timeout_s=900.0)
    assert sent(called_back) == (
        TASKS,
        {
            "model": "seedance-1-5-pro-251215",
            "content": [
                TEXT,
                part("image_url", IMAGE, "first_frame"),
                part("image_url", LAST, "last_frame"),
            ],
            "ratio": "9:16",
            "duration": 5,
            "resolution": "480p",
            "generate_audio": False,
            "camera_fixed": True,
            "draft": False,
            "return_last_frame": True,
            "seed": 7,
            "service_tier": "flex",
            "watermark": False,
            "execution_expires_after": 3600,
            "callback_url": "https://us.example.com/callbacks/byteplus/t",
        },
    )


def test_a_picture_beside_clips_or_sound_is_a_reference() -> None:
    asked = job(
        TWO,
        generation_input_file=[IMAGE],
        generation_input_video_file=[VIDEO, f"{VIDEO}?2"],
        generation_input_audio_file=[AUDIO],
        generation_duration=5,
    )
    _, body = sent(asked)
    assert sorted(body["content"], key=str) == sorted(
        [
            TEXT,
            part("image_url", IMAGE, "reference_image"),
            part("video_url", VIDEO, "reference_video"),
            part("video_url", f"{VIDEO}?2", "reference_video"),
            part("audio_url", AUDIO, "reference_audio"),
        ],
        key=str,
    )


def test_the_workflow_chooses_the_model() -> None:
    assert sent(job(LITE, generation_duration=5))[1]["model"] == "seedance-1-0-lite-t2v-250428"
    _, body = sent(job(LITE, generation_duration=5, generation_input_file=[IMAGE]))
    assert body["model"] == "seedance-1-0-lite-i2v-250428"
    assert body["watermark"] is False


def test_frames_stand_instead_of_the_duration() -> None:
    _, body = sent(job(PRO, generation_duration=5, generation_frames=29))
    assert body["frames"] == 29
    assert "duration" not in body


@pytest.mark.parametrize("inputs", [{}, {"generation_seed": -1}])
def test_our_seed_marks_a_task_where_the_customer_chose_none(inputs: dict[str, Any]) -> None:
    asked = job(PRO, generation_duration=5, **inputs)
    assert sent(asked)[1]["seed"] == asked.own_seed
    assert "seed" not in sent(job(TWO, generation_duration=5, **inputs))[1]


def test_a_project_may_be_named() -> None:
    provider = BytePlus(ProviderSettings(api_key="ark", options={"project": "films"}))
    assert provider.build_submit(job()).headers["x-project-name"] == "films"
    assert "x-project-name" not in PROVIDER.build_submit(job()).headers


def test_pictures_come_with_the_answer_and_videos_call_back() -> None:
    assert (PROVIDER.inline(job()), PROVIDER.calls_back(job())) == (True, False)
    video = job(PRO, generation_duration=5)
    assert (PROVIDER.inline(video), PROVIDER.calls_back(video)) == (False, True)


# ------------------------------------------------------------------------------- the answer to a submit


def test_pictures_are_read_and_counted() -> None:
    body = {
        "model": "seedream-4-5-251128",
        "created": 1795400100,
        "data": [{"url": "https://tos.example.com/1.jpeg?X", "size": "2048x2048"}, {"b64_json": "aGk="}],
        "usage": {"generated_images": 2, "output_tokens": 32768, "total_tokens": 32768},
    }
    outputs = [Output(url="https://tos.example.com/1.jpeg?X"), Output(url="data:;base64,aGk=")]
    read = PROVIDER.read_submit(job(generation_output_number=2), answer(200, body, **{"x-request-id": "021"}))
    assert read == Finished(outputs, 80_000, upstream_id="021")
    del body["usage"]
    assert PROVIDER.read_submit(job(), answer(200, body)) == Finished(outputs)


def test_a_set_of_which_some_failed_is_what_was_made() -> None:
    failed = error("InternalServiceError")
    body = {"data": [{"url": "https://tos.example.com/1.jpeg"}, failed], "usage": {"generated_images": 1}}
    read = PROVIDER.read_submit(job(generation_output_number=2), answer(200, body))
    assert read == Finished([Output(url="https://tos.example.com/1.jpeg")], 40_000)


def test_a_set_of_which_all_failed_is_refused_for_the_content_first() -> None:
    items = [error("InternalServiceError"), error("OutputImageSensitiveContentDetected", "withheld")]
    read = PROVIDER.read_submit(job(), answer(200, {"data": items, "usage": {"generated_images": 0}}))
    said = "OutputImageSensitiveContentDetected withheld"
    assert read == Refused(Failure.REFUSED_POLICY, said, cost_micro=0)
    read = PROVIDER.read_submit(job(), answer(200, {"data": items[:1]}))
    assert read == Refused(Failure.FAILED, "InternalServiceError something")


def test_success_without_pictures_is_no_output() -> None:
    assert PROVIDER.read_submit(job(), answer(200, {"data": []})) == Finished([])


def test_a_task_is_accepted_under_its_id() -> None:
    video = job(PRO, generation_duration=5)
    read = PROVIDER.read_submit(video, answer(200, {"id": TICKET.upstream_id, "safety_identifier": "x"}))
    assert read == Accepted(TICKET.upstream_id, poll_after_s=5.0)


@pytest.mark.parametrize("model", [SEEDREAM, PRO])
@pytest.mark.parametrize(
    ("status", "code", "failure", "narrow"),
    [
        (400, "MissingParameter.prompt", Failure.REFUSED_INPUT, None),
        (400, "InvalidParameter", Failure.REFUSED_INPUT, None),
        (400, "InvalidParameter.OversizedImage", Failure.REFUSED_INPUT, "BSE2007"),
        (400, "InvalidParameter.UnsupportedImageFormat", Failure.REFUSED_INPUT, "BSE2004"),
        (400, "InvalidEndpoint.ClosedEndpoint", Failure.REFUSED_INPUT, None),
        (400, "InputTextSensitiveContentDetected", Failure.REFUSED_POLICY, None),
        (
            400,
            "InputImageSensitiveContentDetected.PrivacyInformation",
            Failure.REFUSED_POLICY,
            None,
        ),
        (400, "SensitiveContentDetected.SevereViolation", Failure.REFUSED_POLICY, None),
        (400, "OutputImageSensitiveContentDetected", Failure.REFUSED_POLICY, None),
        (401, "AuthenticationError", Failure.REFUSED_AUTH, None),
        (401, "InvalidAccountStatus", Failure.REFUSED_AUTH, None),
        (403, "AccessDenied", Failure.REFUSED_AUTH, None),
        (403, "AccountOverdueError", Failure.REFUSED_FUNDS, None),
        (403, "OperationDenied.ServiceNotOpen", Failure.REFUSED_AUTH, None),
        (403, "OperationDenied.ServiceOverdue", Failure.REFUSED_FUNDS, None),
        (404, "ModelNotOpen", Failure.REFUSED_INPUT, None),
        (404, "InvalidEndpointOrModel.NotFound", Failure.REFUSED_INPUT, None),
        (429, "RateLimitExceeded.EndpointRPMExceeded", Failure.REFUSED_BUSY, "BSE4003"),
        (429, "ModelAccountIpmRateLimitExceeded", Failure.REFUSED_BUSY, "BSE4003"),
        (429, "QuotaExceeded", Failure.REFUSED_BUSY, "BSE4003"),
        (429, "SomethingNew", Failure.REFUSED_BUSY, "BSE4003"),
        (429, "ServerOverloaded", Failure.REFUSED_BUSY, None),
        (500, "InternalServiceError", Failure.FAILED, None),
        (503, "", Failure.REFUSED_BUSY, None),
        (504, "", Failure.OUTCOME_UNKNOWN, None),
        (200, "QuotaExceeded", Failure.REFUSED_BUSY, "BSE4003"),
    ],
)
def test_refusals_of_a_submit(
    model: str, status: int, code: str, failure: Failure, narrow: str | None
) -> None:
    if (model, status) == (PRO, 200):
        failure, narrow = Failure.OUTCOME_UNKNOWN, None
    read = PROVIDER.read_submit(job(model), answer(status, error(code)))
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, narrow)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("The image could not be downloaded: failed to fetch the resource", "BSE2009"),
        ("duration must be between 4 and 12", "BSE2008"),
        ("The parameter `watermark` is not valid", None),
    ],
)
def test_the_words_narrow_a_refused_value(message: str, code: str | None) -> None:
    read = PROVIDER.read_submit(job(), answer(400, error("InvalidParameter", message)))
    assert read == Refused(Failure.REFUSED_INPUT, f"HTTP 400: {message}", code)


# ------------------------------------------------------------------------------- polling


def polled(body: Any, status: int = 200, **inputs: Any) -> Running | Finished | Refused:
    asked = job(PRO, generation_duration=5, **inputs)
    return PROVIDER.read_poll(asked, TICKET, answer(status, body))


@pytest.mark.parametrize("status", ["queued", "running", "something new", None, 5])
def test_a_task_runs_until_it_says_otherwise(status: Any) -> None:
    assert polled({"id": TICKET.upstream_id, "status": status}) == Running()


def test_a_clip_and_its_last_frame_where_that_was_asked_for() -> None:
    body = {
        "status": "succeeded",
        "error": None,
        "content": {
            "video_url": "https://tos.example.com/1.mp4",
            "last_frame_url": "https://tos.example.com/1.png",
        },
        "usage": {"completion_tokens": 108900, "total_tokens": 108900},
    }
    video = Output(url="https://tos.example.com/1.mp4")
    assert polled(body) == Finished([video])
    frame = Output(url="https://tos.example.com/1.png", media="image")
    assert polled(body, generation_return_last_frame=True) == Finished([video, frame])
    assert polled({"status": "succeeded", "content": {}}) == Finished([])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"status": "failed", **error("OutputVideoSensitiveContentDetected", "withheld")},
            Refused(Failure.REFUSED_POLICY, "OutputVideoSensitiveContentDetected withheld"),
        ),
        (
            {"status": "failed", **error("InternalServiceError", "unexpected")},
            Refused(Failure.FAILED, "InternalServiceError unexpected"),
        ),
        ({"status": "failed", "error": None}, Refused(Failure.FAILED, "the job failed")),
        ({"status": "cancelled"}, Refused(Failure.FAILED, "the task was cancelled at BytePlus")),
        ({"status": "expired"}, Refused(Failure.TIMED_OUT, "the task expired at BytePlus")),
    ],
)
def test_ends_of_a_task(body: Any, expected: Refused) -> None:
    assert polled(body) == expected


def test_only_a_definite_answer_ends_a_task() -> None:
    assert polled(error("InvalidTask.NotFound"), 404) == Refused(
        Failure.FAILED, "BytePlus does not know the task any more"
    )
    for status in (400, 401, 403, 429, 500, 503, 504):
        assert polled(error("InternalServiceError"), status) == Running()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"data":',
        b"[]",
        b'{"data":[1,null,{"error":5},{"url":[]}],"usage":{"generated_images":"x"},"error":[1]}',
        b'{"status":"succeeded","content":5,"items":[5,{"seed":[]}],"id":{}}',
        b'{"status":"failed","error":[5]}',
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_no_answer_is_too_strange(status: int, body: bytes) -> None:
    strange = Answer(status, {}, body)
    for asked in (job(), job(PRO, generation_duration=5)):
        PROVIDER.read_submit(asked, strange)
        PROVIDER.read_poll(asked, TICKET, strange)
        PROVIDER.read_cancel(asked, strange)
        PROVIDER.read_reconcile(asked, strange)
    PROVIDER.read_check(strange)


# ------------------------------------------------------------------------------- cancel, reconcile, check


def test_only_a_task_in_the_queue_is_stopped() -> None:
    video = job(PRO, generation_duration=5)
    request = PROVIDER.build_cancel(video, TICKET)
    assert request is not None
    assert (request.method, request.url) == ("DELETE", f"{TASKS}/{TICKET.upstream_id}")
    assert PROVIDER.read_cancel(video, answer(200, {}))
    assert not PROVIDER.read_cancel(video, answer(409, error("OperationDenied.InvalidState")))


def test_a_task_is_found_again_by_our_seed() -> None:
    video = job(PRO, generation_duration=5)
    request = PROVIDER.build_reconcile(video)
    assert request is not None
    assert request.url == f"{TASKS}?page_num=1&page_size=100"
    items = [{"id": "cgt-1", "seed": 5}, {"id": "cgt-2", "seed": video.own_seed}]
    found = PROVIDER.read_reconcile(video, answer(200, {"total": 2, "items": items}))
    assert found == Accepted("cgt-2", poll_after_s=0.0)
    assert PROVIDER.read_reconcile(video, answer(200, {"total": 0, "items": []})) == Unclear()


def test_what_carries_no_seed_of_ours_cannot_be_found() -> None:
    assert PROVIDER.build_reconcile(job()) is None
    assert PROVIDER.build_reconcile(job(PRO, generation_duration=5, generation_seed=7)) is None
    assert PROVIDER.build_reconcile(job(TWO, generation_duration=5)) is None


def test_the_check_lists_one_task() -> None:
    request = PROVIDER.build_check()
    assert request is not None
    assert request.url == f"{TASKS}?page_num=1&page_size=1"
    assert PROVIDER.read_check(answer(200, {"total": 0, "items": []})) == Check(True, "the key works")
    refused = answer(401, error("AuthenticationError", "the API key is invalid"))
    assert PROVIDER.read_check(refused) == Check(False, "HTTP 401: the API key is invalid")


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired(**settings: Any) -> AsyncIterator[tuple[BytePlusEmulator, Runner]]:
    emulator = BytePlusEmulator()
    async with running(emulator):
        own = {**emulator.settings(), "base_url": emulator.base_url, **settings}
        provider = BytePlus(ProviderSettings(**own))
        transport = GuardedTransport(HttpTransport(private_networks=True), provider.base, provider.hosts)
        route = Route(provider, transport, FileTransport(private_networks=True))
        runner = Runner(Registry({"byteplus": route}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


async def finished(runner: Runner, asked: Job, ticket: Accepted) -> Finished | Refused:
    while isinstance(read := await runner.poll(asked, ticket), Running):
        pass
    return read


async def test_a_set_of_pictures_is_bought_once_and_whole() -> None:
    async with wired() as (emulator, runner):
        asked = job(generation_output_number=3, generation_ratio="4:3", generation_resolution="2K")
        read = await runner.submit(asked)
        assert isinstance(read, Finished), read
        assert (len(read.outputs), read.cost_micro, emulator.purchases) == (3, 120_000, 1)
        for output in read.outputs:
            assert await runner.fetch(asked, output, body_max=100_000) == picture()


async def test_a_clip_is_bought_once_polled_and_fetched_with_its_last_frame() -> None:
    async with wired() as (emulator, runner):
        asked = job(PRO, generation_duration=5, generation_return_last_frame=True)
        asked = replace(asked, callback_url=f"{emulator.origin}/nowhere")
        ticket = await runner.submit(asked)
        assert isinstance(ticket, Accepted), ticket
        read = await finished(runner, asked, ticket)
        assert isinstance(read, Finished), read
        data = [await runner.fetch(asked, output, body_max=1_000_000) for output in read.outputs]
        assert data == [clip(), picture()]
        await emulator.settle()
        assert (emulator.purchases, dict(emulator.callbacks)) == (1, {None: [404]})


async def test_a_lost_answer_is_found_again() -> None:
    async with wired() as (emulator, runner):
        asked = job(PRO, generation_prompt="[emulate:answer-dropped] a fox", generation_duration=5)
        lost = await runner.submit(asked)
        assert isinstance(lost, Refused)
        assert lost.failure is Failure.OUTCOME_UNKNOWN
        found = await runner.reconcile(asked)
        assert isinstance(found, Accepted)
        assert isinstance(await finished(runner, asked, found), Finished)
        assert emulator.purchases == 1


async def test_cancel_tells_the_truth() -> None:
    async with wired() as (_, runner):
        asked = job(PRO, generation_duration=5)
        queued, begun = await runner.submit(asked), await runner.submit(asked)
        assert isinstance(queued, Accepted)
        assert isinstance(begun, Accepted)
        assert await runner.cancel(asked, queued) is Cancellation.CONFIRMED
        assert await runner.poll(asked, queued) == Refused(
            Failure.FAILED, "the task was cancelled at BytePlus"
        )
        assert await runner.poll(asked, begun) == Running()
        assert await runner.cancel(asked, begun) is Cancellation.SENT


async def test_the_emulator_refuses_what_byteplus_would() -> None:
    async with wired() as (emulator, runner):
        for asked, code in (
            (job(PRO_15, generation_duration=2), "BSE2008"),
            (job(PRO, generation_duration=5, generation_input_file_last_content=LAST), None),
            (job(TWO, generation_duration=5, generation_input_audio_file=[AUDIO]), None),
        ):
            read = await runner.submit(asked)
            assert isinstance(read, Refused)
            assert (read.failure, read.code) == (Failure.REFUSED_INPUT, code)
        assert emulator.purchases == 0


async def test_the_key_is_needed() -> None:
    async with wired() as (_, runner):
        assert (await runner.check("byteplus")).ok
    async with wired(api_key="another") as (_, runner):
        assert not (await runner.check("byteplus")).ok
