"""Deadlines of one length for many tasks at once, with one timer for all of them.

`asyncio.timeout` arms and removes a timer for each block, which is a fifteenth of all that a short request costs. Here
a block is an entry in a table that is in the order of their ends by itself, and only the first of them has a timer.
"""

import asyncio
from types import TracebackType
from typing import Any


class Deadline:
    """One block of one task: `with` raises TimeoutError where its time has run out, as `asyncio.timeout` does."""

    __slots__ = ("_begun_cancelling", "_running", "_task", "at", "expired")

    def __init__(self, running: dict["Deadline", None], task: asyncio.Task[Any], at: float) -> None:
        self.at = at
        """The loop's time."""
        self.expired = False
        self._running = running
        self._task = task
        self._begun_cancelling = task.cancelling()

    def lift(self) -> None:
        """From here on the block may take as long as it likes."""
        self._running.pop(self, None)

    def expire(self) -> None:
        """Its time has run out: interrupt the task."""
        self.expired = True
        self._task.cancel()

    def __enter__(self) -> "Deadline":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._running.pop(self, None)
        # Another may have cancelled the task as well: then that is what it ends with.
        if (
            self.expired
            and self._task.uncancel() <= self._begun_cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error


class Deadlines:
    """Deadlines that all are `seconds` long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Deadline, None] = {}
        """First begun, first to end."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Deadline:
        """A deadline for the present task, which runs from now on; to be used as a context manager at once."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        deadline = Deadline(self._running, task, loop.time() + self._seconds)
        self._running[deadline] = None
        if self._timer is None:
            self._timer = loop.call_at(deadline.at, self._expire)
        return deadline

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._running:
            first = next(iter(self._running))
            if first.at > loop.time():
                self._timer = loop.call_at(first.at, self._expire)
                return
            del self._running[first]
            first.expire()
