"""Natural batching: what arrives while a call is under way goes together in the next call.

Under light load a batch has one item and nothing waits; under heavy load batches grow by themselves and the
cost of a call is shared. There is no timer and no size to tune for latency.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """The batcher's bounded queue has no room; the item was not taken."""


class QueueTimeoutError(Exception):
    """The item waited longer in the queue than the batcher's patience; it was not taken."""


class ClosedError(Exception):
    """The batcher has been closed; the item was not taken."""


class Batcher(Generic[Item, Result]):
    """Collects items and hands them, in arrival order, to `call` in batches.

    Args:
        call: takes a batch and returns one result for each item, in order. If it raises, every item of the
            batch gets that exception.
        batch_max: items in one call at most.
        calls_max: calls under way at once at most.
        queue_max: items waiting at most; beyond it `submit` refuses.
        patience_s: how long an item waits for a call at most; an item in a call waits for the call's end.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        batch_max: int = 256,
        calls_max: int = 2,
        queue_max: int = 2048,
        patience_s: float = 60.0,
    ) -> None:
        self._call = call
        self._batch_max = batch_max
        self._calls_max = calls_max
        self._queue_max = queue_max
        self._patience_s = patience_s
        self._queue: deque[tuple[Item, asyncio.Future[Result], float]] = deque()
        """Item, its result, and the loop's time until which it waits; first in, first out of patience."""
        self._expiry: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._closed = False
        self._context = copy_context()

    @property
    def waiting(self) -> int:
        """Items that no call has taken yet."""
        return len(self._queue)

    async def submit(self, item: Item) -> Result:
        """Queue one item and wait for its result.

        A caller that is cancelled stops waiting; its item, once queued, is processed all the same.

        Raises:
            QueueFullError, QueueTimeoutError, ClosedError: the item was not taken.
            Exception: whatever `call` raised for the item's batch.
        """
        if self._closed:
            raise ClosedError
        if len(self._queue) >= self._queue_max:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        give_up_at = loop.time() + self._patience_s
        self._queue.append((item, future, give_up_at))
        if self._expiry is None:
            # One timer for the whole queue: whoever came first runs out of patience first.
            self._expiry = loop.call_at(give_up_at, self._expire)
        if len(self._calls) < self._calls_max:
            self._start()
        return await future

    async def close(self) -> None:
        """Take no more items and wait until everything queued has its result."""
        self._closed = True
        while self._calls:
            await asyncio.wait(set(self._calls))
        if self._expiry is not None:
            self._expiry.cancel()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._expiry = None
        while self._queue and self._queue[0][2] <= loop.time():
            _, future, _ = self._queue.popleft()
            if not future.done():
                future.set_exception(QueueTimeoutError())
        if self._queue:
            self._expiry = loop.call_at(self._queue[0][2], self._expire)

    def _start(self) -> None:
        # In the context of whoever made the batcher: what a call logs concerns its whole batch, not the item that
        # happened to start it.
        task = asyncio.get_running_loop().create_task(self._work(), context=self._context.copy())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)  # also one that was cancelled before its first step

    async def _work(self) -> None:
        try:
            await self._empty_queue()
        finally:
            # In the same turn of the loop in which the queue was seen empty: an item that comes later starts
            # a call of its own.
            task = asyncio.current_task()
            assert task is not None
            self._calls.discard(task)

    async def _empty_queue(self) -> None:
        # Everything that becomes ready in this turn of the loop joins the first batch.
        await asyncio.sleep(0)
        while self._queue:
            count = min(len(self._queue), self._batch_max)
            batch = [self._queue.popleft()[:2] for _ in range(count)]
            try:
                results = await self._call([item for item, _ in batch])
                if len(results) != count:
                    raise RuntimeError(f"a batch of {count} got {len(results)} results")
            except asyncio.CancelledError:
                # Nobody may wait for ever, whoever cancelled: the loop that ends, or something inside the call.
                _settle(batch, RuntimeError("the call was cancelled"))
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
            except Exception as error:
                _settle(batch, error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)


def _settle(batch: Sequence[tuple[Item, asyncio.Future[Result]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
            future.exception()  # nobody may be waiting any more: that is not an error
