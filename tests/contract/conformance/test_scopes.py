"""Every scope against every operation, and who may not come in at all."""

from typing import Any

import httpx
import pytest
from tests.contract.conformance.contract import PAIRS, PRESETS, SCOPES, Concrete
from tests.contract.conformance.target import Issuer, Target, code


async def call(target: Target, pair: Concrete) -> httpx.Response:
    options: dict[str, Any] = {} if pair.body is None else {"json": pair.body}
    return await target.request(pair.method, pair.path, **options)


async def admitted(target: Target) -> dict[str, bool]:
    """Which of the 17 pairs a key may call; what it may not is refused as the contract says."""
    found = {}
    for pair in PAIRS:
        response = await call(target, pair)
        found[pair.name] = code(response) != "BSE1003"
        if found[pair.name]:
            assert code(response) == pair.missing, f"{pair.name}: {response.text}"
        else:
            assert response.status_code == 403
            assert response.json()["error"]["details"]["required"] == pair.scope
    return found


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_scope_opens_its_own_operations_and_no_other(
    target: Target, issuer: Issuer, scope: str
) -> None:
    caller = target.seen_with(await issuer.issue(scopes=[scope]))
    assert await admitted(caller) == {pair.name: pair.scope == scope for pair in PAIRS}


@pytest.mark.parametrize("scope", SCOPES)
async def test_without_a_scope_only_its_own_operations_are_closed(
    target: Target, issuer: Issuer, scope: str
) -> None:
    caller = target.seen_with(await issuer.issue(scopes=[other for other in SCOPES if other != scope]))
    assert await admitted(caller) == {pair.name: pair.scope != scope for pair in PAIRS}


@pytest.mark.parametrize("preset", PRESETS)
async def test_a_preset_opens_what_its_name_says(target: Target, issuer: Issuer, preset: str) -> None:
    caller = target.seen_with(await issuer.issue(preset=preset))
    assert await admitted(caller) == {pair.name: pair.scope in PRESETS[preset] for pair in PAIRS}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
async def test_no_operation_is_open_without_a_key(target: Target, pair: Concrete) -> None:
    response = await call(target.seen_with(""), pair)
    assert (response.status_code, code(response)) == (401, "BSE1001")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"Authorization": "Basic YTpi"}, "BSE1001"),
        ({"Authorization": "Bearer "}, "BSE1001"),
        ({"Authorization": "{key}"}, "BSE1001"),
        ({"X-Api-Key": "{key}"}, "BSE1001"),
        ({"Cookie": "key={key}"}, "BSE1001"),
        ({"Authorization": "Bearer {key}x"}, "BSE1002"),
        ({"Authorization": "Bearer sk_live_0123456789"}, "BSE1002"),
        ({"Authorization": "Bearer bye_" + "A" * 40}, "BSE1002"),
    ],
)
async def test_nothing_but_a_key_authenticates(target: Target, header: dict[str, str], expected: str) -> None:
    headers = {name: value.format(key=target.key).strip() or value for name, value in header.items()}
    response = await target.seen_with("").request("GET", "/v1/status", headers=headers)
    assert (response.status_code, code(response)) == (401, expected)


async def test_a_key_is_refused_from_an_address_that_is_not_on_its_list(
    target: Target, issuer: Issuer
) -> None:
    elsewhere = target.seen_with(await issuer.issue(allowlist=["203.0.113.0/24"]))
    response = await elsewhere.request("GET", "/v1/status")
    assert (response.status_code, code(response)) == (403, "BSE1007")
    here = target.seen_with(await issuer.issue(allowlist=["127.0.0.0/8", "::1"]))
    assert (await here.request("GET", "/v1/status")).status_code == 200
