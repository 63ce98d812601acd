"""Who sent a webhook: signature and age of a request, before its body is believed."""

import hmac
import time
from base64 import b64decode, b64encode
from binascii import hexlify
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from babysea._webhook_events import Event, read_event

_PREFIX = "whsec_"


class WebhookVerificationError(ValueError):
    """This is no fresh event from whoever shares the secret; the message says why and quotes nothing."""


class _Headers(Protocol):
    """Any mapping of strings, and what frameworks have instead."""

    def items(self) -> Iterable[tuple[str, str]]: ...


def verify(
    payload: bytes | str,
    headers: _Headers,
    secret: str | Sequence[str],
    *,
    tolerance: float = 300,
    now: float | None = None,
) -> Event:
    """The event in a request whose `X-BabySea-Signature` or, without one, Standard Webhooks signature is right.

    `payload` is the body exactly as it arrived; JSON decoded and encoded again is not what was signed. Names in
    `headers` may be in any case, or as in a WSGI environment. `secret` is the endpoint's, `whsec_` included, or
    several while one replaces another. The signature's time may be `tolerance` seconds before or after `now`
    (unix seconds; the present when left out).

    Raises:
        WebhookVerificationError: the request is not to be believed, or its body is not an event.
        ValueError: a secret is empty, and anybody could sign with that.
    """
    secrets = [secret] if isinstance(secret, str) else secret
    if not secrets or not all(one.removeprefix(_PREFIX) for one in secrets):
        raise ValueError("a webhook secret is empty")
    body = _bytes(payload) if isinstance(payload, str) else payload
    claim = _claim({_plain(name): value for name, value in headers.items()})
    if not (claim.timestamp.isascii() and claim.timestamp.isdigit() and len(claim.timestamp) <= 12):
        raise WebhookVerificationError("malformed timestamp")
    message = _bytes(claim.signed) + body
    valid = [claim.write(hmac.digest(claim.key(one), message, "sha256")) for one in secrets]
    equal = [hmac.compare_digest(one, _bytes(given)) for one in valid for given in claim.signatures]
    if not any(equal):  # after all were compared, whichever fits
        raise WebhookVerificationError("no signature matches")
    age = (time.time() if now is None else now) - int(claim.timestamp)
    if not abs(age) <= tolerance:
        raise WebhookVerificationError("signature too old" if age > 0 else "signature too new")
    try:
        return read_event(body)
    except ValueError as error:
        raise WebhookVerificationError(f"malformed payload: {error}") from None


class _Claim(NamedTuple):
    """What a request says of its signature; `signed` is what precedes the body in the message."""

    timestamp: str
    signed: str
    signatures: list[str]
    key: Callable[[str], bytes]
    write: Callable[[bytes], bytes]


def _claim(headers: Mapping[str, str]) -> _Claim:
    if (header := headers.get("x-babysea-signature")) is not None:
        pairs = [part.partition("=") for part in header.split(",")]
        times = [value for name, _, value in pairs if name == "t"]
        signatures = [value for name, _, value in pairs if name == "v1"]
        if len(times) != 1 or not signatures:
            raise WebhookVerificationError("malformed X-BabySea-Signature")
        return _Claim(times[0], f"{times[0]}.", signatures, str.encode, hexlify)
    id, timestamp, header = (headers.get(f"webhook-{name}") for name in ("id", "timestamp", "signature"))
    if id is None or timestamp is None or header is None:
        raise WebhookVerificationError("missing header X-BabySea-Signature")
    signatures = [one.removeprefix("v1,") for one in header.split(" ") if one.startswith("v1,")]
    if not id or "." in id or not signatures:  # a dot would leave open where the id ends
        raise WebhookVerificationError("malformed webhook-id or webhook-signature")
    return _Claim(timestamp, f"{id}.{timestamp}.", signatures, _standard_key, b64encode)


def _standard_key(secret: str) -> bytes:
    """The key of Standard Webhooks: base64 behind `whsec_`, which BabySea's always are, else that text itself."""
    text = secret.removeprefix(_PREFIX)
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return text.encode()


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("http-")  # WSGI writes HTTP_X_BABYSEA_SIGNATURE


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # halves of characters are refused as no match, not here
