"""One generation's run: from its claim to its settlement, over as many providers as it takes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from babysea_server import errors
from babysea_server.catalog.catalog import Catalog
from babysea_server.execution.lease import Lease, LeaseLostError
from babysea_server.execution.types import (
    AcceptedAttempt,
    AttemptRecord,
    Claim,
    OpenAttempt,
    ResolvedAttempt,
    Settlement,
)
from babysea_server.execution.verdict import FailedAttempt, goes_on, verdict
from babysea_server.execution.writes import Writes
from babysea_server.kit.clock import Clock
from babysea_server.kit.ids import uuid7
from babysea_server.outputs.ingest import StoredOutput, keep
from babysea_server.outputs.media import BadOutputError
from babysea_server.outputs.store import ObjectStore, StorageError
from babysea_server.providers.base import Accepted, Failure, Finished, Job, NotFound, Refused, Running
from babysea_server.providers.runner import OutputUnavailableError, Runner

_log = structlog.get_logger(__name__)

#: Polling starts at what the provider says and grows up to this.
_POLL_MAX_S = {"image": 3.0, "video": 10.0}
_POLL_GROWTH = 1.4
#: A busy provider that says how soon it is free is asked once more, if that is soon.
_RETRY_AFTER_MAX_S = 10.0
_OUTPUT_MAX = {"image": 64 * 1024 * 1024, "video": 1024 * 1024 * 1024}
_MESSAGE_MAX = 500
#: How long a store that is away is waited for at least, and how often it is tried.
_STORAGE_PATIENCE_S = 60.0
_STORAGE_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class RunParts:
    """What every run of a worker shares."""

    runner: Runner
    writes: Writes
    store: ObjectStore
    catalog: Catalog
    clock: Clock
    lease: Lease
    attempt_timeout_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The attempt under way."""

    record: AttemptRecord
    job: Job
    ends_at: float
    """Monotonic time of its deadline."""


@dataclass(frozen=True, slots=True)
class _Success:
    attempt: _Attempt
    finished: Finished
    outputs: Sequence[StoredOutput]


@dataclass(frozen=True, slots=True)
class _Defeat:
    attempt: _Attempt
    refused: Refused


