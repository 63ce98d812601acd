"""How providers sign their callbacks."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

from babysea_server.providers.base import Callback

#: A callback that was signed longer ago, or later, than this is not believed.
TOLERANCE_S = 300.0
_PREFIX = "whsec_"


def signed_now(timestamp: str, received_at: float) -> bool:
    """Whether a signature's time, in unix seconds as it was received, lies close to its arrival."""
    return (
        timestamp.isascii()
        and timestamp.isdigit()
        and len(timestamp) <= 15
        and abs(received_at - int(timestamp)) <= TOLERANCE_S
    )


def standard_webhook_key(secret: str) -> bytes:
    """The HMAC key in a secret: base64 behind `whsec_`, else the text itself."""
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return secret.encode()


def verifies_standard_webhook(callback: Callback, keys: Iterable[bytes]) -> bool:
    """Whether a callback carries a signature by one of the keys, after the Standard Webhooks specification.

    HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`; the header lists any number of `v1,<base64>`.
    """
    id, timestamp, signatures = (
        callback.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
    )
    if not id or not signed_now(timestamp, callback.received_at):
        return False
    message = f"{id}.{timestamp}.".encode("utf-8", "replace") + callback.body
    given = [
        entry.removeprefix("v1,").encode("utf-8", "replace")
        for entry in signatures.split()
        if entry.startswith("v1,")
    ]
    valid = [base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()) for key in keys]
    equal = [hmac.compare_digest(one, other) for one in valid for other in given]  # all, whichever fits
    return any(equal)
