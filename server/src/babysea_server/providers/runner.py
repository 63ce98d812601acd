"""The only place that talks to providers: deadlines, bounds, and what a broken line means."""

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
import structlog

from babysea_server.kit.clock import Clock
from babysea_server.providers.base import (
    Accepted,
    Answer,
    AnswerLostError,
    Check,
    Failure,
    Finished,
    Job,
    Look,
    Maintained,
    NeverSentError,
    NotFound,
    Output,
    Refused,
    Request,
    Running,
    Transport,
    Unclear,
)
from babysea_server.providers.inputs import InputRefusedError, load_input
from babysea_server.providers.registry import Registry, Route

_log = structlog.get_logger(__name__)

_ANSWER_MAX = 64 * 1024 * 1024  # submits may answer with the picture itself, in base64
_POLL_TIMEOUT_S = 20.0
_CANCEL_TIMEOUT_S = 3.0
_FETCH_TIMEOUT_S = 120.0
_INPUT_TIMEOUT_S = 30.0
_CHECK_TIMEOUT_S = 10.0
_RECONCILE_TRIES = 3
_FIRST_PAUSE_S = 0.5
_PAUSE_GROWTH = 3.0
_PAUSE_MAX_S = 30.0
#: Transports keep their own deadlines; this one is for a transport that does not.
_TRANSPORT_GRACE_S = 5.0
#: Customers' and providers' links, which may be signed.
_ADDRESS = re.compile(r"(?:https?|data):[^\s\"'<>]+")
#: The file is not there any more, or never was.
_GONE = frozenset({401, 403, 404, 410})

Value = TypeVar("Value")


class _GoneError(AnswerLostError):
    """The answer says that the file is not there; waiting will hardly bring it back."""


