"""What adapters share in building requests and reading answers: JSON, forms, `Retry-After`, refusals by table."""

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from babysea_server.kit import json
from babysea_server.providers.base import Answer, Failure, Refused, Request

#: A provider may ask for a longer pause; nobody waits for it, so more says nothing more.
_RETRY_AFTER_MAX_S = 86_400.0
_MESSAGE_MAX = 500
#: Searching more than this for a refusal's words finds nothing more.
_SAID_MAX = 10_000
_QUERY = re.compile(r"(https?://[^\s?#]*)[?#][^\s\"'<>)\]]*")
_SAYS = ("detail", "message", "error", "msg", "title", "failure", "reason", "errors")


def json_request(
    method: Literal["GET", "POST", "PUT", "DELETE"],
    url: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None = None,
) -> Request:
    """A request with a JSON body, or with none."""
    if body is None:
        return Request(method, url, headers)
    return Request(method, url, {**headers, "content-type": "application/json"}, json.dumps(body))


class Part(msgspec.Struct, frozen=True):
    """One part of a form: a text, or a file with its name and type."""

    name: str
    value: str | bytes
    filename: str | None = None
    content_type: str | None = None


def form_request(url: str, headers: Mapping[str, str], parts: Sequence[Part]) -> Request:
    """A POST of `multipart/form-data` (RFC 7578)."""
    boundary = f"babysea-{secrets.token_hex(16)}"
    lines: list[bytes] = []
    for part in parts:
        disposition = f'form-data; name="{_quoted(part.name)}"'
        if part.filename is not None:
            disposition += f'; filename="{_quoted(part.filename)}"'
        head = f"--{boundary}\r\ncontent-disposition: {disposition}\r\n"
        if part.content_type is not None:
            head += f"content-type: {part.content_type}\r\n"
        value = part.value.encode() if isinstance(part.value, str) else part.value
        lines += [head.encode(), b"\r\n", value, b"\r\n"]
    body = b"".join([*lines, f"--{boundary}--\r\n".encode()])
    content_type = f"multipart/form-data; boundary={boundary}"
    return Request("POST", url, {**headers, "content-type": content_type}, body)


def _quoted(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def document(answer: Answer) -> dict[str, Any]:
    """The answer's JSON object; empty where it is none."""
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def at(value: Any, *path: str | int) -> Any:
    """What stands at a path of keys and indices in decoded JSON; None where there is nothing."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def text(value: Any) -> str:
    """A text of decoded JSON, without the NULs that no database keeps; empty where it is none."""
    return value.replace("\0", "") if isinstance(value, str) else ""


def number(value: Any) -> float | None:
    """A finite number of decoded JSON, also one written as text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < 1e15 else None


def micro_dollars(dollars: float | None) -> int | None:
    """US dollars as micro-dollars, which the attempt log counts costs in."""
    return None if dollars is None else round(dollars * 1_000_000)


def words(body: Any) -> str:
    """What an error body says to people, from the places where APIs put it; at most 500 characters."""
    return _line(_words(body, 0))


def _line(said: str) -> str:
    """One line that can be shown and stored: without the parts of addresses that hold tokens."""
    line = " ".join(said[:_SAID_MAX].replace("\0", " ").split())
    return _QUERY.sub(r"\1", line)[:_MESSAGE_MAX]


def _words(body: Any, depth: int) -> str:
    if isinstance(body, str):
        return body
    if depth > 3:
        return ""
    if isinstance(body, list):
        return "; ".join(filter(None, (_words(item, depth + 1) for item in body[:5])))
    if isinstance(body, dict):
        return next(filter(None, (_words(body.get(key), depth + 1) for key in _SAYS)), "")
    return ""


def told(answer: Answer) -> str:
    """One line for the attempt log: the status, and what the body says, whether JSON or a short text."""
    said = words(document(answer))
    if not said and answer.headers.get("content-type", "").startswith("text/plain"):
        said = _line(answer.body[:_SAID_MAX].decode("utf-8", "replace"))
    return f"HTTP {answer.status}: {said}"[:_MESSAGE_MAX] if said else f"HTTP {answer.status}"


def retry_after_s(answer: Answer, now: datetime | None = None) -> float | None:
    """`Retry-After` in seconds, from either of its forms (RFC 9110, 10.2.3); None where it is absent or nonsense."""
    value = answer.headers.get("retry-after", "").strip()
    if not value:
        return None
    seconds = number(value)
    if seconds is None:
        try:
            moment = parsedate_to_datetime(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = (moment - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), _RETRY_AFTER_MAX_S)


class Sign(msgspec.Struct, frozen=True):
    """One row of an adapter's table of refusals: by what an answer is known, and what it means.

    Every condition that is given must hold; `says` is searched, ignoring case, in the error's code and words.
    """

    failure: Failure
    status: int | None = None
    says: str | None = None
    code: str | None = None
    """The customer's error where it is narrower than the class's own."""

    def fits(self, status: int, said: str) -> bool:
        """Whether an answer is known by this row."""
        if self.status is not None and self.status != status:
            return False
        return self.says is None or re.search(self.says, said, re.IGNORECASE) is not None


#: What HTTP itself says, where an adapter's own rows know nothing better. 5xx and the rest are FAILED: the provider
#: answered, so nothing is unknown, and no provider bills what it answers with an error.
_BY_STATUS = (
    Sign(Failure.REFUSED_INPUT, 400),
    Sign(Failure.REFUSED_AUTH, 401),
    Sign(Failure.REFUSED_FUNDS, 402),
    Sign(Failure.REFUSED_AUTH, 403),
    Sign(Failure.REFUSED_INPUT, 413),
    Sign(Failure.REFUSED_INPUT, 415),
    Sign(Failure.REFUSED_INPUT, 422),
    Sign(Failure.REFUSED_BUSY, 429, code="BSE4003"),
    Sign(Failure.REFUSED_BUSY, 503),
)


def refused(answer: Answer, signs: Sequence[Sign], said: str | None = None) -> Refused:
    """The refusal that an answer tells of: the first row that fits, the adapter's own before those of HTTP.

    Args:
        said: what is searched, code and words; by default the words of the body.
    """
    message = told(answer)
    searched = said if said is not None else words(document(answer))
    for sign in (*signs, *_BY_STATUS):
        if sign.fits(answer.status, searched):
            wait = retry_after_s(answer) if sign.failure is Failure.REFUSED_BUSY else None
            return Refused(sign.failure, message, sign.code, wait)
    return Refused(Failure.FAILED, message)


def failed(said: str, signs: Sequence[Sign], *, cost_micro: int | None = None) -> Refused:
    """The refusal that a job's own end tells of, by its code and words; FAILED where no row fits."""
    message = _line(said) or "the job failed"
    for sign in signs:
        if sign.status is None and sign.fits(0, said[:_SAID_MAX]):
            return Refused(sign.failure, message, sign.code, cost_micro=cost_micro)
    return Refused(Failure.FAILED, message, cost_micro=cost_micro)


def same_host(url: str, base: str) -> bool:
    """Whether a URL leads to the very origin of another."""
    try:
        one, other = urlsplit(url), urlsplit(base)
    except ValueError:
        return False
    return (one.scheme, one.netloc) == (other.scheme, other.netloc)
