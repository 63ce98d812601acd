"""The headers of a delivery: BabySea's signature, and the one of Standard Webhooks beside it."""

import base64
import hashlib
import hmac
from datetime import datetime
from uuid import UUID

import msgspec

_PREFIX = "whsec_"


class _Told(msgspec.Struct):
    webhook_event: str
    webhook_timestamp: str


def sign(secret: str, delivery_id: UUID, body: bytes, now: datetime) -> dict[str, str]:
    """All headers that the contract names, for one attempt at `now`.

    Args:
        secret: `whsec_` and 32 base64 characters.
        body: as `body.Bodies.render` made it; event and time are taken from it, so that they are what it says.

    The two signatures differ in their key: BabySea's is the secret's whole text, that of Standard Webhooks
    (standardwebhooks.com) the bytes behind the prefix.
    """
    told = msgspec.json.decode(body, type=_Told)
    id, seconds = str(delivery_id), str(int(now.timestamp()))
    own = hmac.digest(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    standard = hmac.digest(key, f"{id}.{seconds}.".encode() + body, hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "X-BabySea-Signature": f"t={seconds},v1={own.hex()}",
        "X-BabySea-Event": told.webhook_event,
        "X-BabySea-Timestamp": told.webhook_timestamp,
        "X-BabySea-Delivery-Id": id,
        "webhook-id": id,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{base64.b64encode(standard).decode()}",
    }
