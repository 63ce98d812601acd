"""fal: every answer has one meaning, callbacks are verified, and a job runs over real HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.emulators.fal import FalEmulator
from tests.emulators.kit import SECRET, running
from tests.support import ManualClock

from babysea_server.catalog.catalog import load_catalog
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Callback,
    Failure,
    Finished,
    Job,
    Look,
    Output,
    Refused,
    Running,
)
from babysea_server.providers.fal import Fal
from babysea_server.providers.http import HttpTransport
from babysea_server.providers.registry import GuardedTransport, Registry, Route
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.settings import ProviderSettings

MODELS = load_catalog(None).models
FAL = Fal(ProviderSettings(api_key="id:secret"))
ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
QUEUE = "https://queue.fal.run"
TICKET = Accepted(
    ID,
    state={
        "status_url": f"{QUEUE}/fal-ai/flux/requests/{ID}/status",
        "response_url": f"{QUEUE}/fal-ai/flux/requests/{ID}",
        "cancel_url": f"{QUEUE}/fal-ai/flux/requests/{ID}/cancel",
    },
    poll_after_s=0.5,
)


def job(model: str, **inputs: Any) -> Job:
    return Job(UUID(int=7), "fal", MODELS[model], {"generation_prompt": "a tiger eye", **inputs})


FLUX, KLING = job("bfl/flux-schnell"), job("kling/v2.6", generation_duration=5)


def answer(status: int, body: Any, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def test_an_accepted_job_keeps_the_addresses_that_fal_named() -> None:
    body = {"status": "IN_QUEUE", "request_id": ID, "queue_position": 0, **(TICKET.state or {})}
    assert FAL.read_submit(FLUX, answer(200, body)) == TICKET
    assert FAL.build_poll(FLUX, TICKET).url == f"{QUEUE}/fal-ai/flux/requests/{ID}/status"
    cancel = FAL.build_cancel(FLUX, TICKET)
    assert cancel is not None
    assert (cancel.method, cancel.url) == ("PUT", f"{QUEUE}/fal-ai/flux/requests/{ID}/cancel")


@pytest.mark.parametrize(
    ("asked", "application"),
    [
        (FLUX, "fal-ai/flux"),
        (KLING, "fal-ai/kling-video"),
        (job("bytedance/seedance-2.0", generation_duration=5), "bytedance/seedance-2.0"),
    ],
)
def test_addresses_that_were_not_named_are_made_of_the_application(asked: Job, application: str) -> None:
    read = FAL.read_submit(
        asked, answer(200, {"request_id": "a/b", "status_url": 5, "response_url": "nonsense"})
    )
    assert isinstance(read, Accepted)
    assert read.state == {}
    assert FAL.build_poll(asked, read).url == f"{QUEUE}/{application}/requests/a%2Fb/status"


DETAIL = {"loc": ["body", "prompt"], "msg": "of no use", "url": "https://docs.fal.ai/errors"}


@pytest.mark.parametrize(
    ("status", "body", "headers", "failure", "code"),
    [
        (401, {"detail": "Unauthorized"}, {}, Failure.REFUSED_AUTH, None),
        (403, {"detail": "You may not use this"}, {}, Failure.REFUSED_AUTH, None),
        (
            403,
            {
                "detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
            },
            {},
            Failure.REFUSED_FUNDS,
            None,
        ),
        (404, {"detail": "Path /x not found"}, {}, Failure.REFUSED_INPUT, None),
        (422, {"detail": [{**DETAIL, "type": "missing"}]}, {}, Failure.REFUSED_INPUT, None),
        (429, {"detail": "Too many requests"}, {}, Failure.REFUSED_BUSY, "BSE4003"),
        (500, {"detail": "Internal Server Error"}, {}, Failure.FAILED, None),
        (503, {"detail": "x"}, {"x_fal_error_type": "runner_scheduling_failure"}, Failure.REFUSED_BUSY, None),
        (502, b"<html>", {}, Failure.FAILED, None),
        (502, b"<html>", {"x_fal_request_id": ID}, Failure.OUTCOME_UNKNOWN, None),
        (504, b"<html>", {}, Failure.OUTCOME_UNKNOWN, None),
        (504, {"detail": "x", "error_type": "startup_timeout"}, {}, Failure.REFUSED_BUSY, None),
        (200, {"status": "IN_QUEUE"}, {}, Failure.OUTCOME_UNKNOWN, None),
        (200, b"<html>", {}, Failure.OUTCOME_UNKNOWN, None),
    ],
)
def test_a_refused_submit(
    status: int, body: Any, headers: dict[str, str], failure: Failure, code: str | None
) -> None:
    read = FAL.read_submit(FLUX, answer(status, body, **headers))
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, {"status": "IN_QUEUE", "queue_position": 3}),
        (202, {"status": "IN_PROGRESS", "logs": None}),
        (200, {"status": "SOMETHING_NEW"}),
        (200, b"<html>"),
        (200, {}),
        (429, {"detail": "slow down"}),
        (401, {"detail": "Unauthorized"}),
        (503, {"detail": "x"}),
    ],
)
def test_a_job_runs_until_it_is_completed(status: int, body: Any) -> None:
    assert FAL.read_poll(FLUX, TICKET, answer(status, body)) == Running()


def test_a_completed_job_is_looked_up_with_the_key() -> None:
    for body in ({"status": "COMPLETED"}, {"status": "COMPLETED", "error": "Invalid status code: 422"}):
        read = FAL.read_poll(FLUX, TICKET, answer(200, {**body, "metrics": {"inference_time": 3.7}}))
        assert isinstance(read, Look)
        assert read.request.url == f"{QUEUE}/fal-ai/flux/requests/{ID}"
        assert read.request.headers == {"authorization": "Key id:secret"}


def test_a_lost_job_has_failed() -> None:
    for read in (
        FAL.read_poll(FLUX, TICKET, answer(404, {"detail": "not found"})),
        FAL.read_look(FLUX, TICKET, answer(404, {"detail": "not found"})),
    ):
        assert isinstance(read, Refused)
        assert read.failure is Failure.FAILED


PLATFORM = [
    ("request_timeout", 504, Failure.TIMED_OUT),
    ("startup_timeout", 504, Failure.REFUSED_BUSY),
    ("runner_scheduling_failure", 503, Failure.REFUSED_BUSY),
    ("runner_connection_timeout", 503, Failure.REFUSED_BUSY),
    ("runner_connection_refused", 503, Failure.REFUSED_BUSY),
    ("runner_connection_error", 503, Failure.REFUSED_BUSY),
    ("runner_disconnected", 503, Failure.FAILED),
    ("runner_incomplete_response", 502, Failure.FAILED),
    ("runner_server_error", 500, Failure.FAILED),
    ("internal_error", 500, Failure.FAILED),
    ("client_disconnected", 499, Failure.FAILED),
    ("client_cancelled", 499, Failure.FAILED),
    ("bad_request", 400, Failure.REFUSED_INPUT),
]


@pytest.mark.parametrize(("code", "status", "failure"), PLATFORM)
def test_errors_of_the_platform_wherever_they_are_told(code: str, status: int, failure: Failure) -> None:
    reads: list[object] = [
        FAL.read_look(FLUX, TICKET, answer(status, {"detail": "It failed", "error_type": code})),
        FAL.read_look(FLUX, TICKET, answer(status, b"It failed", x_fal_error_type=code)),
    ]
    polled = FAL.read_poll(
        FLUX, TICKET, answer(200, {"status": "COMPLETED", "error": "It failed", "error_type": code})
    )
    if code != "bad_request":  # of which the result says more
        reads.append(polled)
    for read in reads:
        assert isinstance(read, Refused)
        assert read.failure is failure


@pytest.mark.parametrize(
    ("type", "status", "failure", "code"),
    [
        ("content_policy_violation", 422, Failure.REFUSED_POLICY, None),
        ("image_too_large", 422, Failure.REFUSED_INPUT, "BSE2002"),
        ("image_too_small", 422, Failure.REFUSED_INPUT, "BSE2003"),
        ("unsupported_image_format", 422, Failure.REFUSED_INPUT, "BSE2004"),
        ("image_load_error", 422, Failure.REFUSED_INPUT, "BSE2005"),
        ("file_too_large", 422, Failure.REFUSED_INPUT, "BSE2007"),
        ("file_download_error", 422, Failure.REFUSED_INPUT, "BSE2009"),
        ("greater_than", 422, Failure.REFUSED_INPUT, "BSE2008"),
        ("less_than_equal", 422, Failure.REFUSED_INPUT, "BSE2008"),
        ("one_of", 422, Failure.REFUSED_INPUT, "BSE2008"),
        ("missing", 422, Failure.REFUSED_INPUT, None),
        ("a_new_kind", 422, Failure.REFUSED_INPUT, None),
        ("generation_timeout", 504, Failure.TIMED_OUT, None),
        ("downstream_service_error", 500, Failure.FAILED, None),
        ("downstream_service_unavailable", 503, Failure.REFUSED_BUSY, None),
        ("no_media_generated", 422, Failure.BAD_OUTPUT, None),
        ("internal_server_error", 500, Failure.FAILED, None),
    ],
)
def test_errors_of_a_model(type: str, status: int, failure: Failure, code: str | None) -> None:
    read = FAL.read_look(
        FLUX, TICKET, answer(status, {"detail": [{**DETAIL, "type": type, "input": "a cat"}]})
    )
    assert isinstance(read, Refused)
    assert (read.failure, read.code) == (failure, code)
    assert "cat" not in read.message


def test_an_error_without_billable_units_cost_nothing() -> None:
    body = {"detail": [{**DETAIL, "type": "missing"}]}
    free = FAL.read_look(FLUX, TICKET, answer(422, body, x_fal_billable_units="0"))
    billed = FAL.read_look(FLUX, TICKET, answer(422, body, x_fal_billable_units="1.5"))
    unknown = FAL.read_look(FLUX, TICKET, answer(422, body))
    assert [read.cost_micro for read in (free, billed, unknown) if isinstance(read, Refused)] == [
        0,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"detail": "Request is still in progress"}),
        (401, {"detail": "Unauthorized"}),
        (429, {"detail": "slow down"}),
        (500, b"<html>"),
        (502, b"<html>"),
        (503, {"detail": "no upstream"}),
        (504, b""),
        (302, b""),
        (200, b"<html>"),
    ],
)
def test_a_result_that_is_not_the_jobs_own_is_asked_for_again(status: int, body: Any) -> None:
    assert FAL.read_look(FLUX, TICKET, answer(status, body)) == Running()


def test_outputs_of_images_and_of_a_video() -> None:
    images = {
        "images": [
            {
                "url": "https://v3.fal.media/files/a/x.jpeg",
                "width": 1024,
                "height": 576,
                "content_type": "image/jpeg",
            },
            {"url": "data:image/png;base64,AAAA"},
        ],
        "timings": {"inference": 0.31},
        "seed": 7,
        "has_nsfw_concepts": [False, False],
    }
    assert FAL.read_look(FLUX, TICKET, answer(200, images)) == Finished(
        [Output(url="https://v3.fal.media/files/a/x.jpeg"), Output(url="data:image/png;base64,AAAA")],
        predict_seconds=0.31,
    )
    video = {
        "video": {
            "content_type": "video/mp4",
            "file_name": "output.mp4",
            "url": "https://v3b.fal.media/o.mp4",
        }
    }
    assert FAL.read_look(KLING, TICKET, answer(200, video)) == Finished(
        [Output(url="https://v3b.fal.media/o.mp4")]
    )
    single = {"image": {"url": "https://v3.fal.media/files/a/x.png"}}
    assert FAL.read_look(FLUX, TICKET, answer(200, single)) == Finished(
        [Output(url="https://v3.fal.media/files/a/x.png")]
    )


def test_a_result_without_files_is_a_success_without_outputs() -> None:
    body: Any
    for body in ({"images": []}, {"images": None, "seed": 1}, {"images": [{"url": 5}, 3, None]}):
        assert FAL.read_look(FLUX, TICKET, answer(200, body)) == Finished([])


def test_a_blackened_picture_was_refused_for_its_content() -> None:
    body: dict[str, Any] = {"images": [{"url": "https://v3.fal.media/a"}, {"url": "https://v3.fal.media/b"}]}
    flags: Any
    for flags in ([True, True], [False, True]):
        read = FAL.read_look(FLUX, TICKET, answer(200, {**body, "has_nsfw_concepts": flags}))
        assert isinstance(read, Refused)
        assert read.failure is Failure.REFUSED_POLICY
    for flags in ([False, False], [], None, "no"):
        assert isinstance(
            FAL.read_look(FLUX, TICKET, answer(200, {**body, "has_nsfw_concepts": flags})), Finished
        )


@pytest.mark.parametrize(
    ("status", "body", "stopped"),
    [
        (200, {"status": "OK"}, True),
        (202, {"status": "CANCELLATION_REQUESTED"}, False),
        (400, {"status": "ALREADY_COMPLETED"}, False),
        (404, {"status": "NOT_FOUND"}, False),
        (200, {"status": "CANCELLATION_REQUESTED"}, False),
        (200, b"<html>", False),
    ],
)
def test_only_a_job_taken_out_of_the_queue_was_stopped(status: int, body: Any, stopped: bool) -> None:
    assert FAL.read_cancel(FLUX, answer(status, body)) is stopped


def test_a_lost_answer_cannot_be_cleared_up() -> None:
    assert FAL.build_reconcile(FLUX) is None


def test_the_key_is_checked_on_a_job_that_nobody_has() -> None:
    request = FAL.build_check()
    assert request is not None
    assert (request.method, request.headers["authorization"]) == ("GET", "Key id:secret")
    assert FAL.read_check(answer(404, {"detail": "not found"})).ok
    for status in (401, 403, 500):
        assert not FAL.read_check(answer(status, {"detail": "no"})).ok


# ----------------------------------------------------------------------------------- callbacks

PUBLIC = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
SIGNED = Callback(
    {
        "x-fal-webhook-request-id": "123e4567-e89b-12d3-a456-426614174000",
        "x-fal-webhook-user-id": "user_1",
        "x-fal-webhook-timestamp": "1795400100",
        "x-fal-webhook-signature": (
            "853fd1c0ab09cb67a6ae10a3b783dd048d110abf99cc9777812c509e357bcdc8"
            "43257763101a1e9a658417be8f63e86517d0c864e5f49924ff190438905e2c06"
        ),
    },
    b'{"request_id":"123e4567-e89b-12d3-a456-426614174000",'
    b'"gateway_request_id":"123e4567-e89b-12d3-a456-426614174000","status":"OK","payload":{"images":[]}}',
    received_at=1795400100.0,
)


def keys(*entries: Any) -> tuple[bytes, ...]:
    return FAL.read_keys(answer(200, {"keys": list(entries)}))


def jwk(x: str) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": x}


def test_a_signed_callback_is_believed() -> None:
    assert FAL.verify_callback(SIGNED, keys(jwk(PUBLIC)))
    assert FAL.verify_callback(SIGNED, keys(jwk("A" * 43), jwk(f"{PUBLIC}=")))
    assert FAL.verify_callback(replace(SIGNED, received_at=1795400100.0 + 300), keys(jwk(PUBLIC)))


@pytest.mark.parametrize(
    "callback",
    [
        replace(SIGNED, body=SIGNED.body + b" "),
        replace(SIGNED, received_at=1795400100.0 + 301),
        replace(SIGNED, received_at=1795400100.0 - 301),
        replace(SIGNED, headers={}),
        *(
            replace(SIGNED, headers={**SIGNED.headers, f"x-fal-webhook-{name}": value})
            for name, value in (
                ("request-id", ""),
                ("request-id", "another"),
                ("user-id", "user_2"),
                ("timestamp", "1795400101"),
                ("timestamp", "now"),
                ("signature", "00" * 64),
                ("signature", "not hex"),
                ("signature", "é"),
                ("signature", ""),
            )
        ),
    ],
)
def test_any_other_callback_is_not(callback: Callback) -> None:
    assert not FAL.verify_callback(callback, keys(jwk(PUBLIC)))


def test_without_its_key_no_callback_is_believed() -> None:
    assert not FAL.verify_callback(SIGNED, ())
    assert not FAL.verify_callback(SIGNED, keys(jwk("A" * 43)))
    assert not FAL.verify_callback(SIGNED, (b"short",))


def test_keys_are_public_and_read_tolerantly() -> None:
    request = FAL.build_keys()
    assert request is not None
    assert (request.url, dict(request.headers)) == ("https://rest.fal.ai/.well-known/jwks.json", {})
    assert len(keys(jwk(PUBLIC), jwk("QUJD"), jwk("é"), {"x": 5}, None, 7)) == 1
    assert FAL.read_keys(answer(200, {"keys": "none"})) == ()
    assert FAL.read_keys(answer(200, b"<html>")) == ()
    assert FAL.read_keys(answer(503, {"keys": [jwk(PUBLIC)]})) == ()


# ----------------------------------------------------------------------------------- over HTTP


@asynccontextmanager
async def over_http(*, key: str = SECRET) -> AsyncIterator[tuple[FalEmulator, Runner]]:
    async with running(FalEmulator()) as emulator:
        assert isinstance(emulator, FalEmulator)
        adapter = Fal(
            ProviderSettings(**{**emulator.settings(), "base_url": emulator.base_url, "api_key": key})
        )
        transport = GuardedTransport(HttpTransport(private_networks=True), adapter.base, adapter.hosts)
        runner = Runner(
            Registry({"fal": Route(adapter, transport, HttpTransport(private_networks=True))}), ManualClock()
        )
        try:
            yield emulator, runner
        finally:
            await runner.close()


async def ended(runner: Runner, asked: Job) -> Finished | Refused:
    ticket = await runner.submit(asked)
    assert isinstance(ticket, Accepted)
    for _ in range(6):
        read = await runner.poll(asked, ticket)
        if not isinstance(read, Running):
            return read
    raise AssertionError("it never ended")


@pytest.mark.parametrize("asked", [job("bfl/flux-schnell", generation_output_number=2), KLING])
async def test_a_job_from_submit_to_its_files(asked: Job) -> None:
    async with over_http() as (emulator, runner):
        read = await ended(runner, asked)
        assert isinstance(read, Finished)
        files = [await runner.fetch(asked, output, body_max=1 << 20) for output in read.outputs]
        expected = emulator.file(emulator.jobs[str(UUID(int=1))])
        assert files == [expected] * asked.inputs.get("generation_output_number", 1)
        paths = [request.path for request in emulator.requests]
        assert paths[0] == f"/{asked.offer.model}"
        assert all(path.startswith("/" + "/".join(asked.offer.model.split("/")[:2])) for path in paths)


@pytest.mark.parametrize(
    ("word", "failure", "code"),
    [
        ("startup-timeout", Failure.REFUSED_BUSY, None),
        ("request-timeout", Failure.TIMED_OUT, None),
        ("disconnected", Failure.FAILED, None),
        ("incomplete", Failure.FAILED, None),
        ("platform-error", Failure.FAILED, None),
        ("image-too-large", Failure.REFUSED_INPUT, "BSE2002"),
        ("image-too-small", Failure.REFUSED_INPUT, "BSE2003"),
        ("image-unreadable", Failure.REFUSED_INPUT, "BSE2005"),
        ("file-unreachable", Failure.REFUSED_INPUT, "BSE2009"),
        ("file-too-large", Failure.REFUSED_INPUT, "BSE2007"),
        ("generation-timeout", Failure.TIMED_OUT, None),
        ("downstream-busy", Failure.REFUSED_BUSY, None),
        ("nothing-made", Failure.BAD_OUTPUT, None),
    ],
)
async def test_what_only_fal_does_wrong(word: str, failure: Failure, code: str | None) -> None:
    async with over_http() as (_, runner):
        read = await ended(runner, job("bfl/flux-schnell", generation_prompt=f"a cat [fal:{word}]"))
        assert isinstance(read, Refused)
        assert (read.failure, read.code) == (failure, code)


async def test_a_result_that_is_early_is_asked_for_again() -> None:
    async with over_http() as (_, runner):
        assert isinstance(
            await ended(runner, job("bfl/flux-schnell", generation_prompt="a cat [fal:early-result]")),
            Finished,
        )


async def test_a_gateway_that_gave_up_leaves_the_outcome_unknown() -> None:
    async with over_http() as (emulator, runner):
        read = await runner.submit(job("bfl/flux-schnell", generation_prompt="a cat [fal:gateway-timeout]"))
        assert isinstance(read, Refused)
        assert (read.failure, emulator.purchases) == (Failure.OUTCOME_UNKNOWN, 1)


async def test_a_wrong_value_is_accepted_and_its_result_a_refusal() -> None:
    async with over_http() as (_, runner):
        read = await ended(runner, job("bfl/flux-schnell", generation_seed="seven"))
        assert isinstance(read, Refused)
        assert (read.failure, read.cost_micro) == (Failure.REFUSED_INPUT, 0)


async def test_a_job_is_canceled_in_the_queue_and_asked_to_stop_later() -> None:
    async with over_http() as (emulator, runner):
        waiting, begun = await runner.submit(FLUX), await runner.submit(FLUX)
        assert isinstance(waiting, Accepted)
        assert isinstance(begun, Accepted)
        assert await runner.cancel(FLUX, waiting) is Cancellation.CONFIRMED
        assert await runner.poll(FLUX, begun) == Running()
        assert await runner.cancel(FLUX, begun) is Cancellation.SENT
        for ticket in (waiting, begun):
            read = await runner.poll(FLUX, ticket)
            assert isinstance(read, Refused)
            assert read.failure is Failure.FAILED
        assert emulator.purchases == 2


async def test_the_key_is_checked_and_the_callback_keys_are_found() -> None:
    async with over_http() as (_, runner):
        assert (await runner.check("fal")).ok
        assert len(await runner.callback_keys("fal")) == 2
    async with over_http(key="wrong") as (_, runner):
        assert not (await runner.check("fal")).ok
