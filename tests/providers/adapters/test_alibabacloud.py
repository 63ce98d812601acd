"""What Alibaba Cloud answers has one meaning each, and tasks run over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.emulators.alibabacloud import AlibabaCloudEmulator
from tests.emulators.kit import SECRET, clip, picture, running
from tests.providers.adapters.admissible import ATTEMPT, models_of
from tests.support import ManualClock

from babysea_server.providers.alibabacloud import AlibabaCloud
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
)
from babysea_server.providers.files import FileTransport
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.registry import GuardedTransport, Registry, Route
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.settings import ProviderSettings

MODELS = models_of("alibabacloud")
CLOUD = AlibabaCloud(ProviderSettings(api_key="sk-1"))
BASE = "https://dashscope-intl.aliyuncs.com/api/v1"
ID = "0385dc79-5ff8-4d82-bcb6-000000000001"
TICKET = Accepted(ID)
FILES = [f"https://files.example.com/{index}" for index in range(3)]
OSS = "https://dashscope-result-sgp.oss-ap-southeast-1.aliyuncs.com"


def job(model: str, **inputs: Any) -> Job:
    fields = MODELS[model].fields
    defaults = {name: spec.default for name, spec in fields.items() if spec.default is not None}
    if "generation_prompt" in fields:
        defaults["generation_prompt"] = "a kitten"
    return Job(ATTEMPT, "alibabacloud", MODELS[model], {**defaults, **inputs})


FILM = job("wan/2.6-t2v", generation_duration=5)
DRAWN = job("wan/2.6-t2i", generation_output_number=2)
AT_ONCE = job("qwen/image-2")
EDITED = job("wan/2.5-i2i-preview", generation_input_file=FILES[:1], generation_output_number=2)


def answer(status: int, body: Any, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def error(status: int, code: str, message: str = "It is so.") -> Answer:
    return answer(status, {"code": code, "message": message, "request_id": "7438d53d"})


# ------------------------------------------------------------------------------- answers to submits


def test_a_task_is_accepted() -> None:
    body = {"output": {"task_status": "PENDING", "task_id": ID}, "request_id": "4909100c"}
    assert CLOUD.read_submit(FILM, answer(200, body)) == Accepted(ID, poll_after_s=10.0)
    assert CLOUD.read_submit(DRAWN, answer(200, body)) == Accepted(ID, poll_after_s=2.0)


def test_pictures_that_come_at_once_are_the_result() -> None:
    url = f"{OSS}/a.png?Expires=1"
    content = [{"type": "text", "text": "first"}, {"image": url, "type": "image"}, {"image": 7}]
    body = {
        "output": {
            "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": content}}]
        },
        "usage": {"width": 1024, "height": 1024, "image_count": 1},
        "request_id": "4909100c",
    }
    read = CLOUD.read_submit(AT_ONCE, answer(200, body))
    assert read == Finished([Output(url=url)], cost_micro=35_000, upstream_id="4909100c")
    body["usage"] = {"output_width": 1024, "output_height": 1024, "output_image_count": 1}
    assert CLOUD.read_submit(AT_ONCE, answer(200, body)) == read
    body["output"] = {"choices": []}
    assert CLOUD.read_submit(AT_ONCE, answer(200, body)) == msgspec.structs.replace(read, outputs=[])


@pytest.mark.parametrize("body", [b"<html>", b"", b"{}", b'{"output":{}}', b'{"output":{"task_id":7}}'])
def test_success_without_anything_known_is_an_unknown_outcome(body: bytes) -> None:
    for one in (FILM, AT_ONCE):
        read = CLOUD.read_submit(one, answer(200, body))
        assert isinstance(read, Refused)
        assert read.failure is Failure.OUTCOME_UNKNOWN


@pytest.mark.parametrize(
    ("status", "code", "failure", "narrow"),
    [
        (400, "InvalidParameter", Failure.REFUSED_INPUT, None),
        (400, "InvalidParameter.DataInspection", Failure.REFUSED_INPUT, "BSE2009"),
        (400, "InvalidURL", Failure.REFUSED_INPUT, "BSE2009"),
        (400, "BadRequest.TooLarge", Failure.REFUSED_INPUT, None),
        (400, "DataInspectionFailed", Failure.REFUSED_POLICY, None),
        (400, "data_inspection_failed", Failure.REFUSED_POLICY, None),
        (400, "IPInfringementSuspect", Failure.REFUSED_POLICY, None),
        (400, "Arrearage", Failure.REFUSED_FUNDS, None),
        (401, "InvalidApiKey", Failure.REFUSED_AUTH, None),
        (403, "AccessDenied", Failure.REFUSED_AUTH, None),
        (403, "AccessDenied.Unpurchased", Failure.REFUSED_AUTH, None),
        (403, "Model.AccessDenied", Failure.REFUSED_AUTH, None),
        (403, "AllocationQuota.FreeTierOnly", Failure.REFUSED_FUNDS, None),
        (404, "ModelNotFound", Failure.REFUSED_INPUT, None),
        (429, "Throttling", Failure.REFUSED_BUSY, "BSE4003"),
        (429, "Throttling.RateQuota", Failure.REFUSED_BUSY, "BSE4003"),
        (429, "Throttling.AllocationQuota", Failure.REFUSED_BUSY, "BSE4003"),
        (429, "insufficient_quota", Failure.REFUSED_BUSY, "BSE4003"),
        (500, "InternalError", Failure.FAILED, None),
        (500, "InternalError.Timeout", Failure.FAILED, None),
        (503, "ServiceUnavailable", Failure.REFUSED_BUSY, None),
        (504, "RequestTimeOut", Failure.OUTCOME_UNKNOWN, None),
    ],
)
def test_each_code_has_its_class(status: int, code: str, failure: Failure, narrow: str | None) -> None:
    read = CLOUD.read_submit(FILM, error(status, code))
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, narrow)
    assert read.message == f"HTTP {status}: {code}: It is so."
    if failure not in (Failure.OUTCOME_UNKNOWN, Failure.FAILED):
        read = CLOUD.read_submit(AT_ONCE, error(200, code))
        assert isinstance(read, Refused)
        assert (read.failure, read.code) == (failure, narrow), "under HTTP 200, too"


def test_an_unknown_code_under_200_has_failed() -> None:
    read = CLOUD.read_submit(AT_ONCE, error(200, "SomethingNew"))
    assert isinstance(read, Refused)
    assert read.failure is Failure.FAILED


def test_a_gateway_that_gave_up_leaves_the_outcome_unknown() -> None:
    read = CLOUD.read_submit(AT_ONCE, answer(504, b"<html>Gateway Time-out</html>"))
    assert isinstance(read, Refused)
    assert read.failure is Failure.OUTCOME_UNKNOWN


# ------------------------------------------------------------------------------- answers to polls


def task(status: Any, usage: Any = None, **output: Any) -> Answer:
    return answer(200, {"output": {"task_id": ID, "task_status": status, **output}, "usage": usage})


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "SUSPENDED", "SOMETHING_NEW", None, 7])
def test_a_task_that_has_not_ended_is_running(status: Any) -> None:
    assert CLOUD.read_poll(FILM, TICKET, task(status)) == Running()


@pytest.mark.parametrize(
    "given",
    [
        error(200, "Throttling.RateQuota"),
        error(429, "Throttling"),
        error(401, "InvalidApiKey"),
        error(500, "InternalError"),
        error(503, "ServiceUnavailable"),
        answer(502, b"<html>"),
        answer(200, b"{"),
    ],
)
def test_an_error_about_the_question_ends_nothing(given: Answer) -> None:
    assert CLOUD.read_poll(FILM, TICKET, given) == Running()


@pytest.mark.parametrize(
    ("given", "failure"),
    [
        (task("UNKNOWN"), Failure.FAILED),
        (task("CANCELED"), Failure.FAILED),
        (answer(404, b""), Failure.FAILED),
        (task("FAILED", code="DataInspectionFailed", message="inappropriate"), Failure.REFUSED_POLICY),
        (task("FAILED", code="IPInfringementSuspect", message="suspected"), Failure.REFUSED_POLICY),
        (task("FAILED", code="InvalidParameter", message="too long"), Failure.REFUSED_INPUT),
        (task("FAILED", code="InternalError.Algo", message="broke"), Failure.FAILED),
        (task("FAILED", code="RequestTimeOut", message="slow"), Failure.FAILED),
        (task("FAILED"), Failure.FAILED),
        (error(200, "InvalidParameter"), Failure.REFUSED_INPUT),
        (error(400, "DataInspectionFailed"), Failure.REFUSED_POLICY),
    ],
)
def test_each_end_of_a_task_has_its_class(given: Answer, failure: Failure) -> None:
    read = CLOUD.read_poll(FILM, TICKET, given)
    assert isinstance(read, Refused)
    assert read.failure is failure


def test_a_clip_tells_its_length_and_how_long_it_took() -> None:
    times = {
        "submit_time": "2026-11-23 10:15:00.123",
        "scheduled_time": "2026-11-23 10:15:00.156",
        "end_time": "2026-11-23 10:16:40.001",
    }
    usage = {"video_count": 1, "duration": 5, "output_video_duration": 5, "SR": 720, "ratio": "16:9"}
    url = f"{OSS}/a.mp4?Expires=1"
    read = CLOUD.read_poll(FILM, TICKET, task("SUCCEEDED", usage, video_url=url, **times))
    assert read == Finished([Output(url=url)], cost_micro=500_000, predict_seconds=99.845)
    large = replace(FILM, inputs={**FILM.inputs, "generation_resolution": "1080p"})
    read = CLOUD.read_poll(large, TICKET, task("SUCCEEDED", usage, video_url=url))
    assert read == Finished([Output(url=url)], cost_micro=750_000)
    read = CLOUD.read_poll(FILM, TICKET, task("SUCCEEDED", {"duration": "long"}, results={"video_url": url}))
    assert read == Finished([Output(url=url)])


def test_a_batch_may_be_incomplete_although_it_succeeded() -> None:
    withheld = {"code": "DataInspectionFailed", "message": "Output data may contain inappropriate content."}
    url = f"{OSS}/a.png?Expires=1"
    some = task("SUCCEEDED", {"image_count": 1}, results=[{"orig_prompt": "a", "url": url}, withheld])
    assert CLOUD.read_poll(EDITED, TICKET, some) == Finished([Output(url=url)])
    read = CLOUD.read_poll(EDITED, TICKET, task("SUCCEEDED", {"image_count": 0}, results=[withheld] * 2))
    assert isinstance(read, Refused)
    assert read.failure is Failure.REFUSED_POLICY
    assert CLOUD.read_poll(EDITED, TICKET, task("SUCCEEDED", results=[])) == Finished([])


def test_the_pictures_of_a_task_are_billed_by_their_number() -> None:
    choices = [{"message": {"content": [{"image": f"{OSS}/{name}.png"}]}} for name in "ab"]
    read = CLOUD.read_poll(DRAWN, TICKET, task("SUCCEEDED", {"image_count": 2}, choices=choices))
    assert read == Finished([Output(url=f"{OSS}/{name}.png") for name in "ab"], cost_micro=58_000)


def test_a_cancel_confirms_nothing() -> None:
    request = CLOUD.build_cancel(FILM, TICKET)
    assert request is not None
    assert (request.method, request.url) == ("POST", f"{BASE}/tasks/{ID}/cancel")
    assert CLOUD.read_cancel(FILM, answer(200, {"request_id": "45ac7f13"})) is False
    assert CLOUD.read_cancel(FILM, error(400, "UnsupportedOperation")) is False


def test_nothing_can_be_reconciled_and_nothing_calls_back() -> None:
    for one in (FILM, AT_ONCE):
        assert CLOUD.build_reconcile(one) is None
        assert not CLOUD.calls_back(one)


def test_an_id_stays_within_its_address() -> None:
    assert CLOUD.build_poll(FILM, Accepted("../x?y")).url == f"{BASE}/tasks/..%2Fx%3Fy"


_ODD = [
    *(b"", b"null", b"[]", b"{", b"\xff", b"[" * 50_000),
    b'{"code":{},"message":[],"output":[],"usage":7}',
    b'{"output":{"task_status":"SUCCEEDED","results":[7,{"url":{}}],"choices":{},"end_time":7},"usage":[]}',
    b'{"output":{"task_status":"FAILED","code":[],"message":{}}}',
    b'{"output":{"choices":[{"message":{"content":{}}},7]},"usage":{"image_count":"many","duration":1e99}}',
]


@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize("body", _ODD)
def test_no_answer_is_too_odd_to_read(status: int, body: bytes) -> None:
    given = Answer(status, {}, body)
    for one in (FILM, AT_ONCE, EDITED):
        assert isinstance(CLOUD.read_submit(one, given), Refused | Finished)
        assert isinstance(CLOUD.read_poll(one, TICKET, given), Running | Refused | Finished)
    assert isinstance(CLOUD.read_check(given), Check)


def test_the_check_asks_for_the_newest_task() -> None:
    request = CLOUD.build_check()
    assert request is not None
    assert (request.method, request.url) == ("GET", f"{BASE}/tasks/?page_no=1&page_size=1")
    assert CLOUD.read_check(answer(200, {"data": [], "total": 0})).ok
    assert CLOUD.read_check(error(401, "InvalidApiKey", "Invalid.")) == Check(False, "HTTP 401: Invalid.")
    assert not CLOUD.read_check(error(200, "InvalidApiKey")).ok


# ------------------------------------------------------------------------------- against the emulator


@asynccontextmanager
async def wired(**settings: Any) -> AsyncIterator[tuple[AlibabaCloudEmulator, Runner]]:
    async with running(AlibabaCloudEmulator()) as emulator:
        assert isinstance(emulator, AlibabaCloudEmulator)
        provider = AlibabaCloud(ProviderSettings(**{**emulator.settings(), **settings}))
        transport = GuardedTransport(HttpTransport(private_networks=True), provider.base, provider.hosts)
        files = FileTransport(private_networks=True)
        runner = Runner(
            Registry({"alibabacloud": Route(provider, transport, files)}),
            ManualClock(),
            inline_timeout_s={"image": 0.3},
        )
        try:
            yield emulator, runner
        finally:
            await runner.close()


def saying(one: Job, prompt: str) -> Job:
    return replace(one, inputs={**one.inputs, "generation_prompt": prompt})


@pytest.mark.parametrize("one", [FILM, DRAWN, EDITED], ids=["clip", "conversation", "batch"])
async def test_a_task_runs_from_its_creation_to_its_files(one: Job) -> None:
    async with wired() as (emulator, runner):
        emulator.polls_until_done = 2
        ticket = await runner.submit(one)
        assert isinstance(ticket, Accepted)
        assert [await runner.poll(one, ticket) for _ in range(2)] == [Running()] * 2
        finished = await runner.poll(one, ticket)
        assert isinstance(finished, Finished)
        assert finished.predict_seconds == 12.5
        assert len(finished.outputs) == one.inputs.get("generation_output_number", 1)
        whole = clip() if one is FILM else picture()
        for output in finished.outputs:
            assert await runner.fetch(one, output, body_max=10**7) == whole
        assert emulator.purchases == 1


async def test_pictures_come_with_the_answer_where_there_is_no_task() -> None:
    async with wired() as (emulator, runner):
        finished = await runner.submit(AT_ONCE)
        assert isinstance(finished, Finished)
        assert finished.cost_micro == 35_000
        assert await runner.fetch(AT_ONCE, finished.outputs[0], body_max=10**6) == picture()
        assert emulator.purchases == 1


@pytest.mark.parametrize(
    ("word", "failure"),
    [
        ("slow", Failure.OUTCOME_UNKNOWN),
        ("answer-dropped", Failure.OUTCOME_UNKNOWN),
        ("moderated-output", Failure.REFUSED_POLICY),
        ("internal-error", Failure.FAILED),
    ],
)
async def test_what_goes_wrong_at_once_has_its_class(word: str, failure: Failure) -> None:
    async with wired() as (emulator, runner):
        read = await runner.submit(saying(AT_ONCE, f"[emulate:{word}]"))
        assert isinstance(read, Refused)
        assert (read.failure, emulator.purchases) == (failure, 1)


@pytest.mark.parametrize(
    ("word", "failure", "code"),
    [
        ("error-in-200", Failure.REFUSED_POLICY, None),
        ("free-tier", Failure.REFUSED_FUNDS, None),
        ("quota", Failure.REFUSED_BUSY, "BSE4003"),
        ("unknown-model", Failure.REFUSED_INPUT, None),
        ("bad-url", Failure.REFUSED_INPUT, "BSE2009"),
        ("gateway", Failure.OUTCOME_UNKNOWN, None),
    ],
)
async def test_what_only_it_refuses_has_its_class(word: str, failure: Failure, code: str | None) -> None:
    async with wired() as (emulator, runner):
        for one in (FILM, AT_ONCE):
            read = await runner.submit(saying(one, f"[alibabacloud:{word}]"))
            assert isinstance(read, Refused)
            assert (read.failure, read.code, emulator.purchases) == (failure, code, 0)
            assert SECRET not in read.message


async def test_a_batch_that_was_held_back_whole_is_a_refusal() -> None:
    async with wired() as (_, runner):
        one = saying(EDITED, "[alibabacloud:held-back]")
        ticket = await runner.submit(one)
        assert isinstance(ticket, Accepted)
        read = await runner.poll(one, ticket)
        assert isinstance(read, Refused)
        assert read.failure is Failure.REFUSED_POLICY


async def test_only_a_task_that_has_not_begun_is_canceled_and_only_the_task_says_so() -> None:
    async with wired() as (emulator, runner):
        emulator.polls_until_done = 2
        ticket = await runner.submit(FILM)
        assert isinstance(ticket, Accepted)
        assert await runner.cancel(FILM, ticket) is Cancellation.SENT
        read = await runner.poll(FILM, ticket)
        assert isinstance(read, Refused)
        assert "canceled" in read.message
        begun = await runner.submit(FILM)
        assert isinstance(begun, Accepted)
        assert await runner.poll(FILM, begun) == Running()
        assert await runner.cancel(FILM, begun) is Cancellation.SENT
        assert await runner.poll(FILM, begun) == Running()


async def test_the_check_tells_whether_the_key_is_of_the_region() -> None:
    async with wired() as (_, runner):
        assert (await runner.check("alibabacloud")).ok
    async with wired(api_key="wrong") as (_, runner):
        assert await runner.check("alibabacloud") == Check(False, "HTTP 401: Invalid API-key provided.")
