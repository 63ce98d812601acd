"""Who is told by webhook in a simulation, and where files are kept."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from random import Random

from tests.simulation.faults import Faults
from tests.simulation.loop import OWNER, SimLoop

from babysea_server.outputs.keys import check_key
from babysea_server.outputs.store import ObjectStore, StorageError
from babysea_server.webhooks.sender import Sender
from babysea_server.webhooks.types import Answer, SendFailure

#: Whether a receiver took a message, and what that is to mean: failure class and status.
_REFUSALS: tuple[tuple[SendFailure, int | None, bool], ...] = (
    (SendFailure.HTTP_5XX, 500, False),
    (SendFailure.HTTP_4XX, 410, False),
    (SendFailure.CONNECT, None, False),
    (SendFailure.TIMEOUT, None, True),
    (SendFailure.DISCONNECTED, None, True),
)


@dataclass
class Received:
    """What one delivery's receiver saw."""

    url: str
    digest: str
    times: int = 0
    acknowledged: int = 0


@dataclass
class Receivers:
    """All receivers of webhooks, and the way to them."""

    loop: SimLoop
    faults: Faults
    draw: Random
    breach: Callable[[str], None]
    received: dict[str, Received] = field(default_factory=dict)
    """By delivery id."""
    _context: Context = field(default_factory=Context)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a message; whatever goes wrong is an answer."""
        process = OWNER.get()
        assert process is not None
        draw, started = self.draw, self.loop.time()
        failure: SendFailure | None = None
        status: int | None = 200
        taken = True
        if self.faults.on("receivers", started) and draw.random() < 0.5:
            failure, status, taken = draw.choice(_REFUSALS)
        arrives = draw.random() < 0.5
        future: asyncio.Future[None] = self.loop.create_future()

        def arrive() -> None:
            if process.alive or arrives:
                if taken or status is not None:
                    self._receive(url, headers, body, acknowledged=failure is None)
                takes = 10.0 if failure is SendFailure.TIMEOUT else draw.uniform(0.001, 0.3)
                self.loop.call_later(takes, _done, future, context=self._context)

        self.loop.call_later(draw.uniform(0.001, 0.05), arrive, context=self._context)
        await future
        duration_ms = round((self.loop.time() - started) * 1000)
        again = draw.choice((None, 3.0)) if status == 500 else None
        return Answer(failure, duration_ms, status, None if status is None else "", again)

    def _receive(self, url: str, headers: dict[str, str], body: bytes, *, acknowledged: bool) -> None:
        id, digest = headers["X-BabySea-Delivery-Id"], hashlib.sha256(body).hexdigest()
        seen = self.received.setdefault(id, Received(url, digest))
        if seen.digest != digest:
            self.breach(f"delivery {id} came with two different bodies")
        if seen.url != url:
            self.breach(f"delivery {id} came to {seen.url} and to {url}")
        seen.times += 1
        seen.acknowledged += acknowledged


def _done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class SimSender(Sender):
    """Sends to the simulated receivers."""

    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        return await self._receivers.post(url, headers, body)

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class Files:
    """What the object store of a simulation holds."""

    loop: SimLoop
    faults: Faults
    draw: Random
    objects: dict[str, bytes] = field(default_factory=dict)


class SimStore(ObjectStore):
    """One process's way to the files."""

    def __init__(self, files: Files) -> None:
        self.name = "simulated"
        self._files = files

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        check_key(key)
        before, after = await self._way()
        if not before:
            raise StorageError("put: simulated failure")
        self._files.objects[key] = data
        if not after:
            raise StorageError("put: simulated loss of the answer")

    async def size(self, key: str) -> int | None:
        data = self._files.objects.get(key)
        return None if data is None else len(data)

    async def delete(self, keys: Sequence[str]) -> None:
        before, after = await self._way()
        if not before:
            raise StorageError("delete: simulated failure")
        for key in keys:
            self._files.objects.pop(key, None)
        if not after:
            raise StorageError("delete: simulated loss of the answer")

    async def _way(self) -> tuple[bool, bool]:
        """How long a call takes is waited for; whether it has an effect, and whether that is told."""
        files, now = self._files, self._files.loop.time()
        draw = files.draw
        slow = files.faults.on("slow_files", now) and draw.random() < 0.4
        await asyncio.sleep(draw.uniform(0.5, 20.0) if slow else draw.uniform(0.001, 0.02))
        if not files.faults.on("files", now) or draw.random() < 0.6:
            return True, True
        return draw.random() < 0.5, False
