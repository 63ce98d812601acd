"""The span of each request under `/v1`."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import structlog

from babysea_server.telemetry.tracing import (
    CURRENT_REQUEST,
    Attribute,
    RequestSpan,
    Span,
    Tracing,
    new_ref,
    read_traceparent,
    ref_of,
)

_TRACEPARENT = b"traceparent"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"})
_SERVER_ERROR = 500


class RequestTraces:
    """Traces requests: in the caller's trace where it sent one, else in one of their own.

    A request and the generation that it made are kept or left out together. A caller can have its request left out
    and never put in: how much is kept is not for strangers to say.
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def begin(self, headers: Sequence[tuple[bytes, bytes]]) -> RequestSpan:
        """A request has arrived; what it causes, and what is logged of it, leads to its span."""
        sent = [value for name, value in headers if name == _TRACEPARENT]
        caller = read_traceparent(sent[0]) if len(sent) == 1 else None
        ref = new_ref(None if caller is None else caller.ref.trace_id)
        request = RequestSpan(ref, caller, self._tracing.now_ns())
        CURRENT_REQUEST.set(request)
        structlog.contextvars.bind_contextvars(trace_id=ref.trace)
        return request

    def served(
        self,
        request: RequestSpan,
        *,
        request_id: str,
        method: str,
        route: str | None,
        operation: str | None,
        region: str | None,
        account_id: UUID | None,
        status: int,
        error_code: str | None,
        timings: Mapping[str, float],
    ) -> None:
        """It was answered.

        Args:
            route: the path's template, as far as it is one of ours.
            timings: milliseconds of its phases.
        """
        generation_id = structlog.contextvars.get_contextvars().get("generation_id")
        generation = None if generation_id is None else ref_of(UUID(generation_id))
        if not request.wanted or not self._tracing.keeps((generation or request.ref).trace_id):
            return
        method = method if method in _METHODS else "_OTHER"
        told: dict[str, Attribute | None] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "error.type": error_code,
            "babysea.request.id": request_id,
            "babysea.operation": operation,
            "babysea.region": region,
            "babysea.account.id": None if account_id is None else str(account_id),
            "babysea.generation.id": generation_id,
        }
        for phase, milliseconds in timings.items():
            told[f"babysea.phase.{phase}_ms"] = round(milliseconds, 3)
        self._tracing.record(
            Span(
                name=method if route is None else f"{method} {route}",
                ref=request.ref,
                parent_id=None if request.caller is None else request.caller.ref.span_id,
                start_ns=request.start_ns,
                end_ns=self._tracing.end_ns(request.start_ns),
                attributes={name: value for name, value in told.items() if value is not None},
                kind="server",
                error=status >= _SERVER_ERROR,
                links=() if generation is None else (generation,),
            )
        )
