"""Both clients behind one face, a clock that jumps, and a network whose answers are written beforehand."""

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import httpx

from babysea import AsyncBabySea, BabySea
from babysea._clock import Clock

KEY = "bye_" + "k" * 40
BASE = "http://api.example.com"
ID = "0198f6b4-5d18-7f02-a6c9-83e1b4d7f265"
MODEL = "sandbox/image"
KINDS = ("sync", "async")


@dataclass
class JumpingClock:
    """Time in which sleeping takes none; remembers how long was slept. Chance is always the same."""

    start: float = 1_777_377_600.0
    slept: list[float] = field(default_factory=list)
    elapsed: float = 0.0
    chance: float = 1.0

    def clock(self) -> Clock:
        return Clock(
            monotonic=lambda: self.elapsed,
            now=lambda: self.start + self.elapsed,
            random=lambda: self.chance,
            sleep=self._sleep,
            sleep_async=self._sleep_async,
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.elapsed += seconds

    async def _sleep_async(self, seconds: float) -> None:
        self._sleep(seconds)


class Side:
    """One of the clients; `call` runs any of its methods, and goes through what it iterates over."""

    def __init__(self, client: BabySea | AsyncBabySea, *, threaded: bool = False) -> None:
        self.client = client
        self._threaded = threaded

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        function = attrgetter(method)(self.client)

        def run() -> Any:
            result = function(*args, **options)
            return list(result) if inspect.isgenerator(result) else result

        if isinstance(self.client, BabySea):
            return await asyncio.to_thread(run) if self._threaded else run()
        result = function(*args, **options)
        return [item async for item in result] if inspect.isasyncgen(result) else await result

    async def close(self) -> None:
        if isinstance(self.client, BabySea):
            self.client.close()
        else:
            await self.client.aclose()


Handler = Callable[[httpx.Request], httpx.Response]
Scripted = httpx.Response | Exception | Handler


class Network:
    """Answers requests from a list, in order, and remembers them; an exception is what the network raises."""

    def __init__(self, *script: Scripted) -> None:
        self.script = list(script)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert self.script, f"nobody expected {request.method} {request.url}"
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        answer = answer if isinstance(answer, httpx.Response) else answer(request)
        if not answer.is_stream_consumed:
            return answer
        # As it comes from a network, where nobody has read it yet; so a script may also hold one answer twice.
        return httpx.Response(
            answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content)
        )

    @property
    def sent(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]


def side(
    kind: str, network: Handler, time: JumpingClock | None = None, api_key: str = KEY, **options: Any
) -> Side:
    """A client that knows only this network."""
    options = {"base_url": BASE, **options, "_clock": (time or JumpingClock()).clock()}
    transport = httpx.MockTransport(network)
    if kind == "sync":
        return Side(BabySea(api_key, http_client=httpx.Client(transport=transport), **options))
    return Side(AsyncBabySea(api_key, http_client=httpx.AsyncClient(transport=transport), **options))


def success(data: Any, headers: dict[str, str] | None = None, **beside: Any) -> httpx.Response:
    body = {"status": "success", "request_id": "req_1", "message": "", "timestamp": "", "data": data}
    return httpx.Response(200, headers=headers, json={**body, **beside})


def failure(
    status: int,
    code: str,
    *,
    retryable: bool = False,
    headers: dict[str, str] | None = None,
    message: str = "It is so.",
    **more: Any,
) -> httpx.Response:
    error = {"code": code, "type": "a_type", "message": message, "retryable": retryable, **more}
    body = {"status": "error", "request_id": "req_2", "error": error}
    return httpx.Response(status, headers=headers, json=body)


def generation(status: str = "succeeded", id: str = ID, **members: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "account_id": "0198f6b4-0000-7000-8000-000000000000",
        "generation_id": id,
        "model_identifier": MODEL,
        "generation_status": status,
        "generation_created_at": "2026-04-28T12:00:00.000Z",
        "generation_output_file": None,
    }
    if status == "failed":
        data |= {"generation_error": "It did not work.", "generation_error_code": "BSE4001"}
    return {**data, **members}


def models(**types: str) -> httpx.Response:
    """The library, with `<name>="image"` for the model `sandbox/<name>`."""
    listed = [
        {
            "model_type": media,
            "model_identifier": f"sandbox/{name}",
            "model_pricing": 0.001,
            "model_supported_provider": ["sandbox"],
            "schema": {"generation_prompt": True},
            "specific_schema": [],
        }
        for name, media in types.items()
    ]
    return success({"models_total": len(listed), "models": listed})


def accepted(id: str = ID, **headers: str) -> httpx.Response:
    data = {
        "model_identifier": MODEL,
        "generation_provider_order": ["sandbox"],
        "generation_prediction_id": "p",
        "generation_id": id,
        "generation_initialized": True,
    }
    return success(data, headers)


def bodies(requests: Iterable[httpx.Request]) -> list[Any]:
    return [json.loads(request.content) for request in requests if request.content]
