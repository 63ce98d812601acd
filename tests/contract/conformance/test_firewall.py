"""One test for each rule of the firewall, over a socket: what is not published goes no further."""

from typing import Any

import pytest
from tests.contract.asgi import Answer
from tests.contract.conformance.target import Target

UNKNOWN = "bye_" + "x" * 40
GENERATE = "POST /v1/generate/image/no/model"
JSON = "Content-Type: application/json"


def rejected(answer: Answer) -> dict[str, Any]:
    """The details of the firewall's answer, which must be the graceful one."""
    assert (answer.status, answer.code) == (403, "BSE1010"), answer.body
    error = answer.json["error"]
    assert (error["type"], error["retryable"]) == ("firewall_rejected", False)
    assert error["details"].keys() == {"rule", "location", "allowed"}
    assert "x-ratelimit-limit" not in answer.headers
    details: dict[str, Any] = error["details"]
    return details


async def refusal(target: Target, request: str, *lines: str, body: bytes = b"", **changes: Any) -> Any:
    """The rule and the place that a request is rejected by. The key is unknown and is not looked up."""
    (answer,) = await target.raw(target.head(request, *lines, key=UNKNOWN, **changes) + body)
    target.published.check(None, answer)
    details = rejected(answer)
    return details["rule"], details["location"]


@pytest.mark.parametrize("host", ["evil.example", "api.xx.localhost", "", "localhost:port", "a b"])
async def test_a_host_that_is_not_ours(target: Target, host: str) -> None:
    assert await refusal(target, "GET /v1/status", host=host) == ("unknown_host", "header.host")


async def test_a_host_that_only_a_header_names(target: Target) -> None:
    for line in ("X-Forwarded-Host: " + target.host, "Forwarded: host=" + target.host):
        found = await refusal(target, "GET /v1/status", line, host="evil.example")
        assert found == ("unknown_host", "header.host")


async def test_a_forwarded_host_changes_nothing(target: Target) -> None:
    (answer,) = await target.raw(target.head("GET /v1/status", "X-Forwarded-Host: evil.example"))
    assert answer.status == 200


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/", "/v2/status", "/v1/Status", "/v1/status/x", "/v1/estimate/a", "/v1/content", "/admin"],
)
async def test_a_path_that_is_not_published(target: Target, path: str) -> None:
    rule, location = await refusal(target, f"GET {path}")
    assert location == "path"
    assert rule in ("unknown_path", "malformed_path")


@pytest.mark.parametrize(
    ("request_line", "name"),
    [
        ("POST /v1/generate/audio/no/model", "media"),
        ("GET /v1/health/inference/users", "subject"),
        ("GET /v1/content/not-a-uuid", "generation_id"),
        ("GET /v1/estimate/UPPER/model", "lab"),
        ("GET /v1/estimate/lab/mo~del", "model"),
    ],
)
async def test_a_path_parameter_that_is_none(target: Target, request_line: str, name: str) -> None:
    assert await refusal(target, request_line, JSON) == ("invalid_path_parameter", f"path.{name}")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"])
async def test_a_method_that_the_path_does_not_have(target: Target, method: str) -> None:
    (answer,) = await target.raw(target.head(f"{method} /v1/status", key=UNKNOWN))
    details = rejected(answer)
    assert (details["rule"], details["allowed"]) == ("method_not_allowed", ["GET"])


async def test_head_is_rejected_like_any_method(target: Target) -> None:
    """Its answer has no body, so only the status tells."""
    response = await target.client.head(f"{target.base}/v1/status", headers={"Host": target.host})
    assert (response.status_code, response.content) == (403, b"")


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_a_header_that_overrides_the_method(target: Target, name: str) -> None:
    found = await refusal(target, "GET /v1/status", f"{name}: DELETE")
    assert found == ("method_override", f"header.{name.lower()}")


