"""The circuit breaker: which provider an attempt may go to, just before it goes there."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import asyncpg
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.kit.clock import Clock
from babysea_server.routing import store
from babysea_server.routing.health import REMEMBERED_S, ProviderHealth, Tally, Window

_log = structlog.get_logger(__name__)

#: A probe is alone for so long; then its process counts as dead, or its job as a long one, and another may follow.
PROBE_S = 60.0
#: A provider that still needs the operator is told of again after this.
TOLD_AGAIN_S = 3600.0
#: An attempt waits no longer for a reading of the window.
_READING_S = 1.0

_FAULTS = (DatabaseUnavailableError, asyncpg.PostgresError, asyncpg.InternalClientError, TimeoutError)


def ways(candidates: Sequence[str], window: Window) -> Iterator[tuple[str, bool]]:
    """The candidates that may be called, in order, and whether only as the one probe."""
    for provider in candidates:
        status = window.status(provider)
        if status != "degraded":
            yield provider, status == "recovering"


def is_probed(window: Window, provider: str, probe_s: float = PROBE_S) -> bool:
    """Whether a probe of the provider is under way."""
    probed_at = window.tally(provider).probed_at
    return probed_at is not None and (window.at - probed_at).total_seconds() < probe_s


def attempt_order(candidates: Sequence[str], may_be_called: Callable[[str], bool]) -> tuple[str, ...]:
    """The order in which candidates are tried: those that may not be called stand behind, and are not left out."""
    return tuple(sorted(candidates, key=lambda provider: not may_be_called(provider)))


class Breaker:
    """Keeps attempts away from providers that fail.

    | status | an attempt |
    |---|---|
    | unknown, healthy | goes there |
    | degraded | goes elsewhere |
    | recovering | goes there alone, as a probe; the others go elsewhere meanwhile |

    With nowhere else to go it goes to the first candidate all the same. A database that cannot be read means that
    nobody is degraded.
    """

    def __init__(
        self,
        db: Database,
        health: ProviderHealth,
        clock: Clock,
        *,
        probe_s: float = PROBE_S,
        told_again_s: float = TOLD_AGAIN_S,
    ) -> None:
        self._db = db
        self._health = health
        self._clock = clock
        self._probe_s = probe_s
        self._told_again_s = told_again_s
        self._noted: Window | None = None
        self._asked: set[str] = set()
        self._blind_until = float("-inf")

    async def choose(self, candidates: Sequence[str]) -> str:
        """The provider to try next: the first candidate that may be called, else the first of all.

        Asks the database once in two seconds, and for a probe at most as often; raises nothing of its faults.

        Args:
            candidates: not empty, in order of preference.
        """
        window = await self._read()
        if window is None or len(candidates) == 1:
            return candidates[0]
        for provider, as_probe in ways(candidates, window):
            if not as_probe or await self._probe(provider, window):
                return provider
        return candidates[0]

    async def _read(self) -> Window | None:
        if self._clock.monotonic() < self._blind_until:
            return None
        try:
            window = await asyncio.wait_for(self._health.window(), _READING_S)
        except _FAULTS as error:
            self._blind_until = self._clock.monotonic() + REMEMBERED_S
            _log.warning("breaker_blind", error=type(error).__name__)
            return None
        if window is not self._noted:
            self._noted = window
            self._asked.clear()
            await self._tell(window)
        return window

    async def _probe(self, provider: str, window: Window) -> bool:
        """Whether this attempt is the probe. A process asks once for each reading of the window."""
        if provider in self._asked or is_probed(window, provider, self._probe_s):
            return False
        self._asked.add(provider)
        try:
            won = await store.take_probe(self._db, provider, seconds=self._probe_s)
        except _FAULTS:
            return True
        if won:
            _log.info("provider_probed", provider=provider)
        return won

    async def _tell(self, window: Window) -> None:
        """Tell the operator of each provider that waits for them: one process, once for each time it breaks."""
        try:
            for provider, tally in window.tallies.items():
                await self._tell_of(provider, tally, window.at)
        except _FAULTS as error:
            _log.warning("breaker_blind", error=type(error).__name__)

    async def _tell_of(self, provider: str, tally: Tally, now: datetime) -> None:
        told_at, again_s = tally.told_at, self._told_again_s
        if tally.needs_operator:
            is_news = told_at is None or (now - told_at).total_seconds() >= again_s
            if is_news and await store.note_told(self._db, provider, again_s=again_s):
                _log.error("provider_needs_operator", provider=provider, failure=tally.operator_failure)
            return
        if told_at is None or not tally.proven_since(told_at):
            return
        if await store.forget_told(self._db, provider, told_at):
            _log.info("provider_works_again", provider=provider)
