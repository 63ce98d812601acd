"""The security headers of every answer of the whole application, and what pages of other origins may do."""

from collections.abc import Mapping

import httpx
from starlette.types import Receive, Scope, Send
from tests.contract.asgi import ask, http_scope
from tests.support import Customer, Deployment

from babysea_server.contract.security import secured

API = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}
ORIGIN = {"Origin": "https://app.example"}
UUID = "0198f6b4-5d18-7f02-a6c9-83e1b4d7f265"


def security(headers: Mapping[str, str]) -> dict[str, str]:
    names = {*API, "strict-transport-security"}
    return {name: value for name, value in headers.items() if name in names}


async def test_every_answer_that_is_data_may_do_nothing_in_a_browser(deployment: Deployment) -> None:
    for method, target, status in (
        ("GET", "/", 200),
        ("GET", "/openapi.json", 200),
        ("POST", "/openapi.json", 403),
        ("GET", "/v1/status", 401),
        ("GET", "/v1/nowhere", 403),
        ("POST", "/v1/generate/image/bfl/flux-schnell", 403),
        ("GET", "/elsewhere", 403),
        ("OPTIONS", "/v1/status", 403),
        ("PUT", "/docs", 403),
    ):
        answer = await deployment.client.request(method, target)
        assert (answer.status_code, security(answer.headers)) == (status, API), f"{method} {target}"


async def test_a_success_and_a_preflight_have_them_too(customer: Customer) -> None:
    answer = await customer.request("GET", "/v1/status")
    assert (answer.status_code, security(answer.headers)) == (200, API)
    asking = {**ORIGIN, "Access-Control-Request-Method": "GET"}
    preflight = await customer.deployment.client.options("/v1/status", headers=asking)
    assert (preflight.status_code, security(preflight.headers)) == (204, API)


async def test_the_page_has_its_own_policy_and_the_rest_of_them(deployment: Deployment) -> None:
    answer = await deployment.client.get("/docs")
    own = answer.headers["content-security-policy"]
    assert own.startswith("default-src 'none'; style-src 'sha256-")
    assert security(answer.headers) == {**API, "content-security-policy": own}


async def test_files_stay_usable_for_pages_of_other_origins(customer: Customer) -> None:
    made = await customer.made()
    link = made["generation_output_file"][0]
    for target, status in ((link, 200), (link.partition("?")[0], 403), ("/files/a%2e", 404)):
        answer = await customer.deployment.client.get(target, headers=ORIGIN)
        assert (answer.status_code, security(answer.headers)) == (
            status,
            {
                **API,
                "cross-origin-resource-policy": "cross-origin",
                "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
            },
        )
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_over_tls_browsers_are_told_to_stay_there(deployment: Deployment) -> None:
    transport = httpx.ASGITransport(app=deployment.api)
    async with httpx.AsyncClient(transport=transport, base_url="https://localhost") as client:
        for path in ("/", "/v1/status", "/docs", "/files/x"):
            answer = await client.get(path)
            assert answer.headers["strict-transport-security"] == "max-age=63072000", path


async def test_a_header_that_an_application_sets_itself_stands() -> None:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        send = secured(scope, send)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"SAMEORIGIN")]}
        )
        await send({"type": "http.response.body", "body": b"{}"})

    answer = await ask(app, http_scope())
    assert answer.headers == {
        **API,
        "x-frame-options": "SAMEORIGIN",
        "strict-transport-security": "max-age=63072000",
    }


# ------------------------------------------------------------------------------- other origins (contract, 3)

REQUEST_HEADERS = {
    *("Authorization", "Content-Type", "Idempotency-Key", "X-BabySea-SDK-Name", "X-BabySea-SDK-Version"),
    *("X-BabySea-SDK-Runtime", "X-BabySea-SDK-Runtime-Version"),
}
EXPOSED = {
    *("X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"),
    *("Retry-After", "Idempotency-Replayed", "Server-Timing"),
}


async def test_a_preflight_from_any_origin_grants_what_the_operations_need(deployment: Deployment) -> None:
    for method, target in (
        ("GET", "/v1/status"),
        ("POST", "/v1/generate/image/bfl/flux-schnell"),
        ("DELETE", f"/v1/content/{UUID}"),
        ("POST", "/v1/nowhere"),
    ):
        asking = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
        answer = await deployment.client.options(target, headers={**ORIGIN, **asking})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert set(answer.headers["access-control-allow-methods"].split(", ")) == {"GET", "POST", "DELETE"}
        assert set(answer.headers["access-control-allow-headers"].split(", ")) == REQUEST_HEADERS
        assert "access-control-allow-credentials" not in answer.headers


async def test_successes_and_errors_are_readable_by_any_origin_and_never_with_credentials(
    customer: Customer,
) -> None:
    path = "/v1/generate/image/sandbox/image"
    for status, answer in (
        (200, await customer.request("GET", "/v1/status", headers=ORIGIN)),
        (200, await customer.generate()),
        (400, await customer.request("POST", path, headers=ORIGIN, json={"wrong": 1})),
        (403, await customer.request("GET", "/v1/nowhere", headers=ORIGIN)),
        (404, await customer.request("GET", f"/v1/content/{UUID}", headers=ORIGIN)),
        (401, await customer.deployment.client.get("/v1/status", headers=ORIGIN)),
    ):
        assert answer.status_code == status
        asked_by_a_page = "origin" in answer.request.headers
        assert (answer.headers.get("access-control-allow-origin") == "*") == asked_by_a_page
        if asked_by_a_page:
            assert set(answer.headers["access-control-expose-headers"].split(", ")) == EXPOSED
        assert "access-control-allow-credentials" not in answer.headers
