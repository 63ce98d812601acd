"""One call: sent, and sent again while that can help and cannot buy twice."""

from dataclasses import dataclass

from babysea._answers import Success, read_response
from babysea._clock import Clock
from babysea._effects import Flow, Response, Send, Sleep
from babysea._errors import BabySeaError, ConfigurationError, TransportError, exhausted
from babysea._operations import Request

_RETRY_AFTER_MAX_S = 60.0
_BACKOFF_S = 0.5
_BACKOFF_MAX_S = 30.0
_DOUBLINGS_MAX = 10


@dataclass(frozen=True, slots=True)
class Exchange:
    """Sends requests: seconds for each part of an attempt, attempts beyond the first, time and chance."""

    timeout: float
    max_retries: int
    clock: Clock

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.max_retries < 0:
            raise ConfigurationError("a timeout is more than 0 seconds, and retries are not less than 0")

    def once(self, request: Request, timeout: float | None = None) -> Flow[Success]:
        """One attempt, perhaps with less time.

        Raises:
            BabySeaError: the error that it was answered, or that there was no answer.
        """
        response: Response = yield Send(request, self.timeout if timeout is None else timeout)
        answer = read_response(response, self.clock.now())
        if isinstance(answer, BabySeaError):
            raise answer
        return answer

    def call(self, request: Request, history: "History | None" = None) -> Flow[Success]:
        """As many attempts as are of use. What `history` is given knows afterwards what became of each.

        Raises:
            BabySeaError: the last error; a `RetriesExhaustedError` besides, when only their number ended the retries.
        """
        history = history or History()
        while True:
            try:
                return (yield from self.once(request))
            except BabySeaError as error:
                history.errors.append(error)
                error.attempts = len(history.errors)
                pause = self.pause(error, len(history.errors))
                if pause is None:
                    raise
                if len(history.errors) > self.max_retries:
                    if len(history.errors) == 1:
                        raise
                    raise exhausted(error) from error.__cause__
            yield Sleep(pause)

    def pause(self, error: BabySeaError, attempts: int) -> float | None:
        """Seconds to wait after so many attempts; None when another is of no use.

        That is what the server asks for, up to a minute: a program that stands still for longer looks dead, so
        then its author is told instead. Without that it is anything up to a bound that doubles (full jitter).
        """
        if not error.retryable:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= _RETRY_AFTER_MAX_S else None
        bound: float = min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** min(attempts - 1, _DOUBLINGS_MAX))
        return self.clock.random() * bound


class History:
    """The errors of a call's attempts, the oldest first."""

    def __init__(self) -> None:
        self.errors: list[BabySeaError] = []

    @property
    def maybe_done(self) -> bool:
        """Whether an attempt before the last may have been carried out, its answer lost."""
        return any(_lost(error) for error in self.errors[:-1])


def _lost(error: BabySeaError) -> bool:
    if isinstance(error, TransportError):
        return error.sent
    return error.code is None  # a proxy answered, not the server
