"""The operator's own bounds: how many jobs at once, how many in a minute, and who is next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support import ManualClock

from babysea_server.providers.caps import Cap


class Jobs:
    """Jobs of one cap that are held until they are let go; `inside` is in the order in which they got in."""

    def __init__(self, cap: Cap) -> None:
        self.cap = cap
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._go: dict[str, asyncio.Event] = {}

    async def ask(self, *names: str, resumed: bool = False) -> None:
        """Let jobs line up, one behind the other."""
        for name in names:
            self._go[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name, resumed=resumed))
            await settle()

    async def end(self, name: str) -> None:
        self._go[name].set()
        await self.tasks[name]
        await settle()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.tasks[name]
        await settle()

    async def _hold(self, name: str, *, resumed: bool) -> None:
        async with self.cap.job(resumed=resumed):
            self.inside.append(name)
            try:
                await self._go[name].wait()
            finally:
                self.inside.remove(name)


async def settle() -> None:
    """Let every task run until it waits for something that is not there yet."""
    for _ in range(20):
        ready = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(ready.set_result, None)
        await ready


@asynccontextmanager
async def jobs_of(cap: Cap) -> AsyncIterator[Jobs]:
    jobs = Jobs(cap)
    try:
        yield jobs
    finally:
        for task in jobs.tasks.values():
            task.cancel()
        await asyncio.gather(*jobs.tasks.values(), return_exceptions=True)
        assert cap.jobs == 0, "a place was not given back"


async def advance(clock: ManualClock, seconds: float) -> None:
    clock.advance(seconds)
    await settle()


async def test_without_bounds_nobody_waits() -> None:
    cap = Cap(ManualClock())
    async with jobs_of(cap) as jobs:
        await jobs.ask(*"abcdef")
        assert jobs.inside == [*"abcdef"]
        assert cap.jobs == 6
        assert not cap.full


async def test_no_more_are_in_than_the_bound_and_who_asks_first_gets_in_first() -> None:
    cap = Cap(ManualClock(), jobs_at_once=2)
    async with jobs_of(cap) as jobs:
        await jobs.ask(*"abcde")
        assert jobs.inside == ["a", "b"]
        await jobs.end("b")
        assert jobs.inside == ["a", "c"]
        await jobs.end("a")
        await jobs.end("c")
        assert jobs.inside == ["d", "e"]
        assert cap.jobs == 2


async def test_several_places_that_come_free_at_once_are_all_taken() -> None:
    cap = Cap(ManualClock(), jobs_at_once=3)
    async with jobs_of(cap) as jobs:
        await jobs.ask(*"abcdef")
        await asyncio.gather(*(jobs.end(name) for name in "abc"))
        assert jobs.inside == ["d", "e", "f"]


async def test_it_says_whether_there_is_room() -> None:
    cap = Cap(ManualClock(), jobs_at_once=1)
    seen = [cap.full]
    async with jobs_of(cap) as jobs:
        await jobs.ask("a")
        seen.append(cap.full)
        await jobs.end("a")
        seen.append(cap.full)
    assert seen == [False, True, False]


async def test_whoever_gives_up_waiting_takes_no_place() -> None:
    cap = Cap(ManualClock(), jobs_at_once=1)
    async with jobs_of(cap) as jobs:
        await jobs.ask(*"abcd")
        await jobs.give_up("b")  # the head of the line
        await jobs.give_up("d")  # its end
        assert jobs.inside == ["a"]
        await jobs.end("a")
        assert jobs.inside == ["c"]


async def test_a_job_that_ends_badly_gives_its_place_back() -> None:
    cap = Cap(ManualClock(), jobs_at_once=1)
    async with jobs_of(cap) as jobs:
        await jobs.ask("a", "b")
        await jobs.give_up("a")
        assert jobs.inside == ["b"]


async def test_a_place_that_came_free_for_one_who_gives_up_then_goes_to_the_next() -> None:
    cap = Cap(ManualClock(), jobs_at_once=1)
    async with jobs_of(cap) as jobs:
        async with cap.job():
            await jobs.ask("b", "c")
        jobs.tasks["b"].cancel()  # the place is free, and b has not run yet
        await settle()
        assert jobs.inside == ["c"]
        assert cap.jobs == 1


async def test_a_resumed_job_has_its_place_already_and_counts() -> None:
    cap = Cap(ManualClock(), jobs_at_once=1)
    async with jobs_of(cap) as jobs:
        await jobs.ask("a", "b")
        await jobs.ask("old", resumed=True)
        assert jobs.inside == ["a", "old"]
        await jobs.end("a")
        assert jobs.inside == ["old"], "one is in, which is as many as may be"
        await jobs.end("old")
        assert jobs.inside == ["b"]


async def test_no_more_begin_in_any_minute_than_the_bound() -> None:
    clock = ManualClock()
    cap = Cap(clock, submits_per_minute=2)
    async with jobs_of(cap) as jobs:
        await jobs.ask("a")
        await advance(clock, 30)
        await jobs.ask("b", "c", "d")
        assert jobs.inside == ["a", "b"]
        assert cap.full
        await advance(clock, 29.5)
        assert jobs.inside == ["a", "b"]
        await advance(clock, 0.5)
        assert jobs.inside == ["a", "b", "c"], "a minute after a"
        await advance(clock, 29.5)
        assert jobs.inside == ["a", "b", "c"]
        await advance(clock, 0.5)
        assert jobs.inside == ["a", "b", "c", "d"], "a minute after b"


async def test_what_has_ended_still_counts_for_its_minute() -> None:
    clock = ManualClock()
    cap = Cap(clock, submits_per_minute=1)
    async with jobs_of(cap) as jobs:
        await jobs.ask("a")
        await jobs.end("a")
        await jobs.ask("b")
        assert jobs.inside == []
        assert cap.jobs == 1, "it holds its place while it waits for its minute"
        await advance(clock, 60)
        assert jobs.inside == ["b"]


async def test_resumed_jobs_begin_nothing() -> None:
    cap = Cap(ManualClock(), submits_per_minute=1)
    async with jobs_of(cap) as jobs:
        await jobs.ask("old", "older", resumed=True)
        await jobs.ask("a")
        assert jobs.inside == ["old", "older", "a"]


async def test_whoever_gives_up_waiting_for_the_minute_leaves_it_to_the_next() -> None:
    clock = ManualClock()
    cap = Cap(clock, submits_per_minute=1)
    async with jobs_of(cap) as jobs:
        await jobs.ask("a", "b", "c")
        await jobs.give_up("b")
        await advance(clock, 60)
        assert jobs.inside == ["a", "c"]
        await jobs.ask("d")
        await advance(clock, 59)
        assert jobs.inside == ["a", "c"]
        await advance(clock, 1)
        assert jobs.inside == ["a", "c", "d"]


async def test_both_bounds_hold_together() -> None:
    """While one waits for its minute, nobody gets in beside it beyond the bound of jobs."""
    clock = ManualClock()
    cap = Cap(clock, jobs_at_once=1, submits_per_minute=1)
    async with jobs_of(cap) as jobs:
        await jobs.ask("a")
        await jobs.end("a")
        await jobs.ask("b", "c")
        await advance(clock, 60)
        assert jobs.inside == ["b"]
        await advance(clock, 60)
        assert jobs.inside == ["b"]
        await jobs.end("b")
        assert jobs.inside == ["c"]
