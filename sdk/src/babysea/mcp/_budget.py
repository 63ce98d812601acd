"""The spending guard: what the generations of this server have reserved, and may."""

from collections.abc import Awaitable, Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Self

import anyio

from babysea import BabySeaError, Generation, GenerationStatus, NotFoundError

_MICROS = 1_000_000
_RETURNED = ("failed", "canceled")
_FINAL = ("succeeded", *_RETURNED)


def micros(credits: float) -> int:
    """Credits as integer micro-credits, rounded up."""
    return int((Decimal(str(credits)) * _MICROS).to_integral_value(ROUND_CEILING))


def shown(micro: int) -> str:
    """Micro-credits for people: `0.0125`."""
    return f"{Decimal(micro) / _MICROS:f}"


class BudgetExceededError(Exception):
    """A generation would reserve more than is left."""


class Budget:
    """Counts what is reserved from before a purchase until it is known to have been returned.

    A generation that nobody waited for is looked at again only when its credits are needed. What was bought or
    not bought without our learning it counts as bought: the limit holds whatever answers are lost.
    """

    def __init__(self, limit: int | None, read: Callable[[str], Awaitable[Generation]]) -> None:
        self.limit = limit
        self._read = read
        self._used = 0
        self._open: dict[str, int] = {}
        self._lock = anyio.Lock()

    @classmethod
    def of(cls, max_credits: float | None, read: Callable[[str], Awaitable[Generation]]) -> Self:
        """A budget of so many credits; None is without limit."""
        if max_credits is None:
            return cls(None, read)
        return cls(int((Decimal(str(max_credits)) * _MICROS).to_integral_value(ROUND_FLOOR)), read)

    @property
    def left(self) -> int | None:
        """Micro-credits that may still be reserved; None is without limit."""
        return None if self.limit is None else self.limit - self._used

    async def take(self, micro: int) -> None:
        """Set aside what a generation will cost at most.

        Raises:
            BudgetExceededError: there is not so much left.
        """
        if self.limit is None:
            return
        async with self._lock:
            if self._used + micro > self.limit:
                await self._look_for(self._used + micro - self.limit)
            if self._used + micro > self.limit:
                raise BudgetExceededError(
                    f"This reserves {shown(micro)} credits, and of this server's limit of {shown(self.limit)} "
                    f"{shown(self.limit - self._used)} are left: choose something cheaper, or ask the user to "
                    "start the server with a higher --max-credits."
                )
            self._used += micro

    def give_back(self, micro: int) -> None:
        """What was taken for a generation that was certainly refused."""
        if self.limit is not None:
            self._used -= micro

    def accepted(self, id: str, micro: int) -> None:
        """What was taken belongs to this generation now."""
        if self.limit is not None:
            self._open[id] = micro

    def seen(self, id: str, status: GenerationStatus) -> None:
        """Whatever is learned of any generation; a final one is settled once."""
        if status in _FINAL:
            micro = self._open.pop(id, 0)
            if status in _RETURNED:
                self._used -= micro

    async def _look_for(self, wanted: int) -> None:
        enough = self._used - wanted
        for id in list(self._open):
            try:
                self.seen(id, (await self._read(id)).status)
            except NotFoundError:
                self._open.pop(id, None)  # deleted, or past its retention: what it cost stays counted
            except BabySeaError:
                continue
            if self._used <= enough:
                return
