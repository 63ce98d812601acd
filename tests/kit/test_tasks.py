"""Ending background tasks."""

import asyncio

from babysea_server.kit.tasks import end


async def test_a_task_that_keeps_a_cancellation_to_itself_is_cancelled_again() -> None:
    """What happens when a cancellation meets `asyncio.wait_for` at the wrong moment."""
    kept = 0

    async def loop() -> None:
        nonlocal kept
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                kept += 1
                if kept == 2:
                    raise

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    await asyncio.wait_for(end([task]), 10)
    assert task.cancelled()


async def test_the_end_of_a_task_that_failed_is_no_failure_of_the_end() -> None:
    async def fail() -> None:
        raise ValueError("its own affair")

    failing = asyncio.create_task(fail())
    await end([failing, None])
    assert failing.done()


async def test_ending_nothing_ends_at_once() -> None:
    await end([])
    await end([None])
