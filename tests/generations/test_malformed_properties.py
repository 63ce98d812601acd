"""Whatever is sent to a whole deployment, the answer is one that the published document describes."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.asgi import ask, http_scope
from tests.contract.published import Published
from tests.effort import effort
from tests.support import Customer, Deployment

from babysea_server.contract.operations import OPERATIONS

MODELS = {
    "sandbox/image": "image",
    "sandbox/video": "video",
    "bfl/flux-schnell": "image",
    "bfl/flux-kontext-dev": "image",
    "runway/gen-4-aleph": "video",
}
UNKNOWN_ID = "0198f6b4-5d18-7f02-a6c9-83e1b4d7f265"
BY_MESSAGE = {row.message: row.id for row in OPERATIONS}
#: What a deployment without a worker, whose database is there, has no reason to answer.
NEVER = (500, 502, 504)

texts = st.text(max_size=20) | st.sampled_from(
    ["16:9", "png", "fastest", "sandbox, sandbox", "\u2028", "\ud800"]
)
urls = st.sampled_from(["https://example.com/a.png", "http://127.1/", "http://[::1", "https://\u2024/", "//"])
numbers = st.integers() | st.floats() | st.sampled_from([0, 1, 5, 1.0, 2**31, 2**53, 2**63, -(2**63), 1e308])
scalars = st.none() | st.booleans() | numbers | texts | urls
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)  # fmt: skip
fields = st.sampled_from(
    [
        *("generation_prompt", "generation_ratio", "generation_output_format", "generation_output_number"),
        *("generation_input_file", "generation_duration", "generation_resolution", "generation_generate_audio"),
        *("generation_seed", "generation_provider_order", "generation_guidance_scale", "generation_status"),
        *("account_id", "generation_input_video_file", "generation_output_file", ""),
    ]
) | st.text(max_size=8)  # fmt: skip


def good(model: str) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies that the model accepts."""
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {"generation_provider_order": st.just("fastest")}
    if model == "runway/gen-4-aleph":
        required["generation_input_video_file"] = st.just("https://example.com/a.mp4")
    if model == "bfl/flux-kontext-dev":
        required["generation_input_file"] = st.just(["https://example.com/a.png"])
    if model.startswith("sandbox/"):
        optional["generation_input_file"] = st.sampled_from([[], ["https://example.com/a.png?q=%20"]])
    if model == "sandbox/video":
        required["generation_duration"] = st.sampled_from([1, 5, 15])
        optional["generation_generate_audio"] = st.booleans()
    if MODELS[model] == "image":
        optional["generation_seed"] = st.integers(0, 2**31 - 1)
    required["generation_prompt"] = st.text(min_size=1, max_size=30)
    return st.fixed_dictionaries(required, optional=optional)


def documents(model: str) -> st.SearchStrategy[Any]:
    """Right, nearly right and wrong bodies."""
    spoiled = st.tuples(good(model), st.dictionaries(fields, values, max_size=2)).map(
        lambda two: two[0] | two[1]
    )
    return st.one_of(
        good(model), good(model), spoiled, spoiled, st.dictionaries(fields, values, max_size=4), values
    )


