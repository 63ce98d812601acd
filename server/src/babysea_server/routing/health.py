"""How the providers of a region do lately, judged by what became of our own attempts."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.kit.remembered import Remembered
from babysea_server.routing import store

Status = Literal["healthy", "recovering", "degraded", "unknown"]

#: Attempts that ended longer ago say nothing of now.
WINDOW_S = 300
#: A provider is degraded from this many attempts on ...
DEGRADED_MIN_ATTEMPTS = 5
#: ... of which this share failed.
DEGRADED_FAILURE_RATE = 0.5
#: So long after its last failure it may be tried again.
RECOVERY_AFTER_S = 60
#: Seconds for which a reading is believed.
REMEMBERED_S = 2.0


class Tally(Struct, frozen=True):
    """The attempts of one provider that speak for or against it.

    What the customer caused (refused inputs and contents, cancels) counts as neither.
    """

    failures: int = 0
    successes: int = 0
    last_failure: datetime | None = None

    @property
    def attempts(self) -> int:
        """All that count."""
        return self.failures + self.successes

    @property
    def failure_rate(self) -> float:
        """Failures per attempt, 0 to 1; 0 without attempts."""
        return self.failures / self.attempts if self.attempts else 0.0


def assess(tally: Tally, now: datetime) -> Status:
    """The status of a provider with this tally."""
    if not tally.attempts:
        return "unknown"
    if tally.attempts < DEGRADED_MIN_ATTEMPTS or tally.failure_rate < DEGRADED_FAILURE_RATE:
        return "healthy"
    assert tally.last_failure is not None, "half of them failed"
    rested = (now - tally.last_failure).total_seconds() >= RECOVERY_AFTER_S
    return "recovering" if rested else "degraded"


class Window(Struct, frozen=True):
    """One reading of the window.

    `at` is the database's time: processes on machines whose clocks differ judge alike.
    """

    at: datetime
    tallies: Mapping[str, Tally]
    """By provider id; providers without attempts are absent."""

    def tally(self, provider: str) -> Tally:
        """The provider's attempts in the window."""
        return self.tallies.get(provider, _NOTHING)

    def status(self, provider: str) -> Status:
        """The provider's status when the window was read."""
        return assess(self.tally(provider), self.at)


_NOTHING = Tally()


class ProviderHealth:
    """The health of one region's providers; however many ask, the database is asked once in two seconds.

    Args:
        providers: ids of all providers.
        failures: the failure classes that speak against a provider.
    """

    def __init__(
        self, db: Database, clock: Clock, *, providers: Collection[str], failures: Collection[str]
    ) -> None:
        self._db = db
        self._failures = frozenset(failures)
        self._window = Remembered(self._read, clock, seconds=REMEMBERED_S)
        self.providers = tuple(sorted(providers))

    async def window(self) -> Window:
        """The window as it was read last.

        Raises:
            DatabaseUnavailableError: it cannot be read now.
        """
        return await self._window.get()

    async def statuses(self) -> dict[str, Status]:
        """The status of every provider, by id.

        Raises:
            DatabaseUnavailableError: it cannot be read now.
        """
        window = await self.window()
        return {provider: window.status(provider) for provider in self.providers}

    async def _read(self) -> Window:
        rows = await store.latest_attempts(self._db, seconds=WINDOW_S, failures=self._failures)
        return Window(rows[0]["at"], {row["provider"]: _tally(row) for row in rows if row["provider"]})


def _tally(row: Any) -> Tally:
    return Tally(row["failures"], row["successes"], row["last_failure"])
