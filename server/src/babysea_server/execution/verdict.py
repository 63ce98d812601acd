"""What a failed attempt means for the generation: one table, from which everything follows."""

from collections.abc import Mapping, Sequence

import msgspec

from babysea_server import errors
from babysea_server.errors import ErrorSpec
from babysea_server.providers.base import Failure


class Rule(msgspec.Struct, frozen=True):
    """One row: which error the customer meets if this ends the generation, and what happens next."""

    error: ErrorSpec
    sentence: str
    next_provider: bool
    trips_breaker: bool


#: Source: design, section 4. The customer's own mistake never trips a breaker; a refusal for content and an
#: unknown outcome end the chain, because asking elsewhere would walk around the one and buy twice on the other.
RULES: Mapping[Failure, Rule] = {
    Failure.NEVER_SENT: Rule(errors.PROVIDER_ERROR, "The provider could not be reached.", True, True),
    Failure.REFUSED_BUSY: Rule(errors.PROVIDER_CAPACITY, "The provider has no capacity now.", True, True),
    Failure.REFUSED_AUTH: Rule(
        errors.PROVIDER_AUTHENTICATION_FAILED, "The provider refused the operator's credentials.", True, True
    ),
    Failure.REFUSED_FUNDS: Rule(
        errors.PROVIDER_CREDITS_EXHAUSTED,
        "The operator's balance at the provider is used up.",
        True,
        True,
    ),
    Failure.REFUSED_INPUT: Rule(
        errors.PROVIDER_REJECTED_INPUT, "The provider did not accept the request's values.", True, False
    ),
    Failure.REFUSED_POLICY: Rule(
        errors.CONTENT_POLICY_VIOLATION, "The provider refused the request for its content.", False, False
    ),
    Failure.FAILED: Rule(errors.PROVIDER_ERROR, "The provider failed to make the output.", True, True),
    Failure.TIMED_OUT: Rule(errors.PROVIDER_TIMEOUT, "The provider took too long.", True, True),
    Failure.OUTCOME_UNKNOWN: Rule(
        errors.PROVIDER_OUTCOME_UNKNOWN,
        "The provider got the request and its answer was lost; it was not sent again.",
        False,
        True,
    ),
    Failure.BAD_OUTPUT: Rule(
        errors.PROVIDER_OUTPUT_INVALID, "The provider reported success without a readable output.", True, True
    ),
}


class FailedAttempt(msgspec.Struct, frozen=True):
    """How one attempt ended, as the verdict needs it.

    `code` narrows the customer's error. `buys_again` is the operator's choice after an unknown outcome.
    """

    provider: str
    failure: Failure
    code: str | None = None
    buys_again: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """The customer's error for a generation that failed. Credits are always refunded whole."""

    code: str
    message: str


def goes_on(failed: FailedAttempt) -> bool:
    """Whether the next provider of the chain is asked after this failure.

    Storage that fails is ours, not the provider's: another purchase would meet the same storage.
    """
    if failed.code == errors.STORAGE_ERROR.code:
        return False
    return RULES[failed.failure].next_provider or failed.buys_again


def verdict(failed: Sequence[FailedAttempt]) -> Verdict:
    """The error of a generation whose chain is at its end.

    One way of failing, once or everywhere, gives its own code; a failure that ended the chain early gives
    its code whatever came before; different ways give BSE4006.
    """
    if not failed:
        return Verdict(
            errors.NO_PROVIDER_AVAILABLE.code, "No provider could be called. You were not charged."
        )
    last = failed[-1]
    codes = {_code(attempt) for attempt in failed}
    if goes_on(last) and len(codes) > 1:
        names = ", ".join(dict.fromkeys(attempt.provider for attempt in failed))
        return Verdict(
            errors.ALL_PROVIDERS_FAILED.code, f"All providers failed ({names}). You were not charged."
        )
    sentence = (
        "The output could not be stored."
        if last.code == errors.STORAGE_ERROR.code
        else RULES[last.failure].sentence
    )
    return Verdict(_code(last), f"{sentence} You were not charged.")


def _code(attempt: FailedAttempt) -> str:
    return attempt.code or RULES[attempt.failure].error.code
