"""A provider that does as a test tells it, call by call, and remembers what it was asked."""

import asyncio
import io
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from PIL import Image

from babysea_server.catalog.types import Traits
from babysea_server.providers.base import (
    Accepted,
    Answer,
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


def picture(edge: int = 16) -> bytes:
    """A small valid PNG."""
    file = io.BytesIO()
    Image.new("RGB", (edge, edge), (24, 96, 160)).save(file, "PNG")
    return file.getvalue()


PICTURE = picture()
DONE = Finished([Output(data=PICTURE)])


class AdapterError(Exception):
    """What an adapter with a mistake in it would raise."""


@dataclass
class Script:
    """How one provider behaves. The last entry of a list repeats; an exception is raised by the transport,
    except `AdapterError`, which the adapter raises while reading.
    """

    submits: list[Any] = field(default_factory=lambda: [DONE])
    polls: list[Any] = field(default_factory=lambda: [DONE])
    #: None: not offered. `"jobs"`: what the upstream has by our reference.
    reconcile: Any = None
    cancel: bool | None = None
    files: dict[str, Any] = field(default_factory=dict)
    #: Called inside the transport, after the upstream has the job and before it answers.
    on_submit: Callable[["Call"], Awaitable[None]] | None = None
    on_poll: Callable[["Call"], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Call:
    """One request as the upstream got it."""

    verb: str
    provider: str
    reference: UUID
    upstream_id: str | None = None


class Scripted(Provider):
    """Provider and transport in one; `scripts` by provider id, `*` for the rest."""

    name = "scripted"
    traits = Traits("polling")

    def __init__(self, **scripts: Script) -> None:
        super().__init__(ProviderSettings())
        self.scripts = scripts
        self.calls: list[Call] = []
        self.jobs: dict[UUID, list[str]] = defaultdict(list)
        self.maintained = 0
        self._values: dict[str, Any] = {}
        self._turns: dict[tuple[str, str], int] = defaultdict(int)

    def script(self, provider: str) -> Script:
        """The provider's script."""
        return self.scripts.get(provider) or self.scripts.setdefault("others", Script())

    def count(self, verb: str, provider: str | None = None) -> int:
        """Calls of one kind."""
        return sum(call.verb == verb and provider in (None, call.provider) for call in self.calls)

    @property
    def purchases(self) -> int:
        """Jobs the upstream took, inline or not."""
        return sum(len(ids) for ids in self.jobs.values())

    # ------------------------------------------------------------------------------- the provider

    def build_submit(self, job: Job) -> Request:
        return Request("POST", f"submit/{job.provider_id}/{job.attempt_id}")

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        value: Accepted | Finished | Refused = self._read(answer)
        return value

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        return Request("GET", f"poll/{job.provider_id}/{job.attempt_id}/{ticket.upstream_id}")

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        value: Running | Finished | Refused = self._read(answer)
        return value

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        if self.script(job.provider_id).cancel is None:
            return None
        return Request("POST", f"cancel/{job.provider_id}/{job.attempt_id}/{ticket.upstream_id}")

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        return bool(self._read(answer))

    def build_reconcile(self, job: Job) -> Request | None:
        if self.script(job.provider_id).reconcile is None:
            return None
        return Request("GET", f"reconcile/{job.provider_id}/{job.attempt_id}")

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        value: Accepted | NotFound | Unclear = self._read(answer)
        return value

    def _read(self, answer: Answer) -> Any:
        value = self._values.pop(answer.body.decode())
        if isinstance(value, AdapterError):
            raise AdapterError(*value.args)
        return value

    # ------------------------------------------------------------------------------- the transport

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        verb, provider, *rest = request.url.split("/", 3)
        script = self.script(provider)
        if verb == "file":
            data = script.files.get(rest[0])
            if data is None:
                return Answer(404, {}, b"")
            if isinstance(data, Exception):
                raise data
            return Answer(200, {}, data)
        call = Call(verb, provider, UUID(rest[0]), rest[1] if len(rest) > 1 else None)
        self.calls.append(call)
        value = await self._value(call, script)
        if isinstance(value, Exception) and not isinstance(value, AdapterError):
            raise value
        token = str(len(self.calls)) + "." + str(len(self._values))
        self._values[token] = value
        return Answer(200, {}, token.encode())

    async def maintain(self) -> None:
        self.maintained += 1

    async def close(self) -> None:
        pass

    async def _value(self, call: Call, script: Script) -> Any:
        match call.verb:
            case "submit":
                value = self._next(call, script.submits)
                took = not isinstance(value, Refused | NeverSentError) and not getattr(
                    value, "nothing_bought", False
                )
                if took:
                    self.jobs[call.reference].append(f"up-{call.reference}")
                if isinstance(value, Accepted) and value.upstream_id == "":
                    value = Accepted(f"up-{call.reference}", value.state, value.poll_after_s)
                if script.on_submit is not None:
                    await script.on_submit(call)
                return value
            case "poll":
                if script.on_poll is not None:
                    await script.on_poll(call)
                return self._next(call, script.polls)
            case "reconcile" if script.reconcile == "jobs":
                ids = self.jobs.get(call.reference)
                return Accepted(ids[0], poll_after_s=0.0) if ids else NotFound()
            case "reconcile":
                return script.reconcile
            case _:
                return script.cancel

    def _next(self, call: Call, values: list[Any]) -> Any:
        turn = self._turns[call.verb, call.provider]
        self._turns[call.verb, call.provider] += 1
        return values[min(turn, len(values) - 1)]


def accepted(poll_after_s: float = 0.0) -> Accepted:
    """The upstream takes the job under an id of its own making."""
    return Accepted("", poll_after_s=poll_after_s)


def lost(error: Exception, *, bought: bool) -> Exception:
    """A transport error that says whether the upstream has the job all the same."""
    error.__dict__["nothing_bought"] = not bought
    return error


class Gate:
    """Holds a call inside the upstream until the test opens it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, _call: Call) -> None:
        self.entered.set()
        await self.opened.wait()
