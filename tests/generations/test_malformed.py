"""Malformed requests against a whole deployment: each its documented error, nothing written, never a 500."""

import json
from typing import Any

import pytest
from tests.contract.asgi import JSON, Answer, ask, http_scope
from tests.contract.published import Published
from tests.support import Customer, Deployment

IMAGE = "/v1/generate/image/sandbox/image"
VIDEO = "/v1/generate/video/sandbox/video"


@pytest.fixture
async def published(api: Deployment) -> Published:
    return Published((await api.client.get("/openapi.json")).json())


async def send(
    customer: Customer,
    body: bytes | str,
    path: str = IMAGE,
    *,
    method: str = "POST",
    host: str | None = "localhost",
    headers: list[tuple[str, str]] | None = None,
) -> Answer:
    """One request with the customer's key, in the raw."""
    key = ("authorization", f"Bearer {customer.key}")
    scope = http_scope(method, path, [key, *([JSON] if headers is None else headers)], host=host)
    return await ask(customer.deployment.api, scope, body.encode() if isinstance(body, str) else body)


def error(answer: Answer) -> Any:
    assert answer.status != 200, answer.body
    return answer.json["error"]


async def written(customer: Customer) -> int:
    return int(await customer.deployment.db.fetchval("SELECT count(*) FROM generations"))


PROMPT = '"generation_prompt": "x"'
NOT_JSON: list[bytes | str] = [
    "",
    " ",
    "{",
    "{}}",
    "null",
    "[]",
    '"generation_prompt"',
    "7",
    "{'generation_prompt': 'x'}",
    "{" + PROMPT + ",}",
    "{" + PROMPT + ", " + PROMPT + "}",
    "{" + PROMPT + ', "generation_seed": NaN}',
    "{" + PROMPT + ', "generation_seed": Infinity}',
    "{" + PROMPT + ', "generation_seed": 1e999}',
    "{" + PROMPT + ', "generation_seed": ' + "9" * 5000 + "}",
    "{" + PROMPT + ', "generation_seed": ' + str(2**63) + "}",
    "{" + PROMPT + ', "x": ' + "[" * 17 + "]" * 17 + "}",
    "{" + PROMPT + ', "x": ' + "[" * 40000 + "]" * 40000 + "}",
    '{"generation_prompt": "a\x00b"}',
    '{"generation_prompt": "a\\u0000b"}',
    '{"generation_prompt": "\\ud800"}',
    '{"\\ud800": "x"}',
    b'{"generation_prompt": "\xff"}',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{" + PROMPT.encode() + b"}",
    b"\x1f\x8b\x08\x00",
    b"generation_prompt=x",
]


async def test_a_body_that_is_not_strict_json_is_invalid_input(
    caller: Customer, published: Published
) -> None:
    for body in NOT_JSON:
        answer = await send(caller, body)
        published.check("generate", answer)
        assert (answer.status, answer.code) == (400, "BSE2001"), body[:80]
        assert error(answer)["details"]["field"] == "body", body[:80]
    assert await written(caller) == 0


FILE = "https://example.com/a.png"


def of(path: str, name: str, *values: Any) -> list[tuple[str, Any, str]]:
    """One case for each wrong value of a field."""
    return [(path, {name: value}, name) for value in values]


WRONG_FIELDS: list[tuple[str, Any, str]] = [
    (IMAGE, {}, "generation_prompt"),
    *of(IMAGE, "generation_prompt", "", " \n", 7, None, [], {}, True, "x" * 5001),
    *of(IMAGE, "generation_ratio", "5:7", 1),
    *of(IMAGE, "generation_output_format", "gif", "PNG"),
    *of(IMAGE, "generation_output_number", 0, 5, -1, 1.5, "1", True, None, 2**62),
    *of(IMAGE, "generation_seed", -1, 2**31, 0.5, "1", False, [1]),
    *of(IMAGE, "generation_input_file", FILE, [7], [None], {"0": FILE}, [[]], [FILE] * 17),
    *of(IMAGE, "generation_provider_order", ["sandbox"], 7, None),
    (VIDEO, {}, "generation_duration"),
    *of(VIDEO, "generation_duration", 0, 16, "5", 5.5, None, -5),
    (VIDEO, {"generation_duration": 5, "generation_resolution": "8k"}, "generation_resolution"),
    (VIDEO, {"generation_duration": 5, "generation_generate_audio": "yes"}, "generation_generate_audio"),
]


async def test_a_wrong_value_names_its_field_and_says_what_would_be_right(
    caller: Customer, published: Published
) -> None:
    for path, fields, name in WRONG_FIELDS:
        body = {**({} if name == "generation_prompt" else {"generation_prompt": "x"}), **fields}
        answer = await send(caller, json.dumps(body), path)
        published.check("generate", answer)
        assert (answer.status, answer.code) == (400, "BSE2001"), fields
        assert error(answer)["details"]["field"] == name, fields
        assert name in error(answer)["message"]
    assert await written(caller) == 0


