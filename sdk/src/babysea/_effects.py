"""What a flow asks of the world.

A flow is a generator: it yields what it wants done and is sent the result, or has the error thrown in. The two
drivers of `_drivers` carry it out, one blocking and one not; everything that is decided is decided in flows, once.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from babysea._operations import Request


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that was read whole; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request to the server; the result is a `Response`, the error a `TransportError`.

    `timeout` is for each of sending and every read; the whole may take twice as long.
    """

    request: Request
    timeout: float


class Sink(Protocol):
    """What takes a file as it arrives. Both methods may raise, which ends the fetch."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Look at the answer before its body."""
        ...

    def write(self, chunk: bytes) -> None:
        """Take a part of the body."""
        ...


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read a URL into a sink, without the key and whatever else is for the server alone; `TransportError`s."""

    url: str
    host: str | None
    sink: Sink
    timeout: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let so many seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Gather:
    """Run flows, so many at a time; the result are theirs, in order. The first error of one ends all."""

    flows: Sequence["Flow[Any]"]
    concurrency: int


Result = TypeVar("Result")

Effect = Send | Fetch | Sleep | Gather
Flow = Generator[Effect, Any, Result]
