"""Everything that is not ours, as one process: two providers and a customer's receiver of webhooks.

`python -m tests.chaos.outside --ports '{"replicate": 20001, ...}' --origins '{"replicate": "http://...", ...}'`

The harness talks to it on the port `control`: `POST /mood` with a provider or `receiver`, its mood and the share of
the requests that meet it; `GET /seen` tells all jobs and messages.
"""

import argparse
import asyncio
import base64
import json
import random
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from aiohttp import web
from tests.chaos.providers import Mood, MoodyFal, MoodyReplicate
from tests.emulators.kit import running

from babysea_server.kit.clock import Clock, SystemClock

_BODY_MAX = 64 << 20


class SeenJob(msgspec.Struct, frozen=True):
    """A job that a provider accepted."""

    provider: str
    id: str
    prompt: str
    canceled: bool


class SeenMessage(msgspec.Struct, frozen=True):
    """A webhook as it arrived."""

    endpoint: str
    headers: dict[str, str]
    body: str
    """Base64."""
    taken: bool
    """Whether it was answered 200."""


class Seen(msgspec.Struct, frozen=True):
    """Everything that the outside knows."""

    jobs: list[SeenJob]
    messages: list[SeenMessage]
    spoiled: dict[str, int]
    """Requests that were answered badly on purpose, by whom."""


class _Receiver:
    """A customer's server: keeps every message, and answers as it is told."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self.messages: list[SeenMessage] = []
        self.share = 0.0
        self.spoiled = 0
        self._clock = clock
        self._chance = chance

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        bad = self._chance.random() < self.share
        if bad:
            self.spoiled += 1
            await self._clock.sleep(self._chance.random())
        headers = {name.lower(): value for name, value in request.headers.items()}
        text = base64.b64encode(body).decode()
        self.messages.append(SeenMessage(request.match_info["endpoint"], headers, text, not bad))
        return web.Response(status=500 if bad else 200, text="")


class Outside:
    """See the module.

    Args:
        origins: where the providers believe to be, that is the proxy's ways to them.
    """

    def __init__(self, origins: Mapping[str, str]) -> None:
        clock, chance = SystemClock(), random.Random(0)
        self.providers = {"replicate": MoodyReplicate(clock, chance), "fal": MoodyFal(clock, chance)}
        self.receiver = _Receiver(clock, chance)
        self._origins = origins

    async def open(self, stack: AsyncExitStack, ports: Mapping[str, int]) -> None:
        """Listen on every port until the stack is closed."""
        for name, provider in self.providers.items():
            await stack.enter_async_context(running(provider, port=ports[name]))
            provider.origin = self._origins[name]
        routes = {
            "receiver": [web.post("/{endpoint}", self.receiver.take)],
            "control": [web.post("/mood", self._mood), web.get("/seen", self._seen)],
        }
        for name, its in routes.items():
            app = web.Application(client_max_size=_BODY_MAX)
            app.add_routes(its)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", ports[name]).start()

    async def _mood(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        who, share = asked["who"], float(asked["share"])
        if who == "receiver":
            self.receiver.share = share
        else:
            self.providers[who].mood, self.providers[who].share = Mood(asked["mood"]), share
        return web.Response()

    async def _seen(self, _request: web.Request) -> web.StreamResponse:
        jobs = [
            SeenJob(name, job.id, job.prompt, job.canceled)
            for name, provider in self.providers.items()
            for job in provider.jobs.values()
        ]
        spoiled = {name: provider.spoiled for name, provider in self.providers.items()}
        spoiled["receiver"] = self.receiver.spoiled
        seen = Seen(jobs, self.receiver.messages, spoiled)
        return web.Response(body=msgspec.json.encode(seen))


async def _serve(ports: dict[str, int], origins: dict[str, Any]) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with AsyncExitStack() as stack:
        await Outside(origins).open(stack, ports)
        await over.wait()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.outside", description=__doc__)
    parser.add_argument("--ports", type=json.loads, required=True)
    parser.add_argument("--origins", type=json.loads, required=True)
    given = parser.parse_args()
    asyncio.run(_serve(given.ports, given.origins))


if __name__ == "__main__":
    main()
