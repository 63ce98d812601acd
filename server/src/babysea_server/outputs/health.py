"""`GET /v1/health/storage`: a real round trip to where outputs are kept."""

import time

import structlog
from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from babysea_server.kit.calls import Call, Reply
from babysea_server.kit.clock import Clock
from babysea_server.kit.remembered import Remembered
from babysea_server.outputs.store import ObjectMissingError, ObjectStore, StorageError
from babysea_server.outputs.wire import HealthStorageData

#: Seconds for which an answer is believed: however many ask, the store is probed once a second.
REMEMBERED_S = 1.0

_log = structlog.get_logger(__name__)


class StorageHealth:
    """Handler over one region's store. A store that is away is an answer, not an error."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._answer = Remembered(self._probe, clock, seconds=REMEMBERED_S)

    async def storage(self, _call: Call) -> Reply:
        """`GET /v1/health/storage`."""
        return Reply(await self._answer.get())

    async def _probe(self) -> HealthStorageData:
        began = time.perf_counter()
        try:
            latency_ms = await self._store.probe()
        except StorageError as error:
            _log.warning("storage_unhealthy", error=str(error))
            return HealthStorageData(
                service="storage",
                healthy=False,
                latency_ms=round((time.perf_counter() - began) * 1000, 2),
                bucket=self._store.name,
                error=_sentence(error),
            )
        return HealthStorageData(
            service="storage", healthy=True, latency_ms=round(latency_ms, 2), bucket=self._store.name
        )


def _sentence(error: StorageError) -> str:
    """What customers are told: the store's own words name paths, hosts and accounts."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return "The storage did not answer in time."
    if isinstance(cause, (PermissionError, PermissionDeniedError, UnauthenticatedError)):
        return "The storage refused access."
    if isinstance(error, ObjectMissingError):
        return "The storage does not hold what was just written, or its bucket is gone."
    return "The storage cannot be reached, or fails."