async def test_an_unknown_field_is_told_the_nearest_known_one(caller: Customer, published: Published) -> None:
    for unknown, nearest in (
        ("generation_promt", "generation_prompt"),
        ("generation_sead", "generation_seed"),
        ("generation_outputs_number", "generation_output_number"),
        ("provider_order", "generation_provider_order"),
    ):
        answer = await send(caller, json.dumps({"generation_prompt": "x", unknown: 1}))
        published.check("generate", answer)
        assert (answer.status, answer.code) == (400, "BSE2001")
        details = error(answer)["details"]
        assert (details["field"], details["suggestion"]) == (unknown, nearest)
        assert nearest in error(answer)["message"]
    for strange in ("", "__proto__", "x" * 5000, "\U0001f30a", "a\nb"):
        answer = await send(caller, json.dumps({"generation_prompt": "x", strange: 1}))
        published.check("generate", answer)
        assert (answer.status, answer.code) == (400, "BSE2001")
        assert len(answer.body) < 2000, "what was sent is not sent back at length"


PRIVATE = [
    *("http://127.0.0.1/a.png", "http://localhost/a.png", "http://10.0.0.1/a", "http://192.168.1.1/a"),
    *("http://169.254.169.254/latest/meta-data", "http://[::1]/a", "http://[fe80::1]/a", "http://[fc00::1]/"),
    *("http://[::ffff:127.0.0.1]/a", "http://0.0.0.0/", "http://0177.0.0.1/", "http://2130706433/"),
    *("http://0x7f.1/", "http://224.0.0.1/", "http://db.internal/", "http://printer.local/", "http://host/"),
    *("ftp://example.com/a", "file:///etc/passwd", "data:image/png;base64,AAAA", "javascript:alert(1)"),
    *("https://user:secret@example.com/a", "https://", "https:///a", "//example.com/a", "example.com/a.png"),
    *(
        "https://example.com:0/a",
        "https://example.com:99999/a",
        "https://exa mple.com/",
        "",
        "\t",
        "https://[/",
    ),
    "https://example.com/" + "x" * 2048,
]


async def test_a_url_that_is_not_plainly_public_is_invalid_input(
    caller: Customer, published: Published
) -> None:
    for url in PRIVATE:
        body = {"generation_prompt": "x", "generation_input_file": ["https://example.com/a.png", url]}
        answer = await send(caller, json.dumps(body))
        published.check("generate", answer)
        assert (answer.status, answer.code) == (400, "BSE2001"), url
        details = error(answer)["details"]
        assert (details["field"], details["index"]) == ("generation_input_file", 1), url
        assert "secret" not in answer.body.decode()
    assert await written(caller) == 0


async def test_a_model_that_does_not_exist_or_makes_something_else_is_told_what_does(
    caller: Customer, published: Published
) -> None:
    good = json.dumps({"generation_prompt": "x"})
    answer = await send(caller, good, "/v1/generate/image/bfl/flux-schnel")
    published.check("generate", answer)
    assert (answer.status, answer.code) == (404, "BSE2011")
    assert error(answer)["details"]["suggestion"] == "bfl/flux-schnell"

    answer = await send(caller, good, "/v1/generate/image/nobody/nothing-like-it-0")
    published.check("generate", answer)
    assert (answer.status, answer.code) == (404, "BSE2011")
    assert "suggestion" not in error(answer)["details"]

    answer = await send(caller, good, "/v1/generate/video/sandbox/image")
    published.check("generate", answer)
    assert (answer.status, answer.code) == (400, "BSE2012")
    assert error(answer)["details"]["path"] == IMAGE


async def test_a_huge_body_is_read_no_further_than_the_limit(caller: Customer, published: Published) -> None:
    exact = json.dumps({"generation_prompt": "x"}).encode().ljust(100 * 1024)
    answer = await send(caller, exact)
    published.check("generate", answer)
    assert answer.status == 200
    for body, headers in (
        (exact + b" ", [JSON]),
        (b"", [JSON, ("content-length", str(100 * 1024 + 1))]),
        (b"", [JSON, ("content-length", str(10**17))]),
    ):
        answer = await send(caller, body, headers=headers)
        published.check("generate", answer)
        assert (answer.status, answer.code) == (413, "BSE2010")
        assert error(answer)["details"] == {"max_bytes": 102_400}


