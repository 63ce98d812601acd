"""One authenticated call and its reply: the shape between the gateway and every handler."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """What an account may do and what it gets. `None` means without limit."""

    name: str
    requests_per_minute: int | None
    generations_in_flight: int | None
    monthly_credits: int = 0
    """Credits added at the start of each period."""
    welcome_credits: int = 0
    """Credits added once in the life of an account."""
    keep_files_hours: int | None = None
    keep_records_days: int | None = None


class Principal(msgspec.Struct, frozen=True):
    """Who calls: one API key and the account it belongs to."""

    region: str
    account_id: UUID
    plan: Plan
    apikey_id: UUID
    apikey_name: str
    apikey_prefix: str
    scopes: frozenset[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


class RateWindow(msgspec.Struct, frozen=True):
    """Where an account stands in its present window, this request counted."""

    limit: int
    remaining: int
    resets_at: int
    """Unix seconds."""
    retry_after_s: int
    """Whole seconds until then, at least 1."""
    exceeded: bool


class ServedRequest(msgspec.Struct, frozen=True):
    """One authenticated request that has been answered, as the request log keeps it.

    Values come as the client sent them; whoever writes them down shortens and hashes.
    """

    request_id: str
    principal: Principal
    method: str
    endpoint: str
    """Usage template, e.g. `POST /v1/generate/image/{model_identifier}`."""
    query: Mapping[str, Any]
    """Admitted parameters, typed."""
    status: int
    error_code: str | None
    replayed: bool
    client_ip: str
    headers: Mapping[str, str]
    """Request headers by lower-case name."""
    duration_s: float


class Call(msgspec.Struct):
    """An admitted, authenticated call of one operation.

    `path` and `query` hold decoded values; query values have the types the contract gives them.
    """

    operation_id: str
    region: str
    request_id: str
    origin: str
    """Scheme and authority the caller used, e.g. `http://localhost:8000`."""
    principal: Principal
    path: Mapping[str, str]
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    """Request headers by lower-case name."""
    body: bytes
    timings: dict[str, float] = msgspec.field(default_factory=dict)
    """Milliseconds by phase, for `Server-Timing`; handlers may add their own."""


class Reply(msgspec.Struct):
    """A successful answer: the envelope's data, and what stands beside it."""

    data: Any
    beside: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Top-level members beside `data`: `total`, `limit`, `offset` of lists."""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


Handler = Callable[[Call], Awaitable[Reply]]
