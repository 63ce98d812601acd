"""The worker's own writes, batched like admission: what many generations write at once is one call."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from uuid import UUID

import asyncpg
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.execution import store
from babysea_server.execution.types import AcceptedAttempt, OpenAttempt, ResolvedAttempt, Settlement
from babysea_server.kit.batching import Batcher
from babysea_server.kit.clock import Clock

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_S = 0.05
_PAUSE_MAX_S = 2.0

Item = TypeVar("Item")


class Writes:
    """Batched, retried writes of one worker.

    The database may be away for a while; every write here may be repeated, so it is, for `patience_s`. After
    that the caller gets the `DatabaseUnavailableError` and leaves its generation to recovery.
    """

    def __init__(
        self, db: Database, clock: Clock, worker_id: UUID, *, patience_s: float, queue_max: int
    ) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._open: Batcher[OpenAttempt, bool] = Batcher(
            self._patient(lambda items: store.open_attempts(db, worker_id, items)), queue_max=queue_max
        )
        self._accept: Batcher[AcceptedAttempt, bool] = Batcher(
            self._patient(lambda items: store.accept_attempts(db, worker_id, items)), queue_max=queue_max
        )
        self._resolve: Batcher[ResolvedAttempt, bool] = Batcher(
            self._patient(lambda items: store.resolve_attempts(db, items)), queue_max=queue_max
        )
        self._settle: Batcher[Settlement, bool] = Batcher(
            self._patient(lambda items: store.settle(db, worker_id, items)), queue_max=queue_max
        )

    async def open_attempt(self, attempt: OpenAttempt) -> bool:
        """See `store.open_attempts`."""
        return await self._open.submit(attempt)

    async def accept(self, accepted: AcceptedAttempt) -> bool:
        """See `store.accept_attempts`."""
        return await self._accept.submit(accepted)

    async def resolve(self, resolved: ResolvedAttempt) -> None:
        """See `store.resolve_attempts`."""
        await self._resolve.submit(resolved)

    async def settle(self, settlement: Settlement) -> bool:
        """See `store.settle`."""
        return await self._settle.submit(settlement)

    async def close(self) -> None:
        """Write out what is queued."""
        for batcher in (self._open, self._accept, self._resolve, self._settle):
            await batcher.close()

    def _patient(
        self, write: Callable[[Sequence[Item]], Awaitable[list[bool]]]
    ) -> Callable[[Sequence[Item]], Awaitable[list[bool]]]:
        async def call(items: Sequence[Item]) -> list[bool]:
            give_up_at = self._clock.monotonic() + self._patience_s
            pause = _FIRST_PAUSE_S
            while True:
                try:
                    return await write(items)
                except (DatabaseUnavailableError, asyncpg.QueryCanceledError) as error:
                    if self._clock.monotonic() > give_up_at:
                        raise
                    _log.warning("write_repeated", items=len(items), error=str(error))
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, _PAUSE_MAX_S)
                except asyncpg.PostgresError:
                    if len(items) == 1:
                        raise
                    # One record that the database refuses must not take its neighbours with it.
                    _log.exception("write_batch_refused", items=len(items))
                    return await one_by_one(items)

        async def one_by_one(items: Sequence[Item]) -> list[bool]:
            results: list[bool] = []
            for item in items:
                try:
                    results += await call([item])
                except asyncpg.PostgresError:
                    _log.exception("write_refused")
                    results.append(False)
            return results

        return call
