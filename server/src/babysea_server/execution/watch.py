"""Where the worker says what becomes of its generations, to whoever counts or traces them."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol
from uuid import UUID

from babysea_server.execution.types import Claim, Ended


class RunWatch(Protocol):
    """Is told of each step; must not wait and must not fail. Times in seconds."""

    def claimed(self, waited_s: float) -> None:
        """A generation was claimed for the first time, so long after it was accepted."""
        ...

    def attempted(self, provider: str, outcome: str, failure: str | None, duration_s: float) -> None:
        """An attempt ended: `succeeded`, `failed` with its class, or `left` because its generation ended without it."""
        ...

    def settled(self, media: str, status: str, error_code: str | None, duration_s: float) -> None:
        """A generation was settled, so long after it was accepted."""
        ...


class Unwatched:
    """Nobody counts."""

    def claimed(self, waited_s: float) -> None: ...

    def attempted(self, provider: str, outcome: str, failure: str | None, duration_s: float) -> None: ...

    def settled(self, media: str, status: str, error_code: str | None, duration_s: float) -> None: ...


class Step(Protocol):
    """One step of a run, which may be told how it ended."""

    def ended(self, result: str, failure: str | None = None) -> None:
        """What came of it, and the class of failure if it failed."""
        ...


class RunTrace(Protocol):
    """Is told of one run what a trace of it shows; must not wait and must not fail."""

    def begin(self) -> None:
        """The run begins, in its own task."""
        ...

    def opened(self, attempt_id: UUID, order: int, provider: str, age_s: float) -> None:
        """An attempt is under way, for so many seconds already."""
        ...

    def accepted(self, upstream_id: str) -> None:
        """The provider of that attempt has the job, under this id."""
        ...

    def step(self, name: str) -> AbstractContextManager[Step]:
        """One step of that attempt, else of the generation, until the end of the block."""
        ...

    def attempted(self, outcome: str, failure: str | None) -> None:
        """That attempt has an outcome; it is not durable yet."""
        ...

    def resolved(self) -> None:
        """The outcome is durable."""
        ...

    def left(self) -> None:
        """The generation ended without the attempt under way."""
        ...

    def settled(self, status: str, error_code: str | None) -> None:
        """The end of the generation is durable, and with it that of its last attempt."""
        ...


class Traces(Protocol):
    """Who traces the generations of a worker; must not wait and must not fail."""

    def run(self, claim: Claim) -> RunTrace | None:
        """Who traces the run of a claim, if anybody does."""
        ...

    def ended(self, generation: Ended, status: str, error_code: str | None) -> None:
        """A generation ended without a run."""
        ...


class Untraced:
    """Nobody traces."""

    def __init__(self) -> None:
        self._step = nullcontext(self)

    def begin(self) -> None: ...

    def opened(self, attempt_id: UUID, order: int, provider: str, age_s: float) -> None: ...

    def accepted(self, upstream_id: str) -> None: ...

    def step(self, name: str) -> AbstractContextManager[Step]:
        return self._step

    def ended(self, result: str, failure: str | None = None) -> None: ...

    def attempted(self, outcome: str, failure: str | None) -> None: ...

    def resolved(self) -> None: ...

    def left(self) -> None: ...

    def settled(self, status: str, error_code: str | None) -> None: ...
