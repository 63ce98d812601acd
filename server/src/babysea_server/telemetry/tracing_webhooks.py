"""The span of each try to deliver a webhook."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
import structlog

from babysea_server.telemetry.tracing import Attribute, Span, SpanRef, Tracing, new_ref, ref_of


class Try(msgspec.Struct, frozen=True):
    """One try that is under way."""

    ref: SpanRef
    parent_id: int | None
    start_ns: int


class DeliveryTraces:
    """Traces deliveries: in the trace of the generation that they tell of, else in that of the delivery's id."""

    def __init__(self, tracing: Tracing, region: str) -> None:
        self._tracing = tracing
        self._region = region

    def begin(self, delivery_id: UUID, data: Mapping[str, Any]) -> Try:
        """A try begins; what is logged of it leads to its trace."""
        generation_id = data.get("generation_id")
        trace = ref_of(delivery_id if generation_id is None else UUID(generation_id))
        structlog.contextvars.bind_contextvars(trace_id=trace.trace)
        parent_id = None if generation_id is None else trace.span_id
        return Try(new_ref(trace.trace_id), parent_id, self._tracing.now_ns())

    def ended(
        self,
        begun: Try,
        *,
        delivery_id: UUID,
        endpoint_id: UUID,
        event: str,
        attempt: int,
        status: int | None,
        failure: str | None,
    ) -> None:
        """It was answered or failed. `attempt` counts from 1."""
        if not self._tracing.keeps(begun.ref.trace_id):
            return
        attributes: dict[str, Attribute] = {
            "http.request.method": "POST",
            "babysea.region": self._region,
            "babysea.webhook.event": event,
            "babysea.webhook.delivery.id": str(delivery_id),
            "babysea.webhook.endpoint.id": str(endpoint_id),
            "babysea.webhook.attempt": attempt,
        }
        if status is not None:
            attributes["http.response.status_code"] = status
        if failure is not None:
            attributes["error.type"] = failure
        self._tracing.record(
            Span(
                name=f"webhook {event}",
                ref=begun.ref,
                parent_id=begun.parent_id,
                start_ns=begun.start_ns,
                end_ns=self._tracing.end_ns(begun.start_ns),
                attributes=attributes,
                kind="client",
                error=failure is not None,
            )
        )
