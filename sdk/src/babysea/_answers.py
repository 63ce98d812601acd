"""Answers read: into data or into the error that they are."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from babysea._effects import Response
from babysea._errors import (
    BabySeaError,
    InvalidResponseError,
    ProviderError,
    RateLimit,
    RateLimitError,
    ServerError,
    error_class,
)
from babysea._reading import read_record
from babysea._types import Answer

_RETRIED_STATUSES = (408, 429, 502, 503, 504)  # of answers that are not the API's own


@dataclass(frozen=True, slots=True)
class Success:
    """A successful answer: its whole envelope, and its headers."""

    request_id: str
    envelope: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def data(self) -> Any:
        """What was asked for."""
        return self.envelope.get("data")


Kind = TypeVar("Kind", bound=Answer)


def read_answer(kind: type[Kind], success: Success, **given: Any) -> Kind:
    """The data of an answer.

    Raises:
        InvalidResponseError: a member is missing or of the wrong type.
    """
    return read_data(kind, success.data, success.request_id, "data", **given)


def read_data(kind: type[Kind], data: Any, request_id: str, name: str, **given: Any) -> Kind:
    """One object of an answer, `name` is where it stands in it.

    Raises:
        InvalidResponseError: a member is missing or of the wrong type.
    """
    try:
        return read_record(kind, data, name, request_id=request_id, raw=data, **given)
    except ValueError as error:
        raise InvalidResponseError(
            f"the answer is not one of this API: {error}", request_id=request_id
        ) from None


def read_response(response: Response, now: float) -> Success | BabySeaError:
    """The success or the error that an answer is; `now` in unix seconds counts dates of Retry-After."""
    envelope = _object(response.body)
    request_id = _text(envelope.get("request_id")) or response.headers.get("x-request-id")
    if 200 <= response.status < 300 and envelope.get("status") == "success" and "data" in envelope:
        return Success(request_id or "", envelope, response.headers)
    facts: dict[str, Any] = {
        "status": response.status,
        "request_id": request_id,
        "retry_after": _retry_after(response.headers.get("retry-after"), now),
        "rate_limit": _rate_limit(response.headers),
    }
    error = envelope.get("error")
    if response.status >= 400 and isinstance(error, dict) and (code := _text(error.get("code"))):
        facts |= {
            "code": code,
            "type": _text(error.get("type")),
            "retryable": error.get("retryable") is True or response.status in (408, 429),
            "details": _mapping(error.get("details")),
            "provider_errors": tuple(_provider_errors(error.get("provider_errors"))),
        }
        message = _text(error.get("message")) or "The server told no reason."
        return error_class(code, response.status)(message, **facts)
    return _foreign(facts)


def _foreign(facts: dict[str, Any]) -> BabySeaError:
    """An answer that is not the API's: a proxy's, or another server's."""
    status = facts["status"]
    message = f"the answer, of HTTP status {status}, is not one of this API"
    facts["retryable"] = status in _RETRIED_STATUSES
    if status == 429:
        return RateLimitError(message, **facts)
    return ServerError(message, **facts) if status >= 500 else InvalidResponseError(message, **facts)


def _object(body: bytes) -> Mapping[str, Any]:
    with suppress(ValueError, RecursionError):
        return _mapping(json.loads(body))
    return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _provider_errors(value: Any) -> list[ProviderError]:
    """Those that can be read: an error must not be lost over its particulars."""
    found = []
    for one in value if isinstance(value, list) else ():
        facts = _mapping(one)
        texts = {name: str(facts.get(name, "")) for name in ("provider", "code", "type", "message")}
        found.append(ProviderError(**texts, retryable=facts.get("retryable") is True))
    return found


def _retry_after(text: str | None, now: float) -> float | None:
    """Seconds, from a number of them or from an HTTP date; None for anything else."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return float(text)
    from email.utils import (
        parsedate_to_datetime,
    )  # a seventh of this package's import, and hardly ever of use

    with suppress(ValueError):
        at = parsedate_to_datetime(text)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now)
    return None


def _rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    values = [headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining", "reset")]
    with suppress(ValueError, OverflowError, OSError):
        limit, remaining, reset = (int(value[:15]) for value in values)
        return RateLimit(limit, remaining, datetime.fromtimestamp(reset, UTC))
    return None
