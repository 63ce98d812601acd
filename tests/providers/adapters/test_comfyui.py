"""ComfyUI: the workflow of every model, what is made of every answer, and both against the emulator."""

import io
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import msgspec
import pytest
from PIL import Image
from tests.emulators.comfyui import NODES, ComfyUIEmulator, complaints
from tests.emulators.kit import WRONG_KEY, Received, clip, picture, running
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
    Look,
    NeverSentError,
    Refused,
    Running,
    Unclear,
)
from babysea_server.providers.comfyui.adapter import ComfyUI
from babysea_server.providers.comfyui.templates import OWN, load_templates
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.inputs import InputFile, InputRefusedError
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.settings import ProviderSettings, SettingsError

#: Those whose length is not chosen need one to have a price.
MODELS = {
    name: model if model.media == "image" else replace(model, max_seconds=60)
    for name, model in models_of("comfyui").items()
}
BASE = "http://gpu.example.com:8188"
PROVIDER = ComfyUI(ProviderSettings(base_url=BASE))
ID = str(ATTEMPT)
TICKET = Accepted(ID)
URL = "https://files.example.com/a.png"
FILE = InputFile(b"a picture", "image/png", "png", 640, 360, None)


def job(model: str = "bfl/flux-schnell", **inputs: Any) -> Job:
    return loaded(Job(ATTEMPT, "comfyui", MODELS[model], {"generation_prompt": "a red fox", **inputs}))


def loaded(asked: Job) -> Job:
    """The job with its files, and with their uploads answered, as the runner gives it."""
    files = dict.fromkeys(PROVIDER.input_files(asked), FILE)
    uploads = [
        answer(200, {"name": f"{index}.png", "subfolder": "babysea", "type": "input"})
        for index in range(len(files))
    ]
    return replace(asked, files=files, uploads=uploads)


def sent(asked: Job, provider: ComfyUI = PROVIDER) -> Any:
    return msgspec.json.decode(provider.build_submit(asked).body or b"")


def node(asked: Job, kind: str) -> Any:
    """The inputs of the only node of a class."""
    [found] = [node["inputs"] for node in sent(asked)["prompt"].values() if node["class_type"] == kind]
    return found


def answer(status: int, body: Any) -> Answer:
    return Answer(status, {"content-type": "application/json"}, msgspec.json.encode(body))


def entry(outputs: Any = None, *messages: Any, status: str = "success") -> Answer:
    state = {"status_str": status, "completed": status == "success", "messages": list(messages)}
    return answer(200, {ID: {"prompt": [], "outputs": outputs or {}, "status": state}})


# ------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("model", MODELS)
def test_every_admissible_request_is_a_graph_that_comfyui_takes(model: str) -> None:
    built = 0
    for asked in map(loaded, jobs("comfyui", MODELS[model])):
        request, body = PROVIDER.build_submit(asked), sent(asked)
        assert (request.method, request.url) == ("POST", f"{BASE}/prompt")
        assert set(body) == {"prompt", "prompt_id", "client_id"}
        assert complaints(body["prompt"], {"babysea/0.png"}) == []
        assert b"{{" not in (request.body or b"")
        assert b"generation_" not in (request.body or b"")
        built += 1
    assert built > 3


def test_every_template_serves_a_model_and_uses_the_cores_nodes_only() -> None:
    templates = load_templates(None)
    offers = [model.providers["comfyui"] for model in MODELS.values()]
    named = {offer.model for offer in offers}.union(*(offer.models_by_workflow.values() for offer in offers))
    assert set(templates) == named
    used = {node["class_type"] for template in templates.values() for node in template.graph.values()}
    assert used <= set(NODES)


def test_every_model_file_that_a_template_loads_is_listed_for_operators() -> None:
    listed = (OWN / "README.md").read_text()
    files = {
        value.removesuffix(".safetensors")
        for template in load_templates(None).values()
        for node in template.graph.values()
        for value in node["inputs"].values()
        if isinstance(value, str) and value.endswith(".safetensors")
    }
    assert len(files) > 15
    for name in files:
        either = name.replace("high_noise", "{high,low}_noise").replace("low_noise", "{high,low}_noise")
        assert f"`{name}`" in listed or f"`{either}`" in listed, name


