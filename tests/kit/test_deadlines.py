"""Deadlines that share a timer: who is interrupted, who is not, and what a caller sees of it."""

import asyncio

import pytest

from babysea_server.kit.deadlines import Deadlines


async def hang(deadlines: Deadlines, entered: asyncio.Event | None = None) -> None:
    with deadlines.begin():
        if entered is not None:
            entered.set()
        await asyncio.Event().wait()


async def test_a_block_that_takes_too_long_ends_with_a_timeout() -> None:
    task = asyncio.create_task(hang(Deadlines(0)))
    with pytest.raises(TimeoutError):
        await task
    assert not task.cancelling()


async def test_blocks_end_in_the_order_in_which_they_began_and_every_one_does() -> None:
    deadlines = Deadlines(0.01)
    ended: list[int] = []

    async def one(number: int) -> None:
        try:
            await hang(deadlines)
        except TimeoutError:
            ended.append(number)

    await asyncio.gather(*(one(number) for number in range(100)))
    assert ended == list(range(100))


async def test_the_timer_is_set_anew_after_all_blocks_are_over() -> None:
    deadlines = Deadlines(0)
    for _ in range(3):
        with deadlines.begin():
            pass
        with pytest.raises(TimeoutError):
            await hang(deadlines)


async def test_a_block_that_ended_before_is_not_interrupted_later() -> None:
    deadlines = Deadlines(0)
    with deadlines.begin() as early:
        pass
    with pytest.raises(TimeoutError):
        await hang(deadlines)  # its deadline is the later one: the other's is over
    assert not early.expired


async def test_a_lifted_deadline_interrupts_nobody() -> None:
    deadlines = Deadlines(0)
    with deadlines.begin() as deadline:
        deadline.lift()
        with pytest.raises(TimeoutError):
            await asyncio.create_task(hang(deadlines))
    assert not deadline.expired


async def test_who_is_cancelled_from_outside_stays_cancelled() -> None:
    entered = asyncio.Event()
    task = asyncio.create_task(hang(Deadlines(60), entered))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_from_outside_and_is_late_as_well_stays_cancelled() -> None:
    deadlines = Deadlines(0)

    async def late() -> None:
        with deadlines.begin() as deadline:
            task.cancel()
            deadline.expire()
            await asyncio.Event().wait()

    task = asyncio.create_task(late())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_is_not_hidden() -> None:
    with pytest.raises(LookupError), Deadlines(60).begin():
        raise LookupError


async def test_a_timeout_inside_is_not_the_deadline() -> None:
    with pytest.raises(TimeoutError), Deadlines(60).begin() as deadline:
        raise TimeoutError
    assert not deadline.expired
