"""One generation's run: from its claim to its settlement, over as many providers as it takes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal
from uuid import UUID

import msgspec
import structlog

from babysea_server.catalog.catalog import Catalog
from babysea_server.catalog.pricing import operator_cost
from babysea_server.execution.attempt import (
    Announcements,
    Attempt,
    Defeat,
    Success,
    not_negative,
    resolution,
    until,
)
from babysea_server.execution.collect import Collector, Places
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
from babysea_server.execution.watch import RunTrace, RunWatch
from babysea_server.execution.writes import Writes
from babysea_server.kit.clock import Clock
from babysea_server.kit.ids import uuid7
from babysea_server.outputs.store import ObjectStore
from babysea_server.providers.base import (
    Accepted,
    Failure,
    Finished,
    Job,
    NotFound,
    Refused,
    Running,
    Unclear,
)
from babysea_server.providers.runner import Cancellation, Runner

_log = structlog.get_logger(__name__)

#: Polling starts at what the provider says and grows up to this; one that calls back is asked for safety only.
_POLL_MAX_S = {"image": 3.0, "video": 10.0}
_POLL_MAX_CALLED_BACK_S = {"image": 15.0, "video": 30.0}
_POLL_GROWTH = 1.4
#: Whatever a provider says, it is not asked more often.
_POLL_MIN_S = 0.05
#: A busy provider that says how soon it is free is asked once more, if that is soon. Short enough for a graceful
#: stop to wait for it.
_RETRY_AFTER_MAX_S = 5.0


#: Which of the providers that may be asked next is; they come in order of preference, at least one.
Chooser = Callable[[Sequence[str]], Awaitable[str]]


async def first(candidates: Sequence[str]) -> str:
    """The first, however it does."""
    return candidates[0]


class RunParts(msgspec.Struct, frozen=True):
    """What every run of a worker shares."""

    runner: Runner
    writes: Writes
    store: ObjectStore
    catalog: Catalog
    clock: Clock
    lease: Lease
    choose: Chooser
    announcements: Announcements
    callback_url: Callable[[str, UUID], str | None]
    """Where a provider may announce the end of an attempt."""
    attempt_timeout_s: Mapping[str, float]
    watch: RunWatch
    places: Places = msgspec.field(default_factory=Places)


class Run:
    """Runs one claimed generation. Used once.

    `interruptible` says whether the task may be cancelled now: never while what is known about an attempt is
    known only here, that is from before it is opened until the provider's answer is in the database.
    """

    def __init__(self, claim: Claim, parts: RunParts, trace: RunTrace) -> None:
        self._claim = claim
        self._parts = parts
        self._trace = trace
        self._holding = False
        self._stopping = False
        self._collector = Collector(
            parts.runner,
            parts.store,
            parts.clock,
            generation_id=claim.id,
            created_at=claim.created_at,
            trace=trace,
            places=parts.places,
        )
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
        self._collector.dropped = True
        if self._holding or self._collector.storing:
            return False
        self._trace.left()
        return True

    async def execute(self) -> None:
        """Run to the end.

        Raises:
            LeaseLostError: somebody else has the generation, or it ended meanwhile.
            asyncio.CancelledError: stopped at a safe place.
        """
        self._trace.begin()
        records = self._claim.attempts
        failed = [
            self._failed(record.provider, record.failure, record.error_code)
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
            if isinstance(result, Success):
                return await self._succeed(result)
            if result is not None:
                refused = result.refused
                ended = self._failed(result.attempt.record.provider, refused.failure, refused.code)
                failed.append(ended)
                if not goes_on(ended) or not self._untried(failed):
                    return await self._fail(failed, resolution(result))
                await self._resolve(result)
            untried = self._untried(failed)
            if not untried:
                return await self._fail(failed, None)
            order += 1
            result = await self._try(await self._choose(untried), order)

    @property
    def _dropped(self) -> bool:
        # Kept once, where both look: a run that its collector knew would be garbage only a collection finds.
        return self._collector.dropped

    # ------------------------------------------------------------------------------- one attempt

    async def _try(self, provider: str, order: int) -> Success | Defeat:
        """Open an attempt, submit once, and see it through."""
        async with self._parts.runner.place(provider):
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

    async def _open(self, attempt: Attempt) -> None:
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
                estimated_cost=operator_cost(attempt.job.model, record.provider, self._claim.inputs),
            )
        )
        if not opened:
            raise LeaseLostError

    async def _submit(self, attempt: Attempt) -> Accepted | Finished | Refused:
        """Buy once. Runs without interruption, and persists an upstream id before it returns."""
        self._parts.lease.check()
        if self._dropped:
            await self._leave(attempt, "discarded", cost=0)
            raise LeaseLostError
        answer = await self._ask(attempt)
        if (
            isinstance(answer, Refused)
            and answer.failure is Failure.REFUSED_BUSY
            and answer.retry_after_s is not None
            and answer.retry_after_s <= _RETRY_AFTER_MAX_S
        ):
            await self._parts.clock.sleep(answer.retry_after_s)
            self._parts.lease.check()
            if not self._dropped:
                answer = await self._ask(attempt)
        if isinstance(answer, Refused) and answer.failure is Failure.OUTCOME_UNKNOWN:
            answer = await self._reconcile(attempt, answer)
        if isinstance(answer, Accepted):
            await self._persist(attempt, answer)
        return answer

    async def _ask(self, attempt: Attempt) -> Accepted | Finished | Refused:
        with self._trace.step("submit") as step:
            answer = await self._parts.runner.submit(attempt.job)
            step.ended(*_result(answer))
        return answer

    async def _find(self, attempt: Attempt) -> Accepted | NotFound | Unclear:
        with self._trace.step("reconcile") as step:
            found = await self._parts.runner.reconcile(attempt.job)
            step.ended(*_result(found))
        return found

    async def _reconcile(self, attempt: Attempt, lost: Refused) -> Accepted | Refused:
        found = await self._find(attempt)
        if isinstance(found, Accepted):
            return found
        if isinstance(found, NotFound):
            return Refused(Failure.NEVER_SENT, f"{lost.message}; the provider does not have the job")
        return lost

    async def _persist(self, attempt: Attempt, accepted: Accepted) -> None:
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
        self, attempt: Attempt, outcome: Literal["cancelled", "discarded"], *, cost: int | None = None
    ) -> None:
        """End an attempt whose generation ended without it."""
        end = ResolvedAttempt(attempt.record.id, outcome, cost=cost)
        self._parts.watch.attempted(attempt.record.provider, "left", None, self._age_s(attempt))
        self._trace.left()
        await self._parts.writes.discard(Resolution(self._claim.id, self._claim.fence, end))

    async def _resume(self, attempt: Attempt) -> Success | Defeat:
        """Take over an open attempt of a worker that is gone. It is never submitted blindly again."""
        async with self._parts.runner.place(attempt.record.provider, resumed=True):
            return await self._resume_in_place(attempt)

    async def _resume_in_place(self, attempt: Attempt) -> Success | Defeat:
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
        found = await self._find(attempt)
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

    async def _see_through(self, attempt: Attempt, answer: Accepted | Finished | Refused) -> Success | Defeat:
        result = await self._bring_in(attempt, answer)
        failure = None if isinstance(result, Success) else result.refused.failure.value
        outcome = "succeeded" if failure is None else "failed"
        self._parts.watch.attempted(attempt.record.provider, outcome, failure, self._age_s(attempt))
        self._trace.attempted(outcome, failure)
        self._log.debug("attempt_ended", outcome=outcome, failure=failure)
        return result

    async def _bring_in(self, attempt: Attempt, answer: Accepted | Finished | Refused) -> Success | Defeat:
        ticket = answer if isinstance(answer, Accepted) else None
        if ticket is not None:
            self._trace.accepted(ticket.upstream_id)
            with self._trace.step("wait") as step:
                answer = await self._wait(attempt, ticket)
                step.ended(*_result(answer))
        if isinstance(answer, Refused):
            return Defeat(attempt, answer)
        assert isinstance(answer, Finished)
        try:
            return await self._collector.collect(attempt, answer, ticket)
        except (LeaseLostError, asyncio.CancelledError):
            if self._dropped:
                await self._leave(attempt, "discarded", cost=not_negative(answer.cost_micro))
            raise

    async def _wait(self, attempt: Attempt, ticket: Accepted) -> Finished | Refused:
        """Poll with growing pauses until the job ends or its time is up; at once when the provider calls back."""
        clock, job = self._parts.clock, attempt.job
        longest = _POLL_MAX_S if job.callback_url is None else _POLL_MAX_CALLED_BACK_S
        pause = ticket.poll_after_s
        with self._parts.announcements.awaited(attempt.record.id) as announced:
            while True:
                sleep = clock.sleep(max(0.0, min(pause, attempt.ends_at - clock.monotonic())))
                await (sleep if job.callback_url is None else until(announced, sleep))
                answer = await self._parts.runner.poll(job, ticket)
                if not isinstance(answer, Running):
                    return answer
                if clock.monotonic() >= attempt.ends_at:
                    return await self._give_up(attempt, ticket)
                suggested = answer.poll_after_s
                pause = (
                    max(suggested, _POLL_MIN_S)
                    if suggested is not None
                    else min(max(pause, 0.25) * _POLL_GROWTH, longest[self._claim.media])
                )

    async def _give_up(self, attempt: Attempt, ticket: Accepted) -> Refused:
        """The job has had its time: ask the provider to stop. What it makes all the same is not looked at."""
        asked = await self._parts.runner.cancel(attempt.job, ticket)
        stopped = asked is Cancellation.CONFIRMED
        ending = "it confirmed that it stopped" if stopped else "it did not confirm that it stopped"
        return Refused(Failure.TIMED_OUT, f"too slow; {ending}")

    # ------------------------------------------------------------------------------- the end

    async def _succeed(self, success: Success) -> None:
        finished, record = success.finished, success.attempt.record
        seconds = sum(output.seconds or 0.0 for output in success.outputs)
        predict = finished.predict_seconds
        settlement = Settlement(
            generation_id=self._claim.id,
            account_id=self._claim.account_id,
            fence=self._claim.fence,
            status="succeeded",
            attempt=ResolvedAttempt(record.id, "used", cost=self._cost(success, seconds)),
            provider=record.provider,
            outputs=success.outputs,
            seconds=seconds if self._claim.measured else None,
            predict_ms=not_negative(None if predict is None else round(predict * 1000)),
        )
        if not await self._settle(settlement):
            await self._collector.throw_away(success.outputs)
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
        with self._trace.step("settle"):
            settled = await self._parts.writes.settle(settlement)
        if settled:
            self._trace.settled(settlement.status, settlement.error_code)
            self._log.debug("generation_settled", status=settlement.status, error_code=settlement.error_code)
            age_s = (self._parts.clock.now() - self._claim.created_at).total_seconds()
            self._parts.watch.settled(self._claim.media, settlement.status, settlement.error_code, age_s)
        return settled

    async def _resolve(self, defeat: Defeat) -> None:
        """End an attempt after which the next provider is asked."""
        self._holding = True
        ended = Resolution(self._claim.id, self._claim.fence, resolution(defeat))
        if not await self._parts.writes.resolve(ended):
            raise LeaseLostError
        self._trace.resolved()
        self._safe()

    # ------------------------------------------------------------------------------- small parts

    def _attempt(self, record: AttemptRecord) -> Attempt:
        claim, parts = self._claim, self._parts
        # Whatever is logged on the way of this attempt carries its id.
        structlog.contextvars.bind_contextvars(attempt_id=str(record.id), provider=record.provider)
        self._trace.opened(record.id, record.attempt_order, record.provider, record.age_s)
        timeout_s = parts.attempt_timeout_s[claim.media]
        job = Job(
            record.id,
            record.provider,
            parts.catalog.all_models[claim.model],
            claim.inputs,
            opened_at=parts.clock.now() - timedelta(seconds=record.age_s),
            timeout_s=timeout_s,
        )
        if parts.runner.calls_back(job):
            job = replace(job, callback_url=parts.callback_url(record.provider, record.id))
        return Attempt(record, job, parts.clock.monotonic() + timeout_s - record.age_s)

    def _age_s(self, attempt: Attempt) -> float:
        left_s = attempt.ends_at - self._parts.clock.monotonic()
        return self._parts.attempt_timeout_s[self._claim.media] - left_s

    def _failed(self, provider: str, failure: Failure, code: str | None) -> FailedAttempt:
        again = failure is Failure.OUTCOME_UNKNOWN and self._parts.runner.buys_after_unknown(provider)
        return FailedAttempt(provider, failure, code, buys_again=again)

    def _untried(self, failed: Sequence[FailedAttempt]) -> list[str]:
        tried = {attempt.provider for attempt in failed}
        return [name for name in self._claim.provider_order if name not in tried]

    async def _choose(self, untried: Sequence[str]) -> str:
        """The provider to ask next: one that does well, and with room for the job, where there is one."""
        roomy = [name for name in untried if self._parts.runner.has_room(name)]
        return await self._parts.choose(roomy or untried)

    def _cost(self, success: Success, seconds: float) -> int | None:
        """What the used attempt cost the operator: as told, else by the provider's price."""
        told = not_negative(success.finished.cost_micro)
        if told is not None:
            return told
        measured = seconds if self._claim.measured else None
        job = success.attempt.job
        return operator_cost(job.model, job.provider_id, job.inputs, seconds=measured)

    def _safe(self) -> None:
        """Everything that is known is in the database: here the run may end."""
        self._holding = False
        if self._stopping or self._dropped:
            raise asyncio.CancelledError


def _result(answer: Accepted | Finished | Refused | NotFound | Unclear) -> tuple[str, str | None]:
    """What a trace tells of a provider's answer."""
    failure = answer.failure.value if isinstance(answer, Refused) else None
    return type(answer).__name__.lower(), failure
