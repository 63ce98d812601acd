"""How many jobs this process may have at a provider at once, and begin in a minute: the operator's own bounds."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from babysea_server.kit.clock import Clock

_MINUTE_S = 60.0


class Cap:
    """The bounds of one provider, in line: who asks first gets in first.

    Args:
        jobs_at_once: jobs between their submit and their end; None for no bound.
        submits_per_minute: submits in any 60 seconds; None for no bound.
    """

    def __init__(
        self, clock: Clock, *, jobs_at_once: int | None = None, submits_per_minute: int | None = None
    ) -> None:
        self._clock = clock
        self._jobs_at_once = jobs_at_once
        self._per_minute = submits_per_minute
        self._jobs = 0
        self._begun: deque[float] = deque(maxlen=submits_per_minute)
        self._line = asyncio.Lock()  # fair: whoever holds it is the head of the line
        self._freed = asyncio.Event()

    @property
    def jobs(self) -> int:
        """Jobs that count now."""
        return self._jobs

    @property
    def full(self) -> bool:
        """Whether a new job would have to wait: for a place, for the minute's next submit, or in line."""
        return self._line.locked() or self._taken or self._due_in_s() > 0

    @asynccontextmanager
    async def job(self, *, resumed: bool = False) -> AsyncIterator[None]:
        """Wait for a place and hold it. A job that is resumed has its place already, whatever the bound."""
        if resumed:
            self._jobs += 1
        else:
            await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        async with self._line:
            while self._taken:
                self._freed.clear()
                await self._freed.wait()
            self._jobs += (
                1  # held from here on, so that no resumed job or next in line is counted in its place
            )
            try:
                await self._pace()
            except BaseException:
                self._leave()
                raise

    def _leave(self) -> None:
        self._jobs -= 1
        self._freed.set()

    async def _pace(self) -> None:
        while (wait := self._due_in_s()) > 0:
            await self._clock.sleep(wait)
        if self._per_minute is not None:
            self._begun.append(self._clock.monotonic())

    @property
    def _taken(self) -> bool:
        return self._jobs_at_once is not None and self._jobs >= self._jobs_at_once

    def _due_in_s(self) -> float:
        if self._per_minute is None or len(self._begun) < self._per_minute:
            return 0.0
        return self._begun[0] + _MINUTE_S - self._clock.monotonic()
