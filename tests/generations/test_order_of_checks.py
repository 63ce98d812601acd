"""Generate answers with the first thing that is wrong: model, body, key, providers, then the database's order."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.conftest import MakeDeployment
from tests.generations.conftest import MakeDatabase
from tests.support import Customer, Deployment, eventually, make_customer

from babysea_server.app.registries import RegistryFactory, provider_registry
from babysea_server.catalog.catalog import Catalog
from babysea_server.errors import ApiError
from babysea_server.generations.admission import Admissions
from babysea_server.generations.service import Generations
from babysea_server.kit.calls import Plan, Principal
from babysea_server.kit.clock import SystemClock
from babysea_server.providers.registry import Registry
from babysea_server.routing.chain import Router


def nobody(*_: object) -> Registry:
    """No provider is configured."""
    return Registry({})


async def post(customer: Customer, path: str, content: bytes, key: str | None) -> httpx.Response:
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"Idempotency-Key": key})
    return await customer.request("POST", f"/v1/generate/{path}", content=content, headers=headers)


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


async def full_and_poor(deployment: Deployment) -> Customer:
    """A customer of the free plan, whose two slots are taken and whose credit is spent; `used` is one's key."""
    customer = await make_customer(deployment, plan="free", credits="0.002")
    for key in ("used", "used-too"):
        assert (await customer.generate(key=key)).status_code == 200
    assert await customer.balance() == 0
    return customer


async def test_what_comes_first_is_told_first(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False)
    customer = await full_and_poor(deployment)
    image, bad_key = "image/sandbox/image", "not a key"
    good = b'{"generation_prompt": "a test"}'
    other = b'{"generation_prompt": "another"}'
    cases: list[tuple[str, bytes, str | None, str]] = [
        ("video/sandbox/imagge", b"{", bad_key, "BSE2011"),
        ("video/sandbox/image", b"{", bad_key, "BSE2012"),
        (image, b"{", bad_key, "BSE2001"),
        (image, b"{}", bad_key, "BSE2001"),
        (image, b'{"generation_prompt": "x", "generation_provider_order": "nobody"}', bad_key, "BSE2013"),
        (image, good, bad_key, "BSE2014"),
        (image, other, "used", "BSE2015"),
        (image, other, "new", "BSE1009"),
        (image, other, None, "BSE1009"),
    ]
    for path, body, key, expected in cases:
        response = await post(customer, path, body, key)
        assert code(response) == expected, (path, body, key)
    assert (await post(customer, image, good, "used")).headers["idempotency-replayed"] == "true"
    await deployment.db.execute("UPDATE accounts SET plan = 'unlimited'")
    for key in ("newer", None):
        response = await eventually_code(customer, image, other, key, "BSE1004")
        assert response.json()["error"]["details"] == {"credits_required": 0.001, "credit_balance": 0}


async def eventually_code(
    customer: Customer, path: str, body: bytes, key: str | None, expected: str
) -> httpx.Response:
    """The plan of a known key is heard of in the background."""

    async def asked() -> httpx.Response | None:
        response = await post(customer, path, body, key)
        return response if code(response) == expected else None

    return await eventually(asked)


async def test_providers_are_looked_for_after_the_key_and_before_the_database(
    make_deployment: MakeDeployment,
) -> None:
    registries: list[RegistryFactory] = [provider_registry, nobody]
    served, unserved = [await make_deployment(worker=False, registries=each) for each in registries]
    customer = await full_and_poor(served)
    there = Customer(unserved, customer.account_id, customer.key)
    good = b'{"generation_prompt": "a test"}'
    for path, body, key, expected in (
        ("image/sandbox/image", b"{}", "used", "BSE2001"),
        ("image/sandbox/image", good, "not a key", "BSE2014"),
        ("image/sandbox/image", b'{"generation_prompt": "another"}', "used", "BSE4011"),
        ("image/sandbox/image", good, None, "BSE4011"),
    ):
        response = await post(there, path, body, key)
        assert code(response) == expected, (body, key)
    assert (response.status_code, response.json()["error"]["retryable"]) == (503, True)
    assert response.json()["error"]["details"] == {"providers": ["sandbox"]}
    assert await served.db.fetchval("SELECT count(*) FROM generations") == 2


async def test_an_explicit_order_is_followed_without_whom_nobody_can_call(
    make_deployment: MakeDeployment,
) -> None:
    def without_fal(*parts: Any) -> Registry:
        whole = provider_registry(*parts)
        names = ("replicate", "cloudflare")
        return Registry({name: route for name in names if (route := whole.route(name)) is not None})

    customer = await make_customer(await make_deployment(worker=False, registries=without_fal))
    chains = {
        "fastest": ["replicate", "cloudflare"],
        "cloudflare, fal, replicate": ["cloudflare", "replicate"],
        "fal,replicate": ["replicate"],
        "cloudflare": ["cloudflare"],
    }
    for order, chain in chains.items():
        response = await customer.generate("bfl/flux-schnell", generation_provider_order=order)
        data = response.json()["data"]
        assert data["generation_provider_order"] == chain, order
        stored = await customer.generation(data["generation_id"])
        assert stored["generation_provider_order"] == chain
    response = await customer.generate("bfl/flux-schnell", generation_provider_order="fal")
    assert code(response) == "BSE4011"


async def test_an_account_that_is_gone_meanwhile_is_told_so(
    make_database: MakeDatabase, dsn: str, catalog: Catalog
) -> None:
    """Its key was believed a moment ago; the database knows better."""
    now = datetime.now(UTC)
    ghost = Principal(
        region="us",
        account_id=uuid4(),
        plan=Plan("free", 60, 2),
        apikey_id=uuid4(),
        apikey_name="test",
        apikey_prefix="bye_ghost",
        scopes=frozenset(),
        created_at=now,
        last_used_at=None,
        expires_at=None,
    )
    admissions = Admissions(await make_database(dsn), SystemClock(), lambda: None)
    generations = Generations(catalog, Router(lambda _: True), admissions, lambda _media, _length: 600)
    with pytest.raises(ApiError) as refusal:
        await generations.generate(ghost, "image", "sandbox/image", b'{"generation_prompt": "x"}', None)
    assert refusal.value.spec.code == "BSE1008"
