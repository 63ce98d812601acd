"""What emulators share: a server on loopback, jobs, files that expire, callbacks, and words that make it misbehave.

An emulator is a provider seen from outside. It knows nothing of our tables or adapters; what it was asked is kept
as it arrived, so that a test can hold every request against the documented shape and count purchases.
"""

import asyncio
import contextlib
import io
import itertools
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar

import aiohttp
import msgspec
from aiohttp import web
from PIL import Image

from babysea_server.providers.sandbox.render import Scene, render_video

#: A key that must never be seen again anywhere but in the requests to the emulator: the scan looks for the marker.
SECRET_MARK = "s3cr3t-0f-the-0perat0r"
SECRET = f"{SECRET_MARK}-key"
WRONG_KEY = f"{SECRET_MARK}-wrong"

_WORDS = re.compile(r"\[emulate:([a-z-]+)\]")
_BODY_MAX = 64 * 1024 * 1024


class Misbehavior(StrEnum):
    """The checklist. A prompt that holds `[emulate:<word>]` gets it; a provider that cannot do so says why."""

    SLOW = "slow"
    """Accepted, and never finished."""
    LOST_JOB = "lost-job"
    """Accepted, and unknown at the next question."""
    MODERATED_INPUT = "moderated-input"
    """The prompt is refused for its content."""
    MODERATED_OUTPUT = "moderated-output"
    """The result is withheld for its content."""
    BAD_INPUT = "bad-input"
    """A value is refused."""
    INTERNAL_ERROR = "internal-error"
    """The job fails inside the provider."""
    RATE_LIMITED = "rate-limited"
    """Too many requests."""
    NO_CAPACITY = "no-capacity"
    """No machine is free."""
    NO_BALANCE = "no-balance"
    """The operator's account is empty."""
    BAD_KEY = "bad-key"
    """The credentials are refused, whatever they are."""
    PARTIAL_BATCH = "partial-batch"
    """Fewer outputs than were asked for, the rest with an error or missing."""
    NO_OUTPUT = "no-output"
    """Success without an output."""
    BROKEN_OUTPUT = "broken-output"
    """A file that cannot be read."""
    EXPIRED_OUTPUT = "expired-output"
    """The files are gone before they are fetched."""
    ANSWER_DROPPED = "answer-dropped"
    """The job is accepted and the answer to its submit lost."""
    REQUEST_DROPPED = "request-dropped"
    """The submit is lost, and nothing is accepted."""
    GARBAGE = "garbage"
    """The submit is answered 200 with what is not the protocol."""
    CALLBACK_TWICE = "callback-twice"
    """The same callback arrives twice."""
    CALLBACK_EARLY = "callback-early"
    """Callbacks arrive out of order: one that says the job is finished before it is."""
    CALLBACK_FORGED = "callback-forged"
    """Only a callback with a wrong signature arrives."""
    CALLBACK_NEVER = "callback-never"
    """No callback arrives."""


#: Those that only providers that call back can show.
CALLBACKS = frozenset(word for word in Misbehavior if word.startswith("callback-"))


@dataclass
class Received:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    """Decoded JSON, a form as a dict of lists, or bytes."""


@dataclass
class EmulatedJob:
    """One job that the emulator accepted: one purchase."""

    id: str
    prompt: str
    request: Received
    count: int = 1
    media: str = "image"
    callback_url: str | None = None
    canceled: bool = False
    polls: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def behavior(self) -> Misbehavior | None:
        """What its prompt asks for."""
        return asked_for(self.prompt)


def asked_for(prompt: str) -> Misbehavior | None:
    """The misbehaviour that a prompt names."""
    found = _WORDS.search(prompt)
    return Misbehavior(found[1]) if found else None


class DroppedError(Exception):
    """Raised by a handler to close the connection without an answer."""


