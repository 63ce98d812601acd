"""Counters in memory that fail and stall when told to, and callers of a rate limiter."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from tests.support import principal

from babysea_server.kit.calls import Plan, Principal
from babysea_server.kit.clock import Clock
from babysea_server.limits.counters import Addition, CountersUnavailableError, WindowCounters
from babysea_server.limits.windows import SharedWindows

#: No stall of the machine itself may look like one of the counters.
PATIENT_S = 30.0


class Memory:
    """`WindowCounters` in this process: `failing` refuses, a cleared `flowing` holds answers back."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        self.failing = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.additions: list[Sequence[Addition]] = []
        self.probes = 0

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def add(self, additions: Sequence[Addition]) -> Sequence[int]:
        self.additions.append(additions)
        if self.failing:
            raise CountersUnavailableError("Away.")
        answer = []
        for key, window, amount in additions:
            self.counts[key, window] = self.counts.get((key, window), 0) + amount
            answer.append(self.counts[key, window])
        await self.flowing.wait()
        return answer

    async def probe(self) -> None:
        self.probes += 1
        if self.failing:
            raise CountersUnavailableError("Away.")
        await self.flowing.wait()

    @property
    def total(self) -> int:
        """All that is counted, but for what processes count for themselves."""
        return sum(count for (key, _), count in self.counts.items() if ":process:" not in key)


def patient(counters: WindowCounters, clock: Clock, name: str = "rate") -> SharedWindows:
    """Windows of one process, whose counters are never too slow."""
    return SharedWindows(name, counters, clock, timeout_s=PATIENT_S)


def caller(limit: int | None, account: int = 1) -> Principal:
    """A caller whose plan has this limit."""
    return principal(account_id=UUID(int=account), plan=Plan("test", limit, None))
