"""One attempt under way: what a run knows of it, how it ended, and who can tell that its answer is due."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.execution.types import AttemptRecord, ResolvedAttempt
from babysea_server.outputs.ingest import StoredOutput
from babysea_server.providers.base import Finished, Job, Refused

_MESSAGE_MAX = 500


class Attempt(msgspec.Struct, frozen=True):
    """The attempt under way."""

    record: AttemptRecord
    job: Job
    ends_at: float
    """Monotonic time of its deadline."""


class Success(msgspec.Struct, frozen=True):
    """The attempt's outputs are stored."""

    attempt: Attempt
    finished: Finished
    outputs: Sequence[StoredOutput]


class Defeat(msgspec.Struct, frozen=True):
    """The attempt gave nothing."""

    attempt: Attempt
    refused: Refused


def resolution(defeat: Defeat) -> ResolvedAttempt:
    """The end of a failed attempt, as the attempt log keeps it."""
    refused = defeat.refused
    # A provider's words: whatever PostgreSQL cannot keep in a text would refuse the whole record.
    message = refused.message.encode("utf-8", "replace").decode().replace("\0", "")
    return ResolvedAttempt(
        defeat.attempt.record.id,
        "failed",
        refused.failure,
        refused.code,
        message[:_MESSAGE_MAX],
        not_negative(refused.cost_micro),
    )


def not_negative(value: int | None) -> int | None:
    """What a provider told as an amount, which must be none below zero."""
    return None if value is None else max(0, value)


class Announcements:
    """Attempts of this worker whose provider may be asked at once, because it called back."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, asyncio.Event] = {}

    @contextmanager
    def awaited(self, attempt_id: UUID) -> Iterator[asyncio.Event]:
        """The event that is set when the attempt is announced, for as long as somebody waits for it."""
        event = self._waiting[attempt_id] = asyncio.Event()
        try:
            yield event
        finally:
            self._waiting.pop(attempt_id, None)

    def announce(self, attempt_id: UUID) -> None:
        """The provider called back about the attempt; whoever does not wait for it does not care."""
        if (event := self._waiting.get(attempt_id)) is not None:
            event.set()


async def until(event: asyncio.Event, sleep: Coroutine[Any, Any, None]) -> None:
    """Sleep, but no longer than until the event is set; then it is cleared."""
    tasks = [asyncio.ensure_future(sleep), asyncio.ensure_future(event.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    event.clear()
