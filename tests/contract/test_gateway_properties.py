"""Whatever arrives, no exception escapes the gateway, and every answer is a documented one."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.asgi import HOST, UUID, Exchange, chunked
from tests.effort import effort

from babysea_server.contract.gateway import MAX_BODY_BYTES, Gateway
from babysea_server.contract.operations import OPERATIONS
from babysea_server.errors import ERRORS, ApiError
from babysea_server.kit.calls import Call, Reply
from babysea_server.kit.json import InvalidJsonError, loads

WORDS = [b"v1", b"status", b"content", b"list", b"generate", b"image", b"estimate", b"bfl", b"flux", b"usage"]
segments = st.sampled_from([*WORDS, UUID.encode(), b"", b".", b"..", b"%2e", b"%2F", b"%00"]) | st.binary(
    max_size=12
)
known_paths = st.sampled_from(
    [
        row.path.replace("{lab}/{model}", "bfl/flux")
        .replace("{media}", "image")
        .replace("{subject}", "models")
        .replace("{generation_id}", UUID)
        .encode()
        for row in OPERATIONS
    ]
)
paths = known_paths | st.lists(segments, max_size=7).map(lambda parts: b"/" + b"/".join(parts)) | st.binary()
pairs = st.tuples(
    st.sampled_from([b"days", b"limit", b"offset", b"count", b"audio", b"x"]) | st.binary(max_size=6),
    st.sampled_from([b"1", b"0", b"-1", b"true", b"", b"%31"]) | st.binary(max_size=6),
).map(b"=".join)
queries = st.just(b"") | st.lists(pairs, max_size=4).map(b"&".join) | st.binary(max_size=60)
values = st.binary(max_size=20) | st.sampled_from(
    [b"Bearer bye_good", b"application/json", b"2", b"chunked", HOST.encode(), b"https://app.example"]
)
names = st.sampled_from(
    [
        *(b"host", b"authorization", b"content-type", b"content-length", b"transfer-encoding", b"origin"),
        *(b"access-control-request-method", b"x-http-method-override", b"idempotency-key"),
    ]
) | st.binary(min_size=1, max_size=10)
GOOD = [
    (b"host", HOST.encode()),
    (b"authorization", b"Bearer bye_good"),
    (b"content-type", b"application/json"),
]
headers = st.just(GOOD) | st.lists(st.tuples(names, values), max_size=6).flatmap(
    lambda more: st.sampled_from([more, GOOD + more])
)
methods = st.sampled_from(["GET", "POST", "DELETE", "OPTIONS", "HEAD", "TRACE", "PUT", "", "x"])
bodies = st.lists(
    st.binary(max_size=60)
    | st.sampled_from([b'{"generation_prompt":"x"}', b"x" * (MAX_BODY_BYTES // 2 + 1)]),
    min_size=1,
    max_size=4,
)


async def reads_json(call: Call) -> Reply:
    """Raises what handlers raise: nothing, ApiError, or anything else."""
    if call.operation_id == "generate":
        try:
            return Reply({"body": loads(call.body)})
        except InvalidJsonError as error:
            raise ApiError(ERRORS["BSE2001"], str(error), details={"field": "body"}) from error
    if call.operation_id == "health_cache":
        raise ZeroDivisionError("secret")
    return Reply({"path": call.path, "query": call.query})


@settings(max_examples=effort(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=methods, path=paths, query=queries, headers=headers, chunks=bodies, cut=st.booleans())
async def test_every_request_gets_a_documented_answer(
    make_gateway: Callable[..., Gateway],
    documents: Mapping[str, dict[str, Any]],
    method: str,
    path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    chunks: list[bytes],
    cut: bool,
) -> None:
    messages = chunked(*chunks)
    exchange = Exchange(messages[:-1] if cut else messages)
    scope = {
        "type": "http",
        "method": method,
        "scheme": "https",
        "client": None,
        "headers": headers,
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
    }
    await make_gateway(reads_json)(scope, exchange.receive, exchange.send)
    if not exchange.sent:
        assert cut
        return
    answer = exchange.answer
    assert answer.headers["x-request-id"].startswith("req_")
    if answer.status == 204:
        assert (method, answer.body) == ("OPTIONS", b"")
        return
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert "secret" not in answer.body.decode()
    envelope = answer.json
    assert envelope["request_id"] == answer.headers["x-request-id"]
    if answer.status == 200:
        assert set(envelope) == {"status", "request_id", "message", "timestamp", "data"}
        return
    row = ERRORS[envelope["error"]["code"]]
    assert (answer.status, envelope["error"]["type"]) == (row.status, row.type)
    members = documents["us"]["components"]["schemas"]["ErrorBody"]
    assert set(members["required"]) <= set(envelope["error"]) <= set(members["properties"])
