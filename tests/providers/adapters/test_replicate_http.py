"""Replicate over HTTP: whole predictions, and an emulator that is as strict as the service."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from tests.emulators.kit import SECRET, picture, running
from tests.emulators.replicate import ReplicateEmulator
from tests.support import ManualClock

from babysea_server.catalog.catalog import load_catalog
from babysea_server.kit.connections import Allowance
from babysea_server.providers.base import (
    Accepted,
    Answer,
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
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.replicate import Replicate
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.settings import ProviderSettings

MODEL = load_catalog(None).models["bfl/flux-schnell"]
ATTEMPT = UUID("0197c0de-0000-7000-8000-0000a5a5a5a5")
SCHNELL = "/models/black-forest-labs/flux-schnell/predictions"


def job(prompt: str, **inputs: Any) -> Job:
    given = {"generation_prompt": prompt, **inputs}
    return Job(ATTEMPT, "replicate", MODEL, given, opened_at=datetime.now(UTC), timeout_s=120.0)


def runner(emulator: ReplicateEmulator, **settings: Any) -> Runner:
    provider = Replicate(ProviderSettings(**{**emulator.settings(), **settings}))
    allowed = [Allowance.of(emulator.origin)]
    route = Route(provider, HttpTransport(allowed=allowed), FileTransport(allowed=allowed))
    return Runner(Registry({"replicate": route}), ManualClock())


async def ended(calls: Runner, asked: Job, ticket: Accepted) -> Finished | Refused:
    while isinstance(read := await calls.poll(asked, ticket), Running):
        pass
    return read


async def test_a_whole_prediction_over_http() -> None:
    async with running(ReplicateEmulator()) as emulator:
        assert isinstance(emulator, ReplicateEmulator)
        calls = runner(emulator)
        asked = job("a harbour", generation_output_number=2, generation_output_format="png")
        ticket = await calls.submit(asked)
        assert isinstance(ticket, Accepted)
        read = await ended(calls, asked, ticket)
        assert isinstance(read, Finished)
        assert read.predict_seconds == 0.84
        files = [await calls.fetch(asked, output, body_max=1_000_000) for output in read.outputs]
        assert files == [picture(), picture()]
        assert await calls.cancel(asked, ticket) is Cancellation.SENT
        assert (await calls.check("replicate")).ok
        assert len(await calls.callback_keys("replicate")) == 1
        [submit] = emulator.submits()
        assert submit.headers["authorization"] == f"Bearer {SECRET}"
        await calls.close()


async def test_a_running_prediction_is_canceled() -> None:
    async with running(ReplicateEmulator()) as emulator:
        assert isinstance(emulator, ReplicateEmulator)
        calls = runner(emulator)
        asked = job("[emulate:slow] a harbour")
        ticket = await calls.submit(asked)
        assert isinstance(ticket, Accepted)
        assert await calls.cancel(asked, ticket) is Cancellation.CONFIRMED
        await calls.close()


async def test_a_prediction_whose_answer_was_lost_is_found() -> None:
    async with running(ReplicateEmulator()) as emulator:
        assert isinstance(emulator, ReplicateEmulator)
        calls = runner(emulator)
        asked = job("[emulate:answer-dropped] a harbour")
        lost = await calls.submit(asked)
        assert isinstance(lost, Refused)
        assert lost.failure is Failure.OUTCOME_UNKNOWN
        found = await calls.reconcile(asked)
        assert isinstance(found, Accepted)
        assert found.upstream_id in emulator.jobs
        await calls.close()


@pytest.mark.parametrize(
    ("word", "failure"),
    [
        ("aborted", Failure.TIMED_OUT),
        ("overdue", Failure.TIMED_OUT),
        ("stopped", Failure.FAILED),
        ("busy", Failure.REFUSED_BUSY),
    ],
)
async def test_what_only_replicate_does_has_its_class(word: str, failure: Failure) -> None:
    async with running(ReplicateEmulator()) as emulator:
        assert isinstance(emulator, ReplicateEmulator)
        calls = runner(emulator)
        asked = job(f"[replicate:{word}] a harbour")
        ticket = await calls.submit(asked)
        assert isinstance(ticket, Accepted)
        read = await ended(calls, asked, ticket)
        assert isinstance(read, Refused)
        assert read.failure is failure
        await calls.close()


async def _post(emulator: ReplicateEmulator, path: str, body: Any, **headers: str) -> Answer:
    transport = HttpTransport(allowed=[Allowance.of(emulator.origin)])
    sent = {"authorization": f"Bearer {SECRET}", "content-type": "application/json", **headers}
    request = Request("POST", f"{emulator.base_url}{path}", sent, json.dumps(body).encode())
    found = await transport.send(request, timeout_s=5.0, body_max=1_000_000)
    await transport.close()
    return found


@pytest.mark.parametrize(
    ("path", "body", "headers", "field"),
    [
        (SCHNELL, {"input": {}}, {}, "input"),
        (SCHNELL, {"input": {"prompt": "a", "colour": 1}}, {}, "input"),
        (SCHNELL, {"input": {"prompt": "a", "num_outputs": 5}}, {}, "input.num_outputs"),
        (SCHNELL, {"input": {"prompt": "a", "aspect_ratio": "7:5"}}, {}, "input.aspect_ratio"),
        (SCHNELL, {"input": {"prompt": "a"}, "version": "x"}, {}, ""),
        (
            SCHNELL,
            {"input": {"prompt": "a"}, "webhook_events_filter": ["end"]},
            {},
            "webhook_events_filter.0",
        ),
        (SCHNELL, {"input": {"prompt": "a"}, "webhook": "ftp://x"}, {}, "webhook"),
        ("/predictions", {"input": {"prompt": "a"}}, {}, ""),
        ("/predictions", {"input": {"prompt": "a"}, "version": "sdxl"}, {}, "version"),
    ],
)
async def test_the_emulator_refuses_as_the_service_does(
    path: str, body: Any, headers: dict[str, str], field: str
) -> None:
    async with running(ReplicateEmulator()) as emulator:
        assert isinstance(emulator, ReplicateEmulator)
        found = await _post(emulator, path, body, **headers)
        assert found.status == 422
        assert found.headers["content-type"].startswith("application/problem+json")
        problem = json.loads(found.body)
        assert list(problem) == ["detail", "status", "title", "invalid_fields"]
        assert problem["title"] == "Input validation failed"
        assert [fault["field"] for fault in problem["invalid_fields"]] == [field]
        assert re.fullmatch(r"(- [^\n]*: [^\n]+\n)+", problem["detail"])
        assert emulator.purchases == 0


async def test_the_emulator_reads_deadlines_and_preferences() -> None:
    async with running(ReplicateEmulator()) as emulator:
        assert isinstance(emulator, ReplicateEmulator)
        body = {"input": {"prompt": "a"}}
        for wrong in (
            {"cancel-after": "2s"},
            {"cancel-after": "1h30m"},
            {"cancel-after": "90"},
            {"prefer": "wait=61"},
        ):
            assert (await _post(emulator, SCHNELL, body, **wrong)).status == 422
        assert emulator.purchases == 0
        waited = await _post(emulator, SCHNELL, body, **{"cancel-after": "5m", "prefer": "wait=5"})
        assert Replicate(ProviderSettings(api_key="r8_key")).read_submit(job("a"), waited) == Finished(
            [Output(url=json.loads(waited.body)["output"])], predict_seconds=None, upstream_id="0" * 25 + "1"
        )
        assert (await _post(emulator, "/models/stability-ai/sdxl/predictions", body)).status == 404


async def test_the_emulator_lists_newest_first_a_hundred_to_a_page() -> None:
    async with running(ReplicateEmulator()) as emulator:
        assert isinstance(emulator, ReplicateEmulator)
        calls = runner(emulator)
        for _ in range(3):
            await calls.submit(job("a"))
        route_headers = {"authorization": f"Bearer {SECRET}"}
        transport = HttpTransport(allowed=[Allowance.of(emulator.origin)])
        found = await transport.send(
            Request("GET", f"{emulator.base_url}/predictions", route_headers),
            timeout_s=5.0,
            body_max=1_000_000,
        )
        assert [entry["id"] for entry in json.loads(found.body)["results"]] == list(emulator.jobs)[::-1]
        await transport.close()
        await calls.close()
