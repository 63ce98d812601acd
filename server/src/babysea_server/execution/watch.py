"""Where the worker says what becomes of its generations, to whoever counts or traces them."""

from typing import Protocol


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
