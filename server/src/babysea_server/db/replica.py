"""Reads that may be some seconds old, from a replica while it keeps up, else from the primary.

Only pages and figures read here: nothing that decides anything, and no record that its writer may look for.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError, Listener, fault_of
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end

_log = structlog.get_logger(__name__)

#: What is older than this is read from the primary.
LAG_MAX_S = 10.0
_LOOK_EVERY_S = 1.0
_FAULTS = (DatabaseUnavailableError, asyncpg.PostgresError, asyncpg.InternalClientError)

_WRITTEN = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::int8"
_REPLAYED = "SELECT pg_is_in_recovery() AS follows, (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::int8 AS upto"


class ReplicaReads(Database):
    """A database whose single statements are read from a replica; everything else goes to the primary.

    How old the replica is is measured by ourselves: what the primary had written at a moment, and whether the replica
    has it. Its own word would be that nothing is missing, also when it hears nothing of the primary any more.

    Args:
        primary: open as long as this is; asked again whatever the replica fails at.
        dsn: connection string of a streaming replica.
        size: connections to it at most.
        lag_max_s: seconds that what is read may be old.
    """

    def __init__(
        self, primary: Database, dsn: str, clock: Clock, *, size: int = 10, lag_max_s: float = LAG_MAX_S
    ) -> None:
        super().__init__(dsn, name="babysea-reads", size=size)
        self._primary = primary
        self._clock = clock
        self._lag_max_s = lag_max_s
        self._written: deque[tuple[float, int]] = deque()
        self._as_of = -math.inf
        self._told_usable = True
        self._looking: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether the replica is read: it has all that was written up to so many seconds ago."""
        return self._clock.monotonic() - self._as_of <= self._lag_max_s

    async def open(self) -> None:
        """Make the pool and begin to look how far the replica is."""
        await super().open()
        self._looking = asyncio.create_task(self._look_on(), name="replica")

    async def close(self) -> None:
        """Let go of the replica."""
        await end([self._looking])
        await super().close()

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        if self.usable:
            try:
                return await super().fetch(query, *arguments)
            except _FAULTS as error:
                self._give_up(error)
        return await self._primary.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        if self.usable:
            try:
                return await super().fetchrow(query, *arguments)
            except _FAULTS as error:
                self._give_up(error)
        return await self._primary.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        if self.usable:
            try:
                return await super().fetchval(query, *arguments)
            except _FAULTS as error:
                self._give_up(error)
        return await self._primary.fetchval(query, *arguments)

    async def execute(self, query: str, *arguments: Any) -> int:
        return await self._primary.execute(query, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self._primary.transaction() as connection:
            yield connection

    def listen(self, channels: Sequence[str], on_notice: Callable[[str, str], None]) -> Listener:
        return self._primary.listen(channels, on_notice)

    async def look(self) -> None:
        """See how far the replica is; whatever fails, it is not read for now."""
        # First what there is, then whether it has arrived: in this order it can only look older than it is.
        try:
            now = self._clock.monotonic()
            self._written.append((now, await self._primary.fetchval(_WRITTEN)))
            replica = await super().fetchrow(_REPLAYED)
        except _FAULTS as error:
            self._give_up(error)
            return
        if not replica["follows"]:
            self._tell(usable=False, reason="it is no replica, or has been promoted")
            self._as_of = -math.inf
            return
        while self._written and self._written[0][1] <= replica["upto"]:
            self._as_of = self._written.popleft()[0]
        while self._written and now - self._written[0][0] > 2 * self._lag_max_s:
            self._written.popleft()
        self._tell(usable=self.usable, reason="it lags behind")

    async def _look_on(self) -> None:
        while True:
            await self.look()
            await self._clock.sleep(_LOOK_EVERY_S)

    def _give_up(self, error: Exception) -> None:
        self._as_of = -math.inf
        self._tell(usable=False, reason=fault_of(error))

    def _tell(self, *, usable: bool, reason: str) -> None:
        if usable and not self._told_usable:
            _log.info("replica_read_again")
        if not usable and self._told_usable:
            _log.warning("replica_not_read", reason=reason, meaning="the primary is read instead")
        self._told_usable = usable
