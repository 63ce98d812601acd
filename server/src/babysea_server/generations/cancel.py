"""Canceling a generation: decided by the database, then told to the provider, as well as that can be done."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from babysea_server import errors
from babysea_server.catalog.catalog import Catalog
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.errors import ApiError
from babysea_server.execution.store import discard_attempts
from babysea_server.execution.types import Ended, Resolution, ResolvedAttempt
from babysea_server.generations import store
from babysea_server.generations.changes import before_change, repeated
from babysea_server.generations.reading import Reader
from babysea_server.generations.service import generation_not_found
from babysea_server.generations.store import FINAL
from babysea_server.kit.clock import Clock
from babysea_server.providers.base import Accepted, Job
from babysea_server.providers.runner import Cancellation, Runner
from babysea_server.telemetry.tracing_generations import GenerationTraces

_log = structlog.get_logger(__name__)

#: The caller's answer does not wait longer for a note that a worker makes as well.
_NOTE_DEADLINE_S = 2.0


class Canceled(msgspec.Struct, frozen=True):
    """A generation that was canceled; `refunded` in micro-credits."""

    refunded: int
    provider_asked: bool


class Canceling:
    """Cancels generations of one region; `traces` is told of what was canceled."""

    def __init__(
        self,
        db: Database,
        reader: Reader,
        runner: Runner,
        catalog: Catalog,
        clock: Clock,
        traces: GenerationTraces | None = None,
    ) -> None:
        self._db = db
        self._reader = reader
        self._runner = runner
        self._catalog = catalog
        self._clock = clock
        self._traces = traces

    async def cancel(self, account_id: UUID, generation_id: UUID) -> Canceled:
        """Cancel and refund, then ask the provider to stop, for at most three seconds.

        Raises:
            ApiError: no such generation of this account, or it is final already.
            DatabaseUnavailableError: with `sent=True` it may have been canceled.
        """
        row = await before_change(self._reader, account_id, generation_id)
        if row["status"] in FINAL:  # what is final stays so: the account need not be locked to say it
            raise _not_cancelable(row["status"])
        found, lost = await repeated(lambda: store.cancel(self._db, account_id, generation_id), self._clock)
        if found is None:
            raise generation_not_found(generation_id)
        # It was in flight a moment ago; canceled since, it was by the call whose answer was lost.
        if not found["canceled"] and not (lost and found["status"] == "canceled"):
            raise _not_cancelable(found["status"])
        if self._traces is not None:
            generation = Ended(generation_id, account_id, row["model"], row["media"], row["created_at"])
            self._traces.ended(generation, "canceled")
        ending = await self._tell_provider(generation_id, found)
        return Canceled(found["refunded"], ending.sent)

    async def _tell_provider(self, generation_id: UUID, found: Any) -> Cancellation:
        """Only where a provider has the job. One that is being submitted right now is stopped by its worker."""
        model = self._catalog.all_models.get(found["model"])
        if found["upstream_id"] is None or model is None:
            return Cancellation.NOT_SENT
        job = Job(found["attempt_id"], found["provider"], model, found["inputs"])
        ending = await self._runner.cancel(job, Accepted(found["upstream_id"], found["upstream"]))
        outcome = ResolvedAttempt(
            found["attempt_id"], "cancelled" if ending is Cancellation.CONFIRMED else "discarded"
        )
        try:
            async with asyncio.timeout(_NOTE_DEADLINE_S):
                await discard_attempts(self._db, [Resolution(generation_id, found["fence"], outcome)])
        except (DatabaseUnavailableError, asyncpg.PostgresError, TimeoutError) as error:
            # A worker ends it in a minute.
            _log.warning("attempt_not_ended", generation_id=str(generation_id), error=type(error).__name__)
        return ending


def _not_cancelable(status: str) -> ApiError:
    return ApiError(
        errors.GENERATION_NOT_CANCELABLE,
        f"The generation is {status}; only one that is pending or processing can be canceled.",
        details={"generation_status": status},
    )
