"""One generation's run: from its claim to its settlement, over as many providers as it takes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import structlog

from babysea_server import errors
from babysea_server.catalog.catalog import Catalog
from babysea_server.execution.lease import Lease, LeaseLostError
from babysea_server.execution.types import (
    AcceptedAttempt,
    AttemptRecord,
    Claim,
    OpenAttempt,
    Resolution,
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
from babysea_server.providers.base import (
    Accepted,
    Failure,
    Finished,
    Job,
    NotFound,
    Refused,
    Running,
)
from babysea_server.providers.runner import Cancellation, OutputUnavailableError, Runner

_log = structlog.get_logger(__name__)

#: Polling starts at what the provider says and grows up to this.
_POLL_MAX_S = {"image": 3.0, "video": 10.0}
_POLL_GROWTH = 1.4
#: Whatever a provider says, it is not asked more often.
_POLL_MIN_S = 0.05
#: A busy provider that says how soon it is free is asked once more, if that is soon. Short enough for a graceful
#: stop to wait for it.
_RETRY_AFTER_MAX_S = 5.0
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

    `interruptible` says whether the task may be cancelled now: never while what is known about an attempt is
    known only here, that is from before it is opened until the provider's answer is in the database.
    """

    def __init__(self, claim: Claim, parts: RunParts) -> None:
        self._claim = claim
        self._parts = parts
        self._holding = False
        self._stopping = False
        self._storing = False
        self._dropped = False
        self._log = _log.bind(generation_id=str(claim.id), model=claim.model)

    @property
    def claim(self) -> Claim:
        """What is being run."""
        return self._claim

    @property
    def interruptible(self) -> bool:
        """Whether cancelling the task now loses nothing."""
        return not self._holding

    def stop(self) -> None:
        """Go no further than the next safe place."""
        self._stopping = True

    def drop(self) -> bool:
        """The generation has ended without this run, e.g. it was canceled: ask and fetch nothing more.

        Returns whether the task may be cancelled now; else the run ends by itself as soon as it may.
        """
        self._dropped = True
        return not (self._holding or self._storing)

    async def execute(self) -> None:
        """Run to the end.

        Raises:
            LeaseLostError: somebody else has the generation, or it ended meanwhile.
            asyncio.CancelledError: stopped at a safe place.
        """
        records = self._claim.attempts
        failed = [
            FailedAttempt(record.provider, record.failure, record.error_code)
            for record in records
            if record.outcome == "failed" and record.failure is not None
        ]
        order = max((record.attempt_order for record in records), default=0)
        opened = next((record for record in records if record.outcome == "pending"), None)
        if self._claim.model not in self._parts.catalog.all_models:
            dropped = None if opened is None else ResolvedAttempt(opened.id, "discarded")
            return await self._fail(failed, dropped)
        result = None if opened is None else await self._resume(self._attempt(opened))
        while True:
            if isinstance(result, _Success):
                return await self._succeed(result)
            if result is not None:
                ended = FailedAttempt(
                    result.attempt.record.provider, result.refused.failure, result.refused.code
                )
                failed.append(ended)
                if not goes_on(ended) or self._next_provider(failed) is None:
                    return await self._fail(failed, _resolution(result))
                await self._resolve(result)
            provider = self._next_provider(failed)
            if provider is None:
                return await self._fail(failed, None)
            order += 1
            result = await self._try(provider, order)

    # ------------------------------------------------------------------------------- one attempt

    async def _try(self, provider: str, order: int) -> "_Success | _Defeat":
        """Open an attempt, submit once, and see it through."""
        self._parts.lease.check()
        record = AttemptRecord(
            id=self._claim.prediction_id if order == 1 else uuid7(),
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
        await self._open(attempt)
        return await self._see_through(attempt, await self._submit(attempt))

    async def _open(self, attempt: _Attempt) -> None:
        """Have the attempt in the database, under a lease and a generation that are still good."""
        self._holding = True
        record = attempt.record
        opened = await self._parts.writes.open_attempt(
            OpenAttempt(
                attempt_id=record.id,
                generation_id=self._claim.id,
                account_id=self._claim.account_id,
                fence=self._claim.fence,
                model=self._claim.model,
                attempt_order=record.attempt_order,
                provider=record.provider,
                adapter=self._parts.runner.adapter_name(record.provider),
            )
        )
        if not opened:
            raise LeaseLostError

    async def _submit(self, attempt: _Attempt) -> Accepted | Finished | Refused:
        """Buy once. Runs without interruption, and persists an upstream id before it returns."""
        self._parts.lease.check()
        if self._dropped:
            await self._leave(attempt, "discarded", cost=0)
            raise LeaseLostError
        answer = await self._parts.runner.submit(attempt.job)
        if (
            isinstance(answer, Refused)
            and answer.failure is Failure.REFUSED_BUSY
            and answer.retry_after_s is not None
            and answer.retry_after_s <= _RETRY_AFTER_MAX_S
        ):
            await self._parts.clock.sleep(answer.retry_after_s)
            self._parts.lease.check()
            if not self._dropped:
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
        standing = await self._parts.writes.accept(
            AcceptedAttempt(
                attempt_id=attempt.record.id,
                generation_id=self._claim.id,
                fence=self._claim.fence,
                upstream_id=accepted.upstream_id,
                upstream=None if accepted.state is None else dict(accepted.state),
            )
        )
        if standing == "ours" and not self._dropped:
            return self._safe()
        if standing != "taken":
            # The generation itself ended (canceled, expired) while we were buying: nobody else cleans up.
            ending = await self._parts.runner.cancel(attempt.job, accepted)
            await self._leave(attempt, "cancelled" if ending is Cancellation.CONFIRMED else "discarded")
        raise LeaseLostError

    async def _leave(
        self, attempt: _Attempt, outcome: Literal["cancelled", "discarded"], *, cost: int | None = None
    ) -> None:
        """End an attempt whose generation ended without it."""
        end = ResolvedAttempt(attempt.record.id, outcome, cost=cost)
        await self._parts.writes.discard(Resolution(self._claim.id, self._claim.fence, end))

    async def _resume(self, attempt: _Attempt) -> "_Success | _Defeat":
        """Take over an open attempt of a worker that is gone. It is never submitted blindly again."""
        record = attempt.record
        if record.upstream_id is not None:
            self._log.info("attempt_resumed", provider=record.provider, upstream_id=record.upstream_id)
            return await self._see_through(attempt, Accepted(record.upstream_id, record.upstream, 0.0))
        # What the dead worker sent at the very end of its lease may still be on its way, and so may its note of
        # the upstream id: look only when both must have arrived.
        await self._parts.clock.sleep(self._parts.runner.submit_timeout_s)
        accepted = await self._parts.writes.accepted(record.id)
        if accepted is not None:
            return await self._see_through(attempt, accepted)
        found = await self._parts.runner.reconcile(attempt.job)
        self._log.info("attempt_reconciled", provider=record.provider, found=type(found).__name__)
        self._holding = True
        answer: Accepted | Finished | Refused
        if isinstance(found, Accepted):
            await self._persist(attempt, found)
            answer = found
        elif isinstance(found, NotFound):
            # Certain: it was never sent. Its time begins now.
            attempt = self._attempt(msgspec.structs.replace(record, age_s=0.0))
            await self._open(attempt)
            answer = await self._submit(attempt)
        else:
            answer = Refused(Failure.OUTCOME_UNKNOWN, "the worker died before the provider's answer was kept")
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
                asked = await self._parts.runner.cancel(attempt.job, ticket)
                stopped = asked is Cancellation.CONFIRMED
                ending = "it confirmed that it stopped" if stopped else "it did not confirm that it stopped"
                return Refused(Failure.TIMED_OUT, f"too slow; {ending}")
            suggested = answer.poll_after_s
            pause = (
                max(suggested, _POLL_MIN_S)
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
        stored: list[StoredOutput] = []
        code = None
        try:
            for index, output in enumerate(finished.outputs):
                self._still_wanted()
                data = await parts.runner.fetch(attempt.job, output, body_max=_OUTPUT_MAX[claim.media])
                stored.append(await self._keep(attempt, index, data))
            self._still_wanted()
            return _Success(attempt, finished, stored)
        except (LeaseLostError, asyncio.CancelledError):
            await self._throw_away(stored)
            if self._dropped:
                await self._leave(attempt, "discarded", cost=_not_negative(finished.cost_micro))
            raise
        except (OutputUnavailableError, BadOutputError) as error:
            message = str(error)
        except StorageError as error:
            message, code = str(error), errors.STORAGE_ERROR.code
        await self._throw_away(stored)
        return _Defeat(attempt, Refused(Failure.BAD_OUTPUT, message, code, cost_micro=finished.cost_micro))

    async def _keep(self, attempt: _Attempt, index: int, data: bytes) -> StoredOutput:
        """Store one output; a store that is away is waited for, because the output has been paid."""
        clock = self._parts.clock
        give_up_at = max(attempt.ends_at, clock.monotonic() + _STORAGE_PATIENCE_S)
        while True:
            # Interrupted halfway, it could not be told whether there is a file to be deleted.
            self._storing = True
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
            finally:
                self._storing = False
            self._still_wanted()
            await clock.sleep(_STORAGE_PAUSE_S)

    # ------------------------------------------------------------------------------- the end

    async def _succeed(self, success: _Success) -> None:
        finished, record = success.finished, success.attempt.record
        seconds = sum(output.seconds or 0.0 for output in success.outputs)
        predict = finished.predict_seconds
        settlement = Settlement(
            generation_id=self._claim.id,
            account_id=self._claim.account_id,
            fence=self._claim.fence,
            status="succeeded",
            attempt=ResolvedAttempt(record.id, "used", cost=_not_negative(finished.cost_micro)),
            provider=record.provider,
            outputs=success.outputs,
            seconds=seconds if self._claim.measured else None,
            predict_ms=_not_negative(None if predict is None else round(predict * 1000)),
        )
        if not await self._settle(settlement):
            await self._throw_away(success.outputs)
            raise LeaseLostError

    async def _fail(self, failed: Sequence[FailedAttempt], attempt: ResolvedAttempt | None) -> None:
        ending = verdict(failed)
        settlement = Settlement(
            generation_id=self._claim.id,
            account_id=self._claim.account_id,
            fence=self._claim.fence,
            status="failed",
            attempt=attempt,
            error_code=ending.code,
            error_message=ending.message,
        )
        if not await self._settle(settlement):
            raise LeaseLostError

    async def _settle(self, settlement: Settlement) -> bool:
        self._holding = True
        settled = await self._parts.writes.settle(settlement)
        if settled:
            self._log.debug("generation_settled", status=settlement.status, error_code=settlement.error_code)
        return settled

    async def _resolve(self, defeat: _Defeat) -> None:
        """End an attempt after which the next provider is asked."""
        self._holding = True
        resolution = Resolution(self._claim.id, self._claim.fence, _resolution(defeat))
        if not await self._parts.writes.resolve(resolution):
            raise LeaseLostError
        self._safe()

    async def _throw_away(self, outputs: Sequence[StoredOutput]) -> None:
        """Delete files that no generation names; what cannot be deleted now is only a file too many."""
        if outputs:
            try:
                await self._parts.store.delete([output.key for output in outputs])
            except StorageError as error:
                self._log.warning("outputs_not_deleted", files=len(outputs), error=str(error))

    # ------------------------------------------------------------------------------- small parts

    def _attempt(self, record: AttemptRecord) -> _Attempt:
        claim = self._claim
        job = Job(record.id, record.provider, self._parts.catalog.all_models[claim.model], claim.inputs)
        budget = self._parts.attempt_timeout_s[claim.media] - record.age_s
        return _Attempt(record, job, self._parts.clock.monotonic() + budget)

    def _next_provider(self, failed: Sequence[FailedAttempt]) -> str | None:
        tried = {attempt.provider for attempt in failed}
        return next((name for name in self._claim.provider_order if name not in tried), None)

    def _still_wanted(self) -> None:
        """Before the next piece of work on an output.

        Raises:
            LeaseLostError: the generation has ended without this run.
        """
        if self._dropped:
            raise LeaseLostError

    def _safe(self) -> None:
        """Everything that is known is in the database: here the run may end."""
        self._holding = False
        if self._stopping or self._dropped:
            raise asyncio.CancelledError


def _resolution(defeat: _Defeat) -> ResolvedAttempt:
    refused = defeat.refused
    # A provider's words: whatever PostgreSQL cannot keep in a text would refuse the whole record.
    message = refused.message.encode("utf-8", "replace").decode().replace("\0", "")
    return ResolvedAttempt(
        defeat.attempt.record.id,
        "failed",
        refused.failure,
        refused.code,
        message[:_MESSAGE_MAX],
        _not_negative(refused.cost_micro),
    )


def _not_negative(value: int | None) -> int | None:
    return None if value is None else max(0, value)
