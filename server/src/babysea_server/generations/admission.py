"""Admission: from a valid request to a durably accepted generation, in batches.

Everything that decides is one function of the database (`admit_generations_v1`). Here requests are gathered,
sent, and every way in which the call can end is turned into one outcome per request, so that a request that
was told "not accepted" certainly was not.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError, fault_of
from babysea_server.generations import store
from babysea_server.kit.batching import Batcher, ClosedError, QueueFullError, QueueTimeoutError
from babysea_server.kit.clock import Clock
from babysea_server.telemetry.tracing import RequestSpan
from babysea_server.telemetry.tracing_generations import GenerationTraces

_log = structlog.get_logger(__name__)

#: Of `admit_generations_v1`.
_LATE = "admission came after its deadline"

_RESOLVE_EVERY_S = 0.1
#: How long past the deadline a lost answer is looked for.
_RESOLVE_FOR_S = 5.0

#: Errors of a request's own values: the same request would meet them again. asyncpg raises DataError also for
#: values it cannot encode. Every other error is the database's.
_REFUSES_VALUES = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)

Result = Literal[
    "accepted",
    "replayed",
    "key_reused",
    "over_concurrency",
    "insufficient_credits",
    "account_gone",
    "unavailable",  # certainly not accepted: the database is slow or gone
    "refused",      # certainly not accepted: the database does not take its values, which is our fault
    "unknown",      # the answer was lost and could not be found in time
]  # fmt: skip


class AdmissionRequest(msgspec.Struct, frozen=True, gc=False):
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
    request: RequestSpan | None = None
    """Of whose trace it is, where that is traced."""


class Admission(msgspec.Struct, frozen=True):
    """How a request was decided. For `accepted` and `replayed` it describes the generation; `balance` and
    `in_flight` say what a refusal was decided on.
    """

    result: Result
    generation_id: UUID | None = None
    model: str = ""
    provider_order: Sequence[str] = ()
    prediction_id: UUID | None = None
    status: str = "pending"
    balance: int | None = None
    in_flight: int | None = None


_UNAVAILABLE = Admission("unavailable")
_REFUSED = Admission("refused")
_UNKNOWN = Admission("unknown")


class Admissions:
    """Admits generations of one region.

    Args:
        db: connections of its own, so that slow reads never hold up admission; its statement timeout is the
            admission deadline, so that the server itself ends what takes too long.
        on_accepted: called after each batch in which something was accepted.
        deadline_s: a request that is not sent by then is answered `unavailable`; once sent, the database has
            as long again to accept it.
        observe: is told the results of each batch and the seconds that they took.
        traces: traces each decision.
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
        observe: Callable[[Sequence[Result], float], None] | None = None,
        traces: GenerationTraces | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._on_accepted = on_accepted
        self._deadline_s = deadline_s
        self._observe = observe
        self._traces = traces
        self._batcher: Batcher[AdmissionRequest, Admission] = Batcher(
            self._call if observe is None and traces is None else self._observed_call,
            batch_max=batch_max,
            calls_max=calls_max,
            queue_max=queue_max,
            patience_s=deadline_s,
        )

    @property
    def waiting(self) -> int:
        """Requests that no call has taken yet."""
        return self._batcher.waiting

    async def admit(self, request: AdmissionRequest) -> Admission:
        """Decide one request; always answers, also when the database does not."""
        try:
            return await self._batcher.submit(request)
        except (QueueFullError, QueueTimeoutError, ClosedError):
            return _UNAVAILABLE

    async def close(self) -> None:
        """Refuse new requests and answer those that wait."""
        await self._batcher.close()

    async def _observed_call(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        started, called_at = self._clock.monotonic(), self._clock.now()
        admissions = await self._call(requests)
        if self._observe is not None:
            results = [admission.result for admission in admissions]
            self._observe(results, self._clock.monotonic() - started)
        if self._traces is not None:
            answered_at = self._clock.now()
            for request, admission in zip(requests, admissions, strict=True):
                self._traces.admitted(
                    request.generation_id,
                    request.request,
                    result=admission.result,
                    batch_size=len(requests),
                    called_at=called_at,
                    answered_at=answered_at,
                )
        return admissions

    async def _call(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        deadline = self._clock.now() + timedelta(seconds=self._deadline_s)
        try:
            rows = await store.admit(self._db, deadline, _columns(requests))
        except (DatabaseUnavailableError, asyncpg.StatementCompletionUnknownError) as error:
            if isinstance(error, DatabaseUnavailableError) and not error.sent:
                return [_UNAVAILABLE] * len(requests)
            _log.warning("admission_answer_lost", requests=len(requests), error=fault_of(error))
            return self._announced(await self._find_out(requests, deadline))
        except _REFUSES_VALUES as error:
            # Only the kind of error: texts and tracebacks quote the values, which are the customer's.
            _log.error("admission_refused", requests=len(requests), error=fault_of(error))
            if len(requests) == 1:
                return [_REFUSED]
            # One request that the database refuses must not take its neighbours with it.
            return await self._one_by_one(requests)
        except asyncpg.PostgresError as error:
            # The server ended the call itself, by its timeout, past the deadline, or because it cannot write.
            if _LATE in str(error):  # where that goes on, this machine's clock is behind the database's
                _log.warning("admission_late", requests=len(requests))
            else:
                _log.warning("admission_unavailable", requests=len(requests), error=fault_of(error))
            return [_UNAVAILABLE] * len(requests)
        return self._announced(
            [_admission(request, row) for request, row in zip(requests, rows, strict=True)]
        )

    def _announced(self, admissions: list[Admission]) -> list[Admission]:
        if any(admission.result == "accepted" for admission in admissions):
            self._on_accepted()
        return admissions

    async def _one_by_one(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        give_up_at = self._clock.monotonic() + self._deadline_s
        admissions: list[Admission] = []
        for request in requests:
            late = self._clock.monotonic() > give_up_at
            admissions += [_UNAVAILABLE] if late else await self._call([request])
        return admissions

    async def _find_out(self, requests: Sequence[AdmissionRequest], deadline: datetime) -> list[Admission]:
        """After a lost answer: look for the generations until the database itself knows that it is settled."""
        give_up_at = self._clock.monotonic() + self._deadline_s + _RESOLVE_FOR_S
        ids = [request.generation_id for request in requests]
        accounts = list({request.account_id for request in requests})
        found: set[UUID] = set()
        certain = False
        while not certain and self._clock.monotonic() <= give_up_at:
            try:
                found, certain = await store.admitted(self._db, deadline, accounts, ids)
                certain = certain or len(found) == len(ids)
            except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
                _log.debug("admission_still_unknown", error=fault_of(error))
            if not certain:
                await self._clock.sleep(_RESOLVE_EVERY_S)
        missing = _UNAVAILABLE if certain else _UNKNOWN
        return [_accepted(request) if request.generation_id in found else missing for request in requests]


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
        return _accepted(request)
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
