"""The gateway: the one way in to `/v1`, as a plain ASGI app.

The order is the contract's: preflight, firewall, key, scope, body, operation. Whatever happens on the
way, the answer is one of the two envelopes.
"""

from collections.abc import Awaitable, Callable, Mapping
from traceback import walk_tb
from typing import NamedTuple
from uuid import UUID

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from babysea_server.contract.cors import Headers, answer_headers, is_preflight, preflight_headers
from babysea_server.contract.envelope import error_body, success_body
from babysea_server.contract.firewall import Admitted, Firewall
from babysea_server.contract.operations import OPERATIONS, Operation
from babysea_server.db.pool import DatabaseUnavailableError
from babysea_server.errors import (
    INSUFFICIENT_PERMISSIONS,
    INTERNAL_ERROR,
    PAYLOAD_TOO_LARGE,
    RATE_LIMIT_EXCEEDED,
    SERVICE_UNAVAILABLE,
    ApiError,
)
from babysea_server.kit.calls import Call, Handler, Principal, RateWindow, Reply, ServedRequest
from babysea_server.kit.clock import Clock
from babysea_server.kit.deadlines import Deadlines
from babysea_server.kit.ids import request_id
from babysea_server.telemetry.tracing import RequestSpan
from babysea_server.telemetry.tracing_requests import RequestTraces

MAX_BODY_BYTES = 100 * 1024
DEADLINE_SECONDS = 30.0

Authenticate = Callable[[str, str | None, str, UUID | None], Awaitable[Principal]]
"""(region, `Authorization` header, client address, account) to the caller. Raises ApiError.

The account is the one whose custom domain was asked, where keys of others are unknown; else None.
"""

TakeRate = Callable[[Principal], Awaitable[RateWindow | None]]
"""Counts a request of the caller's account; None when its plan has no limit."""

Record = Callable[[ServedRequest], None]
"""Takes note of an authenticated request that was answered; never waits, never fails."""

Observe = Callable[[str | None, str | None, int, str | None, float], None]
"""Is told of every answer: region and operation as far as there are any, status, error code, seconds."""

#: Accepting work has its own deadlines: cut off here, the caller could not tell whether it was accepted.
_OWN_DEADLINE = frozenset({"generate"})
_FIXED_HEADERS: Headers = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
]
_TRACE_FRAMES = 20
_OPERATIONS: Mapping[str, Operation] = {operation.id: operation for operation in OPERATIONS}


class _ClientGoneError(Exception):
    """The client disconnected before its request was complete: there is nobody to answer."""


class _Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes
    error_code: str | None = None


class _Progress(msgspec.Struct):
    """How far one request has come."""

    request_id: str
    started: float
    admitted: Admitted | None = None
    client_ip: str = ""
    principal: Principal | None = None
    window: RateWindow | None = None
    handling: bool = False
    replayed: bool = False
    body_seconds: float = 0.0
    """Time spent waiting for the client's body, which is not our share."""
    timings: dict[str, float] = {}
    method: str = "GET"
    span: RequestSpan | None = None

    def safe_to_repeat(self, error: DatabaseUnavailableError) -> bool:
        """Whether the operation certainly changed nothing."""
        return self.method == "GET" or not error.sent


