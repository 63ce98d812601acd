"""Everything that the client raises.

Our exception hierarchy:

    BabySeaError
     +- ConfigurationError               a key or an address is missing or makes no sense; nothing was sent
     +- TransportError                   no answer
     |   +- RequestTimeoutError          ... within the time; also a built-in TimeoutError
     |   +- NetworkError                 ... because the connection failed or broke
     +- APIError                         the server answered with an error
     |   +- AuthenticationError          401: no key, or one that is unknown here, revoked or expired
     |   +- InsufficientCreditsError     402
     |   +- PermissionDeniedError        403: the key's scopes or allowlist do not allow it
     |   +- FirewallRejectedError        403 BSE1010: not one of the published operations
     |   +- NotFoundError                404: no such model, generation or account
     |   +- ConflictError                409: of the generation's state, or of an idempotency key
     |   +- InvalidInputError            400, 413, 422; without `status`: refused before it was sent
     |   +- RateLimitError               429: too many requests or generations; `retry_after`
     |   +- ServerError                  5xx
     +- InvalidResponseError             an answer that is not the API's: a proxy's page, or another server
     +- GenerationError                  the request went well, and its generation did not
     |   +- GenerationFailedError        `code` tells why; it was refunded
     |   +- GenerationCanceledError
     |   +- GenerationTimeoutError       it is still running and can be waited for again; a TimeoutError, too
     +- DownloadError                    a file could not be had, or is no picture and no video
     +- RetriesExhaustedError            beside one of the above: what is raised after the last retry is of both

An error that was retried in vain keeps its class, so that `except RateLimitError` does not depend on settings, and is
a `RetriesExhaustedError` besides.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from babysea._types import Generation


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the plan allows in a minute, what is left of it, and when the minute ends."""

    limit: int
    remaining: int
    reset: datetime


@dataclass(frozen=True, slots=True)
class ProviderError:
    """What one provider of the chain answered."""

    provider: str
    code: str
    type: str
    message: str
    retryable: bool


class BabySeaError(Exception):
    """Whatever this package raises; what is not known is None.

    Attributes:
        message: a sentence for people.
        code: the code of the API, such as `BSE1004`; decide by it or by the class.
        type: its name, such as `insufficient_credits`.
        status: the HTTP status.
        retryable: whether the same request can succeed later and cannot buy twice.
        request_id: what the operator can look it up by.
        retry_after: seconds that the server asked to wait.
        rate_limit: the account's rate as the answer told it.
        details: facts for programs, such as the `field` at fault.
        provider_errors: what each provider answered.
        generation_id: the generation that the call was about.
        attempts: how often the request was sent.
    """

    code: str | None = None
    type: str | None = None
    status: int | None = None
    retryable: bool = False
    request_id: str | None = None
    retry_after: float | None = None
    rate_limit: RateLimit | None = None
    details: Mapping[str, Any] = MappingProxyType({})
    provider_errors: Sequence[ProviderError] = ()
    generation_id: str | None = None
    attempts: int = 1

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.__dict__.update(facts)

    def __str__(self) -> str:
        known = [
            self.code,
            self.request_id and f"request {self.request_id}",
            f"{self.attempts} attempts" if self.attempts > 1 else None,
        ]
        facts = ", ".join(fact for fact in known if fact)
        return f"{self.message} ({facts})" if facts else self.message

    def __reduce__(self) -> tuple[Callable[..., "BabySeaError"], tuple[Any, ...]]:
        return _restore, (_plain(type(self)), isinstance(self, RetriesExhaustedError), self.__dict__)


class ConfigurationError(BabySeaError):
    """A key or an address is missing or makes no sense; nothing was sent."""


class TransportError(BabySeaError):
    """There was no answer.

    Attributes:
        sent: whether the request may have reached the server.
    """

    sent: bool = True
    retryable = True


class RequestTimeoutError(TransportError, TimeoutError):
    """No answer within the time of one attempt."""


class NetworkError(TransportError):
    """The connection failed or broke."""


class APIError(BabySeaError):
    """The server answered with an error."""


class AuthenticationError(APIError):
    """401: no key, or one that is unknown in this region, revoked or expired."""


class InsufficientCreditsError(APIError):
    """402: the balance does not cover the request."""


class PermissionDeniedError(APIError):
    """403: the key lacks a scope, or its allowlist lacks this address."""


class FirewallRejectedError(APIError):
    """403 BSE1010: the request is not one of the published operations; `details` tells what is allowed."""


class NotFoundError(APIError):
    """404: there is no such model or generation, or no longer an account."""


class ConflictError(APIError):
    """409: the generation's state does not allow it, or the idempotency key was used for another request."""


class InvalidInputError(APIError):
    """400, 413, 422: the request is not what the model takes. `status` is None when it was refused before sending."""


class RateLimitError(APIError):
    """429: too many requests or generations at once, or too many failed authentications."""


class ServerError(APIError):
    """5xx: the server or its providers failed."""


class InvalidResponseError(BabySeaError):
    """The answer is not one of the API: a proxy's page, another server, or a member of the wrong type."""


class GenerationError(BabySeaError):
    """The request went well, and its generation did not.

    Attributes:
        generation: as it was last read, if it was.
    """

    generation: "Generation | None" = None


class GenerationFailedError(GenerationError):
    """It failed and was refunded; `code` and `message` tell why."""

    generation: "Generation"


class GenerationCanceledError(GenerationError):
    """It was canceled and refunded."""

    generation: "Generation"


class GenerationTimeoutError(GenerationError, TimeoutError):
    """It was not final within the time. It is still running: wait for `generation_id` again, or cancel it."""

    generation_id: str


class DownloadError(BabySeaError):
    """A file could not be had, is too large, or is neither picture nor video."""


class RetriesExhaustedError(BabySeaError):
    """What was raised after the last retry, beside its own class; `attempts` counts them all."""


def error_class(code: str | None, status: int) -> type[APIError]:
    """The class of an error answer."""
    if code == "BSE1010":
        return FirewallRejectedError
    return _BY_STATUS.get(status, ServerError if status >= 500 else APIError)


_BY_STATUS: Mapping[int, type[APIError]] = {
    400: InvalidInputError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidInputError,
    422: InvalidInputError,
    429: RateLimitError,
}


def exhausted(error: BabySeaError) -> BabySeaError:
    """The same error, as one that no retry is left for."""
    return _restore(type(error), True, error.__dict__).with_traceback(error.__traceback__)


def _restore(kind: type[BabySeaError], is_exhausted: bool, facts: Mapping[str, Any]) -> BabySeaError:
    made: type[BabySeaError] = _exhausted_class(cast(Hashable, kind)) if is_exhausted else kind
    return made(**facts)


@cache
def _exhausted_class(kind: Any) -> type[BabySeaError]:
    names = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (RetriesExhaustedError, kind), names)


def _plain(kind: type[BabySeaError]) -> type[BabySeaError]:
    """A class that has a name of its own, which is what pickling goes by."""
    is_made = kind is not RetriesExhaustedError and issubclass(kind, RetriesExhaustedError)
    return kind.__bases__[1] if is_made else kind