class Emulator:
    """One provider's API. Subclasses add routes and the protocol.

    `polls_until_done` says how often a job is still running when it is asked about; callbacks are sent once it is
    done. `down` makes every request fail at the connection, `delay` holds submits until it is set.
    """

    provider: ClassVar[str]
    base_path: ClassVar[str] = ""
    """What the adapter's `base_url` has behind the authority."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.jobs: dict[str, EmulatedJob] = {}
        self.callbacks: defaultdict[Misbehavior | None, list[int]] = defaultdict(list)
        """The statuses our server answered callbacks with, by how the job was to behave."""
        self.polls_until_done = 1
        self.down = False
        self.origin = ""
        self.files_fetched = 0
        self.inputs: dict[str, bytes] = {}
        """Customers' files by name, as if they lay somewhere else."""
        self.closing = asyncio.Event()
        """Set when the server ends: what holds an answer back waits for it."""
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------- for subclasses

    def routes(self) -> list[web.RouteDef]:
        """The provider's routes."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """What an operator would configure to reach this emulator."""
        return {"api_key": SECRET, "base_url": self.base_url, "private_network": True}

    @property
    def base_url(self) -> str:
        """The adapter's base address."""
        return f"{self.origin}{self.base_path}"

    def authorized(self, request: web.Request) -> bool:
        """Whether the request carries the operator's key."""
        return request.headers.get("authorization") == f"Bearer {SECRET}"

    def new_job(self, id: str, prompt: str, received: Received, **fields: Any) -> EmulatedJob:
        """Accept a job: a purchase."""
        job = EmulatedJob(id, prompt, received, **fields)
        self.jobs[id] = job
        return job

    def number(self) -> int:
        """A number that is not used again."""
        return next(self._numbers)

    def is_done(self, job: EmulatedJob) -> bool:
        """Counts as one question: after enough of them a job is done, unless it never is."""
        job.polls += 1
        return job.behavior is not Misbehavior.SLOW and job.polls > self.polls_until_done

    def file_url(self, job: EmulatedJob, index: int = 0) -> str:
        """Where an output of the job lies: a host of its own to the provider, here the same server."""
        return f"{self.origin}/_files/{job.id}/{index}"

    def file(self, job: EmulatedJob) -> bytes:
        """An output of the job."""
        data = clip() if job.media == "video" else picture()
        return data[: len(data) // 2] if job.behavior is Misbehavior.BROKEN_OUTPUT else data

    @property
    def purchases(self) -> int:
        """Jobs that were accepted."""
        return len(self.jobs)

    def submits(self) -> list[Received]:
        """The requests that bought or tried to; by default every POST."""
        return [request for request in self.requests if request.method == "POST"]

    async def receive(self, request: web.Request) -> Received:
        """Read a request and keep it."""
        body: Any
        if request.content_type == "multipart/form-data":
            body = await _form(request)
        else:
            body = await request.read()
            if request.content_type == "application/json" and body:
                body = msgspec.json.decode(body)
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.method, request.path, dict(request.query), headers, body)
        self.requests.append(received)
        return received

    def call_back(self, job: EmulatedJob, build: Callable[[bool], tuple[dict[str, str], bytes]]) -> None:
        """Announce the end of a job as its prompt says. `build(forged)` makes headers and body."""
        if job.callback_url is None or job.behavior is Misbehavior.CALLBACK_NEVER:
            return
        times = 2 if job.behavior is Misbehavior.CALLBACK_TWICE else 1
        forged = job.behavior is Misbehavior.CALLBACK_FORGED
        sending = self._post(job, job.callback_url, [build(forged) for _ in range(times)])
        self._tasks.add(asyncio.create_task(sending))

    async def _post(self, job: EmulatedJob, url: str, messages: list[tuple[dict[str, str], bytes]]) -> None:
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for headers, body in messages:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.post(url, data=body, headers=headers) as answer:
                        self.callbacks[job.behavior].append(answer.status)

    # ------------------------------------------------------------------------------- the server

    def app(self) -> web.Application:
        """The whole server."""
        app = web.Application(middlewares=[self._guard], client_max_size=_BODY_MAX)
        own = [
            web.get("/_files/{id}/{index}", self._serve_file),
            web.get("/_inputs/{name}", self._serve_input),
        ]
        app.add_routes([*own, *self.routes()])
        app.on_shutdown.append(self._let_go)
        return app

    async def _let_go(self, _app: web.Application) -> None:
        self.closing.set()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if self.down:
                raise DroppedError
            return await handler(request)
        except DroppedError:
            assert request.transport is not None
            request.transport.abort()
            raise web.HTTPInternalServerError from None  # written to nobody

    async def _serve_file(self, request: web.Request) -> web.StreamResponse:
        leaked = [name for name, value in request.headers.items() if SECRET_MARK in value]
        assert not leaked, "an output host got credentials"
        assert SECRET_MARK not in str(request.url), "an address of an output holds credentials"
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.behavior is Misbehavior.EXPIRED_OUTPUT:
            return web.Response(status=403, text="expired")
        self.files_fetched += 1
        kind = "video/mp4" if job.media == "video" else "image/png"
        return web.Response(body=self.file(job), content_type=kind)

    async def _serve_input(self, request: web.Request) -> web.StreamResponse:
        found = self.inputs.get(request.match_info["name"])
        return web.Response(status=404) if found is None else web.Response(body=found)

    async def settle(self) -> None:
        """Wait until every callback that was begun has been sent."""
        while self._tasks:
            tasks, self._tasks = self._tasks, set()
            await asyncio.gather(*tasks)


async def _form(request: web.Request) -> dict[str, list[Any]]:
    """A `multipart/form-data` body: texts as str, files as (name, type, bytes)."""
    fields: dict[str, list[Any]] = {}
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        assert isinstance(part, aiohttp.BodyPartReader)
        data = bytes(await part.read())
        value: Any = (
            data.decode()
            if part.filename is None
            else (part.filename, part.headers.get("content-type"), data)
        )
        fields.setdefault(str(part.name), []).append(value)
    return fields


@asynccontextmanager
async def running(emulator: Emulator, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Emulator]:
    """The emulator on a port of loopback, and its end."""
    runner = web.AppRunner(emulator.app(), access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    assert runner.addresses
    emulator.origin = f"http://{host}:{runner.addresses[0][1]}"
    try:
        yield emulator
    finally:
        await emulator.settle()
        await runner.cleanup()


@lru_cache
def picture() -> bytes:
    """A small PNG."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (32, 120, 180)).save(file, "PNG")
    return file.getvalue()


@lru_cache
def clip() -> bytes:
    """A small MP4 of one second."""
    return render_video(Scene("a clip", seed=1, label="emulator", width=128, height=72), seconds=1, fps=8)


def json(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers
    )
