"""Errors as an assistant can use them: what is wrong, by which code and request, and what to do."""

from pydantic import ValidationError

from babysea import (
    APIError,
    AuthenticationError,
    BabySeaError,
    FirewallRejectedError,
    GenerationCanceledError,
    GenerationFailedError,
    InsufficientCreditsError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    TransportError,
)

_ADVICE: tuple[tuple[type[BabySeaError], str], ...] = (
    (AuthenticationError, "The user has to set BABYSEA_API_KEY to a valid key of this server and region."),
    (
        InsufficientCreditsError,
        "Choose something cheaper (estimate tells prices), or ask the user to add credits.",
    ),
    (PermissionDeniedError, "The user's API key does not allow this: it needs another scope or address."),
    (FirewallRejectedError, "The request is not one that this server takes: check the arguments."),
    (InvalidInputError, "get_model tells what the model takes."),
    (GenerationFailedError, "Its credits were returned. Change the prompt or the model, or try again."),
    (GenerationCanceledError, "Its credits were returned."),
    (TransportError, "Check that the BabySea server runs and its address is right, then try again."),
)


def explain(error: BabySeaError) -> str:
    """The error and what to do about it, in a line."""
    return f"{_sentence(str(error))} {_subject(error)}{_advice(error)}"


def misused(tool: str, error: ValidationError) -> str:
    """The first thing wrong with the arguments of a tool, in a line."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"]) or "the arguments"
    if first["type"] == "extra_forbidden":
        hint = " The model's own inputs go into `inputs`." if tool == "generate" else ""
        return f"{tool} has no argument `{name}`.{hint}"
    if first["type"] == "missing":
        return f"{tool} needs the argument `{name}`."
    return f"The argument `{name}` of {tool} is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}."


def surely_refused(error: BabySeaError) -> bool:
    """Whether nothing can have been bought: no attempt was carried out whose answer was lost."""
    if error.attempts > 1:
        return False
    if isinstance(error, TransportError):
        return not error.sent
    return isinstance(error, APIError) and (error.status is None or error.status < 500)


def _advice(error: BabySeaError) -> str:
    if isinstance(error, NotFoundError):
        found = "list_generations" if (error.code or "").startswith("BSE3") else "list_models"
        return f"{found} tells what there is."
    if isinstance(error, RateLimitError):
        after = f"{error.retry_after:.0f} seconds" if error.retry_after else "a moment"
        return f"Wait {after}, or until generations in flight have ended, then try again."
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return advice
    return "Try again later." if error.retryable else "If it happens again, tell the user."


def _subject(error: BabySeaError) -> str:
    """The generation that the error is about, so that nobody loses it."""
    return f"The generation is {error.generation_id}. " if error.generation_id else ""


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
