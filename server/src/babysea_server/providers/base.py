"""What a provider is: pure functions between our words and an upstream's, no I/O.

A provider builds `Request`s and reads `Answer`s. Sending, timeouts, retries and bounds live once, in
`providers.runner`, so an adapter can be tested on recorded answers and driven by a simulator.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable
from uuid import UUID

import msgspec

from babysea_server.catalog.types import Media, Model, ProviderModel, Traits
from babysea_server.settings import ProviderSettings

if TYPE_CHECKING:
    from babysea_server.providers.inputs import InputFile, InputRule

#: Seeds that every provider takes: 31 bits.
_SEED_MASK = 0x7FFFFFFF


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
    opened_at: datetime | None = None
    """When the attempt was opened, by our clock; None where only its end matters."""
    timeout_s: float | None = None
    """How long the provider may take before it is asked to stop."""
    callback_url: str | None = None
    """Where the provider may announce the end of the job; None where it could not reach us."""
    files: "Mapping[str, InputFile]" = field(default_factory=dict, repr=False)
    """By URL: the input files that `Provider.input_files` asked for."""
    uploads: "Sequence[Answer]" = field(default=(), repr=False)
    """The answers to `Provider.build_uploads`, in order."""

    @property
    def offer(self) -> ProviderModel:
        """How this provider takes the model."""
        return self.model.providers[self.provider_id]

    @property
    def seed(self) -> int:
        """The customer's seed, else one of our own, 0 to 2^31-1, by which the job can be found again."""
        seed = self.inputs.get("generation_seed")
        return seed if isinstance(seed, int) else self.own_seed

    @property
    def own_seed(self) -> int:
        """A seed that only this attempt uses, always the same for it."""
        return self.attempt_id.int & _SEED_MASK


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request to be sent by the runner. Its headers hold credentials and are never shown."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer, its body whole and bounded by the runner. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Output:
    """One file of a finished job: either where to fetch it (http, https or data), or its bytes."""

    url: str | None = None
    data: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent when fetching; almost always empty: output hosts get no credentials."""
    media: Media | None = None
    """Set where the file is something beside what the generation makes, e.g. a clip's last frame."""


class Accepted(msgspec.Struct, frozen=True):
    """The provider has the job. `state` is what polling needs beside the id (JSON); it is persisted."""

    upstream_id: str
    state: Mapping[str, Any] | None = None
    poll_after_s: float = 1.0


class Running(msgspec.Struct, frozen=True):
    """Not finished; look again after `poll_after_s`, or as the runner's growing interval says."""

    poll_after_s: float | None = None


class Look(msgspec.Struct, frozen=True):
    """The answer is elsewhere: the runner sends this request and has it read by `read_look`."""

    request: Request


class Finished(msgspec.Struct, frozen=True):
    """The job succeeded. `cost_micro` (USD) and `predict_seconds` only where the provider tells them."""

    outputs: Sequence[Output]
    cost_micro: int | None = None
    predict_seconds: float | None = None
    upstream_id: str | None = None
    """For providers that answer the submit with the result."""


class Refused(msgspec.Struct, frozen=True):
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


class NotFound(msgspec.Struct, frozen=True):
    """Reconciliation is certain that the provider never got this job."""


class Unclear(msgspec.Struct, frozen=True):
    """Reconciliation could not tell."""


