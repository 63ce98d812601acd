"""A customer's server that takes webhooks: real HTTP on loopback, behaves by path as it is told."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.support import eventually


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The delivery's id."""
        return self.headers["X-BabySea-Delivery-Id"]

    @property
    def event(self) -> str:
        """What happened."""
        return self.headers["X-BabySea-Event"]

    @property
    def data(self) -> dict[str, Any]:
        """`webhook_data`."""
        data: dict[str, Any] = json.loads(self.body)["webhook_data"]
        return data


@dataclass
class Behavior:
    """What one path answers; the last status repeats."""

    statuses: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    held: bool = False
    """Requests are answered only after `release`."""
    endless: bool = False
    """The body never ends."""
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Answer what is held, and hold nothing any more."""
        self.held = False
        self.released.set()


class Receiver:
    """See the module."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.origin = ""
        self._behaviors: defaultdict[str, Behavior] = defaultdict(Behavior)
        self._under_way: defaultdict[str, int] = defaultdict(int)
        self.most_at_once: defaultdict[str, int] = defaultdict(int)

    def path(self, path: str, **behavior: Any) -> Behavior:
        """How a path behaves, from now on."""
        self._behaviors[path] = Behavior(**behavior)
        return self._behaviors[path]

    def at(self, path: str) -> list[Received]:
        """What came to one path, in order."""
        return [each for each in self.received if each.path == path]

    async def has(self, path: str, count: int) -> list[Received]:
        """What came to a path, once it is so many."""

        async def came() -> list[Received] | None:
            found = self.at(path)
            return found if len(found) >= count else None

        return await eventually(came)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Take one webhook."""
        path, body = request.path, await request.read()
        self.received.append(Received(path, dict(request.headers), body))
        behavior = self._behaviors[path]
        self._under_way[path] += 1
        self.most_at_once[path] = max(self.most_at_once[path], self._under_way[path])
        try:
            if behavior.held:
                await behavior.released.wait()
            status = behavior.statuses.pop(0) if len(behavior.statuses) > 1 else behavior.statuses[0]
            if behavior.endless:
                response = web.StreamResponse(status=status, headers=behavior.headers)
                await response.prepare(request)
                await response.write(behavior.body)
                await behavior.released.wait()
                return response
            return web.Response(status=status, headers=behavior.headers, body=behavior.body)
        finally:
            self._under_way[path] -= 1


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A running receiver on a port of its own."""
    one = Receiver()
    app = web.Application(client_max_size=1 << 20)
    app.router.add_post("/{tail:.*}", one.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    [address] = runner.addresses
    one.origin = f"http://127.0.0.1:{address[1]}"
    try:
        yield one
    finally:
        for behavior in one._behaviors.values():
            behavior.release()
        await runner.cleanup()
