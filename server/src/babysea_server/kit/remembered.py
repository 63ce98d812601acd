"""A value that is costly to find, found once for all who ask and believed for a while."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from babysea_server.kit.clock import Clock

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """One value, looked for at most once at a time and at most once in `seconds`.

    A failure reaches everybody who was waiting and is not remembered.

    Args:
        find: looks for the value; must end by itself.
        seconds: how long a value is believed, from when it was found.
    """

    def __init__(self, find: Callable[[], Awaitable[Value]], clock: Clock, *, seconds: float) -> None:
        self._find = find
        self._clock = clock
        self._seconds = seconds
        self._search: asyncio.Task[Value] | None = None
        self._found_at = 0.0

    async def get(self) -> Value:
        """The value: the remembered one, or the one that is being looked for."""
        search = self._search
        if search is None or self._is_over(search):
            search = self._search = asyncio.create_task(self._look())
            search.add_done_callback(_retrieve)
        # A caller that gives up must not take the value from the others.
        return await asyncio.shield(search)

    def _is_over(self, search: "asyncio.Task[Value]") -> bool:
        if not search.done():
            return False
        failed = search.cancelled() or search.exception() is not None
        return failed or self._clock.monotonic() - self._found_at >= self._seconds

    async def _look(self) -> Value:
        value = await self._find()
        self._found_at = self._clock.monotonic()
        return value


def _retrieve(search: "asyncio.Task[Value]") -> None:
    """Look at the failure, so that one nobody waited for any more is not reported as lost."""
    if not search.cancelled():
        search.exception()
