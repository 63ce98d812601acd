"""The worker's own statements, batched like admission: what many generations write at once is one call."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import asyncpg
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError, fault_of
from babysea_server.execution import store
from babysea_server.execution.types import (
    AcceptedAttempt,
    OpenAttempt,
    Resolution,
    Settlement,
    Standing,
)
from babysea_server.kit.batching import Batcher
from babysea_server.kit.clock import Clock
from babysea_server.providers.base import Accepted

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.05
_PAUSE_MAX_S = 2.0
#: How long what has been bought waits for the database. It outlives the lease on purpose: an upstream id that
#: arrives late still saves the purchase, and a settlement that arrives late is fenced out.
_BOUGHT_PATIENCE_S = 600.0
#: The database is away, busy or moving to another server; none of these has anything against the record.
_PASSING = (
    DatabaseUnavailableError,
    asyncpg.InternalClientError,  # the connection was told to go while it was idle
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,  # deadlock, serialization
)

Item = TypeVar("Item")
Result = TypeVar("Result")
_Batches: TypeAlias = Batcher[Item, Result | asyncpg.PostgresError]


class Writes:
    """Batched, retried writes of one worker.

    The database may be away for a while; every write here may be repeated, so it is: before anything is bought
    for half a lease, afterwards for ten minutes. Past that the caller gets the exception and leaves its
    generation to recovery.
    """

    def __init__(
        self, db: Database, clock: Clock, worker_id: UUID, *, lease_s: float, queue_max: int
    ) -> None:
        self._clock = clock
        # An attempt that was opened at the end of a lease could no longer be submitted.
        self._open: _Batches[OpenAttempt, bool] = self._batcher(
            lambda items: store.open_attempts(db, worker_id, items), lease_s / 2, queue_max
        )
        # After an outage all runs of a dead worker are resumed at once, and each asks.
        self._upstream: _Batches[UUID, tuple[str, dict[str, Any] | None] | None] = self._batcher(
            lambda items: store.upstreams_of(db, items), lease_s / 2, queue_max
        )
        self._accept: _Batches[AcceptedAttempt, Standing] = self._batcher(
            lambda items: store.accept_attempts(db, worker_id, items), _BOUGHT_PATIENCE_S, queue_max
        )
        self._resolve: _Batches[Resolution, bool] = self._batcher(
            lambda items: store.resolve_attempts(db, worker_id, items), _BOUGHT_PATIENCE_S, queue_max
        )
        self._discard: _Batches[Resolution, bool] = self._batcher(
            lambda items: store.discard_attempts(db, items), _BOUGHT_PATIENCE_S, queue_max
        )
        self._settle: _Batches[Settlement, bool] = self._batcher(
            lambda items: store.settle(db, worker_id, items), _BOUGHT_PATIENCE_S, queue_max
        )

    async def open_attempt(self, attempt: OpenAttempt) -> bool:
        """See `store.open_attempts`."""
        return await _one(self._open, attempt)

    async def accept(self, accepted: AcceptedAttempt) -> Standing:
        """See `store.accept_attempts`."""
        return await _one(self._accept, accepted)

    async def resolve(self, resolution: Resolution) -> bool:
        """See `store.resolve_attempts`."""
        return await _one(self._resolve, resolution)

    async def discard(self, resolution: Resolution) -> None:
        """See `store.discard_attempts`."""
        await _one(self._discard, resolution)

    async def settle(self, settlement: Settlement) -> bool:
        """See `store.settle`."""
        return await _one(self._settle, settlement)

    async def accepted(self, attempt_id: UUID) -> Accepted | None:
        """What has been persisted of an attempt's acceptance by now, by whomever."""
        found = await _one(self._upstream, attempt_id)
        return None if found is None else Accepted(found[0], found[1], poll_after_s=0.0)

    async def close(self) -> None:
        """Write out what is queued."""
        for batcher in (self._open, self._upstream, self._accept, self._resolve, self._discard, self._settle):
            await batcher.close()

    def _batcher(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        patience_s: float,
        queue_max: int,
    ) -> _Batches[Item, Result]:
        # Behind a call that waits for the database the queue waits as long.
        return Batcher(self._patient(write, patience_s), queue_max=queue_max, patience_s=patience_s)

    def _patient(
        self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], patience_s: float
    ) -> Callable[[Sequence[Item]], Awaitable[Sequence[Result | asyncpg.PostgresError]]]:
        async def call(items: Sequence[Item]) -> Sequence[Result | asyncpg.PostgresError]:
            give_up_at = self._clock.monotonic() + patience_s
            pause = _FIRST_PAUSE_S
            while True:
                try:
                    return await write(items)
                except _PASSING as error:
                    if self._clock.monotonic() > give_up_at:
                        raise
                    _log.warning("write_repeated", items=len(items), error=fault_of(error))
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, _PAUSE_MAX_S)
                except asyncpg.PostgresError as error:
                    _log.error("write_refused", items=len(items), error=fault_of(error))
                    if len(items) == 1:
                        return [error]
                    # One record that the database refuses must not take its neighbours with it.
                    return [result for item in items for result in await call([item])]

        return call


async def _one(batcher: _Batches[Item, Result], item: Item) -> Result:
    result = await batcher.submit(item)
    if isinstance(result, asyncpg.PostgresError):
        raise result
    return result
