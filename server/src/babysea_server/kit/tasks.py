"""Ending background tasks."""

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_S = 0.5


async def end(tasks: Iterable["asyncio.Task[Any] | None"]) -> None:
    """Cancel tasks and wait until all have ended, however they end; None stands for a task that never began.

    One cancellation is not always enough. `asyncio.wait_for` of Python 3.11 keeps it to itself when what it waits
    for is done in the same moment, and drivers use it below us; a task that loops would then go on for ever, and
    so would whoever waits for its end.
    """
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=_AGAIN_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # looked at, so that nobody reports it as lost
