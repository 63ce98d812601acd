"""The judge of answers itself: it must refuse what the document does not describe."""

import json
from typing import Any

import pytest
from tests.contract.asgi import Answer
from tests.contract.published import Published, to_json_schema

from babysea_server.contract.openapi import build_document

REQUEST_ID = "req_8f14e45fceea167a5a36dedd"
ERROR: dict[str, Any] = {
    "status": "error",
    "request_id": REQUEST_ID,
    "error": {
        "code": "BSE3001",
        "type": "generation_not_found",
        "message": "There is none.",
        "retryable": False,
    },
}


@pytest.fixture(scope="module")
def published() -> Published:
    return Published(build_document("us", server_url="http://localhost", models=[]))


def answer(status: int, body: Any, **headers: str) -> Answer:
    given = {"content-type": "application/json", "x-request-id": REQUEST_ID}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, given, json.dumps(body).encode())


def with_error(**members: Any) -> dict[str, Any]:
    return {**ERROR, "error": {**ERROR["error"], **members}}


def test_a_documented_error_passes(published: Published) -> None:
    published.check("get_generation", answer(404, ERROR))
    published.check(None, answer(404, with_error(details={"anything": [1]})))


@pytest.mark.parametrize(
    ("operation", "status", "body", "headers"),
    [
        ("get_generation", 418, ERROR, {}),
        ("get_generation", 409, ERROR, {}),
        ("get_generation", 404, with_error(traceback="..."), {}),
        ("get_generation", 404, with_error(code="BSE9999"), {}),
        ("get_generation", 404, with_error(code="BSE1001"), {}),
        ("get_generation", 404, with_error(type="internal_error"), {}),
        ("get_generation", 404, with_error(retryable=True), {}),
        ("get_generation", 404, {**ERROR, "timestamp": "now"}, {}),
        ("get_generation", 404, {**ERROR, "request_id": "req_other"}, {}),
        ("get_generation", 404, ERROR, {"x_powered_by": "it"}),
        ("get_generation", 404, ERROR, {"retry_after": "1"}),
        ("get_generation", 404, ERROR, {"content_type": "text/html"}),
        ("get_generation", 200, ERROR, {}),
        (None, 200, ERROR, {}),
    ],
)
def test_anything_else_is_refused(
    published: Published, operation: str | None, status: int, body: Any, headers: dict[str, str]
) -> None:
    with pytest.raises(AssertionError):
        published.check(operation, answer(status, body, **headers))


def test_the_older_dialect_is_read_as_it_is_meant() -> None:
    old = {
        "type": "object",
        "required": ["nullable"],
        "properties": {
            "nullable": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "nullable": True},
            "open": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        },
    }
    assert to_json_schema(old) == {
        "type": "object",
        "required": ["nullable"],
        "additionalProperties": False,
        "properties": {
            "nullable": {
                "anyOf": [{"type": "integer", "minimum": 0, "exclusiveMinimum": 0}, {"type": "null"}]
            },
            "open": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
        },
    }
