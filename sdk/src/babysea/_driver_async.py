"""The driver that awaits, on whatever event loop httpx runs on."""

from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx

from babysea._effects import Effect, Fetch, Flow, Gather, Response, Send, Sleep
from babysea._errors import BabySeaError
from babysea._wire import CHUNK_BYTES, Body, Wire, headers, translated

Result = TypeVar("Result")


class AsyncDriver:
    """Runs flows in the caller's task, and those that are gathered in tasks of their own."""

    def __init__(self, wire: Wire, http: httpx.AsyncClient | None) -> None:
        self._wire = wire
        self._is_ours = http is None
        self._http = httpx.AsyncClient() if http is None else http

    async def close(self) -> None:
        """Close what was opened here."""
        if self._is_ours:
            await self._http.aclose()

    async def run(self, flow: Flow[Result]) -> Result:
        """What the flow returns."""
        try:
            effect = next(flow)
            while True:
                try:
                    value = await self._perform(effect)
                except BabySeaError as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(value)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            flow.close()  # where it was left by an error that is not for it

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send():
                return await self._send(effect)
            case Sleep(seconds):
                await (self._wire.clock.sleep_async or anyio.sleep)(seconds)
            case Fetch():
                await self._fetch(effect)
            case Gather():
                return await self._gather(effect)
        return None

    async def _send(self, effect: Send) -> Response:
        body = Body(self._wire.deadline(2 * effect.timeout))
        with translated():
            answer = await self._open(self._wire.request(self._http, effect))
            try:
                async for part in answer.aiter_bytes():
                    body.add(part)
            finally:
                await answer.aclose()
        return body.response(answer)

    async def _fetch(self, effect: Fetch) -> None:
        deadline = self._wire.deadline(effect.deadline)
        with translated():
            answer = await self._open(self._wire.file_request(effect))
            try:
                effect.sink.begin(answer.status_code, headers(answer))
                async for chunk in answer.aiter_raw(CHUNK_BYTES):
                    deadline.check()
                    await anyio.to_thread.run_sync(effect.sink.write, chunk)
            finally:
                await answer.aclose()

    async def _open(self, request: httpx.Request) -> httpx.Response:
        return await self._http.send(request, stream=True, auth=None, follow_redirects=False)

    async def _gather(self, effect: Gather) -> list[Any]:
        results: list[Any] = [None] * len(effect.flows)
        left = iter(enumerate(effect.flows))

        async def work() -> None:
            for place, flow in left:
                await anyio.lowlevel.checkpoint()  # where another's failure ends this one, too
                results[place] = await self.run(flow)

        try:
            async with anyio.create_task_group() as tasks:
                for _ in range(min(effect.concurrency, len(results))):
                    tasks.start_soon(work)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return results
