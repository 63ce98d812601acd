"""Who is believed to have sent a webhook: two foreign implementations, forgeries, odd headers, rotated secrets."""

import ast
import hmac
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import starlette.datastructures
import werkzeug.datastructures
from hypothesis import given
from hypothesis import strategies as st
from tests.sdk.signing import (
    AT,
    DELIVERY_ID,
    GENERATION,
    OTHER,
    SECRET,
    body,
    signed,
    standard_signed,
    v1,
)

from babysea import _webhook_events, webhooks
from babysea.webhooks import WebhookVerificationError, verify

_HERE = Path(__file__).parent
_VECTORS = json.loads((_HERE / "webhook_vectors.json").read_text(encoding="utf-8"))
_NAMES = [vector["name"] for vector in _VECTORS]
_BODY = body()
#: Every reason there is; the path of a field may follow the last.
_REASONS = (
    "missing header X-BabySea-Signature",
    "malformed X-BabySea-Signature",
    "malformed webhook-id or webhook-signature",
    "malformed timestamp",
    "no signature matches",
    "signature too old",
    "signature too new",
    "malformed payload: ",
)

Sign = Callable[..., dict[str, str]]
schemes = pytest.mark.parametrize("sign", [signed, standard_signed])


def _refused(payload: bytes | str, headers: Mapping[str, str], secret: Any = SECRET, **options: Any) -> str:
    """The reason why a request is not believed."""
    with pytest.raises(WebhookVerificationError) as caught:
        verify(payload, headers, secret, **{"now": AT, **options})
    return str(caught.value)


def _headers(case: Mapping[str, Any], scheme: str) -> dict[str, str]:
    if scheme == "babysea":
        return {"X-BabySea-Signature": case["babysea"]}
    stamp = str(case["timestamp"])
    return {"webhook-id": case["id"], "webhook-timestamp": stamp, "webhook-signature": case["standard"]}


