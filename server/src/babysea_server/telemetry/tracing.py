"""Traces without a context to carry: every process finds the trace of a generation from the generation's id alone.

The 128 bits of a generation's id are its trace id, and the last 64 bits of an id are the id of its span: of the
generation the root, of an attempt the attempt. So an API, worker after worker, and the deliverer write into one trace,
whatever died in between, and nothing is stored for it.

Nothing here imports OpenTelemetry; what sends spans is `telemetry.tracing_otlp`.
"""

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

import msgspec

from babysea_server.kit.clock import Clock
from babysea_server.kit.ids import uuid7

Attribute = str | int | float | bool

_LOW_64 = 0xFFFF_FFFF_FFFF_FFFF
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_VERSION_7 = 7

#: https://www.w3.org/TR/trace-context/#traceparent-header; what follows the flags is for versions after 00.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 0x01


class SpanRef(NamedTuple):
    """Which span: 128 and 64 bits, neither of them zero."""

    trace_id: int
    span_id: int

    @property
    def trace(self) -> str:
        """The trace id as it is written everywhere: 32 hex digits."""
        return f"{self.trace_id:032x}"


class Span(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One span that has ended. Times in nanoseconds of Unix time."""

    name: str
    ref: SpanRef
    parent_id: int | None
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Attribute]
    kind: Literal["internal", "server", "client"] = "internal"
    error: bool = False
    links: Sequence[SpanRef] = ()


class Tracer(Protocol):
    """Takes spans to a collector."""

    def record(self, span: Span) -> None:
        """Take one span; never waits, never fails."""
        ...


class Caller(NamedTuple):
    """What a request says of the trace it belongs to."""

    ref: SpanRef
    sampled: bool


class RequestSpan(NamedTuple):
    """The span of the request under way."""

    ref: SpanRef
    caller: Caller | None
    start_ns: int

    @property
    def wanted(self) -> bool:
        """Whether its caller leaves it to us if it is kept."""
        return self.caller is None or self.caller.sampled


#: Leads from what a request causes to its span. None where it is not traced.
CURRENT_REQUEST: ContextVar[RequestSpan | None] = ContextVar("current_request", default=None)


def read_traceparent(value: bytes) -> Caller | None:
    """The caller's span by W3C Trace Context; None where the header is none."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest):
        return None
    ref = SpanRef(int(trace_id, 16), int(span_id, 16))
    return Caller(ref, bool(int(flags, 16) & _SAMPLED)) if all(ref) else None


def ref_of(id: UUID) -> SpanRef:
    """The root span of what has this id."""
    return SpanRef(id.int, span_id_of(id))


def span_id_of(id: UUID) -> int:
    """The span of what has this id; never zero, because the variant of a UUID is among the bits."""
    return id.int & _LOW_64


def new_ref(trace_id: int | None = None) -> SpanRef:
    """A new span, in a trace of its own if none is given."""
    id = uuid7()
    return SpanRef(id.int if trace_id is None else trace_id, span_id_of(id))


def nanoseconds(moment: datetime) -> int:
    """Unix time in nanoseconds."""
    return (moment - _EPOCH) // _MICROSECOND * 1000


def made_at_ns(id: UUID, otherwise: datetime) -> int:
    """When an id was made, by itself: the same for every process, and before anything that happened to it."""
    if id.version != _VERSION_7:
        return nanoseconds(otherwise)
    return (id.int >> 80) * 1_000_000 + (id.int >> 64 & 0xFFF) * 1_000_000 // 4096


class Sampler:
    """Decides which traces are kept: every process the same, from the trace id alone.

    By a hash of the whole id: the usual comparison of its low 64 bits would meet the constant variant of a UUID there,
    and its high ones are the time.

    Args:
        share: of the traces that are kept, 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self._all = share >= 1
        self._below = int(share * 2**64)

    def __call__(self, trace_id: int) -> bool:
        """Whether the trace is kept."""
        if self._all:
            return True
        digest = blake2b(trace_id.to_bytes(16, "big"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._below


class Tracing:
    """What everything that traces shares: where spans go, which are kept, and the time."""

    def __init__(self, tracer: Tracer, clock: Clock, *, sample: float) -> None:
        self.keeps = Sampler(sample)
        self.record = tracer.record
        self._clock = clock

    def now_ns(self) -> int:
        """Unix time in nanoseconds."""
        return nanoseconds(self._clock.now())

    def end_ns(self, start_ns: int) -> int:
        """Now, or the start where the clocks of two machines differ."""
        return max(start_ns, self.now_ns())
