"""The headers of a delivery, verified by receivers that share nothing with the server."""

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook
from tests.sdk.signing import signed, standard_signed

from babysea.webhooks import verify
from babysea_server.webhooks.secrets import new_secret
from babysea_server.webhooks.signing import sign

ID = UUID("0c5e9a3e-6f0d-4c43-9a52-2f8f3f1f7d11")
VERIFIER = Path(__file__).parents[1] / "sdk" / "verify.mjs"


def _body(**data: object) -> bytes:
    return json.dumps(
        {
            "webhook_event": "generation.completed",
            "webhook_timestamp": "2026-04-28T12:00:00.000Z",
            "webhook_delivery_id": str(ID),
            "webhook_data": {
                "account_id": "a",
                "model_identifier": "m",
                "generation_id": "g",
                "generation_status": "succeeded",
                **data,
            },
        },
        ensure_ascii=False,
    ).encode()


def test_all_headers_of_the_contract_are_there_and_no_others() -> None:
    headers = sign(new_secret(), ID, _body(), datetime(2026, 4, 28, 12, 0, 0, 999_999, tzinfo=UTC))
    assert list(headers) == [
        "Content-Type",
        "X-BabySea-Signature",
        "X-BabySea-Event",
        "X-BabySea-Timestamp",
        "X-BabySea-Delivery-Id",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ]
    assert headers["X-BabySea-Timestamp"] == "2026-04-28T12:00:00.000Z"
    assert headers["webhook-timestamp"] == "1777377600"
    assert headers["X-BabySea-Signature"].startswith("t=1777377600,v1=")


@given(st.text(), st.integers(1, 2**33))
def test_signatures_are_those_of_an_independent_implementation(text: str, at: int) -> None:
    secret, body = new_secret(), _body(generation_error=text.encode("utf-8", "replace").decode())
    headers = sign(secret, ID, body, datetime.fromtimestamp(at, UTC))
    assert signed(body, secret, at).items() <= headers.items()
    assert standard_signed(body, secret, at, str(ID)).items() <= headers.items()


def test_the_sdk_and_the_standard_library_for_receivers_accept_them() -> None:
    secret, body, now = new_secret(), _body(), datetime.now(UTC)
    headers = sign(secret, ID, body, now)
    assert verify(body, headers, secret).delivery_id == str(ID)
    assert Webhook(secret).verify(body, headers) == json.loads(body)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed on this machine")
def test_nodes_own_crypto_accepts_them() -> None:
    cases = []
    for number in range(5):
        secret, body = new_secret(), _body(generation_error="ünï\u2028" * number)
        headers = sign(secret, ID, body, datetime(2026, 4, 28, 12, number, tzinfo=UTC))
        cases.append(
            {
                "secret": secret,
                "timestamp": int(headers["webhook-timestamp"]),
                "id": str(ID),
                "body": body.decode(),
                "babysea": headers["X-BabySea-Signature"],
                "standard": headers["webhook-signature"],
            }
        )
    answer = subprocess.run(
        ["node", str(VERIFIER), "verify"], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == [{"babysea": True, "standard": True}] * 5