@pytest.fixture
def node() -> Callable[[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Runs verify.mjs in a mode, for cases."""
    binary = shutil.which("node")
    if binary is None:
        pytest.skip("node is not on this machine; the signatures it made are still held against ours")

    def run(mode: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        command = [binary, str(_HERE / "verify.mjs"), mode]
        done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, check=True)
        answer: list[dict[str, Any]] = json.loads(done.stdout)
        return answer

    return run


# Against foreign implementations.


@pytest.mark.parametrize("scheme", ["babysea", "standard"])
@pytest.mark.parametrize("vector", _VECTORS, ids=_NAMES)
def test_signatures_made_elsewhere_are_believed(vector: dict[str, Any], scheme: str) -> None:
    for payload in (vector["body"], vector["body"].encode()):
        event = verify(payload, _headers(vector, scheme), vector["secret"], now=vector["timestamp"])
        assert (event.event, event.delivery_id) == (vector["event"], vector["id"])
        assert event.raw == json.loads(vector["body"])


def test_the_vectors_are_what_node_makes(node: Callable[..., Any]) -> None:
    assert node("sign", _VECTORS) == _VECTORS


def test_python_and_node_believe_and_refuse_the_same_signatures(node: Callable[..., Any]) -> None:
    dice = random.Random(20260428)
    cases = []
    for number in range(300):
        text = "".join(
            chr(dice.choice([dice.randrange(32, 0xD800), dice.randrange(32, 127)])) for _ in range(40)
        )
        payload = body(data={**GENERATION, "note": text})
        stamp = AT + dice.randrange(-300, 301)
        case: dict[str, Any] = {
            "secret": dice.choice([SECRET, OTHER]),
            "timestamp": stamp,
            "id": f"msg_{number}",
        }
        case["body"] = payload.decode()
        case["babysea"] = signed(payload, case["secret"], stamp)["X-BabySea-Signature"]
        case["standard"] = standard_signed(payload, case["secret"], stamp, case["id"])["webhook-signature"]
        if number % 3 == 1:
            case["secret"] = OTHER if case["secret"] == SECRET else SECRET
        if number % 3 == 2:
            case["body"] = case["body"].replace("flux", "f1ux")
        cases.append(case)

    verdicts = node("verify", cases)

    def ours(case: dict[str, Any], scheme: str) -> bool:
        with suppress(WebhookVerificationError):
            return (
                verify(case["body"], _headers(case, scheme), case["secret"], now=AT).delivery_id
                == DELIVERY_ID
            )
        return False

    assert verdicts == [{scheme: ours(case, scheme) for scheme in ("babysea", "standard")} for case in cases]
    assert [verdict["babysea"] for verdict in verdicts] == [number % 3 == 0 for number in range(300)]


def test_what_the_standardwebhooks_package_signs_is_believed() -> None:
    now = datetime.now(UTC)
    signature = standardwebhooks.Webhook(SECRET).sign(DELIVERY_ID, now, _BODY.decode())
    headers = {
        "webhook-id": DELIVERY_ID,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }

    assert verify(_BODY, headers, SECRET).delivery_id == DELIVERY_ID


def test_the_standardwebhooks_package_believes_the_same_headers_as_we_do() -> None:
    headers = standard_signed(_BODY, at=int(time.time()))

    assert verify(_BODY, headers, SECRET).raw == standardwebhooks.Webhook(SECRET).verify(_BODY, headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(OTHER).verify(_BODY, headers)
    assert _refused(_BODY, headers, OTHER, now=None) == "no signature matches"


# Forgeries.


@schemes
def test_a_body_with_any_one_byte_changed_added_or_missing_is_refused(sign: Sign) -> None:
    headers = sign(_BODY)
    for position, byte in enumerate(_BODY):
        before, after = _BODY[:position], _BODY[position + 1 :]
        changed = (bytes([byte ^ 1]), bytes([byte ^ 0x80]), b"", bytes([byte, byte]), bytes([byte]) + b"\0")
        for other in changed:
            assert _refused(before + other + after, headers) == "no signature matches"
    for payload in (
        b"",
        b" " + _BODY,
        b"\xef\xbb\xbf" + _BODY,
        _BODY + b"\n",
        json.dumps(json.loads(_BODY), indent=1),
    ):
        assert _refused(payload, headers) == "no signature matches"


@schemes
def test_headers_with_any_one_character_changed_or_missing_are_refused(sign: Sign) -> None:
    headers = sign(_BODY)
    for name, value in headers.items():
        for position in range(len(value)):
            for other in ("", "x", "0", "é", "\0", "\ud800"):
                changed = value[:position] + other + value[position + 1 :]
                if changed != value:
                    assert _refused(_BODY, {**headers, name: changed}).startswith(_REASONS)


@schemes
@pytest.mark.parametrize("age", [0, 1, 299, 300, -1, -300])
def test_a_signature_within_the_tolerance_is_believed(sign: Sign, age: int) -> None:
    assert verify(_BODY, sign(_BODY), SECRET, now=AT + age).event == "generation.completed"


@schemes
@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (300.5, "signature too old"),
        (86_400, "signature too old"),
        (-300.5, "signature too new"),
        (-86_400, "signature too new"),
        (float("nan"), "signature too new"),
    ],
)
def test_a_replay_too_old_and_a_signature_too_new_are_refused(sign: Sign, age: float, reason: str) -> None:
    assert _refused(_BODY, sign(_BODY), now=AT + age) == reason


def test_the_tolerance_is_the_callers() -> None:
    assert verify(_BODY, signed(_BODY), SECRET, tolerance=3600, now=AT + 3600).delivery_id == DELIVERY_ID
    assert _refused(_BODY, signed(_BODY), tolerance=0, now=AT + 1) == "signature too old"
    assert _refused(_BODY, signed(_BODY), tolerance=float("nan"), now=AT + 1) == "signature too old"


def test_the_present_is_the_time_when_none_is_given() -> None:
    assert _refused(_BODY, signed(_BODY, at=1_000_000_000), now=None) == "signature too old"
    assert verify(_BODY, signed(_BODY, at=int(time.time())), SECRET).delivery_id == DELIVERY_ID


@schemes
@pytest.mark.parametrize(
    "secret", [OTHER, SECRET[:-1], SECRET + "A", SECRET.swapcase(), [OTHER, SECRET.lower()]]
)
def test_a_wrong_secret_is_refused(sign: Sign, secret: str | list[str]) -> None:
    assert _refused(_BODY, sign(_BODY), secret) == "no signature matches"


def test_the_babysea_key_is_the_whole_secret_with_its_prefix() -> None:
    assert _refused(_BODY, signed(_BODY, SECRET.removeprefix("whsec_"))) == "no signature matches"


@schemes
def test_while_secrets_rotate_both_are_believed(sign: Sign) -> None:
    for secrets in ([SECRET, OTHER], (OTHER, SECRET)):
        for secret in (SECRET, OTHER):
            assert verify(_BODY, sign(_BODY, secret), secrets, now=AT).delivery_id == DELIVERY_ID


@pytest.mark.parametrize("secret", ["", "whsec_", [], (), [SECRET, ""], ["whsec_"]])
def test_an_empty_secret_is_the_callers_mistake_and_not_a_forgery(secret: str | list[str]) -> None:
    with pytest.raises(ValueError, match="a webhook secret is empty") as caught:
        verify(_BODY, signed(_BODY, ""), secret, now=AT)
    assert not isinstance(caught.value, WebhookVerificationError)


def test_one_right_signature_among_several_is_enough() -> None:
    right, wrong = v1(_BODY), v1(_BODY, OTHER)
    for value in (f"t={AT},v1={wrong},v1={right}", f"v1={right},t={AT},v0=old,v1={wrong},v2=new,flag"):
        assert verify(_BODY, {"X-BabySea-Signature": value}, SECRET, now=AT).delivery_id == DELIVERY_ID

    headers = standard_signed(_BODY)
    headers["webhook-signature"] = (
        f"v1a,x {standard_signed(_BODY, OTHER)['webhook-signature']} v1, " + (headers["webhook-signature"])
    )
    assert verify(_BODY, headers, SECRET, now=AT).delivery_id == DELIVERY_ID


def test_every_signature_is_compared_in_constant_time_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    constant_time = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return constant_time(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    right, wrong = v1(_BODY), v1(_BODY, OTHER)
    verify(_BODY, {"X-BabySea-Signature": f"t={AT},v1={right},v1=,v1={wrong}"}, [SECRET, "whsec_new"], now=AT)

    assert [other.decode() for _, other in compared] == [right, "", wrong] * 2
    assert {len(one) for one, _ in compared} == {64}


def test_the_standard_signature_is_not_tried_beside_a_wrong_babysea_one() -> None:
    headers = {**standard_signed(_BODY), **signed(_BODY, OTHER)}
    assert _refused(_BODY, headers) == "no signature matches"
    assert _refused(_BODY, {**headers, "X-BabySea-Signature": ""}) == "malformed X-BabySea-Signature"


@pytest.mark.parametrize(
    "secret",
    [
        "not base64!",
        "whsec_not base64!",
        "whsec_AAAA=AAA",
        "whsec_abc!d",
        "whsec_----",
        "whsec_\N{SNOWMAN}",
        "whsec_A",
    ],
)
def test_a_secret_that_is_not_base64_is_its_own_text_in_standard_webhooks(secret: str) -> None:
    key = secret.removeprefix("whsec_").encode()
    signature = standardwebhooks.Webhook(key).sign("msg", datetime.fromtimestamp(AT, UTC), _BODY.decode())
    headers = {"webhook-id": "msg", "webhook-timestamp": str(AT), "webhook-signature": signature}

    assert verify(_BODY, headers, secret, now=AT).delivery_id == DELIVERY_ID


@pytest.mark.parametrize("secret", ["whsec_AAEC", "whsec_AAECAw==", "whsec_AAECAw", "AAECAwQ=", "AAECAwQ"])
def test_the_standard_key_is_the_base64_behind_the_prefix_padded_or_not(secret: str) -> None:
    signature = standardwebhooks.Webhook(secret).sign("msg", datetime.fromtimestamp(AT, UTC), _BODY.decode())
    headers = {"webhook-id": "msg", "webhook-timestamp": str(AT), "webhook-signature": signature}

    assert verify(_BODY, headers, secret, now=AT).delivery_id == DELIVERY_ID


# Headers.


@schemes
def test_names_of_headers_are_read_in_any_case_and_from_any_framework(sign: Sign) -> None:
    headers = {"Content-Type": "application/json", **sign(_BODY)}
    wsgi = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    forms: list[Any] = [
        {name.lower(): value for name, value in headers.items()},
        {name.upper(): value for name, value in headers.items()},
        {name.swapcase(): value for name, value in headers.items()},
        starlette.datastructures.Headers(headers),
        werkzeug.datastructures.Headers(headers),
        werkzeug.datastructures.EnvironHeaders(wsgi),
        {**wsgi, "wsgi.version": (1, 0), "REQUEST_METHOD": "POST"},
    ]
    for form in forms:
        assert verify(_BODY, form, SECRET, now=AT).delivery_id == DELIVERY_ID


@pytest.mark.parametrize("absent", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_without_a_whole_signature_the_missing_header_is_named(absent: str) -> None:
    headers = standard_signed(_BODY)
    del headers[absent]
    assert _refused(_BODY, headers) == "missing header X-BabySea-Signature"
    assert _refused(_BODY, {}) == "missing header X-BabySea-Signature"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "malformed X-BabySea-Signature"),
        ("t=", "malformed X-BabySea-Signature"),
        (f"t={AT}", "malformed X-BabySea-Signature"),
        (f"v1={v1(_BODY)}", "malformed X-BabySea-Signature"),
        (v1(_BODY), "malformed X-BabySea-Signature"),
        (f"t={AT},t={AT},v1={v1(_BODY)}", "malformed X-BabySea-Signature"),
        (f"t={AT}, v1={v1(_BODY)}", "malformed X-BabySea-Signature"),
        (f"T={AT},V1={v1(_BODY)}", "malformed X-BabySea-Signature"),
        (f"t={AT},v2={v1(_BODY)}", "malformed X-BabySea-Signature"),
        (f"t=,v1={v1(_BODY)}", "malformed timestamp"),
        (f"t=-{AT},v1={v1(_BODY)}", "malformed timestamp"),
        (f"t={AT}.0,v1={v1(_BODY)}", "malformed timestamp"),
        (f"t={AT:_},v1={v1(_BODY)}", "malformed timestamp"),
        (f"t=nan,v1={v1(_BODY)}", "malformed timestamp"),
        (f"t=١٧٧٧٣٧٧٦٠٠,v1={v1(_BODY)}", "malformed timestamp"),
        (f"t={'9' * 10_000},v1={v1(_BODY)}", "malformed timestamp"),
        (f"t={AT},v1=", "no signature matches"),
        (f"t={AT},v1={v1(_BODY).upper()}", "no signature matches"),
        (f"t={AT},v1={v1(_BODY)[:32]}", "no signature matches"),
        (f"t=0{AT},v1={v1(_BODY)}", "no signature matches"),
        (f"t={AT}" + ",v1=" * 20_000, "no signature matches"),
    ],
)
def test_a_malformed_signature_is_refused(value: str, reason: str) -> None:
    assert _refused(_BODY, {"X-BabySea-Signature": value}) == reason


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("webhook-id", "", "malformed webhook-id or webhook-signature"),
        ("webhook-id", "msg.1777377600", "malformed webhook-id or webhook-signature"),
        ("webhook-signature", "", "malformed webhook-id or webhook-signature"),
        ("webhook-signature", "v1", "malformed webhook-id or webhook-signature"),
        ("webhook-signature", "v2,AAAA", "malformed webhook-id or webhook-signature"),
        ("webhook-signature", "v1,", "no signature matches"),
        ("webhook-timestamp", "", "malformed timestamp"),
        ("webhook-timestamp", "1e9", "malformed timestamp"),
        ("webhook-timestamp", str(AT + 1), "no signature matches"),
        ("webhook-id", "msg_other", "no signature matches"),
    ],
)
def test_a_malformed_standard_signature_is_refused(name: str, value: str, reason: str) -> None:
    assert _refused(_BODY, {**standard_signed(_BODY), name: value}) == reason


def test_a_huge_body_is_read_and_its_forgery_refused() -> None:
    payload = body(data={**GENERATION, "note": "x" * 16_000_000})

    assert len(verify(payload, signed(payload), SECRET, now=AT).data.extra["note"]) == 16_000_000
    assert _refused(payload[:-1] + b" ", signed(payload)) == "no signature matches"


_TEXTS = st.text(st.characters(), max_size=40)


@given(
    payload=st.one_of(st.binary(), st.text(st.characters())),
    signature=st.one_of(_TEXTS, st.builds("t={},v1={}".format, _TEXTS, _TEXTS)),
    trio=st.tuples(
        _TEXTS, st.one_of(_TEXTS, st.just(str(AT))), st.one_of(_TEXTS, st.builds("v1,{}".format, _TEXTS))
    ),
    secret=st.text(min_size=1).map("whsec_{}".format),
)
def test_garbage_is_refused_with_a_reason_that_quotes_none_of_it(
    payload: bytes | str, signature: str, trio: tuple[str, str, str], secret: str
) -> None:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    for headers in ({"X-BabySea-Signature": signature}, dict(zip(names, trio, strict=True))):
        assert _refused(payload, headers, secret) in _REASONS


# The module.


def test_the_receiver_needs_the_standard_library_alone() -> None:
    folder = Path(webhooks.__file__).parent
    imported = set()
    for name in ("webhooks.py", "_webhook_events.py"):
        for part in ast.walk(ast.parse((folder / name).read_text(encoding="utf-8"))):
            if isinstance(part, ast.ImportFrom):
                imported.add(str(part.module).partition(".")[0])
            elif isinstance(part, ast.Import):
                imported.update(alias.name.partition(".")[0] for alias in part.names)
    assert imported - sys.stdlib_module_names == {"babysea"}


def test_everything_public_is_exported() -> None:
    own = {
        name
        for module in (webhooks, _webhook_events)
        for name, value in vars(module).items()
        if getattr(value, "__module__", "").startswith("babysea.") and not name.startswith("_")
    }
    assert own == set(webhooks.__all__)
