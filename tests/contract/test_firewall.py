"""Every rule of the firewall, with its documented answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.contract.asgi import HOST, JSON, UUID, Header, http_scope

from babysea_server.contract.firewall import Firewall, host_name
from babysea_server.contract.operations import OPERATIONS
from babysea_server.contract.parameters import compile_parameter
from babysea_server.errors import ApiError
from babysea_server.settings import REGIONS

ADMITTED = [
    ("GET", "/v1/status", "status", {}, {}),
    ("GET", "/v1/usage", "usage", {}, {"days": 30}),
    ("GET", "/v1/usage?days=90", "usage", {}, {"days": 90}),
    ("GET", "/v1/user/account", "account", {}, {}),
    ("GET", "/v1/user/billing", "billing", {}, {}),
    (
        "GET",
        "/v1/estimate/bfl/flux-1.1-pro?count=3&duration=5&resolution=720p&audio=true",
        "estimate",
        {"lab": "bfl", "model": "flux-1.1-pro"},
        {"count": 3, "duration": 5, "resolution": "720p", "audio": True},
    ),
    ("GET", "/v1/estimate/a/b", "estimate", {"lab": "a", "model": "b"}, {"count": 1}),
    ("GET", "/v1/estimate/a/b?count=-5", "estimate", {"lab": "a", "model": "b"}, {"count": -5}),
    ("POST", "/v1/generate/image/a/b", "generate", {"media": "image", "lab": "a", "model": "b"}, {}),
    ("POST", "/v1/generate/video/a/b", "generate", {"media": "video", "lab": "a", "model": "b"}, {}),
    ("GET", "/v1/content/list", "list_generations", {}, {"limit": 50, "offset": 0}),
    ("GET", "/v1/content/list?offset=7&limit=100", "list_generations", {}, {"limit": 100, "offset": 7}),
    ("GET", f"/v1/content/{UUID}", "get_generation", {"generation_id": UUID}, {}),
    ("GET", f"/v1/content/{UUID.upper()}", "get_generation", {"generation_id": UUID}, {}),
    ("DELETE", f"/v1/content/{UUID}", "delete_generation", {"generation_id": UUID}, {}),
    ("POST", f"/v1/content/generation/cancel/{UUID}", "cancel_generation", {"generation_id": UUID}, {}),
    ("GET", "/v1/health/inference/providers", "health_inference", {"subject": "providers"}, {}),
    ("GET", "/v1/health/inference/models", "health_inference", {"subject": "models"}, {}),
    ("GET", "/v1/health/storage", "health_storage", {}, {}),
    ("GET", "/v1/health/cache", "health_cache", {}, {}),
    ("GET", "/v1/library/providers", "library_providers", {}, {}),
    ("GET", "/v1/library/models", "library_models", {}, {}),
]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize(("method", "target", "operation_id", "path", "query"), ADMITTED)
def test_published_operations_are_admitted(
    firewall: Firewall,
    region: str,
    method: str,
    target: str,
    operation_id: str,
    path: dict[str, str],
    query: dict[str, Any],
) -> None:
    headers = [JSON] if operation_id == "generate" else []
    admitted = firewall.match(http_scope(method, target, headers, host=f"api.{region}.example.com"))
    assert (admitted.region, admitted.operation_id) == (region, operation_id)
    assert (admitted.path, admitted.query) == (path, query)
    (row,) = (row for row in OPERATIONS if row.id == operation_id)
    assert (admitted.scope, admitted.takes_body) == (row.scope, row.body != "none")


def test_every_operation_is_among_the_admitted() -> None:
    assert {row.id for row in OPERATIONS} == {operation_id for _, _, operation_id, _, _ in ADMITTED}


def rejected(firewall: Firewall, scope: dict[str, Any]) -> Mapping[str, Any]:
    with pytest.raises(ApiError) as caught:
        firewall.match(scope)
    error = caught.value
    assert (error.spec.code, error.spec.status, error.spec.retryable) == ("BSE1010", 403, False)
    assert error.details is not None
    assert set(error.details) == {"rule", "location", "allowed"}
    assert error.message.endswith(".")
    assert len(error.message) < 400
    return error.details


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("api.us.example.com", "us"),
        ("API.EU.Example.COM", "eu"),
        ("api.jp.example.com:443", "jp"),
        ("api.jp.example.com.", "jp"),
        ("api.jp.example.com.:8443", "jp"),
        ("localhost:8000", "eu"),
        ("127.0.0.1:8000", "eu"),
        ("[::1]:8000", "eu"),
        ("[::1]", "eu"),
    ],
)
def test_host_decides_the_region(firewall: Firewall, host: str, region: str) -> None:
    assert firewall.match(http_scope(host=host)).region == region


@pytest.mark.parametrize(
    "host",
    [
        *(
            None,
            "",
            "example.com",
            "api.us.example.org",
            "api.mars.example.com",
            "api.us.example.com.evil.org",
        ),
        *("user@api.us.example.com", "api.us.example.com:80:80", "api.us.example.com:http", " ", ":80"),
        *("api.us.example.com..", "api.us.example.com:123456", "ápi.us.example.com", "x" * 5000),
    ],
)
def test_other_hosts_are_rejected(firewall: Firewall, host: str | None) -> None:
    details = rejected(firewall, dict(http_scope(host=host)))
    assert (details["rule"], details["location"]) == ("unknown_host", "header.host")
    assert HOST in details["allowed"]


def test_forwarded_host_is_ignored(firewall: Firewall) -> None:
    scope = http_scope(headers=[("x-forwarded-host", "api.jp.example.com")])
    assert firewall.match(scope).region == "us"


@pytest.mark.parametrize(
    "header",
    [
        ("x-request-id", "mine"),
        ("content-length", "0"),
        ("content-length", "00"),
        ("content-type", "text/plain"),
        ("te", "trailers"),
        ("forwarded", "for=1"),
    ],
)
def test_unknown_headers_and_empty_bodies_are_ignored(firewall: Firewall, header: Header) -> None:
    assert firewall.match(http_scope(headers=[header])).operation_id == "status"


def test_repeated_headers_without_a_meaning_of_their_own_are_joined(firewall: Firewall) -> None:
    scope = http_scope(headers=[("idempotency-key", "a"), ("idempotency-key", "b")])
    assert firewall.match(scope).headers["idempotency-key"] == "a, b"


@pytest.mark.parametrize(
    ("headers", "rule", "location"),
    [
        ([("host", "api.us.example.com")], "repeated_header", "header.host"),
        ([("authorization", "a"), ("Authorization", "a")], "repeated_header", "header.authorization"),
        ([("content-type", "a"), ("content-type", "b")], "repeated_header", "header.content-type"),
        ([("content-length", "0"), ("content-length", "0")], "repeated_header", "header.content-length"),
        (
            [("transfer-encoding", "chunked"), ("content-length", "0")],
            "ambiguous_framing",
            "header.transfer-encoding",
        ),
        ([("content-length", "+1")], "ambiguous_framing", "header.content-length"),
        ([("content-length", "")], "ambiguous_framing", "header.content-length"),
        ([("content-length", "²")], "ambiguous_framing", "header.content-length"),
        ([("content-length", "9" * 5000)], "ambiguous_framing", "header.content-length"),
        ([("x-http-method-override", "DELETE")], "method_override", "header.x-http-method-override"),
        ([("X-HTTP-Method", "DELETE")], "method_override", "header.x-http-method"),
        ([("x-method-override", "GET")], "method_override", "header.x-method-override"),
        ([("content-length", "1")], "unexpected_body", "body"),
        ([("transfer-encoding", "chunked")], "unexpected_body", "body"),
    ],
)
def test_headers_that_blur_the_request_are_rejected(
    firewall: Firewall, headers: Sequence[Header], rule: str, location: str
) -> None:
    details = rejected(firewall, dict(http_scope(headers=headers)))
    assert (details["rule"], details["location"]) == (rule, location)


@pytest.mark.parametrize("target", [f"/v1/content/{UUID}", f"/v1/content/generation/cancel/{UUID}"])
def test_operations_without_a_body_refuse_one(firewall: Firewall, target: str) -> None:
    method = "POST" if "cancel" in target else "DELETE"
    assert rejected(firewall, dict(http_scope(method, target, [("content-length", "2")]))) == {
        "rule": "unexpected_body",
        "location": "body",
        "allowed": {"max_bytes": 0},
    }


@pytest.mark.parametrize(
    "target",
    [
        *("", "/", "/v1", "/v2/status", "/V1/status", "/v1/Status", "/v1/statuses", "/v1/openapi.json"),
        *("/v1/estimate/bfl", "/v1/estimate/a/b/c", "/v1/content", "/v1/health"),
        *("/v1/generate/image/bfl", "/v1/user", "/v1/status~", "v1/status", "/v1/user/account/x"),
    ],
)
def test_other_paths_are_rejected(firewall: Firewall, target: str) -> None:
    details = rejected(firewall, dict(http_scope(target=target)))
    assert details["rule"] in ("unknown_path", "malformed_path")
    assert details["location"] == "path"
    assert sorted(details["allowed"]) == sorted({row.path for row in OPERATIONS})


@pytest.mark.parametrize(
    "target",
    [
        *("/v1/status/", "//v1/status", "/v1//status", "/v1/./status", "/v1/x/../status", "/v1/%2e/status"),
        *(
            "/v1/%2E%2e/status",
            "/v1%2Fstatus",
            "/v1%2fstatus",
            "/v1%5Cstatus",
            "/v1\\status",
            "/v1/status%00",
        ),
        *("/v1/status%0d%0a", "/v1/status%7f", "/v1/status%", "/v1/status%2", "/v1/status%zz", "/v1/stätus"),
        *(
            "/v1/status%252f",
            "/v1/estimate/bfl%2Fflux",
            "/v1/status%C3%A4",
            "/v1/status%20",
            "/v1/..%2fstatus",
        ),
        *("/v1/status\x00", "/v1/status\n", "/v1/status\x7f", "/v1/estimate/../..", "/v1/estimate/./b"),
        *("/v1/status;x=1", "/v1/" + "a" * 2048, "/v1/estimate/a/" + "b" * 3000, "/v1/status%3Fdays=1"),
    ],
)
def test_malformed_paths_are_rejected(firewall: Firewall, target: str) -> None:
    details = rejected(firewall, dict(http_scope(target=target)))
    assert (details["location"], details["rule"] in ("malformed_path", "unknown_path")) == ("path", True)


def test_malformed_paths_are_named_as_such(firewall: Firewall) -> None:
    for target in ("/v1/status/", "/v1/%2e%2e/status", "/v1%2Fstatus", "/v1/status%00", "/v1/stätus"):
        assert rejected(firewall, dict(http_scope(target=target)))["rule"] == "malformed_path"


def test_an_escape_of_an_unreserved_character_means_the_character(firewall: Firewall) -> None:
    assert firewall.match(http_scope(target="/v1/%73tatus")).operation_id == "status"
    assert firewall.match(http_scope(target="/v1/estimate/bfl/flux%2D1%2e1")).path["model"] == "flux-1.1"


def test_without_a_raw_path_the_decoded_one_is_read(firewall: Firewall) -> None:
    scope = dict(http_scope())
    del scope["raw_path"], scope["query_string"]
    assert firewall.match(scope).operation_id == "status"
    assert rejected(firewall, scope | {"path": "/v1/\ud800"})["location"] == "path"


@pytest.mark.parametrize(
    ("method", "target", "location"),
    [
        ("POST", "/v1/generate/audio/a/b", "path.media"),
        ("POST", "/v1/generate/Image/a/b", "path.media"),
        ("GET", "/v1/health/inference/regions", "path.subject"),
        ("GET", "/v1/content/1", "path.generation_id"),
        ("GET", "/v1/content/generation", "path.generation_id"),
        ("GET", f"/v1/content/{UUID}0", "path.generation_id"),
        ("GET", f"/v1/content/{UUID.replace('-', '')}", "path.generation_id"),
        ("GET", "/v1/estimate/BFL/flux", "path.lab"),
        ("GET", "/v1/estimate/bfl/~flux", "path.model"),
        ("GET", "/v1/estimate/bfl/" + "x" * 101, "path.model"),
    ],
)
def test_path_parameters_must_match_their_schema(
    firewall: Firewall, method: str, target: str, location: str
) -> None:
    details = rejected(firewall, dict(http_scope(method, target, [JSON])))
    assert (details["rule"], details["location"]) == ("invalid_path_parameter", location)
    assert details["allowed"]


@pytest.mark.parametrize(
    "method", ["HEAD", "TRACE", "PUT", "PATCH", "OPTIONS", "CONNECT", "get", "", "DELETE"]
)
def test_other_methods_are_rejected(firewall: Firewall, method: str) -> None:
    assert rejected(firewall, dict(http_scope(method))) == {
        "rule": "method_not_allowed",
        "location": "method",
        "allowed": ["GET"],
    }


def test_a_path_names_all_its_methods(firewall: Firewall) -> None:
    details = rejected(firewall, dict(http_scope("POST", f"/v1/content/{UUID}")))
    assert sorted(details["allowed"]) == ["DELETE", "GET"]
    assert rejected(firewall, dict(http_scope("DELETE", "/v1/content/list")))["allowed"] == ["GET"]


DAYS = {"type": "integer", "minimum": 1, "maximum": 90}


@pytest.mark.parametrize(
    ("query", "rule", "location", "allowed"),
    [
        ("day=1", "unknown_query_parameter", "query", ["days"]),
        ("days=1&x", "unknown_query_parameter", "query", ["days"]),
        ("&", "unknown_query_parameter", "query", ["days"]),
        ("days=1&", "unknown_query_parameter", "query", ["days"]),
        ("DAYS=1", "unknown_query_parameter", "query", ["days"]),
        ("days=1&days=1", "repeated_query_parameter", "query.days", DAYS),
        ("days=1&day%73=1", "repeated_query_parameter", "query.days", DAYS),
        *(
            (f"days={text}", "invalid_query_parameter", "query.days", DAYS)
            for text in (
                "",
                "0",
                "91",
                "-1",
                "+5",
                "%2B5",
                "1.0",
                "1e1",
                "%205",
                "٣",
                "0x1",
                "9" * 1000,
                "--1",
                "-",
            )
        ),
        ("days", "invalid_query_parameter", "query.days", DAYS),
        ("days=%", "malformed_query", "query", ["days"]),
        ("days=%zz", "malformed_query", "query", ["days"]),
        ("days=%ff", "malformed_query", "query", ["days"]),
        ("days=1%00", "malformed_query", "query", ["days"]),
        ("days=1%0a", "malformed_query", "query", ["days"]),
        ("days=" + "1" * 2048, "malformed_query", "query", {"max_bytes": 2048}),
    ],
)
def test_query_is_read_strictly(
    firewall: Firewall, query: str, rule: str, location: str, allowed: object
) -> None:
    details = rejected(firewall, dict(http_scope(target=f"/v1/usage?{query}")))
    assert details == {"rule": rule, "location": location, "allowed": allowed}


@pytest.mark.parametrize(
    "query",
    [
        *("audio=1", "audio=True", "audio=", "audio=yes", "resolution=", "resolution=a%20b", "duration=5s"),
        *("resolution=" + "p" * 33, "count=2147483648", "count=-2147483649", "count=1,000"),
    ],
)
def test_estimate_query_values_must_have_their_types(firewall: Firewall, query: str) -> None:
    details = rejected(firewall, dict(http_scope(target=f"/v1/estimate/a/b?{query}")))
    assert (details["rule"], details["location"]) == (
        "invalid_query_parameter",
        f"query.{query.split('=')[0]}",
    )


def test_operations_without_query_say_so(firewall: Firewall) -> None:
    with pytest.raises(ApiError, match="it takes none"):
        firewall.match(http_scope(target="/v1/status?x=1"))


@pytest.mark.parametrize(
    "media_type",
    [
        *("application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8"),
        *("Application/JSON", 'application/json; charset="utf-8"', "application/json ; charset=utf-8"),
    ],
)
def test_generate_takes_json(firewall: Firewall, media_type: str) -> None:
    scope = http_scope(
        "POST", "/v1/generate/image/a/b", [("content-type", media_type), ("content-length", "2")]
    )
    assert firewall.match(scope).takes_body


@pytest.mark.parametrize(
    "media_type",
    [
        *(None, "", "text/plain", "application/jsonp", "application/json; charset=latin1", "text/json"),
        *("application/json; boundary=x", "application/json; charset=utf-8; charset=utf-8", ";"),
        *(
            "application/json;",
            "multipart/form-data",
            "application/x-www-form-urlencoded",
            "application/json, x",
        ),
    ],
)
def test_generate_takes_nothing_but_json(firewall: Firewall, media_type: str | None) -> None:
    headers = [] if media_type is None else [("content-type", media_type)]
    assert rejected(firewall, dict(http_scope("POST", "/v1/generate/image/a/b", headers))) == {
        "rule": "content_type",
        "location": "header.content-type",
        "allowed": ["application/json"],
    }


def test_generate_may_be_sent_in_chunks(firewall: Firewall) -> None:
    headers = [JSON, ("transfer-encoding", "chunked")]
    assert firewall.match(http_scope("POST", "/v1/generate/image/a/b", headers)).takes_body


def test_only_what_the_document_holds_is_admitted(
    documents: Mapping[str, dict[str, Any]], hosts: Mapping[str, str]
) -> None:
    paths = {path: item for path, item in documents["us"]["paths"].items() if path != "/v1/status"}
    smaller = Firewall({**documents, "us": {**documents["us"], "paths": paths}}, hosts)
    assert rejected(smaller, dict(http_scope()))["rule"] == "unknown_path"
    assert smaller.match(http_scope(host="api.eu.example.com")).operation_id == "status"


def test_a_document_that_cannot_be_checked_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot check a schema of type 'array'"):
        compile_parameter({"name": "x", "in": "query", "schema": {"type": "array"}})
    operation = {"operationId": "x", "x-babysea-scope": "library:read"}
    parameter = {"name": "any", "in": "path", "schema": {"type": "string"}}
    document = {"paths": {"/v1/{any}": {"get": {**operation, "parameters": [parameter]}}}}
    with pytest.raises(ValueError, match="literal second segment"):
        Firewall({"us": document}, {})


def test_host_name_is_normal() -> None:
    assert host_name("API.us.Example.com.:8000") == "api.us.example.com"
    assert host_name("[::1]:80") == "[::1]"
    assert host_name("a:b") == ""
