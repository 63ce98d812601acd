"""What all API processes of a region count together: numbers by key and window, in PostgreSQL or Redis."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

#: Length of every window. Windows begin at whole multiples of it in unix time, for all keys alike.
WINDOW_S = 60

#: After this a window's numbers may be forgotten: longer than the clocks of two machines are apart.
KEEP_S = 5 * WINDOW_S


class CountersUnavailableError(Exception):
    """The counters could not be asked, or their answer was lost; what was to be added may have been.

    The message is a sentence for people, without addresses or credentials.
    """


class Addition(NamedTuple):
    """What is to be added to one number."""

    key: str
    window: int
    """Number of the window: unix time divided by `WINDOW_S`."""
    amount: int


class WindowCounters(Protocol):
    """Numbers that begin at zero with each window. They may be lost at any time; nothing rests on them alone."""

    async def open(self) -> None:
        """Be connected, if the store is there: the first request is not to wait for that. It may still be away."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...

    async def add(self, additions: Sequence[Addition]) -> Sequence[int]:
        """Add to many numbers in one round trip, each atomically; returns the sums in the same order.

        No key may be there twice for one window.

        Raises:
            CountersUnavailableError
        """
        ...

    async def probe(self) -> None:
        """Write something and read it back.

        Raises:
            CountersUnavailableError
        """
        ...