@pytest.mark.parametrize(
    ("target_line", "rule", "location"),
    [
        ("/v1/usage?day=1", "unknown_query_parameter", "query"),
        ("/v1/status?x", "unknown_query_parameter", "query"),
        ("/v1/usage?DAYS=1", "unknown_query_parameter", "query"),
        ("/v1/usage?days=1&days=1", "repeated_query_parameter", "query.days"),
        ("/v1/usage?days=ten", "invalid_query_parameter", "query.days"),
        ("/v1/usage?days=", "invalid_query_parameter", "query.days"),
        ("/v1/usage?days=1.5", "invalid_query_parameter", "query.days"),
        ("/v1/usage?days=0", "invalid_query_parameter", "query.days"),
        ("/v1/usage?days=91", "invalid_query_parameter", "query.days"),
        ("/v1/content/list?limit=0", "invalid_query_parameter", "query.limit"),
        ("/v1/content/list?limit=101", "invalid_query_parameter", "query.limit"),
        ("/v1/content/list?offset=-1", "invalid_query_parameter", "query.offset"),
        ("/v1/estimate/no/model?count=many", "invalid_query_parameter", "query.count"),
        ("/v1/estimate/no/model?audio=yes", "invalid_query_parameter", "query.audio"),
        ("/v1/usage?days=%zz", "malformed_query", "query"),
        ("/v1/usage?days=%00", "malformed_query", "query"),
    ],
)
async def test_a_query_that_is_not_as_published(
    target: Target, target_line: str, rule: str, location: str
) -> None:
    assert await refusal(target, f"GET {target_line}") == (rule, location)


@pytest.mark.parametrize(
    "line", ["X: none", "Content-Type: text/plain", "Content-Type: application/json; charset=latin-1"]
)
async def test_a_body_that_is_not_json(target: Target, line: str) -> None:
    found = await refusal(target, GENERATE, line, "Content-Length: 2", body=b"{}")
    assert found == ("content_type", "header.content-type")


@pytest.mark.parametrize(
    "request_line",
    ["GET /v1/status", "DELETE /v1/content/{id}", "POST /v1/content/generation/cancel/{id}"],
)
async def test_a_body_where_none_is_taken(target: Target, request_line: str) -> None:
    line = request_line.format(id="00000000-0000-4000-8000-000000000000")
    found = await refusal(target, line, JSON, "Content-Length: 2", body=b"{}")
    assert found == ("unexpected_body", "body")


async def test_two_ways_to_frame_a_body(target: Target) -> None:
    lines = (JSON, "Content-Length: 5", "Transfer-Encoding: chunked")
    (answer,) = await target.raw(target.head(GENERATE, *lines, key=UNKNOWN) + b"0\r\n\r\n")
    # Whoever parses HTTP may find it first: then it is no request at all.
    assert rejected(answer)["rule"] in ("ambiguous_framing", "malformed_http")


@pytest.mark.parametrize(
    "line", ["Authorization: Bearer other", "Host: evil.example", "Content-Type: text/plain"]
)
async def test_a_header_given_twice(target: Target, line: str) -> None:
    name = line.partition(":")[0].lower()
    found = await refusal(target, GENERATE, JSON, line, "Content-Length: 2", body=b"{}")
    assert found == ("repeated_header", f"header.{name}")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/estimate/no%2Fmodel",
        "/v1/estimate/no%2fmodel",
        "/v1/estimate/no%5Cmodel",
        "/v1/./status",
        "/v1/x/../status",
        "/v1/%2e%2e/status",
        "/v1/estimate/no/%00model",
        "/v1/estimate/no/%0amodel",
        "/v1/status%7F",
        "/v1//status",
        "/v1/status/",
        "/v1/status%",
    ],
)
async def test_a_path_that_hides_something(target: Target, path: str) -> None:
    assert await refusal(target, f"GET {path}") == ("malformed_path", "path")


async def test_a_rejection_comes_before_any_key_is_asked_for(target: Target) -> None:
    response = await target.client.get(f"{target.base}/v1/nothing", headers={"Host": target.host})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "BSE1010")


async def test_the_allowed_values_are_told(target: Target) -> None:
    response = await target.request("GET", "/v1/usage?days=91")
    assert response.json()["error"]["details"]["allowed"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 90,
    }
