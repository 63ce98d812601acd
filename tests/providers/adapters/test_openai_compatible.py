"""OpenAI-compatible servers: what each is sent for every model, what is made of every answer, and the emulator."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.emulators.kit import WRONG_KEY, Received, clip, picture, running
from tests.emulators.openai_compatible import SCHEMAS, SERVERS, OpenAICompatibleEmulator, complaint, plain
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of
from tests.providers.adapters.forms import parts_of
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
    Request,
    Running,
)
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.inputs import InputFile
from babysea_server.providers.openai_compatible import OpenAICompatible
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.settings import ProviderSettings, SettingsError

#: Those whose length is not chosen need one to have a price.
MODELS = {
    name: model
    if "generation_duration" in model.fields or model.media == "image"
    else replace(model, max_seconds=60)
    for name, model in models_of("openai_compatible").items()
}
BASE = "http://gpu.example.com:8000"
URL = "https://files.example.com/a.png"
FILE = InputFile(b"a picture", "image/png", "png", 640, 360, None)
ENCODED = base64.b64encode(b"a picture").decode()
TICKET = Accepted("job_1")


def provider(server: str, **settings: Any) -> OpenAICompatible:
    options = {"server": server, **settings.pop("options", {})}
    return OpenAICompatible(ProviderSettings(base_url=BASE, options=options, **settings))


PROVIDERS = {server: provider(server) for server in SERVERS}
VLLM, SDCPP, LOCALAI, SGLANG = (
    PROVIDERS[server] for server in ("vllm-omni", "stable-diffusion.cpp", "localai", "sglang")
)


def job(model: str = "bfl/flux-schnell", **inputs: Any) -> Job:
    return loaded(
        Job(ATTEMPT, "openai_compatible", MODELS[model], {"generation_prompt": "a red fox", **inputs})
    )


def video(**inputs: Any) -> Job:
    return job(
        "ltx/2.3-fast",
        **{"generation_duration": 6, "generation_resolution": "1080p", "generation_ratio": "16:9", **inputs},
    )


def loaded(asked: Job) -> Job:
    """The job with the files it asks for, as the runner gives it."""
    return replace(asked, files=dict.fromkeys(VLLM.input_files(asked), FILE))


def path(request: Request) -> str:
    return request.url.removeprefix(BASE)


def body(request: Request, server: str) -> Any:
    """The body as the server reads it; files of forms are left out."""
    if "multipart" in request.headers["content-type"]:
        return plain(parts_of(request), SCHEMAS[server][path(request)])
    return msgspec.json.decode(request.body or b"")


def sent(asked: Job, server: str) -> Any:
    return body(PROVIDERS[server].build_submit(asked), server)


def answer(status: int, body: Any) -> Answer:
    return Answer(status, {"content-type": "application/json"}, msgspec.json.encode(body))


# ------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("model", MODELS)
def test_every_admissible_request_is_one_that_the_server_takes(model: str, server: str) -> None:
    built = 0
    for asked in map(loaded, jobs("openai_compatible", MODELS[model])):
        request = PROVIDERS[server].build_submit(asked)
        assert request.method == "POST"
        assert complaint(server, path(request), body(request, server)) is None
        assert b"generation_" not in (request.body or b"")
        built += 1
    assert built > 3


def test_a_plain_server_gets_what_every_server_takes() -> None:
    asked = job(generation_ratio="16:9", generation_output_number=2, generation_seed=7)
    assert sent(asked, "openai") == {
        "model": "black-forest-labs/FLUX.1-schnell",
        "prompt": "a red fox",
        "n": 2,
        "size": "1360x768",
    }


@pytest.mark.parametrize("server", ["vllm-omni", "sglang"])
def test_pipelines_get_their_parameters(server: str) -> None:
    asked = job(
        "qwen/image-2512",
        generation_ratio="1:1",
        generation_guidance_scale=4.5,
        generation_num_inference_steps=20,
        generation_negative_prompt="blur",
        generation_output_format="jpg",
        generation_seed=7,
    )
    request = PROVIDERS[server].build_submit(asked)
    assert path(request) == "/v1/images/generations"
    assert sent(asked, server) == {
        "model": "Qwen/Qwen-Image-2512",
        "prompt": "a red fox",
        "size": "1296x1296",
        "true_cfg_scale": 4.5,
        "num_inference_steps": 20,
        "negative_prompt": "blur",
        "output_format": "jpeg",
        "seed": 7,
        "response_format": "b64_json",
    }


def test_localai_reads_the_negative_prompt_behind_a_bar() -> None:
    asked = job("qwen/image", generation_negative_prompt="blur", generation_seed=7)
    assert sent(asked, "localai") == {
        "model": "Qwen/Qwen-Image",
        "prompt": "a red fox|blur",
        "size": "1296x1296",
        "response_format": "b64_json",
    }


def test_stable_diffusion_cpp_gets_its_native_jobs() -> None:
    asked = job(
        "bfl/flux-dev",
        generation_input_file=[URL],
        generation_guidance_scale=3,
        generation_num_inference_steps=20,
        generation_prompt_strength=0.6,
        generation_output_quality=80,
        generation_output_format="jpg",
        generation_ratio="4:3",
    )
    request = SDCPP.build_submit(asked)
    assert path(request) == "/sdcpp/v1/img_gen"
    assert sent(asked, "stable-diffusion.cpp") == {
        "prompt": "a red fox",
        "width": 1184,
        "height": 880,
        "init_image": ENCODED,
        "strength": 0.6,
        "sample_params": {"sample_steps": 20, "guidance": {"distilled_guidance": 3}},
        "output_format": "jpeg",
        "output_compression": 80,
    }


@pytest.mark.parametrize("server", ["vllm-omni", "sglang", "openai"])
def test_pictures_to_edit_are_parts_of_a_form(server: str) -> None:
    asked = job("qwen/image-edit-2511", generation_input_file=[URL, f"{URL}?2"], generation_seed=7)
    request = PROVIDERS[server].build_submit(asked)
    assert path(request) == "/v1/images/edits"
    form = parts_of(request)
    assert form["image"] == [(f"image-{index}.png", "image/png", b"a picture") for index in range(2)]
    assert form["model"] == ["Qwen/Qwen-Image-Edit-2511"]
    assert ("seed" in form) is (server != "openai")


@pytest.mark.parametrize(
    ("server", "field"), [("localai", "ref_images"), ("stable-diffusion.cpp", "ref_images")]
)
def test_pictures_to_edit_stand_in_json_where_there_is_no_form(server: str, field: str) -> None:
    asked = job("qwen/image-edit-2511", generation_input_file=[URL, f"{URL}?2"])
    assert sent(asked, server)[field] == [ENCODED, ENCODED]


def test_a_prompt_that_is_the_address_of_a_picture_stays_a_prompt() -> None:
    asked = job("bfl/flux-dev", generation_input_file=[URL], generation_prompt=URL)
    assert sent(asked, "localai")["prompt"] == URL


def test_clips_are_jobs_of_a_form() -> None:
    asked = video(generation_input_file=[URL], generation_generate_audio=True, generation_fps=24)
    request = VLLM.build_submit(asked)
    assert path(request) == "/v1/videos"
    form = parts_of(request)
    assert form.pop("input_reference") == [("input_reference-0.png", "image/png", b"a picture")]
    assert form == {
        "model": ["Lightricks/LTX-2.3"],
        "prompt": ["a red fox"],
        "seconds": ["6"],
        "size": ["1920x1088"],
        "fps": ["24"],
        "generate_sound": ["true"],
    }


def test_a_length_is_counted_in_frames_where_seconds_are_not_known() -> None:
    asked = video(generation_fps=24)
    assert path(SDCPP.build_submit(asked)) == "/sdcpp/v1/vid_gen"
    assert sent(asked, "stable-diffusion.cpp")["video_frames"] == 145
    assert path(LOCALAI.build_submit(asked)) == "/video"
    assert sent(asked, "localai")["seconds"] == 6
    open_end = job("wan/2.2-t2v-fast", generation_resolution="480p", generation_ratio="16:9")
    native = sent(open_end, "stable-diffusion.cpp")
    assert (native["video_frames"], native["fps"], native["width"]) == (81, 16, 848)


def test_a_clip_has_the_shape_of_its_first_picture() -> None:
    asked = job("wan/2.2-i2v-fast", generation_input_file=[URL], generation_resolution="720p")
    assert sent(asked, "vllm-omni")["size"] == "1280x720"


def test_the_name_of_a_model_is_an_option_and_may_be_none() -> None:
    named = provider("vllm-omni", options={"model.bfl/flux-schnell": "mine"})
    assert body(named.build_submit(job()), "vllm-omni")["model"] == "mine"
    unnamed = provider("vllm-omni", options={"model.bfl/flux-schnell": ""})
    assert "model" not in body(unnamed.build_submit(job()), "vllm-omni")


def test_the_base_is_taken_with_and_without_its_version() -> None:
    for base in (BASE, f"{BASE}/", f"{BASE}/v1", f"{BASE}/v1/"):
        made = OpenAICompatible(ProviderSettings(base_url=base))
        assert made.build_submit(job()).url == f"{BASE}/v1/images/generations"


def test_a_key_is_sent_where_there_is_one() -> None:
    assert "authorization" not in VLLM.build_submit(job()).headers
    assert provider("vllm-omni", api_key="k").build_submit(job()).headers["authorization"] == "Bearer k"


def test_an_unknown_server_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match=r"one of openai, localai, .*; not 'ollama'"):
        provider("ollama")


@pytest.mark.parametrize(
    ("server", "image", "video"),
    [
        ("openai", True, False),
        ("localai", True, True),
        ("stable-diffusion.cpp", False, False),
        ("vllm-omni", True, False),
        ("sglang", True, False),
    ],
)
def test_what_comes_with_the_answer_is_the_servers_way(server: str, image: bool, video: bool) -> None:
    inline = PROVIDERS[server].inline
    assert (inline(job()), inline(job("wan/2.2-t2v-fast"))) == (image, video)
    assert PROVIDERS[server].build_reconcile(job()) is None


# ------------------------------------------------------------------------------- what is read


def urls(outputs: Any) -> list[str | None]:
    return [output.url for output in outputs]


def test_pictures_come_in_base64_or_lie_somewhere() -> None:
    given = answer(
        200,
        {
            "created": 1,
            "inference_time_s": 1.5,
            "data": [
                {"b64_json": "aGk=", "url": None},
                {"b64_json": "data:image/png;base64,aG8="},
                {"url": "/generated-images/a.png"},
                {"url": "https://elsewhere.example.com/a.png"},
                {"url": "http://[::1/a"},
                {"url": 7},
                None,
            ],
        },
    )
    read = provider("localai", api_key="k").read_submit(job(), given)
    assert isinstance(read, Finished)
    assert (read.cost_micro, read.predict_seconds) == (0, 1.5)
    assert urls(read.outputs) == [
        "data:;base64,aGk=",
        "data:;base64,aG8=",
        f"{BASE}/generated-images/a.png",
        "https://elsewhere.example.com/a.png",
    ]
    key = {"authorization": "Bearer k"}
    assert [dict(output.headers) for output in read.outputs] == [{}, {}, key, {}]


@pytest.mark.parametrize(
    ("given", "failure", "code"),
    [
        (answer(400, {"detail": "Invalid size format"}), Failure.REFUSED_INPUT, None),
        (answer(422, {"detail": [{"loc": [], "msg": "wrong", "input": "x"}]}), Failure.REFUSED_INPUT, None),
        (
            answer(422, {"detail": [{"msg": "Input should be less than or equal to 10"}]}),
            Failure.REFUSED_INPUT,
            "BSE2008",
        ),
        (answer(400, {"error": "size exceeds the limit"}), Failure.REFUSED_INPUT, "BSE2008"),
        (answer(400, {"error": "failed to decode image"}), Failure.REFUSED_INPUT, "BSE2005"),
        (
            answer(400, {"error": {"code": "moderation_blocked", "message": "no"}}),
            Failure.REFUSED_POLICY,
            None,
        ),
        (answer(401, {"error": {"code": 401, "message": "no"}}), Failure.REFUSED_AUTH, None),
        (answer(404, {"detail": "The model `x` does not exist."}), Failure.REFUSED_INPUT, None),
        (answer(429, {"error": "job queue is full"}), Failure.REFUSED_BUSY, None),
        (answer(429, {"detail": "slow down"}), Failure.REFUSED_BUSY, "BSE4003"),
        (answer(500, {"detail": "CUDA out of memory"}), Failure.REFUSED_BUSY, None),
        (answer(500, {"error": {"message": "the model is still loading"}}), Failure.REFUSED_BUSY, None),
        (answer(500, {"detail": "boom"}), Failure.FAILED, None),
        (answer(502, {"detail": "upstream"}), Failure.FAILED, None),
        (answer(503, {"detail": "engine not ready"}), Failure.REFUSED_BUSY, None),
        (Answer(504, {}, b"<html>"), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {}, b"<html>hello</html>"), Failure.OUTCOME_UNKNOWN, None),
        (answer(200, {"data": 7}), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {}, b'{"data":[{"b64_j'), Failure.OUTCOME_UNKNOWN, None),
    ],
)
def test_each_refusal_is_of_one_class_and_costs_nothing(
    given: Answer, failure: Failure, code: str | None
) -> None:
    for asked in (job(), video()):
        read = VLLM.read_submit(asked, given)
        assert isinstance(read, Refused)
        assert (read.failure, read.code, read.cost_micro) == (failure, code, 0)


def test_jobs_are_accepted_and_asked_where_the_server_has_them() -> None:
    queued = answer(200, {"id": "video_1", "object": "video", "status": "queued"})
    assert VLLM.read_submit(video(), queued) == Accepted("video_1", poll_after_s=3.0)
    native = answer(202, {"id": "job_1", "kind": "img_gen", "status": "queued"})
    assert SDCPP.read_submit(job(), native) == Accepted("job_1", poll_after_s=0.5)
    assert VLLM.build_poll(video(), TICKET).url == f"{BASE}/v1/videos/job_1"
    assert SDCPP.build_poll(video(), TICKET).url == f"{BASE}/sdcpp/v1/jobs/job_1"


@pytest.mark.parametrize("status", ["queued", "in_progress", "generating", "something_new", None, 7])
def test_what_is_not_over_runs(status: Any) -> None:
    for server in (VLLM, SDCPP):
        assert server.read_poll(video(), TICKET, answer(200, {"id": "job_1", "status": status})) == Running()
        assert server.read_poll(video(), TICKET, answer(500, {"detail": "x"})) == Running()


def test_a_finished_clip_lies_at_the_server() -> None:
    read = provider("sglang", api_key="k").read_poll(video(), TICKET, answer(200, {"status": "completed"}))
    headers = {"authorization": "Bearer k"}
    assert read == Finished([Output(url=f"{BASE}/v1/videos/job_1/content", headers=headers)], cost_micro=0)


def test_a_native_job_brings_its_files_along() -> None:
    times = {"status": "completed", "started": 100, "completed": 112}
    images = answer(200, {**times, "result": {"images": [{"b64_json": "aGk="}, {"b64_json": "aG8="}, 7]}})
    read = SDCPP.read_poll(job(), TICKET, images)
    assert isinstance(read, Finished)
    assert (urls(read.outputs), read.cost_micro, read.predict_seconds) == (
        ["data:;base64,aGk=", "data:;base64,aG8="],
        0,
        12.0,
    )
    clip = answer(200, {**times, "result": {"mime_type": "video/webm", "b64_json": "aGk="}})
    found = SDCPP.read_poll(video(), TICKET, clip)
    assert isinstance(found, Finished)
    assert urls(found.outputs) == ["data:;base64,aGk="]
    assert SDCPP.read_poll(job(), TICKET, answer(200, {"status": "completed"})) == Finished([], cost_micro=0)


def failed(code: str, message: str) -> Answer:
    return answer(200, {"status": "failed", "error": {"code": code, "message": message}})


@pytest.mark.parametrize(
    ("given", "failure"),
    [
        (failed("generation_failed", "empty results"), Failure.FAILED),
        (failed("server_error", "CUDA out of memory"), Failure.REFUSED_BUSY),
        (failed("content_policy", "no"), Failure.REFUSED_POLICY),
        (answer(200, {"status": "failed", "error": None}), Failure.FAILED),
        (answer(200, {"status": "failed", "error": "cannot identify image file"}), Failure.REFUSED_INPUT),
        (answer(200, {"status": "cancelled"}), Failure.FAILED),
        (answer(200, {"status": "deleted"}), Failure.FAILED),
        (answer(404, {"detail": "not found"}), Failure.FAILED),
        (answer(410, {"error": "job expired"}), Failure.FAILED),
    ],
)
def test_each_end_is_of_one_class(given: Answer, failure: Failure) -> None:
    for server in (VLLM, SDCPP):
        read = server.read_poll(video(), TICKET, given)
        assert isinstance(read, Refused)
        assert (read.failure, read.cost_micro) == (failure, 0)


def test_jobs_are_canceled_where_that_stops_them() -> None:
    delete, cancel = VLLM.build_cancel(video(), TICKET), SDCPP.build_cancel(job(), TICKET)
    assert delete is not None
    assert cancel is not None
    assert (delete.method, delete.url) == ("DELETE", f"{BASE}/v1/videos/job_1")
    assert (cancel.method, cancel.url) == ("POST", f"{BASE}/sdcpp/v1/jobs/job_1/cancel")
    for other in (SGLANG, LOCALAI, PROVIDERS["openai"]):
        assert other.build_cancel(video(), TICKET) is None
    assert VLLM.build_cancel(job(), TICKET) is None


@pytest.mark.parametrize(
    ("given", "stopped"),
    [
        (answer(200, {"id": "a", "deleted": True}), True),
        (answer(200, {"id": "a", "status": "cancelled"}), True),
        (answer(200, {"id": "a", "status": "generating"}), False),
        (answer(200, {}), False),
        (answer(409, {"detail": "Cancellation in progress"}), False),
        (answer(404, {"deleted": True}), False),
        (Answer(200, {}, b"<html>"), False),
    ],
)
def test_a_cancel_is_confirmed_by_the_job_only(given: Answer, stopped: bool) -> None:
    assert VLLM.read_cancel(video(), given) is stopped


def test_the_check_names_models() -> None:
    request = VLLM.build_check()
    assert request is not None
    assert request.url == f"{BASE}/v1/models"
    listed = answer(200, {"data": [{"id": "a"}, {"id": 7}, {"id": "b"}]})
    assert VLLM.read_check(listed) == Check(True, "3 models: a, b")
    assert not VLLM.read_check(answer(401, {"error": "no"})).ok


@pytest.mark.parametrize("status", [200, 202, 400, 404, 500])
@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"data":[1,null,{"url":"http://[","b64_json":7}],"id":7,"status":[],"error":[1]}',
        b'{"status":"completed","result":[1],"started":"x","completed":{}}',
        b'{"status":"failed","error":{"code":[],"message":{}}}',
    ],
)
def test_no_answer_is_too_odd_to_read(status: int, given: bytes) -> None:
    odd = Answer(status, {}, given)
    for server in PROVIDERS.values():
        for asked in (job(), video()):
            assert isinstance(server.read_submit(asked, odd), Accepted | Finished | Refused)
            assert isinstance(server.read_poll(asked, TICKET, odd), Running | Finished | Refused)
        assert isinstance(server.read_check(odd), Check)


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired(server: str, **settings: Any) -> AsyncIterator[tuple[OpenAICompatibleEmulator, Runner]]:
    emulator = OpenAICompatibleEmulator()
    emulator.server = server
    async with running(emulator):
        made = OpenAICompatible(ProviderSettings(**{**emulator.settings(), **settings}))
        route = Route(made, HttpTransport(private_networks=True), files=FileTransport(private_networks=True))
        runner = Runner(Registry({"openai_compatible": route}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


async def ended(runner: Runner, asked: Job) -> Finished | Refused:
    read = await runner.submit(asked)
    if isinstance(read, Accepted):
        assert await runner.poll(asked, read) == Running()
        polled = await runner.poll(asked, read)
        assert not isinstance(polled, Running)
        return polled
    return read


@pytest.mark.parametrize("server", SERVERS)
async def test_pictures_and_clips_are_made_once_and_are_whole(server: str) -> None:
    async with wired(server) as (emulator, runner):
        for asked, count, whole in ((job(generation_output_number=2), 2, picture()), (video(), 1, clip())):
            read = await ended(runner, asked)
            assert isinstance(read, Finished)
            files = [await runner.fetch(asked, output, body_max=10_000_000) for output in read.outputs]
            assert files == [whole] * count
        assert emulator.purchases == 2
        assert await runner.check("openai_compatible") == Check(True, "1 models: a-model")


@pytest.mark.parametrize("server", SERVERS)
async def test_an_input_is_fetched_and_sent_along(server: str) -> None:
    async with wired(server) as (emulator, runner):
        owner = emulator.new_job("given", "a file", Received("GET", "/", {}, {}, None))
        asked = job("bfl/flux-dev", generation_input_file=[emulator.file_url(owner)])
        read = await ended(runner, replace(asked, files={}))
        assert isinstance(read, Finished)
        [request] = emulator.submits()
        file = next(value for name, value in request.body.items() if name in ("image", "file", "init_image"))
        assert (base64.b64decode(file) if isinstance(file, str) else file[0][2]) == picture()


async def test_an_output_that_lies_elsewhere_is_fetched_without_the_key() -> None:
    async with wired("openai") as (emulator, runner):
        asked = job(generation_prompt="[compatible:link] a fox")
        read = await runner.submit(asked)
        assert isinstance(read, Finished)
        data = await runner.fetch(asked, read.outputs[0], body_max=100_000)
        assert (data, emulator.files_fetched) == (picture(), 1)


@pytest.mark.parametrize(("server", "asked"), [("vllm-omni", video()), ("stable-diffusion.cpp", job())])
async def test_a_job_is_stopped_once(server: str, asked: Job) -> None:
    async with wired(server) as (_, runner):
        ticket = await runner.submit(asked)
        assert isinstance(ticket, Accepted)
        assert await runner.cancel(asked, ticket) is Cancellation.CONFIRMED
        assert isinstance(await runner.poll(asked, ticket), Refused)
        other = await runner.submit(asked)
        assert isinstance(other, Accepted)
        for _ in range(2):
            await runner.poll(asked, other)
        assert await runner.cancel(asked, other) is Cancellation.SENT


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("word", "failure", "code"),
    [
        ("memory", Failure.REFUSED_BUSY, None),
        ("loading", Failure.REFUSED_BUSY, None),
        ("too-large", Failure.REFUSED_INPUT, "BSE2008"),
        ("gateway", Failure.OUTCOME_UNKNOWN, None),
        ("bad-picture", Failure.REFUSED_INPUT, "BSE2005"),
    ],
)
async def test_its_own_ways_of_failing(server: str, word: str, failure: Failure, code: str | None) -> None:
    async with wired(server) as (emulator, runner):
        read = await runner.submit(job(generation_prompt=f"[compatible:{word}] a fox"))
        assert isinstance(read, Refused)
        assert (read.failure, read.code, emulator.purchases) == (failure, code, 0)


async def test_a_gateway_that_looks_at_content_is_believed() -> None:
    async with wired("openai") as (_, runner):
        read = await runner.submit(job(generation_prompt="[compatible:blocked] a fox"))
        assert isinstance(read, Refused)
        assert read.failure is Failure.REFUSED_POLICY


@pytest.mark.parametrize("server", SERVERS)
async def test_no_capacity_is_told_by_each_in_its_way(server: str) -> None:
    async with wired(server) as (_, runner):
        read = await runner.submit(job(generation_prompt="[emulate:no-capacity] a fox"))
        assert isinstance(read, Refused)
        assert (read.failure, read.code) == (Failure.REFUSED_BUSY, None)


async def test_a_wrong_key_is_told_and_not_shown() -> None:
    async with wired("vllm-omni", api_key=WRONG_KEY) as (_, runner):
        read = await runner.submit(job())
        assert isinstance(read, Refused)
        assert read.failure is Failure.REFUSED_AUTH
        assert WRONG_KEY not in repr(read)
        assert not (await runner.check("openai_compatible")).ok


async def test_the_emulator_refuses_what_the_server_would() -> None:
    async with wired("vllm-omni") as (emulator, runner):
        asked = job()
        offer = msgspec.structs.replace(
            asked.offer, formats={"generation_output_format": "{}!"}, value_map={}
        )
        odd = replace(asked, model=replace(asked.model, providers={"openai_compatible": offer}))
        read = await runner.submit(replace(odd, inputs={**odd.inputs, "generation_output_format": "png"}))
        assert isinstance(read, Refused)
        assert (read.failure, emulator.purchases) == (Failure.REFUSED_INPUT, 0)