def test_a_request_fills_the_places_with_its_own_types() -> None:
    asked = job(
        "stability/sd-3.5-large",
        generation_ratio="16:9",
        generation_num_inference_steps=12,
        generation_cfg_scale=5.5,
        generation_seed=7,
    )
    body = sent(asked)
    assert body["prompt_id"] == ID
    sampler = node(asked, "KSampler")
    assert (sampler["seed"], sampler["steps"], sampler["cfg"], sampler["denoise"]) == (7, 12, 5.5, 1.0)
    assert node(asked, "EmptySD3LatentImage") == {"width": 1360, "height": 768, "batch_size": 1}
    assert node(asked, "SaveImage")["filename_prefix"] == f"babysea/{ID}"


def test_without_a_seed_each_attempt_has_its_own_so_that_nothing_is_repeated() -> None:
    other = replace(job(), attempt_id=UUID(int=5))
    assert node(job(), "KSampler")["seed"] == job().own_seed != node(other, "KSampler")["seed"]


def test_a_prompt_is_not_searched_for_places() -> None:
    prompt = 'a sign that says {{seed}} and {{steps|4}} "quoted"'
    [text] = [
        node["inputs"]["text"]
        for node in sent(job(generation_prompt=prompt))["prompt"].values()
        if node["class_type"] == "CLIPTextEncode"
    ]
    assert text == prompt


def test_a_negative_prompt_has_a_place() -> None:
    texts = [
        node["inputs"]["text"]
        for node in sent(job("qwen/image", generation_negative_prompt="blur"))["prompt"].values()
        if node["class_type"] == "CLIPTextEncode"
    ]
    assert texts == ["a red fox", "blur"]


def test_a_source_picture_is_uploaded_and_named_in_another_workflow() -> None:
    asked = job(
        "bfl/flux-dev", generation_input_file=[URL], generation_prompt_strength=0.4, generation_ratio="1:1"
    )
    [upload] = PROVIDER.build_uploads(asked)
    assert (upload.method, upload.url) == ("POST", f"{BASE}/upload/image")
    assert parts_of(upload) == {
        "image": [(f"{ID}-0.png", "image/png", b"a picture")],
        "type": ["input"],
        "subfolder": ["babysea"],
        "overwrite": ["true"],
    }
    assert node(asked, "LoadImage") == {"image": "babysea/0.png"}
    assert node(asked, "KSampler")["denoise"] == 0.4
    assert PROVIDER.build_uploads(job()) == []


def test_a_clip_has_the_shape_of_its_picture_and_the_size_of_its_resolution() -> None:
    asked = job("wan/2.2-i2v-fast", generation_input_file=[URL], generation_resolution="720p")
    latent = node(asked, "WanImageToVideo")
    assert (latent["width"], latent["height"], latent["length"]) == (1280, 720, 81)
    asked = job("wan/2.2-t2v-fast", generation_ratio="9:16", generation_resolution="480p")
    latent = node(asked, "EmptyHunyuanLatentVideo")
    assert (latent["width"], latent["height"], latent["length"]) == (480, 848, 81)


def test_seconds_are_frames_where_a_pair_has_them(tmp_path: Path) -> None:
    graph = {
        "1": {
            "class_type": "A",
            "inputs": {"length": "{{frames}}", "rate": "{{fps|24}}", "name": "x-{{seed}}"},
        }
    }
    (tmp_path / "own.json").write_bytes(msgspec.json.encode(graph))
    provider = ComfyUI(ProviderSettings(base_url=BASE, options={"workflows": str(tmp_path)}))
    asked = job("wan/2.2-t2v-fast", generation_duration=5, generation_seed=3)
    params = {**asked.offer.params, "generation_duration": "seconds"}
    offer = msgspec.structs.replace(asked.offer, model="own", params=params)
    asked = replace(asked, model=replace(asked.model, providers={"comfyui": offer}))
    [filled] = sent(asked, provider)["prompt"].values()
    assert filled["inputs"] == {"length": 121, "rate": 24, "name": "x-3"}


