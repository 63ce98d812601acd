"""The records that move between the worker and the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from babysea_server.providers.base import Failure


class AttemptRecord(msgspec.Struct, frozen=True):
    """One attempt of a generation as the attempt log has it."""

    id: UUID
    attempt_order: int
    provider: str
    outcome: str
    upstream_id: str | None
    upstream: dict[str, Any] | None
    failure: Failure | None
    error_code: str | None
    age_s: float
    """Seconds since it was opened, when the generation was claimed."""


class Claim(msgspec.Struct, frozen=True):
    """A generation this worker holds the lease of, under `fence`."""

    id: UUID
    account_id: UUID
    model: str
    media: Literal["image", "video"]
    inputs: dict[str, Any]
    provider_order: Sequence[str]
    prediction_id: UUID
    measured: bool
    """The price follows the measured length of the output."""
    created_at: datetime
    fence: int
    attempts: Sequence[AttemptRecord]


class Ended(msgspec.Struct, frozen=True):
    """A generation that ended without a run."""

    id: UUID
    account_id: UUID
    model: str
    media: Literal["image", "video"]
    created_at: datetime


class OpenAttempt(msgspec.Struct, frozen=True):
    """An attempt about to be made."""

    attempt_id: UUID
    generation_id: UUID
    account_id: UUID
    fence: int
    model: str
    attempt_order: int
    provider: str
    adapter: str
    estimated_cost: int | None = None
    """What it costs the operator in micro-credits, where the catalog knows; else the customer's price."""


class AcceptedAttempt(msgspec.Struct, frozen=True):
    """A provider took the job: its id is persisted before anything else happens."""

    attempt_id: UUID
    generation_id: UUID
    fence: int
    upstream_id: str
    upstream: dict[str, Any] | None


class ResolvedAttempt(msgspec.Struct, frozen=True):
    """How an attempt ended. `cost` in micro-credits, where known."""

    attempt_id: UUID
    outcome: Literal["used", "failed", "cancelled", "discarded"]
    failure: Failure | None = None
    error_code: str | None = None
    error_message: str | None = None
    cost: int | None = None


class Resolution(msgspec.Struct, frozen=True):
    """The end of an attempt whose generation goes on, or ended without it."""

    generation_id: UUID
    fence: int
    attempt: ResolvedAttempt


Standing = Literal["ours", "taken", "over"]
"""Whose a generation is: this worker's under this fence, somebody else's (or nobody's), or nobody's any more."""


class Settlement(msgspec.Struct, frozen=True):
    """The final transition of a generation, with the end of its last attempt."""

    generation_id: UUID
    account_id: UUID
    fence: int
    status: Literal["succeeded", "failed"]
    attempt: ResolvedAttempt | None
    provider: str | None = None
    outputs: Sequence[Any] | None = None
    seconds: float | None = None
    predict_ms: int | None = None
    error_code: str | None = None
    error_message: str | None = None
