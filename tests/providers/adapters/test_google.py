"""Google: what is sent for every model, what is made of every answer, and both against the emulator."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from tests.emulators.google import SCHEMAS, GoogleEmulator, complaint
from tests.emulators.kit import SECRET, WRONG_KEY, Emulator, Received, clip, picture, running
from tests.providers.adapters.admissible import ATTEMPT, jobs, models_of
from tests.support import ManualClock

from babysea_server.catalog.limits import admits
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Check,
    Failure,
    Finished,
    Job,
    Refused,
    Request,
    Running,
)
from babysea_server.providers.files import FileTransport
from babysea_server.providers.google import Google
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.inputs import InputFile
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Runner
from babysea_server.settings import ProviderSettings

MODELS = models_of("google")
PROVIDER = Google(ProviderSettings(api_key="AIza-1"))
BASE = "https://generativelanguage.googleapis.com/v1beta"
TICKET = Accepted("models/veo-3.1-generate-preview/operations/abc123")
URL = "https://files.example.com/a.png"
FILE = InputFile(b"a picture", "image/png", "png", 64, 48, None)
ENCODED = base64.b64encode(b"a picture").decode()


def job(model: str = "google/nano-banana", **inputs: Any) -> Job:
    return loaded(Job(ATTEMPT, "google", MODELS[model], {"generation_prompt": "a red fox", **inputs}))


def video(**inputs: Any) -> Job:
    return job("google/veo-3.1", **{"generation_duration": 8, "generation_generate_audio": True, **inputs})


def loaded(asked: Job) -> Job:
    """The job with the files it asks for, as the runner gives it."""
    return replace(asked, files=dict.fromkeys(PROVIDER.input_files(asked), FILE))


def sent(asked: Job, provider: Google = PROVIDER) -> Any:
    return msgspec.json.decode(provider.build_submit(asked).body or b"")


def answer(status: int, body: Any) -> Answer:
    return Answer(status, {"content-type": "application/json"}, msgspec.json.encode(body))


def error(code: int, status: str, message: str = "no", *details: dict[str, Any]) -> Answer:
    return answer(
        code, {"error": {"code": code, "message": message, "status": status, "details": list(details)}}
    )


def candidate(*parts: Any, end: str = "STOP", **beside: Any) -> Answer:
    found = {"content": {"role": "model", "parts": list(parts)}, "finishReason": end, "index": 0}
    return answer(200, {"candidates": [found], **beside})


def shown(data: str = "aGk=", **beside: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": "image/png", "data": data}, **beside}


def operation(**beside: Any) -> Answer:
    return answer(200, {"name": TICKET.upstream_id, "metadata": {}, **beside})


# ------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("model", MODELS)
def test_every_admissible_request_is_one_that_google_documents(model: str) -> None:
    built = 0
    for asked in map(loaded, jobs("google", MODELS[model])):
        request, body = PROVIDER.build_submit(asked), sent(asked)
        name, verb = request.url.removeprefix(f"{BASE}/models/").split(":")
        assert name == asked.offer.model
        jsonschema_rs.validate(SCHEMAS[verb], body)
        assert complaint(verb, body) is None, body
        assert b"generation_" not in (request.body or b"")
        built += 1
    assert built > 5


def test_it_serves_gemini_imagen_and_veo() -> None:
    names = {identifier.removeprefix("google/").split("-")[0] for identifier in MODELS}
    assert (names, len(MODELS)) == ({"nano", "imagen", "veo"}, 12)


def test_a_picture_is_a_message_with_how_to_answer_it() -> None:
    asked = job(
        "google/nano-banana-2",
        generation_ratio="21:9",
        generation_resolution="2K",
        generation_input_file=[URL, f"{URL}?2"],
        generation_search_grounding=True,
        generation_thinking=True,
        generation_seed=7,
    )
    request = PROVIDER.build_submit(asked)
    assert (request.method, request.url) == ("POST", f"{BASE}/models/gemini-3.1-flash-image:generateContent")
    assert dict(request.headers) == {"x-goog-api-key": "AIza-1", "content-type": "application/json"}
    file = {"inlineData": {"mimeType": "image/png", "data": ENCODED}}
    assert sent(asked) == {
        "contents": [{"role": "user", "parts": [{"text": "a red fox"}, file, file]}],
        "generationConfig": {
            "responseModalities": ["TEXT", "IMAGE"],
            "imageConfig": {"aspectRatio": "21:9", "imageSize": "2K"},
            "thinkingConfig": {"thinkingLevel": "high"},
            "seed": 7,
        },
        "tools": [{"google_search": {}}],
    }


def test_without_search_there_is_no_tool_and_no_seed_of_ours() -> None:
    body = sent(job("google/nano-banana-2", generation_search_grounding=False, generation_thinking=False))
    assert "tools" not in body
    assert "seed" not in body["generationConfig"]
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "minimal"}


def test_imagen_gets_an_instance_and_parameters() -> None:
    asked = job(
        "google/imagen-4",
        generation_ratio="3:4",
        generation_output_format="jpg",
        generation_output_number=1,
        generation_resolution="2K",
    )
    assert PROVIDER.build_submit(asked).url == f"{BASE}/models/imagen-4.0-generate-001:predict"
    assert sent(asked) == {
        "instances": [{"prompt": "a red fox"}],
        "parameters": {
            "aspectRatio": "3:4",
            "imageSize": "2K",
            "sampleCount": 1,
            "outputOptions": {"mimeType": "image/jpeg"},
        },
    }


def test_a_clip_is_an_operation_with_its_frames_as_bytes() -> None:
    asked = video(
        generation_ratio="9:16",
        generation_resolution="1080p",
        generation_input_file=[URL],
        generation_input_file_last_content=f"{URL}?last",
        generation_seed=3,
    )
    url = f"{BASE}/models/veo-3.1-generate-preview:predictLongRunning"
    assert PROVIDER.build_submit(asked).url == url
    frame = {"bytesBase64Encoded": ENCODED, "mimeType": "image/png"}
    assert sent(asked) == {
        "instances": [{"prompt": "a red fox", "image": frame, "lastFrame": frame}],
        "parameters": {"aspectRatio": "9:16", "resolution": "1080p", "durationSeconds": 8, "seed": 3},
    }


def test_people_are_an_option() -> None:
    provider = Google(ProviderSettings(api_key="k", options={"person_generation": "allow_adult"}))
    assert sent(video(), provider)["parameters"]["personGeneration"] == "allow_adult"
    assert "personGeneration" not in sent(job(), provider)["generationConfig"]


def test_a_pair_without_a_route_is_called_by_what_it_makes() -> None:
    for asked, verb in ((job(), "generateContent"), (video(), "predictLongRunning")):
        offer = msgspec.structs.replace(asked.offer, route=None)
        bare = replace(asked, model=replace(asked.model, providers={"google": offer}))
        assert PROVIDER.build_submit(bare).url.endswith(f":{verb}")


@pytest.mark.parametrize(
    "inputs",
    [
        {"generation_generate_audio": False},
        {"generation_resolution": "1080p", "generation_duration": 4},
        {"generation_input_file_last_content": URL},
    ],
)
def test_what_veo_cannot_do_is_not_routed_to_it(inputs: dict[str, Any]) -> None:
    able = {"generation_resolution": "720p", "generation_ratio": "16:9"}
    assert admits(video().offer, video(**able).inputs, video().model)
    asked = video(**able, **{} if "generation_resolution" in inputs else inputs)
    asked = replace(asked, inputs={**asked.inputs, **inputs})
    assert not admits(asked.offer, asked.inputs, asked.model)


def test_files_share_what_fits_into_one_request() -> None:
    rules = PROVIDER.input_files(job(generation_input_file=[URL, f"{URL}?2"]))
    assert list(rules) == [URL, f"{URL}?2"]
    assert {rule.max_bytes for rule in rules.values()} == {7 * 1024 * 1024}
    assert PROVIDER.input_files(job()) == {}


def test_pictures_are_waited_for_and_clips_polled() -> None:
    assert PROVIDER.inline(job())
    assert not PROVIDER.inline(video())
    assert not PROVIDER.calls_back(video())
    assert PROVIDER.build_cancel(video(), TICKET) is None
    assert PROVIDER.build_reconcile(video()) is None


# ------------------------------------------------------------------------------- what is read

USAGE = {
    "promptTokenCount": 8,
    "candidatesTokenCount": 1300,
    "thoughtsTokenCount": 100,
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
}


def test_pictures_are_finished_with_their_cost_and_without_thoughts() -> None:
    given = candidate(
        {"text": "Hmm.", "thought": True},
        shown("ZHJhZnQ=", thought=True),
        {"text": "Here it is."},
        shown("aGk="),
        {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}},
        shown("aG8="),
        usageMetadata=USAGE,
        responseId="r-1",
    )
    read = PROVIDER.read_submit(job(), given)
    assert isinstance(read, Finished)
    assert [output.url for output in read.outputs] == ["data:;base64,aGk=", "data:;base64,aG8="]
    # 8 x 0.3 + (10 written + 100 thought) x 2.5 + 1290 x 30, in dollars per million tokens.
    assert (read.cost_micro, read.upstream_id) == (round(2.4 + 275 + 38_700), "r-1")


@pytest.mark.parametrize("model", [name for name in MODELS if "banana" in name])
def test_every_gemini_model_has_prices_for_its_tokens(model: str) -> None:
    read = PROVIDER.read_submit(job(model), candidate(shown(), usageMetadata=USAGE))
    assert isinstance(read, Finished)
    assert read.cost_micro


@pytest.mark.parametrize("usage", [None, {}, "many", {**USAGE, "candidatesTokensDetails": None}])
def test_without_counts_there_is_no_cost(usage: Any) -> None:
    read = PROVIDER.read_submit(job(), candidate(shown(), usageMetadata=usage))
    assert isinstance(read, Finished)
    assert read.cost_micro is None


@pytest.mark.parametrize(
    "given",
    [
        answer(200, {"promptFeedback": {"blockReason": "SAFETY"}}),
        answer(200, {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {"promptTokenCount": 8}}),
        *(
            candidate(end=end)
            for end in ("SAFETY", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "IMAGE_RECITATION", "RECITATION")
        ),
        candidate({"text": "No."}, end="IMAGE_PROHIBITED_CONTENT"),
    ],
)
def test_what_is_blocked_is_blocked_in_a_success(given: Answer) -> None:
    read = PROVIDER.read_submit(job(), given)
    assert isinstance(read, Refused)
    assert read.failure is Failure.REFUSED_POLICY


@pytest.mark.parametrize("end", ["STOP", "NO_IMAGE", "IMAGE_OTHER", "MAX_TOKENS", "SOMETHING_NEW"])
def test_a_text_instead_of_a_picture_is_no_output(end: str) -> None:
    assert PROVIDER.read_submit(job(), candidate({"text": "Well."}, end=end)) == Finished([])


def test_imagen_answers_with_predictions_or_reasons() -> None:
    asked = job("google/imagen-4")
    made = {
        "predictions": [{"bytesBase64Encoded": "aGk=", "mimeType": "image/png"}, {"raiFilteredReason": "no"}]
    }
    read = PROVIDER.read_submit(asked, answer(200, made))
    assert isinstance(read, Finished)
    assert [output.url for output in read.outputs] == ["data:;base64,aGk="]
    answers: list[dict[str, Any]] = [
        {"predictions": [{"raiFilteredReason": "Unable to show it."}]},
        {"predictions": []},
        {},
    ]
    for filtered in answers:
        refused = PROVIDER.read_submit(asked, answer(200, filtered))
        assert isinstance(refused, Refused)
        assert refused.failure is Failure.REFUSED_POLICY


INVALID = "API key not valid. Please pass a valid API key."


@pytest.mark.parametrize(
    ("given", "failure", "code"),
    [
        (error(400, "INVALID_ARGUMENT", "no", {"reason": "API_KEY_INVALID"}), Failure.REFUSED_AUTH, None),
        (error(400, "INVALID_ARGUMENT", INVALID), Failure.REFUSED_AUTH, None),
        (error(400, "FAILED_PRECONDITION", "User location is not supported"), Failure.REFUSED_AUTH, None),
        (error(400, "FAILED_PRECONDITION", "Please enable billing."), Failure.REFUSED_FUNDS, None),
        (error(400, "INVALID_ARGUMENT", "violates Responsible AI practices"), Failure.REFUSED_POLICY, None),
        (error(400, "INVALID_ARGUMENT", "Unable to process input image."), Failure.REFUSED_INPUT, "BSE2005"),
        (error(400, "INVALID_ARGUMENT", "aspectRatio is wrong"), Failure.REFUSED_INPUT, None),
        (error(401, "UNAUTHENTICATED"), Failure.REFUSED_AUTH, None),
        (error(403, "PERMISSION_DENIED"), Failure.REFUSED_AUTH, None),
        (error(404, "NOT_FOUND"), Failure.REFUSED_INPUT, None),
        (
            error(429, "RESOURCE_EXHAUSTED", "check your plan and billing details"),
            Failure.REFUSED_BUSY,
            "BSE4003",
        ),
        (error(429, "RESOURCE_EXHAUSTED", "Your credits are depleted."), Failure.REFUSED_FUNDS, None),
        (error(500, "INTERNAL"), Failure.FAILED, None),
        (error(503, "UNAVAILABLE"), Failure.REFUSED_BUSY, None),
        (error(504, "DEADLINE_EXCEEDED"), Failure.OUTCOME_UNKNOWN, None),
        (Answer(502, {}, b"<html>bad gateway</html>"), Failure.OUTCOME_UNKNOWN, None),
        (Answer(503, {}, b"<html>unavailable</html>"), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {}, b"<html>hello</html>"), Failure.OUTCOME_UNKNOWN, None),
        (answer(200, {"hello": 1}), Failure.OUTCOME_UNKNOWN, None),
        (Answer(200, {}, b'{"candidates":[{"con'), Failure.OUTCOME_UNKNOWN, None),
    ],
)
def test_each_refusal_is_of_one_class(given: Answer, failure: Failure, code: str | None) -> None:
    for asked in (job(), video()):
        read = PROVIDER.read_submit(asked, given)
        assert isinstance(read, Refused)
        assert (read.failure, read.code) == (failure, code)


def test_a_wait_is_told_in_the_details_of_a_rate_limit() -> None:
    details = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13.5s"}
    read = PROVIDER.read_submit(job(), error(429, "RESOURCE_EXHAUSTED", "slow", {}, details))
    assert isinstance(read, Refused)
    assert (read.message, read.retry_after_s) == ("HTTP 429: slow", 13.5)
    odd = PROVIDER.read_submit(job(), error(429, "RESOURCE_EXHAUSTED", "slow", {"retryDelay": "soon"}))
    assert isinstance(odd, Refused)
    assert odd.retry_after_s is None


def test_an_operation_is_accepted_under_its_name() -> None:
    read = PROVIDER.read_submit(video(), answer(200, {"name": TICKET.upstream_id}))
    assert isinstance(read, Accepted)
    assert read.upstream_id == TICKET.upstream_id
    assert PROVIDER.build_poll(video(), read).url == f"{BASE}/{TICKET.upstream_id}"


def made(**response: Any) -> Answer:
    return operation(done=True, response={"@type": "x", "generateVideoResponse": response})


def test_an_operation_runs_until_it_is_done() -> None:
    for given in (operation(), operation(done=False), operation(done="yes"), error(500, "INTERNAL")):
        assert PROVIDER.read_poll(video(), TICKET, given) == Running()


def test_a_file_at_google_is_fetched_with_the_key_and_no_other() -> None:
    uris = [f"{BASE}/files/xyz:download?alt=media", "https://elsewhere.example.com/a.mp4", "https://[::1/a"]
    samples = [{"video": {"uri": uri}} for uri in uris] + [{"video": {"encodedVideo": "aGk="}}, {"video": 1}]
    read = PROVIDER.read_poll(video(), TICKET, made(generatedSamples=samples))
    assert isinstance(read, Finished)
    assert [(output.url, dict(output.headers)) for output in read.outputs] == [
        (uris[0], {"x-goog-api-key": "AIza-1"}),
        (uris[1], {}),
        (uris[2], {}),
        ("data:;base64,aGk=", {}),
    ]


@pytest.mark.parametrize(
    "uri",
    [
        "http://generativelanguage.googleapis.com/v1beta/files/x",
        "https://generativelanguage.googleapis.com.evil.example/files/x",
        "https://generativelanguage.googleapis.com:8443/files/x",
        "https://user@generativelanguage.googleapis.com/files/x",
    ],
)
def test_the_key_goes_to_googles_own_host_only(uri: str) -> None:
    read = PROVIDER.read_poll(video(), TICKET, made(generatedSamples=[{"video": {"uri": uri}}]))
    assert isinstance(read, Finished)
    assert dict(read.outputs[0].headers) == {}


@pytest.mark.parametrize(
    ("given", "failure"),
    [
        (made(raiMediaFilteredCount=1), Failure.REFUSED_POLICY),
        (made(raiMediaFilteredReasons=["usage guidelines"]), Failure.REFUSED_POLICY),
        (operation(done=True, error={"code": 3, "message": "bad aspect ratio"}), Failure.REFUSED_INPUT),
        (operation(done=True, error={"code": 3, "message": "Responsible AI"}), Failure.REFUSED_POLICY),
        (operation(done=True, error={"code": 8, "message": "high load"}), Failure.REFUSED_BUSY),
        (operation(done=True, error={"code": 14, "message": "unavailable"}), Failure.REFUSED_BUSY),
        (operation(done=True, error={"code": 13, "message": "internal"}), Failure.FAILED),
        (error(404, "NOT_FOUND"), Failure.FAILED),
    ],
)
def test_each_end_is_of_one_class(given: Answer, failure: Failure) -> None:
    read = PROVIDER.read_poll(video(), TICKET, given)
    assert isinstance(read, Refused)
    assert read.failure is failure


def test_done_without_a_clip_is_no_output() -> None:
    assert PROVIDER.read_poll(video(), TICKET, made()) == Finished([])
    assert PROVIDER.read_poll(video(), TICKET, operation(done=True)) == Finished([])


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 504])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"error":[],"candidates":[1,{"content":7}],"promptFeedback":3,"usageMetadata":[]}',
        b'{"error":{"details":{"a":1},"status":1},"predictions":{"a":1}}',
        b'{"done":true,"error":"x","response":{"generateVideoResponse":{"generatedSamples":7}}}',
    ],
)
def test_no_answer_is_too_odd_to_read(status: int, body: bytes) -> None:
    given = Answer(status, {}, body)
    for asked in (job(), job("google/imagen-4"), video()):
        assert isinstance(PROVIDER.read_submit(asked, given), Accepted | Finished | Refused)
        assert isinstance(PROVIDER.read_poll(asked, TICKET, given), Running | Finished | Refused)
    assert isinstance(PROVIDER.read_check(given), Check)


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired(**settings: Any) -> AsyncIterator[tuple[Emulator, Runner]]:
    async with running(GoogleEmulator()) as emulator:
        provider = Google(ProviderSettings(**{**emulator.settings(), **settings}))
        route = Route(
            provider, HttpTransport(private_networks=True), files=FileTransport(private_networks=True)
        )
        runner = Runner(Registry({"google": route}), ManualClock())
        try:
            yield emulator, runner
        finally:
            await runner.close()


async def clip_of(runner: Runner, asked: Job) -> Finished | Refused:
    ticket = await runner.submit(asked)
    assert isinstance(ticket, Accepted)
    assert await runner.poll(asked, ticket) == Running()
    read = await runner.poll(asked, ticket)
    assert not isinstance(read, Running)
    return read


async def test_a_picture_is_bought_once_and_is_whole() -> None:
    async with wired() as (emulator, runner):
        for model in ("google/nano-banana", "google/imagen-4"):
            read = await runner.submit(job(model))
            assert isinstance(read, Finished)
            [output] = read.outputs
            assert await runner.fetch(job(), output, body_max=100_000) == picture()
        assert emulator.purchases == 2
        assert await runner.check("google") == Check(True, "the key is good")


async def test_an_input_is_fetched_and_sent_as_bytes() -> None:
    async with wired() as (emulator, runner):
        first = emulator.new_job("given", "a file", Received("GET", "/", {}, {}, None))
        asked = replace(job(generation_input_file=[emulator.file_url(first)]), files={})
        assert isinstance(await runner.submit(asked), Finished)
        part = emulator.requests[-1].body["contents"][0]["parts"][1]
        assert base64.b64decode(part["inlineData"]["data"]) == picture()


async def test_a_clip_is_polled_to_its_end_and_fetched_with_the_key() -> None:
    async with wired() as (emulator, runner):
        read = await clip_of(runner, video())
        assert isinstance(read, Finished)
        assert await runner.fetch(video(), read.outputs[0], body_max=10_000_000) == clip()
        assert emulator.requests[-1].headers["x-goog-api-key"] == SECRET


@pytest.mark.parametrize("word", ["bytes", "elsewhere"])
async def test_a_clip_may_come_in_the_answer_or_lie_elsewhere(word: str) -> None:
    async with wired() as (_, runner):
        read = await clip_of(runner, video(generation_prompt=f"[google:{word}] waves"))
        assert isinstance(read, Finished)
        assert await runner.fetch(video(), read.outputs[0], body_max=10_000_000) == clip()


async def test_a_file_that_is_gone_is_gone() -> None:
    async with wired() as (_, runner):
        read = await clip_of(runner, video(generation_prompt="[emulate:expired-output] waves"))
        assert isinstance(read, Finished)
        [output] = read.outputs
        files = FileTransport(private_networks=True)
        gone = await files.send(Request("GET", str(output.url), output.headers), timeout_s=5, body_max=1000)
        await files.close()
        assert gone.status == 404


@pytest.mark.parametrize(
    ("word", "failure"),
    [
        ("blocked-other", Failure.REFUSED_POLICY),
        ("region", Failure.REFUSED_AUTH),
        ("exhausted", Failure.REFUSED_FUNDS),
        ("gateway", Failure.OUTCOME_UNKNOWN),
        ("deadline", Failure.OUTCOME_UNKNOWN),
    ],
)
async def test_its_own_ways_of_failing(word: str, failure: Failure) -> None:
    async with wired() as (_, runner):
        read = await runner.submit(job(generation_prompt=f"[google:{word}] a fox"))
        assert isinstance(read, Refused)
        assert read.failure is failure


async def test_drafts_are_no_outputs_and_no_picture_is_none() -> None:
    async with wired() as (_, runner):
        read = await runner.submit(job(generation_prompt="[google:thoughts] a fox"))
        assert isinstance(read, Finished)
        assert len(read.outputs) == 1
        empty = await runner.submit(job(generation_prompt="[google:no-image] a fox"))
        assert isinstance(empty, Finished)
        assert empty.outputs == []


async def test_an_operation_that_was_lost_or_overloaded_has_failed() -> None:
    async with wired() as (_, runner):
        busy = await clip_of(runner, video(generation_prompt="[google:high-load] waves"))
        assert isinstance(busy, Refused)
        assert busy.failure is Failure.REFUSED_BUSY
        asked = video(generation_prompt="[emulate:lost-job] waves")
        ticket = await runner.submit(asked)
        assert isinstance(ticket, Accepted)
        lost = await runner.poll(asked, ticket)
        assert isinstance(lost, Refused)
        assert lost.failure is Failure.FAILED


async def test_a_wrong_key_is_told_and_not_shown() -> None:
    async with wired(api_key=WRONG_KEY) as (_, runner):
        read = await runner.submit(job())
        assert isinstance(read, Refused)
        assert read.failure is Failure.REFUSED_AUTH
        assert WRONG_KEY not in repr(read)
        checked = await runner.check("google")
        assert (checked.ok, WRONG_KEY in checked.message) == (False, False)


async def test_the_emulator_refuses_what_google_would() -> None:
    async with wired() as (_, runner):
        asked = job()
        offer = msgspec.structs.replace(asked.offer, fixed_params={"generationConfig.aspect": "16:9"})
        odd = replace(asked, model=replace(asked.model, providers={"google": offer}))
        read = await runner.submit(odd)
        assert isinstance(read, Refused)
        assert read.failure is Failure.REFUSED_INPUT
