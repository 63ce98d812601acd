"""What a provider is: pure functions between our words and an upstream's, no I/O.

A provider builds `Request`s and reads `Answer`s. Sending, timeouts, retries and bounds live once, in
`providers.runner`, so an adapter can be tested on recorded answers and driven by a simulator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

from babysea_server.catalog.types import Model


class Failure(StrEnum):
    """Why an attempt gave no output. Every provider maps each of its errors to exactly one of these; what
    follows from it (failover, customer's code, breaker) is decided by `execution.verdict` alone.
    """

    NEVER_SENT = "never_sent"
    """The request certainly did not reach the provider."""
    REFUSED_BUSY = "refused_busy"
    """Rate limit or no capacity; nothing was bought."""
    REFUSED_AUTH = "refused_auth"
    """The operator's credentials were refused."""
    REFUSED_FUNDS = "refused_funds"
    """The operator's balance at the provider is empty."""
    REFUSED_INPUT = "refused_input"
    """This provider does not accept these values."""
    REFUSED_POLICY = "refused_policy"
    """The content was refused; no other provider is asked."""
    FAILED = "failed"
    """The job was accepted and failed."""
    TIMED_OUT = "timed_out"
    """The job was accepted and took too long."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """The request was sent and its answer lost: it may have been bought."""
    BAD_OUTPUT = "bad_output"
    """Success without an output, or with one that cannot be read."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt as a provider sees it."""

    attempt_id: UUID
    """Our reference; sent along where a provider takes one."""
    provider_id: str
    model: Model
    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to be sent by the runner."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, its body whole and bounded by the runner. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Output:
    """One file of a finished job: either where to fetch it, or its bytes."""

    url: str | None = None
    data: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent when fetching; almost always empty: output hosts get no credentials."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the job. `state` is what polling needs beside the id (JSON); it is persisted."""

    upstream_id: str
    state: Mapping[str, Any] | None = None
    poll_after_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Running:
    """Not finished; look again after `poll_after_s`, or as the runner's growing interval says."""

    poll_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The job succeeded. `cost_micro` and `predict_seconds` only where the provider tells them."""

    outputs: Sequence[Output]
    cost_micro: int | None = None
    predict_seconds: float | None = None
    upstream_id: str | None = None
    """For providers that answer the submit with the result."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No output and none to come.

    `message` is for the operator's attempt log and must hold no secret. `code` narrows the customer's error
    where the class leaves a choice (one of `errors.ERRORS`).
    """

    failure: Failure
    message: str
    code: str | None = None
    retry_after_s: float | None = None
    cost_micro: int | None = None
    """What the provider bills for it all the same."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """Reconciliation is certain that the provider never got this job."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """Reconciliation could not tell."""


class Provider(Protocol):
    """One upstream API as pure functions. `name` is what the attempt log calls the adapter."""

    name: str

    def build_submit(self, job: Job) -> Request:
        """The request that buys."""
        ...

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """What the answer to `build_submit` says."""
        ...

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """Ask how an accepted job is doing."""
        ...

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """What the answer to `build_poll` says. An unknown status is `Running`."""
        ...

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """Ask to stop, or None where the provider cannot."""
        ...

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        """Whether the provider confirmed that it stopped."""
        ...

    def build_reconcile(self, job: Job) -> Request | None:
        """Ask whether a submit whose answer was lost arrived, or None where the provider cannot tell."""
        ...

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        """What the answer to `build_reconcile` says. `NotFound` only where that is certain."""
        ...


class NeverSentError(Exception):
    """A transport could not reach the upstream: the request certainly had no effect."""


class AnswerLostError(Exception):
    """A transport sent the request, or part of it, and got no whole answer."""


class Transport(Protocol):
    """Carries requests of one provider."""

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """Send and read the whole answer.

        Raises:
            NeverSentError, AnswerLostError: see there. A body beyond `body_max` bytes is an AnswerLostError.
        """
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


@runtime_checkable
class Maintained(Protocol):
    """What a `Transport` may offer beside sending."""

    async def maintain(self) -> None:
        """Housekeeping of its own; each worker calls it every ten minutes."""
        ...