class Run:
    """Runs one claimed generation. Used once.

    `interruptible` says whether the task may be cancelled now: never between opening an attempt and persisting
    what the provider answered, and never while settling.
    """

    def __init__(self, claim: Claim, parts: RunParts) -> None:
        self._claim = claim
        self._parts = parts
        self._critical = 0
        self._stopping = False
        self._log = _log.bind(generation_id=str(claim.id), model=claim.model)

    @property
    def interruptible(self) -> bool:
        """Whether cancelling the task now loses nothing."""
        return self._critical == 0

    def stop(self) -> None:
        """Go no further than the next safe place."""
        self._stopping = True

    async def execute(self) -> None:
        """Run to the end.

        Raises:
            LeaseLostError: somebody else has the generation, or it ended meanwhile.
            asyncio.CancelledError: stopped at a safe place.
        """
        failed = [
            FailedAttempt(record.provider, record.failure, record.error_code)
            for record in self._claim.attempts
            if record.outcome == "failed" and record.failure is not None
        ]
        if self._claim.model not in self._parts.catalog.all_models:
            return await self._fail(failed, None)
        opened = next((record for record in self._claim.attempts if record.outcome == "pending"), None)
        result: _Success | _Defeat | None = None
        if opened is not None:
            result = await self._resume(self._attempt(opened))
        while True:
            if isinstance(result, _Success):
                return await self._succeed(result)
            if result is not None:
                ended = FailedAttempt(
                    result.attempt.record.provider, result.refused.failure, result.refused.code
                )
                failed.append(ended)
                if not goes_on(ended) or self._next_provider(failed) is None:
                    return await self._fail(failed, result)
                await self._parts.writes.resolve(_resolution(result))
            provider = self._next_provider(failed)
            if provider is None:
                return await self._fail(failed, None)
            result = await self._try(provider, len(failed) + 1)

    # ------------------------------------------------------------------------------- one attempt

    async def _try(self, provider: str, order: int) -> "_Success | _Defeat":
        """Open an attempt, submit once, and see it through."""
        first = order == 1 and not self._claim.attempts
        record = AttemptRecord(
            id=self._claim.prediction_id if first else uuid7(),
            attempt_order=order,
            provider=provider,
            outcome="pending",
            upstream_id=None,
            upstream=None,
            failure=None,
            error_code=None,
            age_s=0.0,
        )
        attempt = self._attempt(record)
        async with self._no_interruption():
            opened = await self._parts.writes.open_attempt(
                OpenAttempt(
                    attempt_id=record.id,
                    generation_id=self._claim.id,
                    account_id=self._claim.account_id,
                    fence=self._claim.fence,
                    model=self._claim.model,
                    attempt_order=order,
                    provider=provider,
                    adapter=self._parts.runner.adapter_name(provider),
                )
            )
            if not opened:
                raise LeaseLostError
            answer = await self._submit(attempt)
        return await self._see_through(attempt, answer)

    async def _submit(self, attempt: _Attempt) -> Accepted | Finished | Refused:
        """Buy once. Runs without interruption, and persists an upstream id before it returns."""
        self._parts.lease.check()
        answer = await self._parts.runner.submit(attempt.job)
        if (
            isinstance(answer, Refused)
            and answer.failure is Failure.REFUSED_BUSY
            and answer.retry_after_s is not None
            and answer.retry_after_s <= _RETRY_AFTER_MAX_S
        ):
            await self._parts.clock.sleep(answer.retry_after_s)
            self._parts.lease.check()
            answer = await self._parts.runner.submit(attempt.job)
        if isinstance(answer, Refused) and answer.failure is Failure.OUTCOME_UNKNOWN:
            answer = await self._reconcile(attempt, answer)
        if isinstance(answer, Accepted):
            await self._persist(attempt, answer)
        return answer

    async def _reconcile(self, attempt: _Attempt, lost: Refused) -> Accepted | Refused:
        found = await self._parts.runner.reconcile(attempt.job)
        if isinstance(found, Accepted):
            return found
        if isinstance(found, NotFound):
            return Refused(Failure.NEVER_SENT, f"{lost.message}; the provider does not have the job")
        return lost

    async def _persist(self, attempt: _Attempt, accepted: Accepted) -> None:
        ours = await self._parts.writes.accept(
            AcceptedAttempt(
                attempt_id=attempt.record.id,
                generation_id=self._claim.id,
                fence=self._claim.fence,
                upstream_id=accepted.upstream_id,
                upstream=None if accepted.state is None else dict(accepted.state),
            )
        )
        if ours:
            return
        if self._parts.lease.remaining_s() > 0:
            # The lease holds, so the generation itself ended (canceled, expired) while we were buying.
            cancelled = await self._parts.runner.cancel(attempt.job, accepted)
            await self._parts.writes.resolve(
                ResolvedAttempt(attempt.record.id, "cancelled" if cancelled else "discarded")
            )
        raise LeaseLostError

    async def _resume(self, attempt: _Attempt) -> "_Success | _Defeat":
        """Take over an open attempt of a worker that is gone. It is never submitted blindly again."""
        record = attempt.record
        if record.upstream_id is not None:
            self._log.info("attempt_resumed", provider=record.provider, upstream_id=record.upstream_id)
            return await self._see_through(attempt, Accepted(record.upstream_id, record.upstream, 0.0))
        lost = Refused(Failure.OUTCOME_UNKNOWN, "the worker died before the provider's answer was kept")
        # What the dead worker sent may still be on its way: look only when it must have arrived.
        await self._parts.clock.sleep(max(0.0, self._parts.runner.submit_timeout_s - record.age_s))
        async with self._no_interruption():
            found = await self._parts.runner.reconcile(attempt.job)
            answer: Accepted | Finished | Refused = lost
            if isinstance(found, Accepted):
                await self._persist(attempt, found)
                answer = found
            elif isinstance(found, NotFound):
                answer = await self._submit(attempt)
            self._log.info("attempt_reconciled", provider=record.provider, found=type(found).__name__)
        return await self._see_through(attempt, answer)

    async def _see_through(
        self, attempt: _Attempt, answer: Accepted | Finished | Refused
    ) -> "_Success | _Defeat":
        if isinstance(answer, Accepted):
            answer = await self._wait(attempt, answer)
        if isinstance(answer, Refused):
            return _Defeat(attempt, answer)
        return await self._collect(attempt, answer)

    async def _wait(self, attempt: _Attempt, ticket: Accepted) -> Finished | Refused:
        """Poll with growing pauses until the job ends or its time is up."""
        clock = self._parts.clock
        pause = ticket.poll_after_s
        while True:
            await clock.sleep(max(0.0, min(pause, attempt.ends_at - clock.monotonic())))
            answer = await self._parts.runner.poll(attempt.job, ticket)
            if not isinstance(answer, Running):
                return answer
            if clock.monotonic() >= attempt.ends_at:
                stopped = await self._parts.runner.cancel(attempt.job, ticket)
                ending = "it confirmed that it stopped" if stopped else "it did not confirm that it stopped"
                return Refused(Failure.TIMED_OUT, f"too slow; {ending}")
            suggested = answer.poll_after_s
            pause = (
                suggested
                if suggested is not None
                else min(max(pause, 0.25) * _POLL_GROWTH, _POLL_MAX_S[self._claim.media])
            )

    async def _collect(self, attempt: _Attempt, finished: Finished) -> "_Success | _Defeat":
        """Fetch, check and store the outputs at once: upstream links die within minutes."""
        claim, parts = self._claim, self._parts
        if not finished.outputs:
            return _Defeat(
                attempt,
                Refused(Failure.BAD_OUTPUT, "success without an output", cost_micro=finished.cost_micro),
            )
        stored = []
        try:
            for index, output in enumerate(finished.outputs):
                data = await parts.runner.fetch(attempt.job, output, body_max=_OUTPUT_MAX[claim.media])
                stored.append(await self._keep(attempt, index, data))
        except (OutputUnavailableError, BadOutputError) as error:
            return _Defeat(attempt, Refused(Failure.BAD_OUTPUT, str(error), cost_micro=finished.cost_micro))
        except StorageError as error:
            code = errors.STORAGE_ERROR.code
            return _Defeat(attempt, Refused(Failure.BAD_OUTPUT, str(error), code, None, finished.cost_micro))
        return _Success(attempt, finished, stored)

    async def _keep(self, attempt: _Attempt, index: int, data: bytes) -> StoredOutput:
        """Store one output; a store that is away is waited for, because the output has been paid."""
        clock = self._parts.clock
        give_up_at = max(attempt.ends_at, clock.monotonic() + _STORAGE_PATIENCE_S)
        while True:
            try:
                return await keep(
                    self._parts.store,
                    generation_id=self._claim.id,
                    created_at=self._claim.created_at,
                    index=index,
                    data=data,
                    media=self._claim.media,
                    clock=clock,
                )
            except StorageError as error:
                self._log.warning("output_not_stored", error=str(error))
                if clock.monotonic() >= give_up_at:
                    raise
                await clock.sleep(_STORAGE_PAUSE_S)

    # ------------------------------------------------------------------------------- the end

    async def _succeed(self, success: _Success) -> None:
        finished, record = success.finished, success.attempt.record
        seconds = sum(output.seconds or 0.0 for output in success.outputs)
        predict = finished.predict_seconds
        async with self._no_interruption():
            await self._settle(
                Settlement(
                    generation_id=self._claim.id,
                    account_id=self._claim.account_id,
                    fence=self._claim.fence,
                    status="succeeded",
                    attempt=ResolvedAttempt(record.id, "used", cost=finished.cost_micro),
                    provider=record.provider,
                    outputs=success.outputs,
                    seconds=seconds if self._claim.measured else None,
                    predict_ms=None if predict is None else round(predict * 1000),
                )
            )

    async def _fail(self, failed: Sequence[FailedAttempt], defeat: _Defeat | None) -> None:
        ending = verdict(failed)
        async with self._no_interruption():
            await self._settle(
                Settlement(
                    generation_id=self._claim.id,
                    account_id=self._claim.account_id,
                    fence=self._claim.fence,
                    status="failed",
                    attempt=None if defeat is None else _resolution(defeat),
                    error_code=ending.code,
                    error_message=ending.message,
                )
            )

    async def _settle(self, settlement: Settlement) -> None:
        if await self._parts.writes.settle(settlement):
            self._log.info("generation_settled", status=settlement.status, error_code=settlement.error_code)
        else:
            raise LeaseLostError

    # ------------------------------------------------------------------------------- small parts

    def _attempt(self, record: AttemptRecord) -> _Attempt:
        claim = self._claim
        job = Job(record.id, record.provider, self._parts.catalog.all_models[claim.model], claim.inputs)
        budget = self._parts.attempt_timeout_s[claim.media] - record.age_s
        return _Attempt(record, job, self._parts.clock.monotonic() + budget)

    def _next_provider(self, failed: Sequence[FailedAttempt]) -> str | None:
        tried = {attempt.provider for attempt in failed}
        return next((name for name in self._claim.provider_order if name not in tried), None)

    @asynccontextmanager
    async def _no_interruption(self) -> AsyncIterator[None]:
        self._leave_if_stopping()
        self._critical += 1
        try:
            yield
        finally:
            self._critical -= 1
        self._leave_if_stopping()

    def _leave_if_stopping(self) -> None:
        if self._stopping and self._critical == 0:
            raise asyncio.CancelledError


def _resolution(defeat: _Defeat) -> ResolvedAttempt:
    refused = defeat.refused
    return ResolvedAttempt(
        defeat.attempt.record.id,
        "failed",
        refused.failure,
        refused.code,
        refused.message[:_MESSAGE_MAX],
        refused.cost_micro,
    )
