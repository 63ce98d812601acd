"""How the providers of a region do lately, judged by what became of our own attempts."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.kit.remembered import Remembered
from babysea_server.providers.base import Failure
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
#: What only the operator can mend; each makes a provider degraded at once.
OPERATOR_FAILURES = frozenset({Failure.REFUSED_AUTH.value, Failure.REFUSED_FUNDS.value})


class Limits(Struct, frozen=True, kw_only=True):
    """When a provider counts as degraded, and for how long. Times are seconds, `failure_rate` is 0 to 1."""

    window_s: float = WINDOW_S
    attempts_min: int = DEGRADED_MIN_ATTEMPTS
    failure_rate: float = DEGRADED_FAILURE_RATE
    rest_s: float = RECOVERY_AFTER_S


LIMITS = Limits()


class Tally(Struct, frozen=True):
    """The attempts of one provider that speak for or against it.

    What the customer caused (refused inputs and contents, cancels) counts as neither.
    """

    failures: int = 0
    successes: int = 0
    last_failure: datetime | None = None
    """When it ended."""
    last_success: datetime | None = None
    """When the success that was submitted last was submitted."""
    last_operator_failure: datetime | None = None
    """When an attempt ended that the provider refused for the operator's credentials or funds."""
    operator_failure: str | None = None
    """The class of such a failure in the window."""
    probed_at: datetime | None = None
    """When somebody was last let through to see whether it has recovered."""
    told_at: datetime | None = None
    """When the operator was told that it waits for them."""

    @property
    def attempts(self) -> int:
        """All that count."""
        return self.failures + self.successes

    @property
    def failure_rate(self) -> float:
        """Failures per attempt, 0 to 1; 0 without attempts."""
        return self.failures / self.attempts if self.attempts else 0.0

    def proven_since(self, moment: datetime | None) -> bool:
        """Whether an attempt that was submitted after `moment` has succeeded."""
        return self.last_success is not None and (moment is None or self.last_success > moment)

    @property
    def needs_operator(self) -> bool:
        """Whether it refuses the operator's credentials or funds, as far as we know."""
        refused_at = self.last_operator_failure
        return refused_at is not None and not self.proven_since(refused_at)

    @property
    def failed_probe(self) -> bool:
        """Whether it has failed since it was last probed, and nothing else."""
        if self.probed_at is None or self.last_failure is None:
            return False
        return self.last_failure > self.probed_at and not self.proven_since(self.probed_at)


def assess(tally: Tally, now: datetime, limits: Limits = LIMITS) -> Status:
    """The status of a provider with this tally.

    | it has | status |
    |---|---|
    | no attempt in the window | unknown |
    | no failure, or a success that was submitted after the last one | healthy |
    | neither too many failures, nor one that needs the operator, nor one of a probe | healthy |
    | else, and the last failure is fresh | degraded |
    | else | recovering |
    """
    if not tally.attempts:
        return "unknown"
    if tally.last_failure is None or tally.proven_since(tally.last_failure):
        return "healthy"
    too_many = tally.attempts >= limits.attempts_min and tally.failure_rate >= limits.failure_rate
    if not (too_many or tally.needs_operator or tally.failed_probe):
        return "healthy"
    rested = (now - tally.last_failure).total_seconds() >= limits.rest_s
    return "recovering" if rested else "degraded"


class Window(Struct, frozen=True):
    """One reading of the window.

    `at` is the database's time: processes on machines whose clocks differ judge alike.
    """

    at: datetime
    tallies: Mapping[str, Tally]
    """By provider id; providers without attempts are absent."""
    limits: Limits = LIMITS

    def tally(self, provider: str) -> Tally:
        """The provider's attempts in the window."""
        return self.tallies.get(provider, _NOTHING)

    def status(self, provider: str) -> Status:
        """The provider's status when the window was read."""
        return assess(self.tally(provider), self.at, self.limits)


_NOTHING = Tally()


class ProviderHealth:
    """The health of one region's providers; however many ask, the database is asked once in two seconds.

    Args:
        providers: ids of all providers.
        failures: the failure classes that speak against a provider.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        providers: Collection[str],
        failures: Collection[str],
        limits: Limits = LIMITS,
    ) -> None:
        self._db = db
        self._failures = frozenset(failures)
        self._limits = limits
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
        rows = await store.latest_attempts(
            self._db, seconds=self._limits.window_s, failures=self._failures, operator=OPERATOR_FAILURES
        )
        tallies = {row["provider"]: _tally(row) for row in rows if row["provider"]}
        return Window(rows[0]["at"], tallies, self._limits)


def _tally(row: Any) -> Tally:
    return Tally(**{name: row[name] for name in Tally.__struct_fields__})
