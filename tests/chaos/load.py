"""Customers who behave: they repeat what failed for now, with the same Idempotency-Key, until they have an answer."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from babysea_server.kit.clock import Clock

#: A request that takes longer hangs, whatever died.
HANGS_S = 30.0
#: Of what customers do: the rest are new generations.
_READS, _LISTS = 0.1, 0.03
_CANCELS = 0.08
_PAUSE_S = (0.1, 1.0)
_MOST_WAITING = 600
_MODEL = "bfl/flux-schnell"
_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError)
#: In every prompt; nothing of it may be seen in a log.
MARK = "a-prompt-that-is-nobodys-business"


@dataclass
class Outcome:
    """What customers were told."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Generation id by Idempotency-Key."""
    canceled: set[str] = field(default_factory=set)
    """Ids whose cancellation was confirmed."""
    sent: set[str] = field(default_factory=set)
    """Every Idempotency-Key that was ever sent."""
    answers: Counter[str] = field(default_factory=Counter)
    """Answers by what they were: `accepted`, an error's code, `lost`."""
    complaints: list[str] = field(default_factory=list)
    """What a customer would complain about."""
    skipped: int = 0
    """New requests that were not made because too many were waiting."""


@dataclass(frozen=True)
class Answer:
    """What came back: 0 where nothing did."""

    status: int
    body: Any

    @property
    def code(self) -> str:
        """The error's code, or `lost`."""
        return str(self.body["error"]["code"]) if self.status else "lost"

    @property
    def for_now(self) -> bool:
        """Whether the same request may be answered otherwise in a moment."""
        return self.status == 0 or (self.status >= 400 and bool(self.body["error"]["retryable"]))


class Customers:
    """Makes the load.

    Args:
        bases: addresses of the APIs; a customer goes to any, and elsewhere when it is not answered.
        rate: requests a second.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        bases: Sequence[str],
        key: str,
        clock: Clock,
        *,
        seed: int,
        rate: float,
    ) -> None:
        self.outcome = Outcome()
        self._session = session
        self._bases = bases
        self._headers = {"Authorization": f"Bearer {key}"}
        self._clock = clock
        self._chance = random.Random(seed)
        self._rate = rate
        self._waiting: set[asyncio.Task[None]] = set()

    async def go(self, seconds: float) -> None:
        """Requests at random moments, whether earlier ones are answered or not."""
        end = self._clock.monotonic() + seconds
        while self._clock.monotonic() < end:
            await self._clock.sleep(self._chance.expovariate(self._rate))
            if len(self._waiting) >= _MOST_WAITING:
                self.outcome.skipped += 1
                continue
            task = asyncio.create_task(self._something())
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def answered(self, *, within_s: float) -> None:
        """Wait until every customer has an answer; those who never get one complain."""
        if not self._waiting:
            return
        _, without = await asyncio.wait(list(self._waiting), timeout=within_s)
        for task in without:
            task.cancel()
        if without:
            self.outcome.complaints.append(f"{len(without)} requests were never answered for good")
            await asyncio.wait(without)

    async def _something(self) -> None:
        try:
            await self._choose()
        except Exception as error:
            self.outcome.complaints.append(f"an answer could not be understood: {error!r}")

    async def _choose(self) -> None:
        chosen = self._chance.random()
        known = list(self.outcome.accepted.values()) if chosen < _READS else []
        if known:
            await self._read(self._chance.choice(known))
        elif _READS <= chosen < _READS + _LISTS:
            await self._insist("GET", "/v1/content/list?limit=20")
        else:
            await self._generate()

    async def _generate(self) -> None:
        key = f"chaos-{len(self.outcome.sent)}"
        self.outcome.sent.add(key)
        body = {"generation_prompt": f"{MARK} {key}", "generation_output_format": "png"}
        answer = await self._insist("POST", f"/v1/generate/image/{_MODEL}", json=body, key=key)
        if answer.status != 200:
            self.outcome.complaints.append(f"{key} was refused: {answer.body}")
            return
        generation_id = answer.body["data"]["generation_id"]
        self.outcome.answers["accepted"] += 1
        self.outcome.accepted[key] = generation_id
        if self._chance.random() < _CANCELS:
            await self._clock.sleep(self._chance.random() * 2)
            await self._cancel(generation_id)
        elif self._chance.random() < _CANCELS:
            await self._again(key, body, generation_id)

    async def _again(self, key: str, body: Any, generation_id: str) -> None:
        """The same request once more, as after a lost answer."""
        answer = await self._insist("POST", f"/v1/generate/image/{_MODEL}", json=body, key=key)
        if answer.status != 200 or answer.body["data"]["generation_id"] != generation_id:
            self.outcome.complaints.append(f"{key} repeated was {answer.body}, and {generation_id} before")
        self.outcome.answers["replayed"] += 1

    async def _cancel(self, generation_id: str) -> None:
        """Until it is known to be final: whether a cancellation that was answered 500 took place, nobody knows."""
        while True:
            answer = await self._insist("POST", f"/v1/content/generation/cancel/{generation_id}")
            if answer.status == 200:
                self.outcome.canceled.add(generation_id)
            elif answer.status == 500:
                self.outcome.answers["cancellation in doubt"] += 1
                await self._clock.sleep(_PAUSE_S[1])
                continue
            elif answer.code != "BSE3002":
                self.outcome.complaints.append(f"canceling {generation_id}: {answer.body}")
            return

    async def _read(self, generation_id: str) -> None:
        answer = await self._insist("GET", f"/v1/content/{generation_id}")
        if answer.status != 200:
            self.outcome.complaints.append(f"{generation_id} was accepted and read: {answer.body}")

    async def _insist(self, method: str, path: str, *, key: str | None = None, json: Any = None) -> Answer:
        """Ask until the answer is not one for now."""
        base = self._chance.choice(self._bases)
        while True:
            answer = await self.ask(method, base + path, key=key, json=json)
            if not answer.for_now:
                return answer
            self.outcome.answers[answer.code] += 1
            base = self._chance.choice(self._bases)
            await self._clock.sleep(self._chance.uniform(*_PAUSE_S))

    async def ask(self, method: str, url: str, *, key: str | None = None, json: Any = None) -> Answer:
        """Ask once."""
        headers = self._headers | ({"Idempotency-Key": key} if key else {})
        timeout = aiohttp.ClientTimeout(total=HANGS_S)
        try:
            async with self._session.request(
                method, url, headers=headers, json=json, timeout=timeout
            ) as answer:
                return Answer(answer.status, await answer.json())
        except TimeoutError:
            self.outcome.complaints.append(f"{method} {url} hung for {HANGS_S:.0f} s")
            return Answer(0, None)
        except _LOST:
            return Answer(0, None)
