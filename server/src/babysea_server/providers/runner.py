"""The only place that talks to providers: deadlines, bounds, and what a broken line means."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

import structlog

from babysea_server.kit.clock import Clock
from babysea_server.providers.base import (
    Accepted,
    Answer,
    AnswerLostError,
    Failure,
    Finished,
    Job,
    Maintained,
    NeverSentError,
    NotFound,
    Output,
    Refused,
    Request,
    Running,
    Unclear,
)
from babysea_server.providers.registry import Registry, Route

_log = structlog.get_logger(__name__)

_ANSWER_MAX = 64 * 1024 * 1024  # submits may answer with the picture itself, in base64
_POLL_TIMEOUT_S = 20.0
_CANCEL_TIMEOUT_S = 3.0
_FETCH_TIMEOUT_S = 120.0
_FETCH_TRIES = 4
_RECONCILE_TRIES = 3
_FIRST_PAUSE_S = 0.5
#: Transports keep their own deadlines; this one is for a transport that does not.
_TRANSPORT_GRACE_S = 5.0

Value = TypeVar("Value")


class OutputUnavailableError(Exception):
    """A finished job's file could not be fetched, after several tries."""


class Cancellation(StrEnum):
    """How far a request to stop a job came."""

    NOT_SUPPORTED = "not_supported"
    """The provider takes no such request, or cannot be called."""
    NOT_SENT = "not_sent"
    """The request certainly did not reach the provider."""
    SENT = "sent"
    """The provider was asked; it did not confirm."""
    CONFIRMED = "confirmed"
    """The provider says that it stopped."""

    @property
    def sent(self) -> bool:
        """Whether the provider was asked."""
        return self in (Cancellation.SENT, Cancellation.CONFIRMED)


