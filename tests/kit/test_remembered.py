"""A remembered value: one search for all who ask, believed for a while, failures not kept."""

import asyncio

import pytest
from tests.support import ManualClock

from babysea_server.kit.remembered import Remembered


class Search:
    """Finds 1, 2, 3 ... when it is let; fails while `error` is set."""

    def __init__(self) -> None:
        self.count = 0
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.count += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.count


async def started(*askers: "asyncio.Task[int]") -> None:
    """Let the askers come to where they wait."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(asker.done() for asker in askers)


async def test_callers_at_the_same_time_share_one_search() -> None:
    search, clock = Search(), ManualClock()
    value = Remembered(search, clock, seconds=1)
    search.may_end.clear()
    askers = [asyncio.create_task(value.get()) for _ in range(5)]
    await started(*askers)
    search.may_end.set()
    assert await asyncio.gather(*askers) == [1] * 5


async def test_a_value_is_believed_from_when_it_was_found() -> None:
    search, clock = Search(), ManualClock()
    value = Remembered(search, clock, seconds=1)
    search.may_end.clear()
    asker = asyncio.create_task(value.get())
    await started(asker)
    clock.advance(5)  # a slow search does not make its value old
    search.may_end.set()
    assert await asker == 1
    clock.advance(0.99)
    assert await value.get() == 1
    clock.advance(0.01)
    assert await value.get() == 2


async def test_a_failure_reaches_those_who_wait_and_nobody_after_them() -> None:
    search = Search()
    value = Remembered(search, ManualClock(), seconds=1)
    search.error = OSError("away")
    with pytest.raises(OSError, match="away"):
        await value.get()
    search.error = None
    assert await value.get() == 2


async def test_a_caller_that_gives_up_takes_nothing_from_the_others() -> None:
    search = Search()
    value = Remembered(search, ManualClock(), seconds=1)
    search.may_end.clear()
    first, second = asyncio.create_task(value.get()), asyncio.create_task(value.get())
    await started(first, second)
    first.cancel()
    await asyncio.wait([first])
    search.may_end.set()
    assert await second == 1
