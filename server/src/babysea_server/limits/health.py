"""`GET /v1/health/cache`: a real round trip to the counters."""

import asyncio

from msgspec import UNSET, UnsetType

from babysea_server.kit.calls import Call, Reply
from babysea_server.kit.clock import Clock
from babysea_server.kit.remembered import Remembered
from babysea_server.limits.counters import CountersUnavailableError, WindowCounters
from babysea_server.limits.wire import HealthCacheData

_DEADLINE_S = 1.0
#: However many ask, there is one round trip a second.
_REMEMBERED_S = 1.0


class CacheHealth:
    """Handler over one region's counters. Counters that are away are an answer, not an error."""

    def __init__(self, counters: WindowCounters, clock: Clock, *, deadline_s: float = _DEADLINE_S) -> None:
        self._counters = counters
        self._clock = clock
        self._deadline_s = deadline_s
        self._answer = Remembered(self._probe, clock, seconds=_REMEMBERED_S)

    async def cache(self, _call: Call) -> Reply:
        """`GET /v1/health/cache`."""
        return Reply(await self._answer.get())

    async def _probe(self) -> HealthCacheData:
        began = self._clock.monotonic()
        error: str | UnsetType = UNSET
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._counters.probe()
        except TimeoutError:
            error = f"No answer within {self._deadline_s:g} s."
        except CountersUnavailableError as fault:
            error = str(fault)
        return HealthCacheData(
            service="redis",
            healthy=error is UNSET,
            latency_ms=round((self._clock.monotonic() - began) * 1000, 2),
            error=error,
        )