class OutputUnavailableError(Exception):
    """A finished job's file could not be fetched.

    `gone` says that its address has lost it, not that the way there is broken.
    """

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


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
        inline_timeout_s: the same by media where that answer is the result.
    """

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        *,
        submit_timeout_s: float = 30.0,
        inline_timeout_s: Mapping[str, float] | None = None,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self.submit_timeout_s = submit_timeout_s
        self._inline_timeout_s = inline_timeout_s or {}

    # ------------------------------------------------------------------------------- about providers

    def adapter_name(self, provider_id: str) -> str:
        """What really runs for this provider id."""
        route = self._registry.route(provider_id)
        return route.provider.name if route is not None else provider_id

    def calls_back(self, job: Job) -> bool:
        """Whether the provider can announce the end of such a job."""
        route = self._registry.route(job.provider_id)
        return route is not None and route.provider.calls_back(job)

    def buys_after_unknown(self, provider_id: str) -> bool:
        """Whether the operator wants the next provider asked after a submit here whose answer was lost."""
        route = self._registry.route(provider_id)
        return route is not None and route.provider.settings.unknown_outcome == "next_provider"

    def output_life_s(self, provider_id: str) -> float | None:
        """How long the provider keeps outputs, where that is short enough to matter."""
        route = self._registry.route(provider_id)
        return None if route is None else route.provider.output_life_s

    def has_room(self, provider_id: str) -> bool:
        """Whether a job would find a place at the provider at once."""
        route = self._registry.route(provider_id)
        return route is None or route.cap is None or not route.cap.full

    @asynccontextmanager
    async def place(self, provider_id: str, *, resumed: bool = False) -> AsyncIterator[None]:
        """Wait for a place among the jobs that this process may have at the provider, and hold it."""
        route = self._registry.route(provider_id)
        if route is None or route.cap is None:
            yield
        else:
            async with route.cap.job(resumed=resumed):
                yield

    # ------------------------------------------------------------------------------- the job

    async def submit(self, job: Job) -> Accepted | Finished | Refused:
        """Send the job once. Never repeats anything that may have been bought."""
        route = self._registry.route(job.provider_id)
        if route is None:
            return Refused(Failure.NEVER_SENT, f"provider {job.provider_id} is not configured")
        try:
            request = await self._prepared(route, job)
        except InputRefusedError as error:
            return self._shown(route, Refused(Failure.REFUSED_INPUT, str(error), error.code))
        except (NeverSentError, AnswerLostError) as error:
            return Refused(Failure.NEVER_SENT, f"the input files could not be put in place: {error}")
        except Exception as error:
            # Nothing was bought yet, so the adapter's fault costs only this provider.
            _log.exception("submit_not_built", provider=job.provider_id)
            return Refused(Failure.NEVER_SENT, f"the request could not be built: {type(error).__name__}")
        timeout_s = self.submit_timeout_s
        if route.provider.inline(job):
            timeout_s = self._inline_timeout_s.get(job.model.media, timeout_s)
        try:
            answer = await self._send(route, request, timeout_s)
        except NeverSentError as error:
            return Refused(Failure.NEVER_SENT, str(error))
        except AnswerLostError as error:
            return Refused(Failure.OUTCOME_UNKNOWN, str(error))
        return self._shown(route, route.provider.read_submit(job, answer))

    async def _prepared(self, route: Route, job: Job) -> Request:
        """The request that buys, once the files that it needs are there."""
        provider = route.provider
        if rules := provider.input_files(job):
            files = route.inputs or route.transport
            loaded = await asyncio.gather(
                *(load_input(files, url, rule, timeout_s=_INPUT_TIMEOUT_S) for url, rule in rules.items())
            )
            job = replace(job, files=dict(zip(rules, loaded, strict=True)))
        if uploads := provider.build_uploads(job):
            answers = [await self._send(route, upload, self.submit_timeout_s) for upload in uploads]
            job = replace(job, uploads=answers)
        if job.files:  # encoding and scaling files takes its time
            return await asyncio.to_thread(provider.build_submit, job)
        return provider.build_submit(job)

    async def poll(self, job: Job, ticket: Accepted) -> Running | Finished | Refused:
        """Ask once. A broken line means nothing: the job goes on, so the answer is `Running`."""
        route = self._registry.route(job.provider_id)
        if route is None:
            return Running()
        provider = route.provider
        try:
            answer = await self._send(route, provider.build_poll(job, ticket), _POLL_TIMEOUT_S)
            read = provider.read_poll(job, ticket, answer)
            if isinstance(read, Look):
                read = provider.read_look(job, ticket, await self._send(route, read.request, _POLL_TIMEOUT_S))
        except (NeverSentError, AnswerLostError) as error:
            _log.debug("poll_without_answer", provider=job.provider_id, error=str(error))
            return Running()
        return self._shown(route, read)

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
            return await self._repeat(ask, tries=_RECONCILE_TRIES)
        except (NeverSentError, AnswerLostError):
            return Unclear()

    async def fetch(self, job: Job, output: Output, *, body_max: int, patience_s: float = 0.0) -> bytes:
        """The bytes of one output.

        Args:
            patience_s: how long a broken way is tried again; a few times in any case.

        Raises:
            OutputUnavailableError: not to be had, or larger than `body_max`.
        """
        if output.data is not None:
            return output.data
        route = self._registry.route(job.provider_id)
        if route is None or output.url is None:
            raise OutputUnavailableError("the provider named no file")
        if output.url.startswith("data:"):
            return _inline_data(output.url, body_max)
        request = Request("GET", output.url, output.headers)
        transport = route.files or route.transport

        async def get() -> bytes:
            answer = await self._send(
                route, request, _FETCH_TIMEOUT_S, body_max=body_max, transport=transport
            )
            if answer.status != 200:
                lost = _GoneError if answer.status in _GONE else AnswerLostError
                raise lost(f"HTTP {answer.status}")
            return answer.body

        try:
            return await self._repeat(get, tries=4, patience_s=patience_s)
        except (NeverSentError, AnswerLostError) as error:
            gone = isinstance(error, _GoneError)
            raise OutputUnavailableError(f"the output could not be fetched: {error}", gone=gone) from error

    # ------------------------------------------------------------------------------- beside the job

    async def callback_keys(self, provider_id: str) -> tuple[bytes, ...]:
        """What the provider says its callbacks are verified with; none where it cannot be asked."""
        route = self._registry.route(provider_id)
        request = None if route is None else route.provider.build_keys()
        if route is None or request is None:
            return ()
        try:
            return route.provider.read_keys(await self._send(route, request, _POLL_TIMEOUT_S))
        except (NeverSentError, AnswerLostError) as error:
            _log.warning("callback_keys_unknown", provider=provider_id, error=str(error))
            return ()

    async def check(self, provider_id: str) -> Check:
        """Whether the provider takes the credentials, by its cheapest harmless call."""
        route = self._registry.route(provider_id)
        if route is None:
            return Check(False, "not configured")
        request = route.provider.build_check()
        if request is None:
            return Check(True, "it has no call that could tell")
        try:
            answer = await self._send(route, request, _CHECK_TIMEOUT_S, grace_s=0.0)
        except (NeverSentError, AnswerLostError) as error:
            return Check(False, str(error))
        found = route.provider.read_check(answer)
        return msgspec.structs.replace(
            found, message=_without(found.message, route.provider.settings.secrets)
        )

    async def maintain(self) -> None:
        """Let every transport that has housekeeping do it."""
        for transport in self._registry.transports():
            if isinstance(transport, Maintained):
                await transport.maintain()

    async def close(self) -> None:
        """Close all connections."""
        await self._registry.close()

    # ------------------------------------------------------------------------------- small parts

    def _shown(self, route: Route, read: Value) -> Value:
        """What was read; the words of a refusal without secrets and addresses, which some providers repeat."""
        if not isinstance(read, Refused):
            return read
        message = _ADDRESS.sub("[address]", read.message)
        return msgspec.structs.replace(read, message=_without(message, route.provider.settings.secrets))

    async def _send(
        self,
        route: Route,
        request: Request,
        timeout_s: float,
        *,
        body_max: int = _ANSWER_MAX,
        grace_s: float = _TRANSPORT_GRACE_S,
        transport: Transport | None = None,
    ) -> Answer:
        carrier = transport or route.transport
        try:
            async with asyncio.timeout(timeout_s + grace_s):
                return await carrier.send(request, timeout_s=timeout_s, body_max=body_max)
        except (NeverSentError, AnswerLostError):
            raise
        except TimeoutError:
            raise AnswerLostError("no answer in time") from None
        except Exception as error:
            # It may have been sent or not; the safe belief is that it was.
            _log.exception("transport_failed", provider=route.provider.name)
            raise AnswerLostError(f"the transport failed: {type(error).__name__}") from error

    async def _repeat(
        self, ask: Callable[[], Awaitable[Value]], *, tries: int, patience_s: float = 0.0
    ) -> Value:
        """Repeat a harmless question with growing pauses, some times and then as long as there is patience."""
        pause, give_up_at = _FIRST_PAUSE_S, self._clock.monotonic() + patience_s
        while True:
            tries -= 1
            try:
                return await ask()
            except (NeverSentError, AnswerLostError) as error:
                hopeless = isinstance(error, _GoneError) or self._clock.monotonic() + pause > give_up_at
                if tries <= 0 and hopeless:
                    raise
            await self._clock.sleep(pause)
            pause = min(pause * _PAUSE_GROWTH, _PAUSE_MAX_S)


def _inline_data(url: str, body_max: int) -> bytes:
    """The bytes of a `data:` URL (RFC 2397)."""
    head, _, content = url.partition(",")
    if len(content) > body_max * 3:  # percent-encoding, the longest of the spellings
        raise OutputUnavailableError(f"the output is larger than {body_max} bytes")
    try:
        data = (
            base64.b64decode(content, validate=True)
            if head.endswith(";base64")
            else unquote_to_bytes(content)
        )
    except (binascii.Error, ValueError) as error:
        raise OutputUnavailableError("the output is no readable data URL") from error
    if len(data) > body_max:
        raise OutputUnavailableError(f"the output is larger than {body_max} bytes")
    return data


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[hidden]")
    return text