def encoded(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """As JSON, in ASCII or not."""
    return st.tuples(values, st.booleans()).map(
        lambda both: json.dumps(both[0], ensure_ascii=both[1]).encode("utf-8", "surrogatepass")
    )


requests = st.sampled_from(list(MODELS)).flatmap(
    lambda model: st.tuples(st.just(model), encoded(documents(model)) | st.binary(max_size=40))
)
keys = (
    st.none()
    | st.none()
    | st.sampled_from(["a", "b"])
    | st.text(st.characters(max_codepoint=255), max_size=5)
)


@pytest.fixture
async def published(api: Deployment) -> Published:
    return Published((await api.client.get("/openapi.json")).json())


@settings(max_examples=effort(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests, wrong=st.sampled_from([False] * 9 + [True]), key=keys)
async def test_any_body_gets_a_documented_answer_and_what_is_accepted_can_be_read(
    caller: Customer, published: Published, request: tuple[str, bytes], wrong: bool, key: str | None
) -> None:
    model, body = request
    media = MODELS[model] if not wrong else "image"
    authorization = ("authorization", f"Bearer {caller.key}")
    headers = [authorization, ("content-type", "application/json")]
    if key is not None:
        headers.append(("idempotency-key", key))
    app = caller.deployment.api
    answer = await ask(
        app, http_scope("POST", f"/v1/generate/{media}/{model}", headers, host="localhost"), body
    )
    published.check("generate", answer)
    assert answer.status not in NEVER, answer.body
    assert b"Traceback" not in answer.body
    if answer.status != 200:
        if answer.code == "BSE2001":
            assert isinstance(answer.json["error"]["details"]["field"], str)
        return
    path = f"/v1/content/{answer.json['data']['generation_id']}"
    read = await ask(app, http_scope("GET", path, [authorization], host="localhost"))
    published.check("get_generation", read)
    assert read.status == 200
    if "idempotency-replayed" not in answer.headers:
        _check_echo(json.loads(body), read.json["data"])


def _check_echo(sent: dict[str, Any], told: dict[str, Any]) -> None:
    """Every field comes back, but for what asks for nothing: an empty list, a default the model lacks."""
    for name, value in sent.items():
        if name == "generation_provider_order":
            assert set(told[name]) <= set(value.replace(" ", "").split(",")) or value == "fastest"
        elif name in told:
            assert told[name] == value
        else:
            assert value in ([], 1, False) or name in ("generation_output_format", "generation_duration")


words = st.sampled_from(
    [
        *(b"v1", b"status", b"content", b"list", b"generate", b"image", b"video", b"sandbox", b"estimate"),
        *(b"library", b"models", b"health", b"storage", UNKNOWN_ID.encode(), b"", b"..", b"%2e", b"%2F"),
    ]
) | st.binary(max_size=8)  # fmt: skip
templates = st.sampled_from(OPERATIONS).map(
    lambda row: (
        row.path.replace("{lab}/{model}", "sandbox/image")
        .replace("{media}", "image")
        .replace("{subject}", "providers")
        .replace("{generation_id}", UNKNOWN_ID)
        .encode()
    )
)
paths = (
    templates | templates | templates | st.lists(words, max_size=7).map(lambda parts: b"/" + b"/".join(parts))
)
pairs = st.tuples(
    st.sampled_from([b"limit", b"offset", b"days", b"count", b"duration", b"resolution", b"audio"])
    | st.binary(max_size=4),
    st.sampled_from([b"0", b"1", b"5", b"100", b"-1", b"true", b"720p", b"", b"2147483647"])
    | st.binary(max_size=4),
).map(b"=".join)
queries = st.booleans().flatmap(
    lambda some: st.lists(pairs, min_size=1, max_size=3).map(b"&".join) if some else st.just(b"")
)


@settings(max_examples=effort(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "GET", "GET", "POST", "POST", "DELETE", "PUT", "HEAD"]),
    path=paths,
    query=queries,
    host=st.sampled_from([*["localhost"] * 6, "api.us.localhost", "localhost:80", "api.eu.localhost"]),
    known=st.sampled_from([True] * 9 + [False]),
)
async def test_any_path_gets_a_documented_answer(
    caller: Customer, published: Published, method: str, path: bytes, query: bytes, host: str, known: bool
) -> None:
    key = caller.key if known else "bye_" + "x" * 40
    headers = [("authorization", f"Bearer {key}"), ("content-type", "application/json")]
    scope = http_scope(method, path + b"?" + query, headers, host=host)
    if scope["path"] == "/" or path.startswith(b"/files/"):
        return  # not under the published document
    answer = await ask(caller.deployment.api, scope, b"{}")
    published.check(BY_MESSAGE[answer.json["message"]] if answer.status == 200 else None, answer)
    assert answer.status not in NEVER, answer.body
    assert b"Traceback" not in answer.body
