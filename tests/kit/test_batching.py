"""Natural batching: order, growth, bounds, faults, cancellation, closing."""

import asyncio
from collections.abc import Sequence

import pytest

from babysea_server.kit.batching import Batcher, ClosedError, QueueFullError, QueueTimeoutError


class Recorder:
    """A call that records its batches and answers when allowed to."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.under_way = 0
        self.under_way_max = 0
        if not held:
            self.open.set()

    async def __call__(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        return [item * 10 for item in batch]


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def submit(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


async def test_each_item_gets_its_own_result() -> None:
    call = Recorder()
    batcher = Batcher(call)
    assert await asyncio.gather(*submit(batcher, *range(1000))) == [item * 10 for item in range(1000)]
    assert [item for batch in call.batches for item in batch] == list(range(1000))


async def test_a_lone_item_waits_for_nobody() -> None:
    call = Recorder()
    batcher = Batcher(call)
    assert await batcher.submit(1) == 10
    assert await batcher.submit(2) == 20
    assert call.batches == [[1], [2]]


async def test_what_arrives_while_a_call_is_under_way_goes_together_in_arrival_order() -> None:
    call = Recorder(held=True)
    batcher = Batcher(call, calls_max=1)
    waiting = submit(batcher, 1)
    await turns()
    for item in range(2, 9):
        waiting += submit(batcher, item)
        await turns()
    assert call.batches == [[1]]
    assert batcher.waiting == 7
    call.open.set()
    assert await asyncio.gather(*waiting) == [item * 10 for item in range(1, 9)]
    assert call.batches == [[1], list(range(2, 9))]
    assert batcher.waiting == 0


async def test_batches_are_no_larger_than_allowed() -> None:
    call = Recorder(held=True)
    batcher = Batcher(call, batch_max=3, calls_max=1)
    waiting = submit(batcher, *range(8))
    await turns()
    call.open.set()
    await asyncio.gather(*waiting)
    assert call.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.mark.parametrize("calls_max", [1, 2, 4])
async def test_no_more_calls_are_under_way_than_allowed(calls_max: int) -> None:
    call = Recorder(held=True)
    batcher = Batcher(call, batch_max=2, calls_max=calls_max)
    waiting = []
    for item in range(20):
        waiting += submit(batcher, item)
        await turns()
    assert call.under_way == calls_max
    call.open.set()
    await asyncio.gather(*waiting)
    assert call.under_way_max == calls_max


async def test_beyond_the_queue_an_item_is_refused_and_not_taken() -> None:
    call = Recorder(held=True)
    batcher = Batcher(call, calls_max=1, queue_max=3)
    waiting = submit(batcher, 0)
    await turns()
    waiting += submit(batcher, 1, 2, 3)
    await turns()
    with pytest.raises(QueueFullError):
        await batcher.submit(4)
    call.open.set()
    assert await asyncio.gather(*waiting) == [0, 10, 20, 30]
    assert await batcher.submit(5) == 50, "room again"
    assert call.batches == [[0], [1, 2, 3], [5]]


async def test_a_fault_reaches_exactly_the_items_of_its_batch() -> None:
    async def call(batch: Sequence[int]) -> list[int]:
        if 1 in batch:
            raise LookupError("the batch with 1")
        return [item * 10 for item in batch]

    batcher = Batcher(call, batch_max=2, calls_max=1)
    results = await asyncio.gather(*submit(batcher, 0, 1, 2, 3), return_exceptions=True)
    assert [isinstance(result, LookupError) for result in results] == [True, True, False, False]
    assert results[2:] == [20, 30]


async def test_a_call_that_miscounts_is_a_fault_of_its_batch() -> None:
    async def call(batch: Sequence[int]) -> list[int]:
        return [0]

    batcher = Batcher(call)
    results = await asyncio.gather(*submit(batcher, 0, 1), return_exceptions=True)
    assert all(isinstance(result, RuntimeError) for result in results)


async def test_a_caller_that_is_cancelled_loses_the_answer_not_the_item() -> None:
    call = Recorder(held=True)
    batcher = Batcher(call, calls_max=1)
    first, second, third = submit(batcher, 1), submit(batcher, 2), submit(batcher, 3)
    await turns()
    await turns()
    first[0].cancel()
    second[0].cancel()
    await turns()
    call.open.set()
    assert await third[0] == 30
    assert first[0].cancelled()
    assert second[0].cancelled()
    assert sorted(item for batch in call.batches for item in batch) == [1, 2, 3]


async def test_a_call_that_is_cancelled_from_within_leaves_nobody_waiting() -> None:
    calls = 0

    async def call(batch: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncio.CancelledError
        return [item * 10 for item in batch]

    batcher = Batcher(call, batch_max=1, calls_max=1)
    async with asyncio.timeout(5):
        results = await asyncio.gather(*submit(batcher, 1, 2), return_exceptions=True)
    assert isinstance(results[0], BaseException)
    assert results[1] == 20


async def test_closing_refuses_the_new_and_finishes_the_queued() -> None:
    call = Recorder(held=True)
    batcher = Batcher(call, batch_max=2, calls_max=1)
    waiting = submit(batcher, *range(5))
    await turns()
    closing = asyncio.create_task(batcher.close())
    await turns()
    with pytest.raises(ClosedError):
        await batcher.submit(9)
    assert not closing.done()
    call.open.set()
    await closing
    assert [task.done() for task in waiting] == [True] * 5
    assert await asyncio.gather(*waiting) == [0, 10, 20, 30, 40]


async def test_closing_an_idle_batcher_returns() -> None:
    batcher = Batcher(Recorder())
    await batcher.close()
    with pytest.raises(ClosedError):
        await batcher.submit(1)


async def test_an_item_waits_no_longer_than_the_batchers_patience() -> None:
    taken, gate = asyncio.Event(), asyncio.Event()

    async def call(items: Sequence[int]) -> list[int]:
        taken.set()
        await gate.wait()
        return list(items)

    batcher: Batcher[int, int] = Batcher(call, calls_max=1, batch_max=1, patience_s=1)
    sent = asyncio.create_task(batcher.submit(1))
    await taken.wait()
    late = await asyncio.gather(batcher.submit(2), batcher.submit(3), return_exceptions=True)
    assert [type(error) for error in late] == [QueueTimeoutError, QueueTimeoutError]
    gate.set()
    assert await sent == 1  # what a call has taken waits for the call
    assert await batcher.submit(4) == 4
    await batcher.close()


async def test_an_item_that_comes_just_as_the_last_call_ends_is_not_left_behind() -> None:
    async def call(items: Sequence[int]) -> list[int]:
        return list(items)

    batcher: Batcher[int, int] = Batcher(call, calls_max=1, patience_s=5)
    for number in range(10):
        assert await batcher.submit(number) == number
    await batcher.close()
