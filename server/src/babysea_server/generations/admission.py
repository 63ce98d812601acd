"""Admission: from a valid request to a durably accepted generation, in batches.

Everything that decides is one function of the database (`admit_generations_v1`). Here requests are gathered,
sent, and every way in which the call can end is turned into one outcome per request, so that a request that
was told "not accepted" certainly was not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.generations import store
from babysea_server.kit.batching import Batcher, ClosedError, QueueFullError
from babysea_server.kit.clock import Clock

_log = structlog.get_logger(__name__)

#: Clocks of API and database machines may differ by this much before certainty suffers.
_CLOCK_SKEW_S = 1.0
_RESOLVE_EVERY_S = 0.1
#: How long past the deadline a lost answer is looked for.
_RESOLVE_FOR_S = 5.0

Result = Literal[
    "accepted",
    "replayed",
    "key_reused",
    "over_concurrency",
    "insufficient_credits",
    "account_gone",
    "unavailable",  # certainly not accepted
    "unknown",      # the answer was lost and could not be found in time
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What the database needs to decide and write one generation. Costs in micro-credits."""

    generation_id: UUID
    prediction_id: UUID
    account_id: UUID
    apikey_id: UUID
    model: str
    media: str
    inputs: dict[str, Any]
    provider_order: tuple[str, ...]
    cost: int
    rate_per_second: Any
    lifetime_s: int
    in_flight_limit: int | None
    idempotency_key: str | None
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Admission:
    """How a request was decided. For `accepted` and `replayed` it describes the generation."""

    result: Result
    generation_id: UUID | None = None
    model: str = ""
    provider_order: Sequence[str] = ()
    prediction_id: UUID | None = None
    status: str = "pending"
    balance: int | None = None
    in_flight: int | None = None


_UNAVAILABLE = Admission("unavailable")
_UNKNOWN = Admission("unknown")


@dataclass(frozen=True, slots=True)
class _Queued:
    request: AdmissionRequest
    give_up_at: float
    """Monotonic time after which nobody waits for the answer any more."""


class Admissions:
    """Admits generations of one region.

    Args:
        db: connections of its own, so that slow reads never hold up admission; its statement timeout is the
            admission deadline, so that the server itself ends what takes too long.
        on_accepted: called after each batch in which something was accepted.
        deadline_s: a request not decided by then is answered `unavailable`.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        on_accepted: Callable[[], None],
        *,
        deadline_s: float = 5.0,
        batch_max: int = 256,
        calls_max: int = 2,
        queue_max: int = 2048,
    ) -> None:
        self._db = db
        self._clock = clock
        self._on_accepted = on_accepted
        self._deadline_s = deadline_s
        self._batcher: Batcher[_Queued, Admission] = Batcher(
            self._decide, batch_max=batch_max, calls_max=calls_max, queue_max=queue_max
        )

    async def admit(self, request: AdmissionRequest) -> Admission:
        """Decide one request; always answers, within the deadline or shortly after it."""
        queued = _Queued(request, self._clock.monotonic() + self._deadline_s)
        try:
            return await self._batcher.submit(queued)
        except (QueueFullError, ClosedError):
            return _UNAVAILABLE

    async def close(self) -> None:
        """Refuse new requests and answer those that wait."""
        await self._batcher.close()

    async def _decide(self, batch: Sequence[_Queued]) -> list[Admission]:
        now = self._clock.monotonic()
        live = [queued.request for queued in batch if queued.give_up_at > now]
        decided = iter(await self._call(live) if live else [])
        return [next(decided) if queued.give_up_at > now else _UNAVAILABLE for queued in batch]

    async def _call(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        deadline = self._clock.now() + timedelta(seconds=self._deadline_s)
        try:
            rows = await store.admit(self._db, deadline, _columns(requests))
        except DatabaseUnavailableError as error:
            if not error.sent:
                return [_UNAVAILABLE] * len(requests)
            _log.warning("admission_answer_lost", requests=len(requests), error=str(error))
            return await self._find_out(requests, deadline)
        except asyncpg.QueryCanceledError as error:
            _log.warning("admission_took_too_long", requests=len(requests), error=str(error))
            return [_UNAVAILABLE] * len(requests)
        except asyncpg.PostgresError:
            if len(requests) == 1:
                raise
            # One request that the database refuses must not take its neighbours with it.
            _log.exception("admission_batch_refused", requests=len(requests))
            return await self._one_by_one(requests)
        admissions = [_admission(request, row) for request, row in zip(requests, rows, strict=True)]
        if any(admission.result == "accepted" for admission in admissions):
            self._on_accepted()
        return admissions

    async def _one_by_one(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        admissions: list[Admission] = []
        for request in requests:
            try:
                admissions += await self._call([request])
            except asyncpg.PostgresError:
                _log.exception("admission_refused", model=request.model)
                admissions.append(_UNAVAILABLE)
        return admissions

    async def _find_out(self, requests: Sequence[AdmissionRequest], deadline: datetime) -> list[Admission]:
        """After a lost answer: look for the generations until the deadline settles the question."""
        settled_at = deadline + timedelta(seconds=_CLOCK_SKEW_S)
        give_up_at = deadline + timedelta(seconds=_RESOLVE_FOR_S)
        ids = [request.generation_id for request in requests]
        found: set[UUID] = set()
        while True:
            asked_at = self._clock.now()
            try:
                found = await store.existing(self._db, ids)
                if asked_at > settled_at or len(found) == len(ids):
                    return [
                        _accepted(request) if request.generation_id in found else _UNAVAILABLE
                        for request in requests
                    ]
            except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
                _log.debug("admission_still_unknown", error=str(error))
            if asked_at > give_up_at:
                return [
                    _accepted(request) if request.generation_id in found else _UNKNOWN for request in requests
                ]
            await self._clock.sleep(_RESOLVE_EVERY_S)


def _columns(requests: Sequence[AdmissionRequest]) -> list[list[Any]]:
    return [
        [request.generation_id for request in requests],
        [request.account_id for request in requests],
        [request.apikey_id for request in requests],
        [request.model for request in requests],
        [request.media for request in requests],
        [request.inputs for request in requests],
        [",".join(request.provider_order) for request in requests],
        [request.prediction_id for request in requests],
        [request.cost for request in requests],
        [request.rate_per_second for request in requests],
        [request.lifetime_s for request in requests],
        [request.in_flight_limit for request in requests],
        [request.idempotency_key for request in requests],
        [request.fingerprint for request in requests],
    ]


def _accepted(request: AdmissionRequest) -> Admission:
    return Admission(
        "accepted",
        generation_id=request.generation_id,
        model=request.model,
        provider_order=request.provider_order,
        prediction_id=request.prediction_id,
    )


def _admission(request: AdmissionRequest, row: Any) -> Admission:
    result: Result = row["result"]
    if result == "accepted":
        return replace(_accepted(request), balance=row["balance"], in_flight=row["in_flight"])
    return Admission(
        result,
        generation_id=row["generation_id"],
        model=row["model"] or request.model,
        provider_order=row["provider_order"] or request.provider_order,
        prediction_id=row["prediction_id"],
        status=row["status"] or "pending",
        balance=row["balance"],
        in_flight=row["in_flight"],
    )
