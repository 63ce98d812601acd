"""What adapters share in requests and answers, and how callbacks are signed."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.providers.answers import (
    Part,
    Sign,
    at,
    document,
    failed,
    form_request,
    json_request,
    micro_dollars,
    number,
    refused,
    retry_after_s,
    same_host,
    text,
    told,
    words,
)
from babysea_server.providers.base import Answer, Callback, Failure, Refused, Request
from babysea_server.providers.signatures import (
    TOLERANCE_S,
    signed_now,
    standard_webhook_key,
    verifies_standard_webhook,
)


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


# ------------------------------------------------------------------------------- requests


def test_a_json_request_carries_its_type_only_with_a_body() -> None:
    empty = json_request("GET", "https://a.example/x", {"authorization": "Key k"})
    assert empty == Request("GET", "https://a.example/x", {"authorization": "Key k"})
    full = json_request("POST", "https://a.example/x", {"authorization": "Key k"}, {"a": 1})
    assert full.headers == {"authorization": "Key k", "content-type": "application/json"}
    assert json.loads(full.body or b"") == {"a": 1}


def _parts(request: Request) -> list[tuple[Any, Any, Any, bytes]]:
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + (request.body or b""))
    found = []
    for part in message.walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            type_ = part.get("content-type")
            name = part.get_param("name", header="content-disposition")
            found.append((name, part.get_filename(), type_, payload))
    return found


def test_a_form_is_read_back_as_it_was_meant() -> None:
    request = form_request(
        "https://a.example/x",
        {"authorization": "Bearer k"},
        [Part("prompt", "ein Garten, Ö"), Part("image[]", b"\x89PNG\r\n\x00", "a.png", "image/png")],
    )
    assert request.method == "POST"
    assert request.headers["authorization"] == "Bearer k"
    assert _parts(request) == [
        ("prompt", None, None, "ein Garten, Ö".encode()),
        ("image[]", "a.png", "image/png", b"\x89PNG\r\n\x00"),
    ]


def test_no_name_breaks_out_of_its_header() -> None:
    request = form_request("https://a.example/x", {}, [Part('a"\r\nx: y', "1", 'b"\r\n.png')])
    assert request.body is not None
    head = request.body.partition(b"\r\n\r\n")[0]
    assert head.count(b"\r\n") == 1
    assert b'name="a%22%0D%0Ax: y"; filename="b%22%0D%0A.png"' in head


def test_every_form_has_a_boundary_of_its_own() -> None:
    one, other = (form_request("https://a.example/x", {}, [Part("a", "1")]) for _ in range(2))
    assert one.headers["content-type"] != other.headers["content-type"]


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[1]",
        b'"a"',
        b"<html>",
        b'{"a": ',
        b'{"a": "\xff"}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
    ],
)
def test_what_is_no_object_reads_as_an_empty_one(body: bytes) -> None:
    assert document(Answer(200, {}, body)) == {}


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading(body: bytes) -> None:
    found = Answer(500, {"content-type": "text/plain"}, body)
    assert isinstance(document(found), dict)
    assert "\0" not in told(found)
    assert isinstance(refused(found, ()), Refused)


def test_a_path_leads_into_a_document_or_to_nothing() -> None:
    body = {"a": [{"b": 1}, {"b": 2}], "c": None}
    assert at(body, "a", 0, "b") == 1
    assert at(body, "a", -1, "b") == 2
    assert at(body) is body
    for path in (("a", 2, "b"), ("a", -3), ("a", "b"), ("c", "d"), ("c", 0), ("x",), (0,)):
        assert at(body, *path) is None
    assert at("text", 0) is None


def test_a_text_is_one_or_empty_and_can_be_stored() -> None:
    assert [text(value) for value in ("a", "", None, 1, ["a"], "a\0b")] == ["a", "", "", "", "", "ab"]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1, 1.0),
        ("2.5", 2.5),
        (-0.5, -0.5),
        (True, None),
        ("", None),
        ("x", None),
        ("nan", None),
        (float("inf"), None),
        (10**400, None),
        (1e16, None),
        (None, None),
        ([1], None),
    ],
)
def test_a_number_is_a_finite_one_or_nothing(value: Any, found: float | None) -> None:
    assert number(value) == found


def test_dollars_become_micro_dollars() -> None:
    assert micro_dollars(0.0405) == 40_500
    assert micro_dollars(1e-7) == 0
    assert micro_dollars(None) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "no"}, "no"),
        ({"error": {"message": "no credits", "code": 7}}, "no credits"),
        ({"message": "", "error": "later one"}, "later one"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}, {"msg": "too long"}]}, "field required; too long"),
        ({"errors": [{"message": "a"}]}, "a"),
        ({"detail": "two\n lines\t\0here"}, "two lines here"),
        ({"status": 1}, ""),
        ({"error": {"error": {"error": {"error": {"error": "too deep"}}}}}, ""),
        ("plain", "plain"),
        (None, ""),
        (7, ""),
    ],
)  # fmt: skip
def test_words_are_found_where_apis_put_them(body: Any, said: str) -> None:
    assert words(body) == said


def test_words_are_bounded() -> None:
    assert len(words({"detail": "x" * 10_000_000})) == 500
    assert words({"detail": [{"msg": "x"}] * 1000}).count("x") == 5


def test_addresses_are_shown_without_what_may_be_a_token() -> None:
    said = "could not fetch https://files.example/a.png?sig=s3cr3t&x=1#y (404), nor 'http://b.example/c?d'"
    shown = "could not fetch https://files.example/a.png (404), nor 'http://b.example/c'"
    assert words({"detail": said}) == shown
    assert failed(said, ()).message == shown
    assert told(answer(422, {"detail": said})) == f"HTTP 422: {shown}"


def test_one_line_tells_the_status_and_the_words() -> None:
    assert told(answer(401, {"detail": "no"})) == "HTTP 401: no"
    assert told(answer(502, b"<html>", content_type="text/html")) == "HTTP 502"
    assert (
        told(answer(500, b"out of\nluck", content_type="text/plain; charset=utf-8"))
        == "HTTP 500: out of luck"
    )
    assert told(answer(500, b"\xff\0", content_type="text/plain")) == "HTTP 500: \ufffd"
    assert len(told(answer(500, {"detail": "x" * 1000}))) == 500


NOW = datetime(2026, 4, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 1.5 ", 1.5),
        ("-3", 0.0),
        ("99999999", 86_400.0),
        ("Tue, 28 Apr 2026 12:00:30 GMT", 30.0),
        ("Tue, 28 Apr 2026 14:00:30 +0200", 30.0),
        ("Tue, 28 Apr 2026 12:00:30 -0000", 30.0),
        ("Tue, 28 Apr 2026 11:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2020 00:00:00 +99999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86_400.0),
    ],
)
def test_retry_after_has_two_forms(value: str, seconds: float | None) -> None:
    assert retry_after_s(answer(429, retry_after=value), NOW) == seconds


@given(st.text(max_size=60))
def test_no_retry_after_breaks_the_reading(value: str) -> None:
    wait = retry_after_s(answer(429, retry_after=value), NOW)
    assert wait is None or 0.0 <= wait <= 86_400.0


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "failure", "code"),
    [
        (400, Failure.REFUSED_INPUT, None),
        (401, Failure.REFUSED_AUTH, None),
        (402, Failure.REFUSED_FUNDS, None),
        (403, Failure.REFUSED_AUTH, None),
        (404, Failure.FAILED, None),
        (413, Failure.REFUSED_INPUT, None),
        (415, Failure.REFUSED_INPUT, None),
        (422, Failure.REFUSED_INPUT, None),
        (429, Failure.REFUSED_BUSY, "BSE4003"),
        (500, Failure.FAILED, None),
        (502, Failure.FAILED, None),
        (503, Failure.REFUSED_BUSY, None),
        (302, Failure.FAILED, None),
    ],
)
def test_http_itself_says_what_no_row_knows_better(status: int, failure: Failure, code: str | None) -> None:
    read = refused(answer(status, {"detail": "x"}), ())
    assert (read.failure, read.code, read.message) == (failure, code, f"HTTP {status}: x")


SIGNS = (
    Sign(Failure.REFUSED_POLICY, 400, "moderat"),
    Sign(Failure.REFUSED_FUNDS, says="balance|credit"),
    Sign(Failure.REFUSED_INPUT, 404, code="BSE2009"),
)


def test_the_first_row_that_fits_decides() -> None:
    def read(status: int, detail: str) -> tuple[Failure, str | None]:
        found = refused(answer(status, {"detail": detail}), SIGNS)
        return found.failure, found.code

    assert read(400, "MODERATED, no credit") == (Failure.REFUSED_POLICY, None)
    assert read(403, "moderated, no Credit") == (Failure.REFUSED_FUNDS, None)
    assert read(400, "x") == (Failure.REFUSED_INPUT, None)
    assert read(404, "x") == (Failure.REFUSED_INPUT, "BSE2009")


def test_other_words_can_be_searched_than_are_shown() -> None:
    read = refused(answer(400, {"detail": "x"}), SIGNS, said="ContentModerated: x")
    assert (read.failure, read.message) == (Failure.REFUSED_POLICY, "HTTP 400: x")


def test_only_who_is_busy_says_when_to_come_back() -> None:
    assert refused(answer(429, retry_after="7"), ()).retry_after_s == 7.0
    assert refused(answer(503, retry_after="7"), ()).retry_after_s == 7.0
    assert refused(answer(500, retry_after="7"), ()).retry_after_s is None


def test_a_jobs_own_end_is_known_by_its_words_alone() -> None:
    assert failed("no credit", SIGNS) == Refused(Failure.REFUSED_FUNDS, "no credit")
    assert failed("moderated", SIGNS) == Refused(Failure.FAILED, "moderated"), (
        "a row with a status is about answers"
    )
    assert failed("", SIGNS, cost_micro=5) == Refused(Failure.FAILED, "the job failed", cost_micro=5)
    assert failed("a\0\n b" + "x" * 1000, SIGNS).message == ("a b" + "x" * 1000)[:500]


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://a.example/x", True),
        ("https://a.example", True),
        ("http://a.example/x", False),
        ("https://a.example:8443/x", False),
        ("https://b.a.example/x", False),
        ("https://user@a.example/x", False),
        ("https://[::1", False),
        ("", False),
    ],
)
def test_an_origin_is_scheme_and_authority(url: str, same: bool) -> None:
    assert same_host(url, "https://a.example/v1") is same


# ------------------------------------------------------------------------------- signatures

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
AT = 1614265330.0
BODY = b'{"test": 2432232314}'
KEY = standard_webhook_key(SECRET)


def verifies(headers: dict[str, str], body: bytes = BODY, at_: float = AT, keys: Any = (KEY,)) -> bool:
    return verifies_standard_webhook(Callback(headers, body, at_), keys)


def test_the_specifications_own_vector_is_verified() -> None:
    assert verifies(VECTOR)


@pytest.mark.parametrize("header", sorted(VECTOR))
def test_every_part_of_a_signature_is_needed(header: str) -> None:
    assert not verifies({name: value for name, value in VECTOR.items() if name != header})
    assert not verifies(VECTOR | {header: "x"})
    assert not verifies(VECTOR | {header: "\ud800ü"})


def test_a_changed_body_is_not_believed() -> None:
    assert not verifies(VECTOR, BODY + b" ")
    assert not verifies(VECTOR, b"")


def test_any_of_several_signatures_and_any_of_several_keys_will_do() -> None:
    good = VECTOR["webhook-signature"]
    assert verifies(VECTOR | {"webhook-signature": f"v1,AAAA v1a,xyz {good}"})
    assert verifies(VECTOR, keys=(b"an old one", KEY))
    assert not verifies(VECTOR | {"webhook-signature": good.replace("v1,", "v2,")})
    assert not verifies(VECTOR, keys=())
    assert not verifies(VECTOR, keys=(b"",))


@pytest.mark.parametrize(("late", "believed"), [(0, True), (TOLERANCE_S, True), (TOLERANCE_S + 1, False)])
def test_a_signature_is_believed_near_its_time(late: float, believed: bool) -> None:
    assert verifies(VECTOR, at_=AT + late) is believed
    assert verifies(VECTOR, at_=AT - late) is believed


@pytest.mark.parametrize(
    "timestamp", ["", "-1", "1e9", "１６１４２６５３３０", "9" * 400, "1614265330.0", " 1614265330"]
)
def test_a_time_is_plain_seconds(timestamp: str) -> None:
    assert not signed_now(timestamp, AT)


def test_a_secret_is_base64_behind_its_prefix_or_else_the_text() -> None:
    assert standard_webhook_key("whsec_" + base64.b64encode(b"key").decode()) == b"key"
    assert standard_webhook_key(base64.b64encode(b"key").decode()) == b"key"
    assert standard_webhook_key("not base64!") == b"not base64!"
    assert standard_webhook_key("schlüssel") == "schlüssel".encode()


@given(
    id=st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1),
    body=st.binary(),
    key=st.binary(min_size=1),
)
def test_what_was_signed_is_verified(id: str, body: bytes, key: bytes) -> None:
    digest = hmac.new(key, f"{id}.1614265330.".encode() + body, hashlib.sha256).digest()
    headers = VECTOR | {"webhook-id": id, "webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}
    assert verifies(headers, body, keys=(key,))
    assert not verifies(headers, body + b"x", keys=(key,))
