"""The judge of answers itself: it must refuse what the document does not describe."""

import json
from typing import Any

import pytest
from tests.contract.asgi import Answer
from tests.contract.conformance.shapes import count, differences, maybe, text
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
        ("get_generation", 404, with_error(code="BSE2011", type="model_not_found"), {}),
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


def test_a_generation_holds_its_own_members_and_its_models_inputs(published: Published) -> None:
    envelope = published.document["paths"]["/v1/content/{generation_id}"]["get"]["responses"]["200"][
        "content"
    ]
    body = {**envelope["application/json"]["example"], "request_id": REQUEST_ID}
    published.check("get_generation", answer(200, body))
    body["data"] = {**body["data"], "generation_secret": "x"}
    with pytest.raises(AssertionError, match="generation_secret"):
        published.check("get_generation", answer(200, body))


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("GET", "/v1/content/list", "list_generations"),
        ("GET", "/v1/content/00000000-0000-4000-8000-00000000000F", "get_generation"),
        ("DELETE", "/v1/content/00000000-0000-4000-8000-00000000000f", "delete_generation"),
        ("POST", "/v1/generate/image/bfl/flux-1.1-pro", "generate"),
        ("POST", "/v1/generate/audio/bfl/flux-1.1-pro", None),
        ("GET", "/v1/content/nothing", None),
        ("HEAD", "/v1/status", None),
    ],
)
def test_a_request_is_found_in_the_document(
    published: Published, method: str, path: str, operation: str | None
) -> None:
    assert published.operation_at(method, path) == operation


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ({"a": 1, "c": []}, True),
        ({"a": 1, "b": None, "c": [{"d": "x"}]}, True),
        ({"c": []}, False),
        ({"a": 1, "c": [], "e": 1}, False),
        ({"a": True, "c": []}, False),
        ({"a": 1, "b": "", "c": []}, False),
        ({"a": 1, "c": [{}]}, False),
        ([], False),
    ],
)
def test_a_shape_allows_exactly_its_members(value: Any, right: bool) -> None:
    shape = {"a": count, "b?": maybe(text), "c": [{"d": "x"}]}
    assert (differences(value, shape) == []) is right


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