def test_refused_uploads_are_told_before_anything_is_made() -> None:
    asked = job("bfl/flux-dev", generation_input_file=[URL])
    with pytest.raises(InputRefusedError) as caught:
        PROVIDER.build_submit(replace(asked, uploads=[Answer(413, {}, b"")]))
    assert caught.value.code == "BSE2007"
    for given in (Answer(500, {}, b""), answer(200, {}), Answer(200, {}, b"<html>")):
        with pytest.raises(NeverSentError):
            PROVIDER.build_submit(replace(asked, uploads=[given]))


# ------------------------------------------------------------------------------- templates of the operator


def test_the_operators_templates_lie_over_those_that_come_with_the_package(tmp_path: Path) -> None:
    graph = {
        "1": {"class_type": "Mine", "inputs": {"text": "{{prompt}}, in our style", "n": "{{batch_size|1}}"}}
    }
    (tmp_path / "flux-schnell.json").write_bytes(msgspec.json.encode(graph))
    provider = ComfyUI(ProviderSettings(base_url=BASE, options={"workflows": str(tmp_path)}))
    body = sent(job(generation_output_number=3), provider)
    assert body["prompt"]["1"]["inputs"] == {"text": "a red fox, in our style", "n": 3}
    assert (
        sent(job("z/image-turbo"), provider)["prompt"].keys() == sent(job("z/image-turbo"))["prompt"].keys()
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "truncated"),
        ("[]", "not a graph"),
        ("{}", "not a graph"),
        ('{"nodes": []}', "has no class_type"),
        ('{"1": {"class_type": "A"}}', "has no inputs"),
        ('{"1": {"class_type": "A", "inputs": {"n": "{{steps|x}}"}}}', "malformed"),
    ],
)
def test_a_template_that_is_none_is_refused_by_name(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(SettingsError, match=rf"mine\.json: .*{fault}"):
        load_templates(tmp_path)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"workflows": "/nowhere/at/all"}, "not a directory"),
        ({"cancel": "politely"}, "interrupt, queue, jobs"),
    ],
)
def test_wrong_options_are_refused_at_the_start(options: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        ComfyUI(ProviderSettings(base_url=BASE, options=options))


def test_a_workflow_that_wants_more_than_it_is_given_is_not_sent() -> None:
    with pytest.raises(ValueError, match="wants 'image'"):
        load_templates(None)["wan-2.2-image-to-video"].filled({"prompt": "a"})
    asked = job()
    offer = msgspec.structs.replace(asked.offer, model="not-there")
    with pytest.raises(ValueError, match="no workflow 'not-there'"):
        PROVIDER.build_submit(replace(asked, model=replace(asked.model, providers={"comfyui": offer})))
    assert len(list(OWN.glob("*.json"))) == len(load_templates(None))


# ------------------------------------------------------------------------------- what is read


def test_a_prompt_is_accepted_under_the_id_that_the_server_says() -> None:
    given = answer(200, {"prompt_id": ID, "number": 12, "node_errors": {}})
    assert PROVIDER.read_submit(job(), given) == Accepted(ID, poll_after_s=1.0)
    partly = answer(200, {"prompt_id": "other", "number": 12, "node_errors": {"9": {"errors": []}}})
    assert PROVIDER.read_submit(job(), partly) == Accepted("other", poll_after_s=1.0)


def refusal(*errors: tuple[str, str], kind: str = "prompt_outputs_failed_validation") -> Answer:
    nodes = {
        str(number): {
            "errors": [
                {"type": type, "message": "m", "details": "a red fox", "extra_info": {"input_name": "x"}}
            ],
            "class_type": node,
        }
        for number, (node, type) in enumerate(errors)
    }
    return answer(400, {"error": {"type": kind, "message": "Prompt is wrong"}, "node_errors": nodes})


@pytest.mark.parametrize(
    ("given", "failure", "code"),
    [
        (refusal(("CheckpointLoaderSimple", "value_not_in_list")), Failure.REFUSED_INPUT, None),
        (refusal(("KSampler", "value_bigger_than_max")), Failure.REFUSED_INPUT, "BSE2008"),
        (refusal(("KSampler", "value_smaller_than_min")), Failure.REFUSED_INPUT, "BSE2008"),
        (refusal(("LoadImage", "custom_validation_failed")), Failure.REFUSED_INPUT, "BSE2005"),
        (refusal(kind="invalid_prompt"), Failure.REFUSED_INPUT, None),
        (Answer(401, {}, b"who are you?"), Failure.REFUSED_AUTH, None),
        (Answer(403, {}, b""), Failure.REFUSED_AUTH, None),
        (Answer(500, {}, b""), Failure.FAILED, None),
        (Answer(502, {}, b""), Failure.OUTCOME_UNKNOWN, None),
        (Answer(503, {}, b""), Failure.REFUSED_BUSY, None),
        (Answer(504, {}, b""), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {}, b"<html>hello</html>"), Failure.OUTCOME_UNKNOWN, None),
        (answer(200, {"number": 1}), Failure.OUTCOME_UNKNOWN, None),
    ],
)
def test_each_refusal_is_of_one_class_and_costs_nothing(
    given: Answer, failure: Failure, code: str | None
) -> None:
    read = PROVIDER.read_submit(job(), given)
    assert isinstance(read, Refused)
    assert (read.failure, read.code, read.cost_micro) == (failure, code, 0)