class Gateway:
    """Answers everything under `/v1`.

    Args:
        firewall: decides which operation a request is.
        authenticate: finds the caller.
        take_rate: counts the request against the account's rate.
        record: keeps the request log.
        handlers: the operations that are served, by region and operation id.
        clock: the time of answers, and of `Server-Timing`.
        observe: counts answers; never waits, never fails.
        traces: traces requests; never waits, never fails.
        deadline_seconds: the longest that one request may take; accepting a generation limits itself.

    Set `draining` before a shutdown: requests that arrive afterwards are sent elsewhere (BSE5002).
    """

    def __init__(
        self,
        firewall: Firewall,
        authenticate: Authenticate,
        take_rate: TakeRate,
        record: Record,
        handlers: Mapping[tuple[str, str], Handler],
        clock: Clock,
        *,
        observe: Observe | None = None,
        traces: RequestTraces | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self.draining = False
        self._firewall = firewall
        self._authenticate = authenticate
        self._observe = observe
        self._traces = traces
        self._take_rate = take_rate
        self._record = record
        self._handlers = handlers
        self._clock = clock
        self._deadlines = Deadlines(deadline_seconds)
        self._log = structlog.get_logger("babysea.gateway")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            raise ValueError(f"the gateway serves HTTP, not {scope['type']}")
        request_headers: Headers = scope["headers"]
        progress = _Progress(request_id(), self._clock.monotonic(), method=scope["method"])
        # A pipelined request begins in the context of its predecessor; what is logged of it is not to say so.
        structlog.contextvars.clear_contextvars()
        if is_preflight(scope["method"], request_headers):
            headers = [(b"x-request-id", progress.request_id.encode()), *preflight_headers()]
            await _send(send, _Answer(204, headers, b""))
            return
        if self._traces is not None:
            progress.span = self._traces.begin(request_headers)
        try:
            answer = await self._answer(scope, receive, progress)
        except _ClientGoneError:
            return
        except Exception as error:
            answer = self._failure(error, progress)
        answer.headers.extend(answer_headers(request_headers))
        self._note(answer, progress)
        await _send(send, answer)

    async def _answer(self, scope: Scope, receive: Receive, progress: _Progress) -> _Answer:
        if self.draining:
            raise ApiError(
                SERVICE_UNAVAILABLE,
                "This server is shutting down; repeat the request.",
                headers={"Retry-After": "1", "Connection": "close"},
            )
        admitted = progress.admitted = self._firewall.match(scope)
        structlog.contextvars.bind_contextvars(request_id=progress.request_id, region=admitted.region)
        validated = self._clock.monotonic()
        progress.timings["validate"] = (validated - progress.started) * 1000
        deadline = self._deadlines.begin()
        try:
            with deadline:
                principal = await self._identify(admitted, scope, progress)
                progress.timings["auth"] = (self._clock.monotonic() - validated) * 1000
                _check_scope(admitted, principal)
                _check_rate(progress.window)
                body = await self._read_body(admitted, receive, progress) if admitted.takes_body else b""
                handler = self._handlers.get((admitted.region, admitted.operation_id))
                if handler is None:
                    raise ApiError(SERVICE_UNAVAILABLE, "This operation is not available yet.")
                if admitted.operation_id in _OWN_DEADLINE:
                    deadline.lift()
                progress.handling = True
                reply = await handler(
                    Call(
                        operation_id=admitted.operation_id,
                        region=admitted.region,
                        request_id=progress.request_id,
                        origin=f"{scope.get('scheme', 'http')}://{admitted.host}",
                        principal=principal,
                        path=admitted.path,
                        query=admitted.query,
                        headers=admitted.headers,
                        body=body,
                        timings=progress.timings,
                    )
                )
        except TimeoutError:
            if deadline.expired:
                raise _too_late(scope["method"], progress) from None
            raise
        return self._success(reply, admitted, progress)

    async def _identify(self, admitted: Admitted, scope: Scope, progress: _Progress) -> Principal:
        """The caller, whose account's rate has counted this request."""
        client = scope.get("client")
        progress.client_ip = client[0] if client else ""
        principal = await self._authenticate(
            admitted.region, admitted.headers.get("authorization"), progress.client_ip, admitted.account_id
        )
        progress.principal = principal
        progress.window = await self._take_rate(principal)
        return principal

    async def _read_body(self, admitted: Admitted, receive: Receive, progress: _Progress) -> bytes:
        """The whole body, never more than the limit. Raises BSE2010, or that the client is gone."""
        declared = int(admitted.headers.get("content-length", "0"))
        if declared > MAX_BODY_BYTES:
            raise _too_large()
        started = self._clock.monotonic()
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGoneError
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            if chunk:
                chunks.append(chunk)
            more = message.get("more_body", False)
        progress.body_seconds = self._clock.monotonic() - started
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _success(self, reply: Reply, admitted: Admitted, progress: _Progress) -> _Answer:
        progress.replayed = "idempotency-replayed" in reply.headers
        message = _OPERATIONS[admitted.operation_id].message
        content = success_body(progress.request_id, self._clock.now(), message, reply)
        return self._complete(200, content, reply.headers, progress)

    def _failure(self, error: Exception, progress: _Progress) -> _Answer:
        if isinstance(error, ApiError):
            try:
                return self._error(error, progress)
            except Exception as unspeakable:  # an error whose details have no JSON form is ours
                error = unspeakable
        if isinstance(error, DatabaseUnavailableError) and progress.safe_to_repeat(error):
            self._log.warning("database_unavailable")
            return self._error(
                ApiError(
                    SERVICE_UNAVAILABLE,
                    "The service cannot reach its database right now.",
                    headers={"retry-after": "1"},
                ),
                progress,
            )
        self._log_failure(error, progress)
        masked = ApiError(
            INTERNAL_ERROR, "The server failed unexpectedly; give the request id to its operator."
        )
        return self._error(masked, progress)

    def _error(self, error: ApiError, progress: _Progress) -> _Answer:
        headers = {name.lower(): value for name, value in error.headers.items()}
        status = error.spec.status
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        elif status == 429 and "retry-after" not in headers:
            seconds = (error.details or {}).get("retry_after_seconds", 1)
            headers["retry-after"] = str(max(1, int(seconds)))
        answer = self._complete(status, error_body(progress.request_id, error), headers, progress)
        return answer._replace(error_code=error.spec.code)

    def _complete(self, status: int, body: bytes, extra: Mapping[str, str], progress: _Progress) -> _Answer:
        headers = [
            *_FIXED_HEADERS,
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", progress.request_id.encode()),
        ]
        if progress.principal is not None:
            elapsed = self._clock.monotonic() - progress.started - progress.body_seconds
            phases = [f"{name};dur={milliseconds:.2f}" for name, milliseconds in progress.timings.items()]
            phases.append(f"total;dur={elapsed * 1000:.2f}")
            headers.append((b"server-timing", ", ".join(phases).encode()))
        if progress.window is not None:
            headers.extend(_rate_headers(progress.window))
        for name, value in extra.items():
            headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        return _Answer(status, headers, body)

    def _note(self, answer: _Answer, progress: _Progress) -> None:
        """Count it, and write the request log's row; only requests of a known key have one."""
        admitted, principal = progress.admitted, progress.principal
        duration_s = self._clock.monotonic() - progress.started
        if self._observe is not None:
            region, operation = (admitted.region, admitted.operation_id) if admitted else (None, None)
            self._observe(region, operation, answer.status, answer.error_code, duration_s)
        if self._traces is not None and progress.span is not None:
            self._trace(self._traces, progress.span, answer, progress)
        if admitted is None or principal is None:
            return
        self._log.debug(
            "request_served",
            operation=admitted.operation_id,
            region=admitted.region,
            status=answer.status,
            error_code=answer.error_code,
        )
        self._record(
            ServedRequest(
                request_id=progress.request_id,
                principal=principal,
                method=progress.method,
                endpoint=_OPERATIONS[admitted.operation_id].endpoint(admitted.path),
                query=admitted.query,
                status=answer.status,
                error_code=answer.error_code,
                replayed=progress.replayed,
                client_ip=progress.client_ip,
                headers=admitted.headers,
                duration_s=duration_s,
            )
        )

    def _trace(self, traces: RequestTraces, span: RequestSpan, answer: _Answer, progress: _Progress) -> None:
        admitted, principal = progress.admitted, progress.principal
        traces.served(
            span,
            request_id=progress.request_id,
            method=progress.method,
            route=_OPERATIONS[admitted.operation_id].template if admitted else None,
            operation=admitted.operation_id if admitted else None,
            region=admitted.region if admitted else None,
            account_id=principal.account_id if principal else None,
            status=answer.status,
            error_code=answer.error_code,
            timings=progress.timings,
        )

    def _log_failure(self, error: Exception, progress: _Progress) -> None:
        # The kind and the place, never the text: messages of exceptions quote the values they met.
        admitted = progress.admitted
        trace = [
            f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
            for frame, line in walk_tb(error.__traceback__)
        ]
        cause = error.__cause__ or error.__context__
        self._log.error(
            "request_failed",
            request_id=progress.request_id,
            region=admitted.region if admitted else None,
            operation=admitted.operation_id if admitted else None,
            error=type(error).__qualname__,
            cause=type(cause).__qualname__ if cause else None,
            trace=trace[-_TRACE_FRAMES:],
        )


def _check_scope(admitted: Admitted, principal: Principal) -> None:
    if admitted.scope not in principal.scopes:
        raise ApiError(
            INSUFFICIENT_PERMISSIONS,
            f"The key lacks the scope {admitted.scope}.",
            details={"required": admitted.scope, "granted": sorted(principal.scopes)},
        )


def _check_rate(window: RateWindow | None) -> None:
    if window is not None and window.exceeded:
        # A window's end is known exactly; whoever waits for it is served.
        raise ApiError(
            RATE_LIMIT_EXCEEDED,
            f"The account may send {window.limit} requests a minute; wait for the next minute.",
            details={"retry_after_seconds": window.retry_after_s, "limit": window.limit},
        )


def _rate_headers(window: RateWindow) -> Headers:
    return [
        (b"x-ratelimit-limit", b"%d" % window.limit),
        (b"x-ratelimit-remaining", b"%d" % window.remaining),
        (b"x-ratelimit-reset", b"%d" % window.resets_at),
    ]


def _too_large() -> ApiError:
    # The connection stays open: closed under a client that is still writing, it is reset and the answer
    # lost. The server discards what still comes, and only a caller with a valid key gets this far.
    return ApiError(
        PAYLOAD_TOO_LARGE,
        f"The body is larger than {MAX_BODY_BYTES} bytes.",
        details={"max_bytes": MAX_BODY_BYTES},
    )


def _too_late(method: str, progress: _Progress) -> ApiError:
    """Repeating is safe when nothing was begun, or when the operation only reads."""
    if not progress.handling:
        return ApiError(
            SERVICE_UNAVAILABLE,
            "The request was not complete in time; nothing was accepted.",
            headers={"Retry-After": "1", "Connection": "close"},
        )
    if method == "GET":
        return ApiError(
            SERVICE_UNAVAILABLE, "The answer was not ready in time.", headers={"Retry-After": "1"}
        )
    return ApiError(
        INTERNAL_ERROR,
        "The operation did not end in time and may have taken effect; read before repeating it.",
    )


async def _send(send: Send, answer: _Answer) -> None:
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})
    except OSError:  # the client left while being answered
        return