async def test_what_is_none_of_the_operations_is_rejected_by_the_firewall(
    caller: Customer, published: Published
) -> None:
    good = json.dumps({"generation_prompt": "x"})
    paths = [
        *("/v1/generate/image/sandbox%2Fimage", "/v1/generate/image/sandbox%2fimage", "/v1/generate/image/a%5Cb/c"),
        *("/v1/generate/image/sandbox/../sandbox/image", "/v1/generate/image/%2e%2e/image", "/v1//generate/image/a/b"),
        *("/v1/generate/image/sandbox/image/", "/v1/generate/image/sandbox", "/v1/generate/audio/sandbox/image"),
        *("/v1/generate/image/Sandbox/Image", "/v1/generate/image/sand%00box/image", "/v1/generate/image/s\x00/b"),
        *("/v1/generate/image/\u00e9/b", "/v1/generate/image/%E9/b", "/v1/generate/image/a%2/b", "/v2/status"),
        *("/V1/generate/image/sandbox/image", "/v1/generate/image/sandbox/image;x", "/v1", "/v1/", "*", ""),
        *("/v1/content/not-a-uuid", "/v1/generate/image/" + "x" * 101 + "/b", "/" + "x" * 5000),
        *(IMAGE + "?x=1", IMAGE + "?%", IMAGE + "?" + "x" * 3000),
    ]  # fmt: skip
    for path in paths:
        answer = await send(caller, good, path)
        published.check(None, answer)
        assert (answer.status, answer.code) == (403, "BSE1010"), path
        assert {"rule", "location", "allowed"} <= error(answer)["details"].keys(), path
    for host in (
        None,
        "",
        "example.com",
        "localhost.example.com",
        "api.us.localhost:port",
        "127.0.0.2",
        "[::2]",
    ):
        answer = await send(caller, good, host=host)
        published.check(None, answer)
        assert (answer.code, error(answer)["details"]["rule"]) == ("BSE1010", "unknown_host"), host
    for method in (
        "GET",
        "PUT",
        "PATCH",
        "DELETE",
        "HEAD",
        "TRACE",
        "OPTIONS",
        "CONNECT",
        "post",
        "",
        "X" * 500,
    ):
        answer = await send(caller, good, method=method)
        published.check(None, answer)
        assert (answer.code, error(answer)["details"]["rule"]) == ("BSE1010", "method_not_allowed"), method
    assert await written(caller) == 0


async def test_headers_that_could_mean_two_things_are_rejected(
    caller: Customer, published: Published
) -> None:
    good = json.dumps({"generation_prompt": "x"})
    kinds = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
        "application/jsonp",
    ]
    kinds += [
        "application/json; charset=latin-1",
        "application/json, text/plain",
        "application/json; x=1; y=2",
    ]
    for kind in kinds:
        answer = await send(caller, good, headers=[("content-type", kind)])
        published.check("generate", answer)
        assert (answer.code, error(answer)["details"]["rule"]) == ("BSE1010", "content_type"), kind
    cases = {
        "content_type": [],
        "repeated_header": [JSON, JSON],
        "method_override": [JSON, ("x-http-method-override", "DELETE")],
        "ambiguous_framing": [JSON, ("content-length", "5"), ("transfer-encoding", "chunked")],
    }
    for rule, headers in cases.items():
        answer = await send(caller, good, headers=headers)
        published.check("generate", answer)
        assert (answer.code, error(answer)["details"]["rule"]) == ("BSE1010", rule)
    answer = await send(caller, good, headers=[JSON, ("authorization", "Bearer other")])
    assert error(answer)["details"]["rule"] == "repeated_header"
    answer = await send(caller, "x", "/v1/status", method="GET", headers=[("content-length", "1")])
    published.check("status", answer)
    assert error(answer)["details"]["rule"] == "unexpected_body"
    for kind in ("application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"'):
        answer = await send(caller, good, headers=[("content-type", kind)])
        published.check("generate", answer)
        assert answer.status == 200, kind


async def test_every_models_documented_example_is_accepted_and_reads_as_documented(
    caller: Customer, published: Published
) -> None:
    document = (await caller.deployment.client.get("/openapi.json")).json()
    bodies = [schema for schema in document["components"]["schemas"].values() if "x-babysea-model" in schema]
    assert len(bodies) > 100
    await caller.deployment.db.execute("UPDATE accounts SET credit_balance = credit_balance + 1000000000")
    for schema in bodies:
        path = f"/v1/generate/{schema['x-babysea-media']}/{schema['x-babysea-model']}"
        answer = await send(caller, json.dumps(schema["example"]), path)
        published.check("generate", answer)
        assert answer.status == 200, (path, answer.body)
        stored = f"/v1/content/{answer.json['data']['generation_id']}"
        answer = await send(caller, b"", stored, method="GET", headers=[])
        published.check("get_generation", answer)
        assert schema["example"].items() <= answer.json["data"].items(), path