def test_a_refusal_names_the_node_and_not_the_prompt() -> None:
    read = PROVIDER.read_submit(job(), refusal(("UNETLoader", "value_not_in_list")))
    assert isinstance(read, Refused)
    assert read.message == "HTTP 400: prompt_outputs_failed_validation; UNETLoader.x value_not_in_list"


def test_the_queue_is_asked_before_the_history_so_that_nothing_falls_between() -> None:
    assert PROVIDER.build_poll(job(), TICKET).url == f"{BASE}/queue"
    item = [3, ID, {}, {}, ["9"]]
    for queue in (
        {"queue_running": [item], "queue_pending": []},
        {"queue_running": [], "queue_pending": [[1, "x", {}, {}, []], item]},
    ):
        assert PROVIDER.read_poll(job(), TICKET, answer(200, queue)) == Running()
    away = answer(200, {"queue_running": [[1, "x"], "odd"], "queue_pending": []})
    look = PROVIDER.read_poll(job(), TICKET, away)
    assert isinstance(look, Look)
    assert (look.request.method, look.request.url) == ("GET", f"{BASE}/history/{ID}")
    for odd in (
        answer(502, {}),
        answer(200, {}),
        Answer(200, {}, b"<html>"),
        answer(200, {"queue_running": []}),
    ):
        assert PROVIDER.read_poll(job(), TICKET, odd) == Running()


def test_a_prompt_in_neither_is_lost_and_an_odd_history_says_nothing() -> None:
    lost = PROVIDER.read_look(job(), TICKET, answer(200, {}))
    assert isinstance(lost, Refused)
    assert (lost.failure, lost.cost_micro) == (Failure.FAILED, 0)
    for odd in (
        Answer(200, {}, b""),
        Answer(200, {}, b"<html>"),
        answer(500, {}),
        answer(200, {"other": {}}),
    ):
        assert PROVIDER.read_look(job(), TICKET, odd) == Running()


def file(name: str, type: str = "output", **beside: Any) -> dict[str, Any]:
    return {"filename": name, "subfolder": "", "type": type, **beside}


def urls(read: Any) -> list[tuple[str, dict[str, str]]]:
    assert isinstance(read, Finished)
    split = [urlsplit(output.url or "") for output in read.outputs]
    return [(parts.path, dict(parse_qsl(parts.query))) for parts in split]


def test_saved_files_are_outputs_and_previews_only_where_nothing_was_saved() -> None:
    outputs = {
        "8": {"images": [file("p.png", "temp")]},
        "9": {"images": [file("a 1.png", subfolder="x/y"), file("b.png"), 7, {}], "text": ["hello"]},
        "10": {"audio": [file("a.mp3")], "images": "odd"},
        "11": {"gifs": [file("c.mp4")]},
    }
    read = PROVIDER.read_look(job(generation_output_format="png"), TICKET, entry(outputs))
    assert urls(read) == [
        ("/view", {"filename": "a 1.png", "subfolder": "x/y", "type": "output"}),
        ("/view", {"filename": "b.png", "type": "output"}),
    ]
    previews = PROVIDER.read_look(job(), TICKET, entry({"8": outputs["8"]}))
    assert urls(previews)[0][1]["type"] == "temp"


