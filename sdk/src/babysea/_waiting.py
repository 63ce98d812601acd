"""Waiting until a generation is final, without ever losing it."""

from collections.abc import Callable

from babysea._answers import read_answer
from babysea._effects import Flow, Sleep
from babysea._errors import (
    BabySeaError,
    GenerationCanceledError,
    GenerationFailedError,
    GenerationTimeoutError,
    InvalidResponseError,
    ServerError,
)
from babysea._exchange import Exchange
from babysea._operations import GET_GENERATION, generation_id
from babysea._types import Generation

_FIRST_S = 0.5
_GROWTH = 1.5
_LONGEST_S = 5.0
_LAST_READ_S = 1.0

OnUpdate = Callable[[Generation], object]


def wait_until_final(
    exchange: Exchange,
    id: str,
    *,
    timeout: float,
    poll_interval: float | None = None,
    on_update: OnUpdate | None = None,
) -> Flow[Generation]:
    """Read a generation until it succeeded.

    What may pass, such as a server that restarts, is waited out: only the deadline ends it.

    Raises:
        GenerationFailedError, GenerationCanceledError: it ended otherwise.
        GenerationTimeoutError: it was not final within `timeout` seconds.
        BabySeaError: it cannot be read, now or later.
    """
    clock, id = exchange.clock, generation_id(id)
    deadline = clock.monotonic() + timeout
    generation: Generation | None = None
    interval = _FIRST_S if poll_interval is None else poll_interval
    while True:
        left = max(_LAST_READ_S, deadline - clock.monotonic())
        problem: BabySeaError | None = None
        try:
            success = yield from exchange.once(
                GET_GENERATION.request(generation_id=id), min(exchange.timeout, left)
            )
            read = read_answer(Generation, success)
        except BabySeaError as error:
            error.generation_id = id
            if not _passes(error):
                raise
            problem = error
        else:
            if on_update is not None and (generation is None or generation.status != read.status):
                on_update(read)
            generation = read
            if generation.done:
                return succeeded(generation)
        left = deadline - clock.monotonic()
        if left <= 0:
            raise GenerationTimeoutError(
                "The generation was not final in time; it is still running.",
                generation_id=id,
                generation=generation,
            ) from problem
        asked = problem.retry_after if problem is not None and problem.retry_after is not None else 0.0
        yield Sleep(min(max(interval, asked), left))
        if poll_interval is None:
            interval = min(_LONGEST_S, interval * _GROWTH)


def _passes(error: BabySeaError) -> bool:
    # Reading is free of effects, so also errors that say nothing of a retry are worth one.
    return error.retryable or isinstance(error, ServerError | InvalidResponseError)


def succeeded(generation: Generation) -> Generation:
    """The final generation, if it succeeded.

    Raises:
        GenerationFailedError, GenerationCanceledError: it did not.
    """
    facts = {
        "generation_id": generation.id,
        "generation": generation,
        "request_id": generation.request_id,
    }
    if generation.status == "failed":
        message = generation.generation_error or "The generation failed."
        raise GenerationFailedError(message, code=generation.generation_error_code, **facts)
    if generation.status == "canceled":
        raise GenerationCanceledError("The generation was canceled.", **facts)
    return generation
