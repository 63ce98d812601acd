"""The runner: every ending is a value, every wait has an end, only harmless questions are repeated."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import UUID

import pytest
from tests.support import ManualClock, eventually

from babysea_server.catalog.catalog import load_catalog
from babysea_server.catalog.types import Traits
from babysea_server.providers.base import (
    Accepted,
    Answer,
    AnswerLostError,
    Failure,
    Finished,
    Job,
    NeverSentError,
    NotFound,
    Output,
    Provider,
    Refused,
    Request,
    Running,
    Unclear,
)
from babysea_server.providers.registry import Registry, Route, everywhere
from babysea_server.providers.runner import Cancellation, OutputUnavailableError, Runner
from babysea_server.settings import ProviderSettings

MODEL = load_catalog(None).models["bfl/flux-schnell"]
JOB = Job(UUID(int=1), "fal", MODEL, {})
TICKET = Accepted("up-1")

Value = TypeVar("Value")


class Wire(Provider):
    """Provider and transport of one: `answers` by verb, the last one repeats; exceptions are raised."""

    name = "wire"
    traits = Traits("polling")

    def __init__(self, **answers: list[Any]) -> None:
        super().__init__(ProviderSettings())
        self.answers = answers
        self.sent: list[tuple[str, float, int]] = []
        self.closed = 0
        self.offers = True

    def build_submit(self, job: Job) -> Request:
        if "build" in self.answers:
            raise self.answers["build"][0]
        return Request("POST", "submit")

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        return Accepted(answer.body.decode())

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        return Request("GET", "poll")

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        return Refused(Failure.FAILED, answer.body.decode())

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        return Request("POST", "cancel") if self.offers else None

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        return answer.body.startswith(b"stopped")

    def build_reconcile(self, job: Job) -> Request | None:
        return Request("GET", "reconcile") if self.offers else None

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        return NotFound()

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        values = self.answers[request.url]
        value = values[min(sum(verb == request.url for verb, _, _ in self.sent), len(values) - 1)]
        self.sent.append((request.url, timeout_s, body_max))
        if isinstance(value, asyncio.Event):
            await value.wait()
        if isinstance(value, Exception):
            raise value
        return value if isinstance(value, Answer) else Answer(200, {}, value)

    async def close(self) -> None:
        self.closed += 1

    def count(self, verb: str) -> int:
        return sum(sent == verb for sent, _, _ in self.sent)


def runner(wire: Wire, clock: ManualClock | None = None, **options: Any) -> Runner:
    return Runner(everywhere(["fal", "bfl"], Route(wire, wire)), clock or ManualClock(), **options)


async def _driven(clock: ManualClock, ask: Coroutine[Any, Any, Value]) -> Value:
    """Turn the clock until the question has its answer."""
    asked = asyncio.create_task(ask)

    async def answered() -> bool:
        if clock.sleeping:
            clock.advance(0.5)
        return asked.done()

    await eventually(answered)
    return await asked


async def test_a_submit_is_sent_once_under_its_own_deadline() -> None:
    wire = Wire(submit=[b"up-9"])
    assert await runner(wire, submit_timeout_s=12.0).submit(JOB) == Accepted("up-9")
    assert [(verb, timeout) for verb, timeout, _ in wire.sent] == [("submit", 12.0)]


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (NeverSentError("no route"), Failure.NEVER_SENT),
        (AnswerLostError("reset"), Failure.OUTCOME_UNKNOWN),
        (RuntimeError("a transport with a mistake in it"), Failure.OUTCOME_UNKNOWN),
        (TimeoutError(), Failure.OUTCOME_UNKNOWN),
    ],
)
async def test_a_broken_submit_is_a_value_and_never_repeated(error: Exception, failure: Failure) -> None:
    wire = Wire(submit=[error])
    refused = await runner(wire).submit(JOB)
    assert isinstance(refused, Refused)
    assert refused.failure is failure
    assert wire.count("submit") == 1


async def test_a_transport_without_an_end_of_its_own_is_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babysea_server.providers.runner._TRANSPORT_GRACE_S", 0.0)
    wire = Wire(submit=[asyncio.Event()])
    refused = await runner(wire, submit_timeout_s=0.01).submit(JOB)
    assert isinstance(refused, Refused)
    assert refused.failure is Failure.OUTCOME_UNKNOWN


async def test_a_request_that_cannot_be_built_was_never_sent_and_its_fault_stays_inside() -> None:
    wire = Wire(build=[KeyError("sk-secret")])
    refused = await runner(wire).submit(JOB)
    assert refused == Refused(Failure.NEVER_SENT, "the request could not be built: KeyError")
    assert wire.sent == []


async def test_a_cancelled_run_is_cancelled_and_not_an_answer_lost() -> None:
    wire = Wire(submit=[asyncio.Event()])
    submitting = asyncio.create_task(runner(wire).submit(JOB))

    async def sent() -> bool:
        return wire.count("submit") == 1

    await eventually(sent)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting


async def test_who_is_not_configured_is_never_asked() -> None:
    nobody = Runner(Registry({}), ManualClock())
    refused = await nobody.submit(JOB)
    assert isinstance(refused, Refused)
    assert refused.failure is Failure.NEVER_SENT
    assert await nobody.poll(JOB, TICKET) == Running()
    assert await nobody.cancel(JOB, TICKET) is Cancellation.NOT_SUPPORTED
    assert await nobody.reconcile(JOB) == Unclear()
    assert nobody.adapter_name("fal") == "fal"
    with pytest.raises(OutputUnavailableError):
        await nobody.fetch(JOB, Output(url="https://x.test/1"), body_max=10)


@pytest.mark.parametrize("error", [NeverSentError("x"), AnswerLostError("x"), ValueError("x")])
async def test_a_poll_on_a_broken_line_means_nothing(error: Exception) -> None:
    wire = Wire(poll=[error, b"boom"])
    one = runner(wire)
    assert await one.poll(JOB, TICKET) == Running()
    assert await one.poll(JOB, TICKET) == Refused(Failure.FAILED, "boom")


async def test_a_cancel_has_three_seconds_is_asked_once_and_tells_how_far_it_came() -> None:
    wire = Wire(cancel=[b"stopped", b"too late", AnswerLostError("x"), ValueError("x"), NeverSentError("x")])
    one = runner(wire)
    endings = [await one.cancel(JOB, TICKET) for _ in range(5)]
    assert endings == [
        Cancellation.CONFIRMED,
        Cancellation.SENT,
        Cancellation.SENT,
        Cancellation.SENT,  # a transport that fails otherwise may have sent it
        Cancellation.NOT_SENT,
    ]
    assert [ending.sent for ending in endings] == [True, True, True, True, False]
    assert {timeout for _, timeout, _ in wire.sent} == {3.0}
    wire.offers = False
    assert await one.cancel(JOB, TICKET) is Cancellation.NOT_SUPPORTED
    assert wire.count("cancel") == 5


async def test_reconciliation_is_repeated_and_then_unclear() -> None:
    clock = ManualClock()
    wire = Wire(reconcile=[AnswerLostError("x"), NeverSentError("x"), b""])
    assert await _driven(clock, runner(wire, clock).reconcile(JOB)) == NotFound()
    wire = Wire(reconcile=[AnswerLostError("x")])
    assert await _driven(clock, runner(wire, clock).reconcile(JOB)) == Unclear()
    assert wire.count("reconcile") == 3
    wire.offers = False
    assert await runner(wire).reconcile(JOB) == Unclear()


async def test_a_fetch_is_repeated_until_the_file_is_whole() -> None:
    clock = ManualClock()
    wire = Wire(file=[Answer(503, {}, b""), AnswerLostError("x"), b"the file"])
    assert (
        await _driven(clock, runner(wire, clock).fetch(JOB, Output(url="file"), body_max=99)) == b"the file"
    )
    assert {limit for _, _, limit in wire.sent} == {99}


@pytest.mark.parametrize(
    "answer", [Answer(404, {}, b"gone"), Answer(302, {}, b""), AnswerLostError("too large")]
)
async def test_a_file_that_is_not_to_be_had_is_given_up(answer: Any) -> None:
    clock = ManualClock()
    wire = Wire(file=[answer])
    with pytest.raises(OutputUnavailableError):
        await _driven(clock, runner(wire, clock).fetch(JOB, Output(url="file"), body_max=99))
    assert wire.count("file") == 4


async def test_bytes_that_came_with_the_answer_are_not_fetched() -> None:
    wire = Wire()
    assert await runner(wire).fetch(JOB, Output(data=b"here"), body_max=99) == b"here"
    with pytest.raises(OutputUnavailableError):
        await runner(wire).fetch(JOB, Output(), body_max=99)
    assert wire.sent == []


async def test_a_transport_that_serves_many_is_maintained_and_closed_once() -> None:
    class Kept(Wire):
        maintained = 0

        async def maintain(self) -> None:
            self.maintained += 1

    kept, plain = Kept(), Wire()
    routes = {"fal": Route(kept, kept), "bfl": Route(kept, kept), "runway": Route(plain, plain)}
    registry = Registry(routes)
    one = Runner(registry, ManualClock())
    await one.maintain()
    await one.close()
    assert (kept.maintained, kept.closed, plain.closed) == (1, 1, 1)
    assert registry.available("fal")
    assert not registry.available("openai")


def test_the_adapter_is_named_by_what_really_runs() -> None:
    assert runner(Wire()).adapter_name("fal") == "wire"
