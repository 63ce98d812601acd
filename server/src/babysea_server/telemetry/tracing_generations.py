"""The spans of a generation: its admission, its wait, its attempts and their steps, its settlement, itself.

Nothing that a customer or a provider wrote is among their values, except the id that a provider gave its job.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

import msgspec
import structlog

from babysea_server.telemetry.tracing import (
    Attribute,
    RequestSpan,
    Span,
    SpanRef,
    Tracing,
    made_at_ns,
    nanoseconds,
    new_ref,
    ref_of,
    span_id_of,
)

#: Steps that wait for somebody outside.
_OUTWARD = frozenset({"submit", "wait", "fetch", "reconcile", "cancel"})
#: Of the GenAI conventions, whose names for the making of pictures and films are still to come.
_OPERATION = "generate_content"


class Traced(Protocol):
    """A generation, as far as it is told."""

    @property
    def id(self) -> UUID: ...
    @property
    def account_id(self) -> UUID: ...
    @property
    def model(self) -> str: ...
    @property
    def media(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


class Claimed(Traced, Protocol):
    """One that a worker has claimed, for the `fence`th time."""

    @property
    def fence(self) -> int: ...


class GenerationTraces:
    """Traces the generations of a region, in whatever process something happens to them."""

    def __init__(self, tracing: Tracing, region: str) -> None:
        self._tracing = tracing
        self._region = region

    def admitted(
        self,
        generation_id: UUID,
        request: RequestSpan | None,
        *,
        result: str,
        batch_size: int,
        called_at: datetime,
        answered_at: datetime,
    ) -> None:
        """The database decided on a request, in one call with others.

        What was not accepted has no trace of its own; it is told in that of its request.
        """
        parent, links = ref_of(generation_id), () if request is None else (request.ref,)
        if result != "accepted":
            if request is None or not request.wanted:
                return
            parent, links = request.ref, ()
        if not self._tracing.keeps(parent.trace_id):
            return
        # The id is made right before the request gets in line.
        start_ns, called_ns = made_at_ns(generation_id, called_at), nanoseconds(called_at)
        self._tracing.record(
            Span(
                name="admission",
                ref=new_ref(parent.trace_id),
                parent_id=parent.span_id,
                start_ns=start_ns,
                end_ns=max(start_ns, nanoseconds(answered_at)),
                attributes={
                    "babysea.region": self._region,
                    "babysea.admission.result": result,
                    "babysea.admission.batch_size": batch_size,
                    "babysea.admission.queued_ms": max(0, called_ns - start_ns) / 1e6,
                },
                links=links,
            )
        )

    def run(self, claim: Claimed) -> "RunSpans | None":
        """Traces the run of a claim; None where its trace is not kept."""
        return RunSpans(self, self._tracing, claim) if self._tracing.keeps(claim.id.int) else None

    def ended(self, generation: Traced, status: str, error_code: str | None = None) -> None:
        """A generation has its final status: the root of its trace, from its making until now."""
        root = ref_of(generation.id)
        if not self._tracing.keeps(root.trace_id):
            return
        attributes: dict[str, Attribute] = {
            "babysea.generation.id": str(generation.id),
            "babysea.generation.status": status,
            "babysea.account.id": str(generation.account_id),
            "gen_ai.request.model": generation.model,
            "gen_ai.output.type": generation.media,
        }
        if error_code is not None:
            attributes["error.type"] = error_code
        start_ns = made_at_ns(generation.id, generation.created_at)
        self.record(f"generation {generation.model}", root, None, start_ns, attributes)

    def record(
        self,
        name: str,
        ref: SpanRef,
        parent_id: int | None,
        start_ns: int,
        attributes: dict[str, Attribute],
        kind: Literal["internal", "client"] = "internal",
    ) -> None:
        """Send a span that ends now; it failed if it has an `error.type`."""
        self._tracing.record(self.span(name, ref, parent_id, start_ns, attributes, kind))

    def span(
        self,
        name: str,
        ref: SpanRef,
        parent_id: int | None,
        start_ns: int,
        attributes: dict[str, Attribute],
        kind: Literal["internal", "client"] = "internal",
    ) -> Span:
        """A span that ends now; it failed if it has an `error.type`."""
        return Span(
            name=name,
            ref=ref,
            parent_id=parent_id,
            start_ns=start_ns,
            end_ns=self._tracing.end_ns(start_ns),
            attributes={"babysea.region": self._region, **attributes},
            kind=kind,
            error="error.type" in attributes,
        )


class _Attempt(msgspec.Struct, frozen=True):
    """The attempt under way."""

    ref: SpanRef
    provider: str
    start_ns: int
    attributes: dict[str, Attribute]


class Step:
    """One step, which may be told how it ended."""

    __slots__ = ("attributes",)

    def __init__(self) -> None:
        self.attributes: dict[str, Attribute] = {}

    def ended(self, result: str, failure: str | None = None) -> None:
        """What came of it, and the class of failure if it failed."""
        self.attributes["babysea.result"] = result
        if failure is not None:
            self.attributes["error.type"] = failure


class RunSpans:
    """What one worker writes into the trace of a generation; see `execution.watch.RunTrace`.

    The span of an attempt is sent when its end is durable: until then another worker may have to end it.
    """

    def __init__(self, traces: GenerationTraces, tracing: Tracing, claim: Claimed) -> None:
        self._traces = traces
        self._tracing = tracing
        self._claim = claim
        self._root = ref_of(claim.id)
        self._attempt: _Attempt | None = None
        self._ended: Span | None = None

    def begin(self) -> None:
        """The run begins; what is logged of it leads to the trace."""
        structlog.contextvars.bind_contextvars(trace_id=self._root.trace)
        if self._claim.fence == 1:
            start_ns = nanoseconds(self._claim.created_at)
            self._traces.record("queue", new_ref(self._root.trace_id), self._root.span_id, start_ns, {})

    def opened(self, attempt_id: UUID, order: int, provider: str, age_s: float) -> None:
        """An attempt is under way, for so many seconds already."""
        attributes: dict[str, Attribute] = {
            "babysea.attempt.id": str(attempt_id),
            "babysea.attempt.order": order,
            "babysea.fence": self._claim.fence,
            "gen_ai.operation.name": _OPERATION,
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": self._claim.model,
            "gen_ai.output.type": self._claim.media,
        }
        ref = SpanRef(self._root.trace_id, span_id_of(attempt_id))
        start_ns = self._tracing.now_ns() - int(age_s * 1e9)
        self._attempt = _Attempt(ref, provider, start_ns, attributes)

    def accepted(self, upstream_id: str) -> None:
        """Its provider has the job, under this id."""
        if self._attempt is not None:
            self._attempt.attributes["gen_ai.response.id"] = upstream_id

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """One step of the attempt under way, else of the generation, until the end of the block."""
        step, attempt = Step(), self._attempt
        start_ns = self._tracing.now_ns()
        try:
            yield step
        except BaseException as error:
            # The kind, never the text: messages of exceptions quote the values they met.
            step.ended("interrupted", type(error).__qualname__)
            raise
        finally:
            parent = self._root if attempt is None else attempt.ref
            if attempt is not None:
                step.attributes["gen_ai.provider.name"] = attempt.provider
            self._traces.record(
                name,
                new_ref(parent.trace_id),
                parent.span_id,
                start_ns,
                step.attributes,
                "client" if name in _OUTWARD else "internal",
            )

    def attempted(self, outcome: str, failure: str | None) -> None:
        """The attempt under way has an outcome; it is not durable yet."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        attempt.attributes["babysea.attempt.outcome"] = outcome
        if failure is not None:
            attempt.attributes["error.type"] = failure
        self._ended = self._traces.span(
            f"attempt {attempt.provider}",
            attempt.ref,
            self._root.span_id,
            attempt.start_ns,
            attempt.attributes,
        )

    def resolved(self) -> None:
        """That outcome is durable."""
        if self._ended is not None:
            self._tracing.record(self._ended)
            self._ended = None

    def left(self) -> None:
        """The generation ended without the attempt under way."""
        self.attempted("left", None)
        self.resolved()

    def settled(self, status: str, error_code: str | None) -> None:
        """The end of the generation is durable, and with it that of its last attempt."""
        self.resolved()
        self._traces.ended(self._claim, status, error_code)
