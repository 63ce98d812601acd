"""Customers of a simulation: they repeat what was not answered, change their minds, and sometimes err."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from tests.simulation.faults import BUSY_S, Faults
from tests.simulation.loop import SimLoop
from tests.simulation.sides import ApiSide

from babysea_server.db.pool import DatabaseUnavailableError
from babysea_server.errors import ApiError
from babysea_server.kit.calls import Principal

Value = TypeVar("Value")

#: What customers write into prompts; it must be seen nowhere but in their own rows.
PROMPT_MARK = "a-secret-prompt"
_PATIENCE_S = 12.0
_FINAL = ("succeeded", "failed", "canceled")


class NoAnswerError(Exception):
    """Nobody answered; it may have been done or not."""


class Notes(Protocol):
    """What customers know, for whoever checks it at the end."""

    def accepted(self, account_id: UUID, key: str | None, body: str, generation_id: UUID) -> None: ...

    def canceled(self, generation_id: UUID) -> None: ...

    def asked_to_delete(self, generation_id: UUID) -> None: ...

    def deleted(self, generation_id: UUID) -> None: ...

    def breach(self, text: str) -> None: ...


@dataclass
class Front:
    """The way of customers to whichever API process is there."""

    loop: SimLoop
    faults: Faults
    draw: Random
    apis: list[ApiSide] = field(default_factory=list)
    _context: Context = field(default_factory=Context)

    async def call(self, work: Callable[[ApiSide], Awaitable[Value]]) -> Value:
        """Have something done by an API.

        Raises:
            NoAnswerError: no answer came.
            ApiError: it was refused.
        """
        await asyncio.sleep(self.draw.uniform(0.001, 0.02))
        ready = [api for api in self.apis if api.process.alive]
        if not ready or self._loses():
            await asyncio.sleep(self.draw.uniform(0.0, 1.0))
            raise NoAnswerError
        api = self.draw.choice(ready)
        future: asyncio.Future[Value] = self.loop.create_future()
        forget = api.process.on_death(lambda: self._answer(future, None, NoAnswerError()))

        async def handle() -> None:
            value: Any = None
            error: Exception | None = None
            try:
                value = await work(api)
            except (ApiError, DatabaseUnavailableError) as raised:
                error = raised if isinstance(raised, ApiError) else NoAnswerError()
            if not self._loses():
                self.loop.call_later(0.005, self._answer, future, value, error, context=self._context)

        api.process.start(handle())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await future
        except TimeoutError:
            raise NoAnswerError from None
        finally:
            forget()

    def _loses(self) -> bool:
        return self.faults.on("lost_requests", self.loop.time()) and self.draw.random() < 0.15

    def _answer(self, future: "asyncio.Future[Any]", value: Any, error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


@dataclass(frozen=True)
class Wish:
    """One thing that a customer wants made."""

    at: float
    key: str | None
    media: Literal["image", "video"]
    model: str
    body: str


def draw_wishes(draw: Random, count: int) -> list[Wish]:
    """What a customer asks for."""
    wishes: list[Wish] = []
    for number in range(count):
        video = draw.random() < 0.15
        body: dict[str, Any] = {"generation_prompt": f"{PROMPT_MARK} {number}"}
        if video:
            body["generation_input_video_file"] = "https://files.example.com/in.mp4"
            model = "runway/gen-4-aleph"
        else:
            body["generation_output_number"] = draw.choice((1, 1, 2))
            model = "bfl/flux-schnell"
            if draw.random() < 0.3:
                order = draw.sample(["replicate", "fal", "cloudflare"], 3)
                body["generation_provider_order"] = ", ".join(order)
                body["generation_output_number"] = 1
        key = f"key-{number}" if draw.random() < 0.7 else None
        if key and wishes and draw.random() < 0.1:
            key = wishes[-1].key  # a mistake: an old key for something new
        at = draw.choice((draw.uniform(0, BUSY_S), 2.0))
        wishes.append(Wish(at, key, "video" if video else "image", model, json.dumps(body)))
    return wishes


@dataclass
class Customer:
    """One account's program."""

    principal: Principal
    front: Front
    notes: Notes
    draw: Random

    async def want(self, wish: Wish) -> None:
        """Ask for it until there is an answer, then do with it what customers do."""
        await asyncio.sleep(wish.at)
        generation_id = await self._ask(wish)
        if generation_id is None:
            return
        then = self.draw.random()
        if then < 0.25:
            await asyncio.sleep(self.draw.choice((0.0, self.draw.uniform(0.0, 10.0))))
            await self._cancel(generation_id)
        elif then < 0.45:
            await self._delete(generation_id)

    async def _ask(self, wish: Wish) -> UUID | None:
        for _ in range(self.draw.choice((1, 4, 8))):
            try:
                admission = await self.front.call(
                    lambda api: api.generations.generate(
                        self.principal,
                        wish.media,
                        wish.model,
                        wish.body.encode(),
                        wish.key,
                    )
                )
            except NoAnswerError:
                if wish.key is None:
                    return None
            except ApiError as error:
                if not error.spec.retryable:
                    return None
            else:
                assert admission.generation_id is not None
                id = admission.generation_id
                self.notes.accepted(self.principal.account_id, wish.key, wish.body, id)
                return id
            await asyncio.sleep(self.draw.uniform(0.1, 2.0))
        return None

    async def _cancel(self, generation_id: UUID) -> None:
        for _ in range(3):
            try:
                await self.front.call(
                    lambda api: api.canceling.cancel(self.principal.account_id, generation_id)
                )
            except NoAnswerError:
                await asyncio.sleep(1.0)
            except ApiError as error:
                self._must_exist(error, generation_id)
                return
            else:
                self.notes.canceled(generation_id)
                return

    async def _delete(self, generation_id: UUID) -> None:
        for _ in range(10):
            await asyncio.sleep(self.draw.uniform(1.0, 8.0))
            try:
                row = await self.front.call(
                    lambda api: api.reader.get(self.principal.account_id, generation_id)
                )
            except (NoAnswerError, ApiError):
                continue
            if row is None:
                self.notes.breach(f"an accepted generation is not found: {generation_id}")
                return
            if row["status"] in _FINAL:
                break
        else:
            return
        self.notes.asked_to_delete(generation_id)
        try:
            await self.front.call(lambda api: api.deleting.delete(self.principal.account_id, generation_id))
        except (NoAnswerError, ApiError):
            return
        self.notes.deleted(generation_id)

    def _must_exist(self, error: ApiError, generation_id: UUID) -> None:
        if error.spec.code == "BSE3001":
            self.notes.breach(f"an accepted generation is not found: {generation_id}")
