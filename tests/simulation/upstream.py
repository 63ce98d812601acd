"""The providers of a simulation: they keep jobs, and answer late, twice, wrongly or not at all."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Literal, Protocol
from uuid import UUID

from tests.execution.scripted import picture
from tests.media.samples import film
from tests.simulation.faults import Faults
from tests.simulation.loop import OWNER, Process, SimLoop

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
from babysea_server.settings import ProviderSettings

#: Longest wait for the answer to a submit; nothing that was sent arrives later.
SUBMIT_TIMEOUT_S = 5.0
_TRAVELS_MAX_S = 3.0
#: What an operator's key looks like; it must be seen nowhere.
CREDENTIALS = "sk-simulated-credentials"


class Witness(Protocol):
    """Sees what providers see."""

    def sending(self, process: Process, attempt_id: UUID) -> None:
        """A submit leaves a process."""
        ...

    def bought(self, attempt_id: UUID, provider: str) -> None:
        """A provider has taken a job."""
        ...


class SimProvider(Provider):
    """An adapter of a provider that speaks a small language of its own."""

    def __init__(self, provider_id: str, habits: "Habits") -> None:
        super().__init__(ProviderSettings())
        self._id = provider_id
        self._habits = habits
        self.name = provider_id  # type: ignore[misc]  # one class plays all providers
        self.traits = Traits(habits.delivery)  # type: ignore[misc]  # in the way of each

    def build_submit(self, job: Job) -> Request:
        body = {"callback": job.callback_url, "media": job.model.media, "inputs": dict(job.inputs)}
        url = f"submit/{self._id}/{job.attempt_id}"
        return Request("POST", url, {"authorization": CREDENTIALS}, json.dumps(body).encode())

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        told = _told(answer)
        match told.get("is"):
            case "accepted":
                return Accepted(told["id"], {"of": told["id"]}, poll_after_s=told["after"])
            case "finished":
                return _finished(told)
            case "refused":
                return _refused(told)
        return Refused(Failure.OUTCOME_UNKNOWN, "an answer that says nothing")

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        return Request("GET", f"poll/{self._id}/{job.attempt_id}/{ticket.upstream_id}")

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        told = _told(answer)
        match told.get("is"):
            case "finished":
                return _finished(told)
            case "refused":
                return _refused(told)
        return Running(told.get("after"))

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        if not self._habits.cancels:
            return None
        return Request("POST", f"cancel/{self._id}/{job.attempt_id}/{ticket.upstream_id}")

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        return bool(_told(answer).get("stopped"))

    def build_reconcile(self, job: Job) -> Request | None:
        if not self._habits.reconciles:
            return None
        return Request("GET", f"find/{self._id}/{job.attempt_id}")

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        told = _told(answer)
        match told.get("is"):
            case "accepted":
                return Accepted(told["id"], {"of": told["id"]}, poll_after_s=0.0)
            case "missing":
                return NotFound()
        return Unclear()


def _told(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer.body) if answer.status == 200 else {}
    return told


def _finished(told: Mapping[str, Any]) -> Finished:
    outputs = [Output(url=url) for url in told["files"]]
    return Finished(outputs, cost_micro=told.get("cost"), predict_seconds=told.get("seconds"))


def _refused(told: Mapping[str, Any]) -> Refused:
    return Refused(Failure(told["failure"]), "simulated", retry_after_s=told.get("again"))


@dataclass(frozen=True, slots=True)
class Habits:
    """How one provider is in one simulation."""

    delivery: Literal["webhook_with_polling", "synchronous", "polling"]
    cancels: bool
    reconciles: bool
    fails: float
    """Share of jobs that fail."""
    slow: float
    """Share of jobs that take too long."""


def draw_habits(draw: Random) -> Habits:
    """A provider."""
    return Habits(
        draw.choice(("polling", "polling", "webhook_with_polling", "synchronous")),
        cancels=draw.random() < 0.5,
        reconciles=draw.random() < 0.5,
        fails=draw.choice((0.0, 0.1, 0.5)),
        slow=draw.choice((0.0, 0.0, 0.2)),
    )


@dataclass
class UpstreamJob:
    """A job that a provider has taken."""

    id: str
    attempt_id: UUID
    provider: str
    media: str
    asked: int
    ends_at: float
    ending: str
    callback: str | None
    stopped: bool = False


@dataclass
class Upstream:
    """All providers, and the way to them.

    Args:
        call_back: a provider calls the address that it was given.
    """

    loop: SimLoop
    faults: Faults
    draw: Random
    witness: Witness
    trace: Callable[[str], None]
    call_back: Callable[[str, UUID], None]
    habits: dict[str, Habits]
    jobs: dict[str, UpstreamJob] = field(default_factory=dict)
    taken: dict[UUID, list[str]] = field(default_factory=dict)
    _context: Context = field(default_factory=Context)

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """See `Transport.send`."""
        process = OWNER.get()
        assert process is not None
        if request.url.startswith("submit/"):
            self.witness.sending(process, UUID(request.url.split("/")[2]))
        now, draw = self.loop.time(), self.draw
        if self.faults.on("provider_losses", now) and draw.random() < 0.05:
            await asyncio.sleep(draw.uniform(0.0, 0.2))
            raise NeverSentError("simulated: no way there")
        arrives = draw.random() < 0.5
        """Also if its sender dies on the way."""
        future: asyncio.Future[Answer] = self.loop.create_future()
        travels = draw.uniform(0.0, _TRAVELS_MAX_S) if draw.random() < 0.05 else draw.uniform(0.001, 0.05)

        def arrive() -> None:
            if process.alive or arrives:
                self._arrive(request, future)

        self.loop.call_later(travels, arrive, context=self._context)
        return await future

    async def close(self) -> None:
        """Nothing is open."""

    # ------------------------------------------------------------------------------- at the provider

    def _arrive(self, request: Request, future: "asyncio.Future[Answer]") -> None:
        verb, provider, *rest = request.url.split("/")
        now, draw = self.loop.time(), self.draw
        delay = draw.uniform(0.001, 0.05)
        answer: Answer
        if verb == "submit":
            answer, busy_s = self._submit(provider, UUID(rest[0]), request)
            delay += busy_s
        elif verb == "file":
            answer = self._file(rest[0])
        else:
            answer = self._json(self._told(verb, rest))
        self.trace(f"{verb} {provider} -> {answer.status} {answer.body[:60] if verb != 'file' else ''!r}")
        if self.faults.on("provider_losses", now) and draw.random() < 0.08:
            # Late answers are lost, too, and some connections just hang.
            if draw.random() < 0.3:
                return
            self.loop.call_later(draw.uniform(0.0, 8.0), self._lose, future, context=self._context)
            return
        self.loop.call_later(delay, self._answer, future, answer, context=self._context)

    def _submit(self, provider: str, attempt_id: UUID, request: Request) -> tuple[Answer, float]:
        draw, habits, now = self.draw, self.habits[provider], self.loop.time()
        if self.faults.on("provider_refusals", now) and draw.random() < 0.3:
            failure = draw.choice(list(_REFUSALS))
            return self._json(
                {"is": "refused", "failure": failure, "again": draw.choice((None, 1.0, 60.0))}
            ), 0.0
        assert request.body is not None
        body = json.loads(request.body)
        takes = draw.uniform(0.1, 8.0)
        if self.faults.on("provider_lies", now) and draw.random() < habits.slow:
            takes = draw.choice((40.0, 1e9))
        ending = "failed" if draw.random() < habits.fails and now < self.faults.until else "finished"
        if self.faults.on("provider_lies", now) and draw.random() < 0.3:
            ending = draw.choice(("empty", "broken", "wavering", "unknown", "gone"))
        asked = body["inputs"].get("generation_output_number") or 1
        job = UpstreamJob(
            f"up-{len(self.jobs)}",
            attempt_id,
            provider,
            body["media"],
            asked,
            now + takes,
            ending,
            body["callback"],
        )
        self.jobs[job.id] = job
        self.taken.setdefault(attempt_id, []).append(job.id)
        self.witness.bought(attempt_id, provider)
        if job.callback is not None and takes < 1000:
            for _ in range(draw.choice((0, 1, 1, 2))):
                late = draw.choice((0.0, draw.uniform(0.0, 3.0)))
                self.loop.call_later(
                    takes + late, self.call_back, provider, attempt_id, context=self._context
                )
        if habits.delivery == "synchronous":
            if takes > 1000 or ending == "unknown":
                return Answer(500, {}, b""), 1.0
            return self._json(self._ended(job)), takes
        after = draw.choice((0.0, 0.5, 1.0))
        return self._json({"is": "accepted", "id": job.id, "after": after}), 0.0

    def _told(self, verb: str, rest: list[str]) -> dict[str, Any]:
        if verb == "find":
            ids = self.taken.get(UUID(rest[0]))
            return {"is": "accepted", "id": ids[0]} if ids else {"is": "missing"}
        job = self.jobs[rest[1]]
        if verb == "cancel":
            stops = self.loop.time() < job.ends_at and self.draw.random() < 0.7
            job.stopped = job.stopped or stops
            return {"stopped": stops}
        if job.stopped:
            return {"is": "refused", "failure": "failed"}
        if self.loop.time() < job.ends_at:
            return {"is": "running", "after": self.draw.choice((None, 0.5, 2.0))}
        return self._ended(job)

    def _ended(self, job: UpstreamJob) -> dict[str, Any]:
        draw, number = self.draw, job.asked
        match job.ending:
            case "failed":
                return {"is": "refused", "failure": "failed"}
            case "unknown":
                return {"is": "dreaming"}
            case "wavering" if draw.random() < 0.6:
                return draw.choice(
                    (
                        {"is": "running"},
                        {"is": "refused", "failure": "failed"},
                        {"is": "finished", "files": []},
                    )
                )
            case "empty":
                number = 0
        # More than were asked for, now and then.
        number += draw.random() < 0.1 and job.ending == "wavering"
        files = [f"file/{job.provider}/{job.id}" for _ in range(number)]
        return {"is": "finished", "files": files, "cost": draw.choice((None, 1234)), "seconds": 0.5}

    def _file(self, job_id: str) -> Answer:
        job = self.jobs[job_id]
        if job.ending == "gone":
            return Answer(404, {}, b"")
        if job.ending == "broken":
            return Answer(200, {}, b"this is no picture")
        return Answer(200, {}, _clip() if job.media == "video" else _picture())

    def _json(self, told: dict[str, Any]) -> Answer:
        return Answer(200, {}, json.dumps(told).encode())

    def _answer(self, future: "asyncio.Future[Answer]", answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    def _lose(self, future: "asyncio.Future[Answer]") -> None:
        if not future.done():
            future.set_exception(AnswerLostError("simulated: the line broke"))
            future.exception()


_REFUSALS = (
    "refused_busy",
    "refused_busy",
    "refused_auth",
    "refused_funds",
    "refused_input",
    "refused_policy",
    "failed",
)


@cache
def _picture() -> bytes:
    return picture()


@cache
def _clip() -> bytes:
    return film("mp4", "libx264")
