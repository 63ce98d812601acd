"""What is said when a command cannot do what it was asked for: one sentence, and what to do about it."""

from collections.abc import Mapping
from typing import Any

from babysea import (
    AuthenticationError,
    BabySeaError,
    ConfigurationError,
    DownloadError,
    GenerationCanceledError,
    GenerationFailedError,
    GenerationTimeoutError,
    InsufficientCreditsError,
    InvalidInputError,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)

FAILED = 1
USAGE = 2
PARTIAL = 3
INTERRUPTED = 130

NOT_CHARGED = "You were not charged."


class CommandError(Exception):
    """A command that ends here, with a sentence, a hint of what to do, and an exit code."""

    def __init__(self, message: str, hint: str = "", *, code: int = USAGE, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.facts = facts


_BY_CODE: Mapping[str, str] = {
    "BSE1003": "The key lacks a scope for this: log in with one that has it.",
    "BSE1007": "The key may not be used from this address: use it from one on its allowlist.",
    "BSE2006": "Say it otherwise: every provider would refuse it.",
    "BSE2011": "`babysea models` lists what there is.",
    "BSE2012": "`babysea models` says what each model makes: use `babysea image` or `babysea video`.",
    "BSE2015": "Use another --idempotency-key, or none.",
    "BSE3001": "`babysea list` shows what there is; ids belong to one account and region.",
    "BSE3002": "It is final: `babysea get ID` shows how it ended.",
    "BSE3003": "Cancel it first: `babysea cancel ID`.",
}

_BY_CLASS: tuple[tuple[type[BabySeaError], str], ...] = (
    (ConfigurationError, "See `babysea login --help`."),
    (AuthenticationError, "Check the key and its region, then `babysea login` again."),
    (InsufficientCreditsError, f"{NOT_CHARGED} `babysea usage` shows the balance."),
    (PermissionDeniedError, "The key does not allow it: log in with another."),
    (NotFoundError, "`babysea list` and `babysea models` show what there is."),
    (InvalidInputError, "`babysea models show MODEL` tells what a model takes."),
    (GenerationFailedError, f"{NOT_CHARGED} Another model, or later again, may work."),
    (GenerationCanceledError, NOT_CHARGED),
    (NetworkError, "Is the server running, and is the address right? `babysea profiles` shows it."),
    (RequestTimeoutError, "The server may be busy: try again."),
    (InvalidResponseError, "Is this the address of a BabySea server? `babysea profiles` shows it."),
    (DownloadError, "The generation is kept: `babysea download ID` gets its files."),
    (ServerError, "Try again later; the operator can look the request up by its id."),
)


def hint_for(error: BabySeaError) -> str:
    """What to do about an error of a call."""
    if isinstance(error, RateLimitError):
        return (
            f"Try again in {error.retry_after:.0f} s."
            if error.retry_after
            else "Try again when less is in flight."
        )
    if isinstance(error, GenerationTimeoutError):
        return f"It is still running: {later(error.generation_id)}"
    if isinstance(error, InvalidInputError) and error.status is None:
        return ""  # its sentence says what would be right
    hint = _BY_CODE.get(error.code or "") or next(
        (text for kind, text in _BY_CLASS if isinstance(error, kind)), ""
    )
    if isinstance(error, GenerationFailedError | GenerationCanceledError):
        hint = hint.replace(NOT_CHARGED, "").strip()
        if NOT_CHARGED not in error.message:
            hint = f"{NOT_CHARGED} {hint}".strip()
    return hint.replace(" ID`", f" {error.generation_id}`") if error.generation_id else hint


def later(id: str, output: str = "") -> str:
    """How to get a generation that goes on without us."""
    return f"`babysea download {id}{f' -o {output}' if output else ''}` waits for it and saves it."


def exit_code(error: BabySeaError) -> int:
    """2 for what was wrong before anything was sent, else 1."""
    refused = isinstance(error, InvalidInputError) and error.status is None
    return USAGE if refused or isinstance(error, ConfigurationError) else FAILED


def as_record(error: BaseException) -> dict[str, Any]:
    """An error for programs."""
    if isinstance(error, CommandError):
        cause = as_record(error.__cause__) if error.__cause__ else {"code": None}
        return {**cause, "message": error.message, **error.facts}
    if not isinstance(error, BabySeaError):
        return {"code": None, "message": str(error) or type(error).__name__}
    return {
        "code": error.code,
        "type": error.type,
        "message": error.message,
        "retryable": error.retryable,
        "request_id": error.request_id,
        "generation_id": error.generation_id,
        "details": dict(error.details),
    }
