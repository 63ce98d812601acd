"""Providers that take their time, and that can be told to answer badly for a while."""

import random
import zlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

from aiohttp import web
from tests.emulators.fal import FalEmulator
from tests.emulators.kit import EmulatedJob, Emulator, Received, json
from tests.emulators.replicate import ReplicateEmulator

from babysea_server.kit.clock import Clock

#: A job takes between these, in seconds, always the same for the same prompt.
_TAKES_S = (0.2, 2.5)
#: From the purchase to its answer.
_TELLS_S = (0.05, 0.6)
#: An answer that is late comes after up to so long; the server waits for 4 seconds.
_LATE_S = 6.0
_LISTED = 100


class Mood(StrEnum):
    """How requests are answered."""

    WELL = "well"
    BUSY = "busy"
    """429, and nothing is done."""
    ERRORS = "errors"
    """500, and nothing is done."""
    SLOW = "slow"
    """Late; what was asked is done before or after the delay."""
    CUTS = "cuts"
    """It is done, and the connection breaks instead of an answer, or in the middle of it."""


# A base that is not one: every direct subclass of `Emulator` is taken for a provider.
if TYPE_CHECKING:
    _Base = Emulator
else:
    _Base = object

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Moody(_Base):
    """What both providers have beside their protocol."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        super().__init__()
        self.mood = Mood.WELL
        self.share = 0.0
        """Of the requests that meet the mood."""
        self.spoiled = 0
        """Requests that met it."""
        self._clock = clock
        self._chance = chance

    async def receive(self, request: web.Request) -> Received:
        received = await super().receive(request)
        self.requests.clear()  # a job keeps its own; the rest would only grow
        return received

    def new_job(self, id: str, prompt: str, received: Received, **fields: Any) -> EmulatedJob:
        job = super().new_job(id, prompt, received, **fields)
        low, high = _TAKES_S
        part = zlib.crc32(prompt.encode()) % 1000 / 1000
        job.extra["ready_at"] = self._clock.monotonic() + low + (high - low) * part
        return job

    def is_done(self, job: EmulatedJob) -> bool:
        job.polls += 1
        return bool(self._clock.monotonic() >= job.extra["ready_at"])

    def app(self) -> web.Application:
        app = super().app()
        app.middlewares.insert(0, self._spoil)
        return app

    @web.middleware
    async def _spoil(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        mood = self.mood
        if mood is Mood.WELL or self._chance.random() >= self.share:
            answer = await handler(request)
            if request.method == "POST":  # bought, and not told yet: here a buyer may die
                await self._clock.sleep(self._chance.uniform(*_TELLS_S))
            return answer
        self.spoiled += 1
        match mood:
            case Mood.BUSY:
                return json(429, {"detail": "Request was throttled."}, {"retry-after": "1"})
            case Mood.ERRORS:
                return json(500, {"detail": "Internal server error"})
            case Mood.SLOW:
                done = await handler(request) if self._chance.random() < 0.5 else None
                await self._clock.sleep(_LATE_S * self._chance.random())
                return done or await handler(request)
            case _:
                return await self._cut(request, await handler(request))

    async def _cut(self, request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
        """Instead of the answer, or behind its first half."""
        assert request.transport is not None
        body = answer.body if isinstance(answer, web.Response) else None
        if self._chance.random() < 0.5 and isinstance(body, bytes):
            head = f"HTTP/1.1 {answer.status} OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            request.transport.write(head + body[: len(body) // 2])
            await self._clock.sleep(0)
            request.transport.close()
        else:
            request.transport.abort()
        return answer  # written to nobody


class MoodyReplicate(_Moody, ReplicateEmulator):
    """Lists the newest hundred predictions of a time, as the service does on its first page."""

    async def browse(self, request: web.Request) -> web.StreamResponse:
        await self.receive(request)
        if not self.authorized(request):
            return json(401, {"title": "Unauthenticated", "status": 401})
        after, before = (
            datetime.fromisoformat(request.query[name]) for name in ("created_after", "created_before")
        )
        newest_first = reversed(self.jobs.values())
        found = islice((job for job in newest_first if after <= job.extra["created"] < before), _LISTED)
        results = [self.prediction(job, str(job.extra.get("ended", "processing"))) for job in found]
        return json(200, {"next": None, "previous": None, "results": results})


class MoodyFal(_Moody, FalEmulator):
    """fal's queue."""
