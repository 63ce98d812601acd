"""Bodies of webhooks and the headers that sign them, written for the tests of their receiver."""

import base64
import hashlib
import hmac
import json
from typing import Any

#: Behind the prefix: 32 characters of the base64 alphabet, which are 24 bytes.
SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(24, 48))).decode()
#: A second of 28 April 2026, when the webhooks of the tests are signed.
AT = 1_777_377_600
DELIVERY_ID = "0c5e9a3e-6f0d-4c43-9a52-2f8f3f1f7d11"
GENERATION: dict[str, Any] = {
    "account_id": "8d4f3f5c-9a50-4d33-b2a9-0f6d2a1f7c02",
    "model_identifier": "bfl/flux-schnell",
    "generation_id": "5b8f4a5d-25f8-4be5-8a0e-7c1d7f1f9b03",
    "generation_status": "succeeded",
}


def body(event: str = "generation.completed", data: Any = None, **more: Any) -> bytes:
    """A webhook's body, of a generation if not told otherwise."""
    return json.dumps(
        {
            "webhook_event": event,
            "webhook_timestamp": "2026-04-28T12:00:00.000Z",
            "webhook_delivery_id": DELIVERY_ID,
            "webhook_data": GENERATION if data is None else data,
            **more,
        },
        ensure_ascii=False,
    ).encode()


def v1(payload: bytes, secret: str = SECRET, at: int = AT) -> str:
    """The hexadecimal signature of a body at a time in unix seconds."""
    return hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256).hexdigest()


def signed(payload: bytes, secret: str = SECRET, at: int = AT) -> dict[str, str]:
    """The header of the BabySea scheme."""
    return {"X-BabySea-Signature": f"t={at},v1={v1(payload, secret, at)}"}


def standard_signed(
    payload: bytes, secret: str = SECRET, at: int = AT, id: str = DELIVERY_ID
) -> dict[str, str]:
    """The three headers of Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{id}.{at}.".encode() + payload, hashlib.sha256).digest()
    return {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
