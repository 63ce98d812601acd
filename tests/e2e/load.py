"""Load from clients that behave: they repeat what failed, with the same Idempotency-Key."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import aiohttp
import httpx
from tests.e2e.system import PATIENCE_S, Api


@dataclass
class Outcome:
    """What clients were told."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Generation id by Idempotency-Key."""
    codes: Counter[str] = field(default_factory=Counter)
    """Answers that were not an acceptance, by error code; `lost` where there was none."""


async def submit(api: Api, key: str, outcome: Outcome, *, model: str = "sandbox/image") -> bool:
    """Send one request once; True when it was accepted. A request that hangs is an error of the test."""
    try:
        response = await api.generate(model, key=key)
    except httpx.TimeoutException:
        raise
    except httpx.TransportError:
        outcome.codes["lost"] += 1
        return False
    body = response.json()
    if response.status_code == 200:
        generation_id: str = body["data"]["generation_id"]
        assert outcome.accepted.setdefault(key, generation_id) == generation_id
        return True
    outcome.codes[body["error"]["code"]] += 1
    return False


async def insist(
    api: Api, keys: Iterable[str], outcome: Outcome, *, clients: int, model: str = "sandbox/image"
) -> None:
    """Submit one generation for each key over some clients at once, each until it is accepted."""
    waiting = iter(keys)

    async def client() -> None:
        for key in waiting:
            accepted = False
            while not accepted:
                accepted = await submit(api, key, outcome, model=model)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())


async def storm(apis: Sequence[Api], keys: Sequence[str], outcome: Outcome, *, model: str) -> None:
    """All keys at once, each once and over a connection of its own, by one client for each address."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)

    async def one(session: aiohttp.ClientSession, api: Api, key: str) -> None:
        headers = {"Authorization": f"Bearer {api.key}", "Idempotency-Key": key}
        body = {"generation_prompt": "a test"}
        async with session.post(
            f"{api.base}/v1/generate/image/{model}", json=body, headers=headers
        ) as response:
            answer = await response.json()
        if response.status == 200:
            outcome.accepted[key] = answer["data"]["generation_id"]
        else:
            outcome.codes[answer["error"]["code"]] += 1

    async def client(api: Api, share: Sequence[str]) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            await asyncio.gather(*(one(session, api, key) for key in share))

    await asyncio.gather(*(client(api, keys[n :: len(apis)]) for n, api in enumerate(apis)))