@pytest.mark.parametrize(
    ("inputs", "preview"),
    [
        ({"generation_output_format": "png"}, None),
        ({"generation_output_format": "jpg"}, "jpeg;95"),
        ({"generation_output_format": "webp", "generation_output_quality": 70}, "webp;70"),
        ({}, None),
    ],
)
def test_a_format_other_than_png_is_made_when_the_file_is_viewed(
    inputs: dict[str, Any], preview: str | None
) -> None:
    [(_, query)] = urls(PROVIDER.read_look(job(**inputs), TICKET, entry({"9": {"images": [file("a.png")]}})))
    assert query.get("preview") == preview


@pytest.mark.parametrize("key", ["images", "gifs", "videos"])
def test_a_clip_is_found_under_each_of_its_keys(key: str) -> None:
    outputs = {"1": {key: [file("first.png"), file("a.mp4")]}}
    read = PROVIDER.read_look(job("wan/2.2-t2v-fast"), TICKET, entry(outputs))
    assert [query["filename"] for _, query in urls(read)] == ["a.mp4"]


def test_the_gpus_time_is_told_and_costs_nothing() -> None:
    messages = (["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 3500}])
    read = PROVIDER.read_look(job(), TICKET, entry({}, *messages))
    assert read == Finished([], cost_micro=0, predict_seconds=2.5)
    odd = PROVIDER.read_look(job(), TICKET, entry({}, ["execution_start", {"timestamp": "?"}], 7, ["x"]))
    assert odd == Finished([], cost_micro=0)


def failure(type: str, node: str = "KSampler") -> Answer:
    error = {"exception_type": type, "node_type": node, "exception_message": "about a red fox"}
    return entry({}, ["execution_start", {}], ["execution_error", error], status="error")


@pytest.mark.parametrize(
    ("given", "expected", "code"),
    [
        (failure("torch.OutOfMemoryError"), Failure.REFUSED_BUSY, None),
        (failure("torch.cuda.OutOfMemoryError"), Failure.REFUSED_BUSY, None),
        (failure("PIL.UnidentifiedImageError"), Failure.REFUSED_INPUT, "BSE2005"),
        (failure("ValueError", "LoadImage"), Failure.REFUSED_INPUT, "BSE2005"),
        (failure("RuntimeError"), Failure.FAILED, None),
        (entry({}, ["execution_interrupted", {}], status="error"), Failure.FAILED, None),
        (entry({}, status="error"), Failure.FAILED, None),
    ],
)
def test_each_end_is_of_one_class(given: Answer, expected: Failure, code: str | None) -> None:
    read = PROVIDER.read_look(job(), TICKET, given)
    assert isinstance(read, Refused)
    assert (read.failure, read.code, read.cost_micro) == (expected, code, 0)
    assert "fox" not in read.message


@pytest.mark.parametrize(
    ("option", "path", "body"),
    [
        ({}, "/interrupt", {"prompt_id": ID}),
        ({"cancel": "queue"}, "/queue", {"delete": [ID]}),
        ({"cancel": "jobs"}, f"/api/jobs/{ID}/cancel", {}),
    ],
)
def test_a_cancel_is_of_this_prompt_and_never_confirmed(
    option: dict[str, str], path: str, body: dict[str, Any]
) -> None:
    request = ComfyUI(ProviderSettings(base_url=BASE, options=option)).build_cancel(job(), TICKET)
    assert request is not None
    assert (request.method, request.url) == ("POST", f"{BASE}{path}")
    assert msgspec.json.decode(request.body or b"") == body
    assert not PROVIDER.read_cancel(job(), Answer(200, {}, b""))


def test_a_lost_answer_is_followed_by_our_own_id_where_the_server_is_there() -> None:
    request = PROVIDER.build_reconcile(job())
    assert request is not None
    there = answer(200, {"queue_running": [], "queue_pending": []})
    assert PROVIDER.read_reconcile(job(), there) == Accepted(ID, poll_after_s=0.0)
    for odd in (answer(502, {}), answer(200, {}), Answer(200, {}, b"<html>")):
        assert PROVIDER.read_reconcile(job(), odd) == Unclear()


def test_the_key_is_for_a_proxy_and_goes_with_every_request() -> None:
    guarded = ComfyUI(ProviderSettings(base_url=f"{BASE}/", api_key="k-1"))
    assert dict(PROVIDER.build_poll(job(), TICKET).headers) == {}
    assert dict(guarded.build_poll(job(), TICKET).headers) == {"authorization": "Bearer k-1"}
    read = guarded.read_look(job(), TICKET, entry({"9": {"images": [file("a.png")]}}))
    assert isinstance(read, Finished)
    assert dict(read.outputs[0].headers) == {"authorization": "Bearer k-1"}
    assert str(read.outputs[0].url).startswith(f"{BASE}/view?")


@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"error":1,"node_errors":{"1":2,"2":{"errors":[3]}},"queue_running":[1],"queue_pending":[[]]}',
        b'{"' + ID.encode() + b'":{"outputs":[1],"status":{"messages":[1,[2],["execution_error",3]]}}}',
        b'{"' + ID.encode() + b'":{"outputs":{"1":{"images":[{"filename":"a","type":7,"subfolder":[]}]}}}}',
        b'{"' + ID.encode() + b'":7}',
    ],
)
def test_no_answer_is_too_odd_to_read(status: int, body: bytes) -> None:
    given = Answer(status, {}, body)
    assert isinstance(PROVIDER.read_submit(job(), given), Accepted | Refused)
    assert isinstance(PROVIDER.read_poll(job(), TICKET, given), Running | Look)
    assert isinstance(PROVIDER.read_look(job(), TICKET, given), Running | Finished | Refused)
    assert isinstance(PROVIDER.read_reconcile(job(), given), Accepted | Unclear)
    assert isinstance(PROVIDER.read_check(given), Check)


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired(**settings: Any) -> AsyncIterator[tuple[ComfyUIEmulator, Runner]]:
    emulator = ComfyUIEmulator()
    async with running(emulator):
        provider = ComfyUI(ProviderSettings(**{**emulator.settings(), **settings}))
        route = Route(
            provider, HttpTransport(private_networks=True), files=FileTransport(private_networks=True)
        )
        runner = Runner(Registry({"comfyui": route}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


async def ended(runner: Runner, asked: Job) -> Finished | Refused:
    ticket = await runner.submit(asked)
    assert isinstance(ticket, Accepted)
    assert await runner.poll(asked, ticket) == Running()
    read = await runner.poll(asked, ticket)
    assert not isinstance(read, Running)
    return read


async def test_pictures_are_made_once_and_come_in_their_format() -> None:
    async with wired() as (emulator, runner):
        for format, expected in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")):
            asked = replace(
                job(generation_output_number=2, generation_output_format=format),
                attempt_id=UUID(int=emulator.number()),
            )
            read = await ended(runner, asked)
            assert isinstance(read, Finished)
            assert (len(read.outputs), read.cost_micro, read.predict_seconds) == (2, 0, 2.5)
            data = await runner.fetch(asked, read.outputs[1], body_max=100_000)
            assert Image.open(io.BytesIO(data)).format == expected
        assert emulator.purchases == 3
        assert await runner.check("comfyui") == Check(True, "ComfyUI 0.3.65 on cuda:0 A GPU")


async def test_a_source_is_fetched_uploaded_and_used() -> None:
    async with wired() as (emulator, runner):
        owner = emulator.new_job("given", "a file", Received("GET", "/", {}, {}, None))
        asked = job("bfl/flux-dev", generation_input_file=[emulator.file_url(owner)])
        asked = replace(asked, files={}, uploads=())
        emulator.jobs.clear()
        emulator.jobs["given"] = owner
        ticket = await runner.submit(asked)
        assert isinstance(ticket, Accepted)
        assert emulator.uploaded == {f"babysea/{ID}-0.png": picture()}


@pytest.mark.parametrize("word", ["", "[comfyui:gifs] "])
async def test_a_clip_is_polled_to_its_end_and_whole(word: str) -> None:
    async with wired() as (_, runner):
        asked = job("wan/2.2-t2v-fast", generation_prompt=f"{word}waves", generation_resolution="480p")
        read = await ended(runner, asked)
        assert isinstance(read, Finished)
        [output] = read.outputs
        assert await runner.fetch(asked, output, body_max=10_000_000) == clip()


async def test_a_lost_answer_is_found_by_our_id_and_a_lost_request_is_not() -> None:
    async with wired() as (emulator, runner):
        for word, purchases in (("answer-dropped", 1), ("request-dropped", 1)):
            number = UUID(int=emulator.number())
            asked = replace(job(generation_prompt=f"[emulate:{word}] a fox"), attempt_id=number)
            lost = await runner.submit(asked)
            assert isinstance(lost, Refused)
            assert lost.failure is Failure.OUTCOME_UNKNOWN
            ticket = await runner.reconcile(asked)
            assert isinstance(ticket, Accepted)
            polls = [await runner.poll(asked, ticket) for _ in range(2)]
            assert isinstance(polls[-1], Finished if word == "answer-dropped" else Refused)
            assert emulator.purchases == purchases


async def test_what_runs_is_interrupted_and_what_waits_is_taken_away() -> None:
    for option, place in itertools.product(("interrupt", "queue", "jobs"), (0, 1)):
        async with wired(options={"cancel": option}) as (emulator, runner):
            emulator.polls_until_done = 100
            asked = [
                replace(job(generation_prompt="[emulate:slow] a fox"), attempt_id=UUID(int=number))
                for number in (1, 2)
            ]
            for one in asked:
                await runner.submit(one)
            ticket = Accepted(str(asked[place].attempt_id))
            assert await runner.cancel(asked[place], ticket) is Cancellation.SENT
            stopped = isinstance(await runner.poll(asked[place], ticket), Refused)
            assert stopped is (option == "jobs" or (option == "interrupt") is (place == 0))


@pytest.mark.parametrize(
    ("word", "expected", "code"),
    [
        ("interrupted", Failure.FAILED, None),
        ("bad-picture", Failure.REFUSED_INPUT, "BSE2005"),
    ],
)
async def test_its_own_ways_of_failing(word: str, expected: Failure, code: str | None) -> None:
    async with wired() as (_, runner):
        read = await ended(runner, job(generation_prompt=f"[comfyui:{word}] a fox"))
        assert isinstance(read, Refused)
        assert (read.failure, read.code) == (expected, code)


async def test_a_gateway_that_gave_up_leaves_the_outcome_unknown() -> None:
    async with wired() as (_, runner):
        read = await runner.submit(job(generation_prompt="[comfyui:gateway] a fox"))
        assert isinstance(read, Refused)
        assert read.failure is Failure.OUTCOME_UNKNOWN


async def test_previews_are_better_than_nothing() -> None:
    async with wired() as (_, runner):
        read = await ended(runner, job(generation_prompt="[comfyui:previews] a fox"))
        assert isinstance(read, Finished)
        assert len(read.outputs) == 1


async def test_a_proxy_that_wants_another_key_is_told_and_the_key_not_shown() -> None:
    async with wired(api_key=WRONG_KEY) as (_, runner):
        read = await runner.submit(job())
        assert isinstance(read, Refused)
        assert read.failure is Failure.REFUSED_AUTH
        assert WRONG_KEY not in repr(read)
        assert not (await runner.check("comfyui")).ok


async def test_the_emulator_refuses_what_comfyui_would(tmp_path: Path) -> None:
    graph = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "not-there.safetensors"}}}
    (tmp_path / "flux-schnell.json").write_bytes(msgspec.json.encode(graph))
    async with wired(options={"workflows": str(tmp_path)}) as (emulator, runner):
        read = await runner.submit(job())
        assert isinstance(read, Refused)
        assert (read.failure, emulator.purchases) == (Failure.REFUSED_INPUT, 0)
