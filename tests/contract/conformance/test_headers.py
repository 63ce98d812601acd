"""Headers of answers: ids, rate, timing, CORS, and what browsers may do with them."""

import re

import httpx
import pytest
from tests.contract.conformance.contract import MISSING, PAIRS, Concrete
from tests.contract.conformance.target import Issuer, Target

RATE = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
EXPOSED = {
    "x-request-id",
    *RATE,
    "retry-after",
    "idempotency-replayed",
    "server-timing",
}
REQUEST_HEADERS = {
    "authorization",
    "content-type",
    "idempotency-key",
    "x-babysea-sdk-name",
    "x-babysea-sdk-version",
    "x-babysea-sdk-runtime",
    "x-babysea-sdk-runtime-version",
}


def names(response: httpx.Response, header: str) -> set[str]:
    """The names that a header lists."""
    return {name.strip().lower() for name in response.headers[header].split(",")}


@pytest.mark.parametrize("path", ["/v1/status", f"/v1/content/{MISSING}", "/v1/nothing"])
async def test_every_answer_has_an_id_and_is_json_that_nobody_keeps(target: Target, path: str) -> None:
    headers = (await target.request("GET", path)).headers
    assert headers["x-request-id"].startswith("req_")
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


async def test_an_authenticated_answer_tells_the_control_planes_share(target: Target) -> None:
    for path in ("/v1/status", f"/v1/content/{MISSING}"):
        timing = (await target.request("GET", path)).headers["server-timing"]
        phases = dict(part.split(";dur=") for part in timing.split(", "))
        assert {"auth", "validate", "total"} <= phases.keys()
        assert all(re.fullmatch(r"\d+\.\d+", figure) for figure in phases.values())


async def test_an_unauthenticated_answer_tells_no_rate_and_no_timing(target: Target) -> None:
    response = await target.seen_with("bye_" + "x" * 40).request("GET", "/v1/status")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert not {*RATE, "server-timing"} & set(response.headers)


@pytest.mark.parametrize(
    ("plan", "limit"), [("free", 60), ("starter", 120), ("pro", 300), ("scale", 1000), ("enterprise", 3000)]
)
async def test_an_authenticated_answer_tells_the_rate_of_its_plan(
    target: Target, issuer: Issuer, plan: str, limit: int
) -> None:
    caller = target.seen_with(await issuer.issue(plan=plan))
    for path, status in (("/v1/status", 200), (f"/v1/content/{MISSING}", 404)):
        response = await caller.request("GET", path)
        assert response.status_code == status
        assert int(response.headers["x-ratelimit-limit"]) == limit
        assert 0 <= int(response.headers["x-ratelimit-remaining"]) < limit
        assert int(response.headers["x-ratelimit-reset"]) > 0


async def test_a_plan_without_a_limit_tells_no_rate(target: Target, issuer: Issuer) -> None:
    caller = target.seen_with(await issuer.issue(plan="unlimited"))
    assert not set(RATE) & set((await caller.request("GET", "/v1/status")).headers)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
async def test_a_page_of_any_origin_may_read_every_answer(target: Target, pair: Concrete) -> None:
    options = {} if pair.body is None else {"json": pair.body}
    response = await target.request(
        pair.method, pair.path, headers={"Origin": "https://app.example"}, **options
    )
    assert response.headers["access-control-allow-origin"] == "*"
    assert names(response, "access-control-expose-headers") == EXPOSED
    assert "access-control-allow-credentials" not in response.headers


async def test_a_preflight_is_answered_without_a_key(target: Target) -> None:
    for pair in PAIRS:
        response = await target.seen_with("").request(
            "OPTIONS",
            pair.path,
            headers={
                "Origin": "https://app.example",
                "Access-Control-Request-Method": pair.method,
                "Access-Control-Request-Headers": "authorization, content-type",
            },
        )
        assert response.status_code in (200, 204)
        assert response.headers["access-control-allow-origin"] == "*"
        assert {"get", "post", "delete"} <= names(response, "access-control-allow-methods")
        assert names(response, "access-control-allow-headers") >= REQUEST_HEADERS
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["x-request-id"].startswith("req_")


async def test_unknown_headers_are_ignored(target: Target) -> None:
    headers = {
        "X-Request-Id": "req_mine",
        "X-Real-IP": "10.0.0.1",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "X-BabySea-SDK-Name": "babysea-js",
        "Via": "1.1 proxy",
    }
    response = await target.request("GET", "/v1/status", headers=headers)
    assert response.status_code == 200
    assert response.headers["x-request-id"] != "req_mine"