@dataclass(frozen=True, slots=True)
class Callback:
    """What arrived at an attempt's callback URL. Header names are lower case."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    received_at: float
    """Unix seconds."""


class Check(msgspec.Struct, frozen=True):
    """What the cheapest harmless authenticated call told: whether the credentials work, in a sentence."""

    ok: bool
    message: str


class Provider(ABC):
    """One upstream API as pure functions; an adapter is one subclass in one file.

    Class attributes describe it, methods build requests and read answers, and nothing here does I/O. What most
    providers do not offer has a default that says so.

    Args:
        settings: what the operator configured, credentials included.
    """

    name: ClassVar[str]
    """What the attempt log calls the adapter; the provider's id."""
    traits: ClassVar[Traits]
    default_base: ClassVar[str | None] = None
    """Where its API is, without a trailing slash; None where only the operator knows."""
    needs: ClassVar[tuple[str, ...]] = ("api_key",)
    """The settings without which it is not available."""
    hosts: ClassVar[tuple[str, ...]] = ()
    """Host suffixes that addresses in its answers may lead to with credentials, beside the base's own origin."""
    output_life_s: ClassVar[float | None] = None
    """How long it keeps outputs; None where it is long enough not to matter, or they come with the answer."""
    catalog_dir: ClassVar[Path | None] = None
    """Catalog files that a package of its own brings along."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings
        self.base = (settings.base_url or self.default_base or "").rstrip("/")

    # ------------------------------------------------------------------------------- before the purchase

    def inline(self, job: Job) -> bool:
        """Whether the answer to the submit is the result, so that it may take as long as the whole attempt."""
        return self.traits.delivery == "synchronous"

    def calls_back(self, job: Job) -> bool:
        """Whether the provider announces the end of such a job at `Job.callback_url`."""
        return self.traits.delivery == "webhook_with_polling"

    def input_files(self, job: Job) -> "Mapping[str, InputRule]":
        """Input files that must be sent as bytes, by URL; the runner fetches and checks them."""
        return {}

    def build_uploads(self, job: Job) -> Sequence[Request]:
        """Requests that put files in place before the submit and buy nothing."""
        return ()

    # ------------------------------------------------------------------------------- the job

    @abstractmethod
    def build_submit(self, job: Job) -> Request:
        """The request that buys.

        Raises:
            InputRefusedError: this provider cannot take these inputs; nothing is sent.
        """

    @abstractmethod
    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        """What the answer to `build_submit` says."""

    def build_poll(self, job: Job, ticket: Accepted) -> Request:
        """Ask how an accepted job is doing."""
        raise NotImplementedError(f"{self.name} accepts no job that could be polled")

    def read_poll(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Look | Finished | Refused:
        """What the answer to `build_poll` says. An unknown status is `Running`."""
        raise NotImplementedError(f"{self.name} accepts no job that could be polled")

    def read_look(self, job: Job, ticket: Accepted, answer: Answer) -> Running | Finished | Refused:
        """What the answer to the request of a `Look` says."""
        raise NotImplementedError(f"{self.name} sends nobody elsewhere")

    def build_cancel(self, job: Job, ticket: Accepted) -> Request | None:
        """Ask to stop, or None where the provider cannot."""
        return None

    def read_cancel(self, job: Job, answer: Answer) -> bool:
        """Whether the provider confirmed that it stopped."""
        return False

    def build_reconcile(self, job: Job) -> Request | None:
        """Ask whether a submit whose answer was lost arrived, or None where the provider cannot tell."""
        return None

    def read_reconcile(self, job: Job, answer: Answer) -> Accepted | NotFound | Unclear:
        """What the answer to `build_reconcile` says. `NotFound` only where that is certain."""
        return Unclear()

    # ------------------------------------------------------------------------------- callbacks

    def build_keys(self) -> Request | None:
        """Ask for what callbacks are verified with, or None where nothing need be asked."""
        return None

    def read_keys(self, answer: Answer) -> tuple[bytes, ...]:
        """The keys in the answer to `build_keys`; none where it holds none."""
        return ()

    def verify_callback(self, callback: Callback, keys: Sequence[bytes]) -> bool:
        """Whether the callback is the provider's own.

        True where the provider signs nothing: the address of a callback cannot be guessed, and all that follows
        from one is that the provider is asked.
        """
        return True

    # ------------------------------------------------------------------------------- the operator

    def build_check(self) -> Request | None:
        """The cheapest harmless call that needs the credentials, or None where there is none."""
        return None

    def read_check(self, answer: Answer) -> Check:
        """What the answer to `build_check` says."""
        return Check(answer.status < 400, f"HTTP {answer.status}")


class NeverSentError(Exception):
    """A transport could not reach the upstream: the request certainly had no effect."""


class AnswerLostError(Exception):
    """A transport sent the request, or part of it, and got no whole answer."""


class AnswerTooLargeError(AnswerLostError):
    """The answer's body is larger than was asked for; none of it is kept."""


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