class Runner:
    """Calls providers. Nothing raised by a transport leaves this class: every ending is a value.

    Args:
        submit_timeout_s: longest wait for the answer to a submit.
    """

    def __init__(self, registry: Registry, clock: Clock, *, submit_timeout_s: float = 30.0) -> None:
        self._registry = registry
        self._clock = clock
        self.submit_timeout_s = submit_timeout_s

    def adapter_name(self, provider_id: str) -> str:
        """What really runs for this provider id."""
        route = self._registry.route(provider_id)
        return route.provider.name if route is not None else provider_id

    async def submit(self, job: Job) -> Accepted | Finished | Refused:
        """Send the job once. Never repeats anything that may have been bought."""
        route = self._registry.route(job.provider_id)
        if route is None:
            return Refused(Failure.NEVER_SENT, f"provider {job.provider_id} is not configured")
        try:
            request = route.provider.build_submit(job)
        except Exception as error:
            # Nothing was bought yet, so the adapter's fault costs only this provider.
            _log.exception("submit_not_built", provider=job.provider_id)
            return Refused(Failure.NEVER_SENT, f"the request could not be built: {type(error).__name__}")
        try:
            answer = await self._send(route, request, self.submit_timeout_s)
        except NeverSentError as error:
            return Refused(Failure.NEVER_SENT, str(error))
        except AnswerLostError as error:
            return Refused(Failure.OUTCOME_UNKNOWN, str(error))
        return route.provider.read_submit(job, answer)

    async def poll(self, job: Job, ticket: Accepted) -> Running | Finished | Refused:
        """Ask once. A broken line means nothing: the job goes on, so the answer is `Running`."""
        route = self._registry.route(job.provider_id)
        if route is None:
            return Running()
        try:
            answer = await self._send(route, route.provider.build_poll(job, ticket), _POLL_TIMEOUT_S)
        except (NeverSentError, AnswerLostError) as error:
            _log.debug("poll_without_answer", provider=job.provider_id, error=str(error))
            return Running()
        return route.provider.read_poll(job, ticket, answer)

    async def cancel(self, job: Job, ticket: Accepted) -> Cancellation:
        """Ask the provider to stop, once; at most three seconds."""
        route = self._registry.route(job.provider_id)
        if route is None:
            return Cancellation.NOT_SUPPORTED
        reached = Cancellation.NOT_SENT
        try:
            request = route.provider.build_cancel(job, ticket)
            if request is None:
                return Cancellation.NOT_SUPPORTED
            answer = await self._send(route, request, _CANCEL_TIMEOUT_S, grace_s=0.0)
            reached = Cancellation.SENT
            confirmed = route.provider.read_cancel(job, answer)
        except NeverSentError as error:
            _log.debug("cancel_not_sent", provider=job.provider_id, error=str(error))
            return Cancellation.NOT_SENT
        except AnswerLostError as error:
            _log.debug("cancel_without_answer", provider=job.provider_id, error=str(error))
            return Cancellation.SENT
        except Exception:
            # Nobody depends on it: the adapter's fault costs only this request.
            _log.exception("cancel_failed", provider=job.provider_id)
            return reached
        return Cancellation.CONFIRMED if confirmed else Cancellation.SENT

    async def reconcile(self, job: Job) -> Accepted | NotFound | Unclear:
        """Find out whether a submit whose answer was lost arrived; several tries."""
        route = self._registry.route(job.provider_id)
        request = None if route is None else route.provider.build_reconcile(job)
        if route is None or request is None:
            return Unclear()

        async def ask() -> Accepted | NotFound | Unclear:
            return route.provider.read_reconcile(job, await self._send(route, request, _POLL_TIMEOUT_S))

        try:
            return await self._repeat(ask, _RECONCILE_TRIES)
        except (NeverSentError, AnswerLostError):
            return Unclear()

    async def fetch(self, job: Job, output: Output, *, body_max: int) -> bytes:
        """The bytes of one output.

        Raises:
            OutputUnavailableError: not to be had, or larger than `body_max`.
        """
        if output.data is not None:
            return output.data
        route = self._registry.route(job.provider_id)
        if route is None or output.url is None:
            raise OutputUnavailableError("the provider named no file")
        request = Request("GET", output.url, output.headers)

        async def get() -> bytes:
            answer = await self._send(route, request, _FETCH_TIMEOUT_S, body_max=body_max)
            if answer.status != 200:
                raise AnswerLostError(f"HTTP {answer.status}")
            return answer.body

        try:
            return await self._repeat(get, _FETCH_TRIES)
        except (NeverSentError, AnswerLostError) as error:
            raise OutputUnavailableError(f"the output could not be fetched: {error}") from error

    async def maintain(self) -> None:
        """Let every transport that has housekeeping do it."""
        for transport in self._registry.transports():
            if isinstance(transport, Maintained):
                await transport.maintain()

    async def close(self) -> None:
        """Close all connections."""
        await self._registry.close()

    async def _send(
        self,
        route: Route,
        request: Request,
        timeout_s: float,
        *,
        body_max: int = _ANSWER_MAX,
        grace_s: float = _TRANSPORT_GRACE_S,
    ) -> Answer:
        try:
            async with asyncio.timeout(timeout_s + grace_s):
                return await route.transport.send(request, timeout_s=timeout_s, body_max=body_max)
        except (NeverSentError, AnswerLostError):
            raise
        except TimeoutError:
            raise AnswerLostError("no answer in time") from None
        except Exception as error:
            # It may have been sent or not; the safe belief is that it was.
            _log.exception("transport_failed", provider=route.provider.name)
            raise AnswerLostError(f"the transport failed: {type(error).__name__}") from error

    async def _repeat(self, ask: Callable[[], Awaitable[Value]], tries: int) -> Value:
        """Repeat a harmless question with growing pauses."""
        pause = _FIRST_PAUSE_S
        for _ in range(tries - 1):
            try:
                return await ask()
            except (NeverSentError, AnswerLostError):
                await self._clock.sleep(pause)
                pause *= 3
        return await ask()
