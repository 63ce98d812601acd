"""One row of a batch, from its key to its files: whatever dies on the way, another run goes on from there."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from babysea import (
    APIError,
    AuthenticationError,
    BabySea,
    BabySeaError,
    Generation,
    GenerationCanceledError,
    GenerationError,
    GenerationFailedError,
    InsufficientCreditsError,
    NotFoundError,
    PermissionDeniedError,
)
from babysea.cli.faults import CommandError
from babysea.cli.journal import Journal
from babysea.cli.rows import Row

_PACE_S = 1.0
_PACE_MAX_S = 10.0

#: After one of these every other row would end the same way.
_FATAL = (AuthenticationError, InsufficientCreditsError, PermissionDeniedError)

_UNKNOWN = "it was sent more than 23 hours ago and its answer is lost: it may have been bought"
_GONE = "it was bought, and the server has it no longer"
_AGAIN = "--again buys it anew"


@dataclass(slots=True)
class Result:
    """What became of a row in this run."""

    row: Row
    files: Sequence[str] = ()
    generation_id: str | None = None
    error: Exception | None = None
    cost: float | None = None


class _StoppedError(Exception):
    """The row was not begun, and will not be in this run."""


class Worker:
    """Works on rows; used by several threads at once.

    `again` tells to buy what may have been, or certainly was, bought before and cannot be had any more.
    """

    def __init__(
        self,
        client: BabySea,
        journal: Journal,
        folder: Path,
        timeout: float,
        complete: Callable[[Row], dict[str, Any]],
        *,
        again: bool,
    ) -> None:
        self._client = client
        self._journal = journal
        self._folder = folder
        self._timeout = timeout
        self._complete = complete
        self._again = again
        self._stop = Event()

    def stop(self) -> None:
        """Begin no more rows."""
        self._stop.set()

    def run(self, row: Row) -> Result | None:
        """Make the files of a row; None when it was not begun."""
        if self._stop.is_set():
            return None
        try:
            generation, files = self._made(row)
            return Result(row, files, generation.id)
        except _StoppedError:
            return None
        except (BabySeaError, CommandError, OSError) as error:
            if isinstance(error, _FATAL):
                self.stop()
            entry = self._journal.entries.get(row.id)
            known = getattr(error, "generation_id", None)
            return Result(row, generation_id=known or (entry.generation_id if entry else None), error=error)

    def _made(self, row: Row) -> tuple[Generation, list[str]]:
        if self._journal.is_lost(row.id):
            self._forget(row, _UNKNOWN)
        try:
            return self._finished(row)
        except NotFoundError as error:
            if error.code != "BSE3001":
                raise
        except GenerationError as error:
            if error.generation is None or not error.generation.generation_removed:
                raise
        self._forget(row, _GONE)
        return self._finished(row)

    def _forget(self, row: Row, why: str) -> None:
        if not self._again:
            raise CommandError(f"{why}; {_AGAIN}")
        self._journal.failed(row.id, None)

    def _finished(self, row: Row) -> tuple[Generation, list[str]]:
        deadline = time.monotonic() + self._timeout
        entry = self._journal.entries.get(row.id)
        id = (entry.generation_id if entry else None) or self._accepted(row, deadline)
        try:
            left = max(0.0, deadline - time.monotonic())
            generation = self._client.wait_for_generation(id, timeout=left)
        except (GenerationFailedError, GenerationCanceledError) as error:
            self._journal.failed(row.id, error.code)
            raise
        # That no file of other origin is in the way was seen before the row was begun.
        paths = self._client.download(generation, self._folder, name=row.name, overwrite=True)
        files = [path.name for path in paths]
        self._journal.done(row.id, files)
        return generation, files

    def _accepted(self, row: Row, deadline: float) -> str:
        """Start it, and what may pass meanwhile, such as a full queue or a server that restarts, is waited out."""
        key, pace = self._journal.key(row.id), _PACE_S
        while True:
            try:
                accepted = self._client.generate(row.model, idempotency_key=key, **self._complete(row))
                self._journal.accepted(row.id, accepted.id)
                return accepted.id
            except BabySeaError as error:
                pause = max(pace * (0.5 + random.random()), error.retry_after or 0.0)
                if not error.retryable or time.monotonic() + pause >= deadline:
                    if _is_refused(error):
                        self._journal.failed(row.id, error.code)
                    raise
            if self._stop.wait(pause):
                raise _StoppedError
            pace = min(_PACE_MAX_S, pace * 2)


def _is_refused(error: BabySeaError) -> bool:
    """Whether it certainly was not accepted: no attempt before the last may have been, its answer lost."""
    return isinstance(error, APIError) and (error.status or 500) < 500 and error.attempts == 1
