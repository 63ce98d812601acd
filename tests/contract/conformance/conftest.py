"""The server under test: any by CONTRACT_BASE and CONTRACT_KEY, else one of our own.

CONTRACT_HOST is the regional host that requests name, where the address itself is not one.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.contract.conformance.own import own_server
from tests.contract.conformance.target import Issuer, Model, Target
from tests.contract.published import Published, judge
from tests.databases import Databases

REGIONS = ("us", "eu")
_TIMEOUT_S = 60.0


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    """The server under test, as its first key sees it."""
    which = "foreign_target" if os.environ.get("CONTRACT_BASE") else "own_target"
    found: Target = request.getfixturevalue(which)
    return found


@pytest.fixture(scope="session")
async def foreign_target() -> AsyncIterator[Target]:
    """A server that somebody else runs: one address, one key."""
    base, key = os.environ["CONTRACT_BASE"].rstrip("/"), os.environ.get("CONTRACT_KEY", "")
    if not key:
        pytest.exit("CONTRACT_BASE needs CONTRACT_KEY: make contract BASE=http://... KEY=bye_...", 2)
    host = os.environ.get("CONTRACT_HOST") or urlsplit(base).netloc
    async with _client() as client:
        yield await _judged(base, key, host, client, None)


@pytest.fixture(scope="session")
async def own_target(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """Our own server with two regions; the first key has every scope and plan unlimited."""
    async with AsyncExitStack() as stack:
        dsns = {region: await stack.enter_async_context(databases.fresh()) for region in REGIONS}
        folder = tmp_path_factory.mktemp("conformance")
        server = await stack.enter_async_context(own_server(folder, dsns))
        client = await stack.enter_async_context(_client())
        yield await _judged(server.base, await server.issue(), server.host("us"), client, server)


@pytest.fixture
def issuer(target: Target) -> Issuer:
    """Further accounts and keys; a foreign server has none for us."""
    if target.issuer is None:
        pytest.skip("needs keys of other accounts, plans or scopes, which only our own server can issue here")
    return target.issuer


@pytest.fixture(scope="session")
async def image(target: Target) -> Model:
    """The cheapest image model on offer."""
    return await _cheapest(target, "image")


@pytest.fixture(scope="session")
async def video(target: Target) -> Model:
    """The cheapest video model on offer."""
    return await _cheapest(target, "video")


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)


async def _judged(base: str, key: str, host: str, client: httpx.AsyncClient, issuer: Issuer | None) -> Target:
    """The target, whose client from now on holds every answer against the server's document."""
    answer = await client.get(f"{base}/openapi.json", headers={"Host": host})
    assert answer.status_code == 200, f"no document at {base}/openapi.json: {answer.text[:200]}"
    client.event_hooks = {"response": [judge(answer.content)]}
    return Target(base, key, host, client, Published(answer.json()), issuer)


async def _cheapest(target: Target, media: str) -> Model:
    """The model whose smallest generation costs least, with the document's example as its body."""
    models = (await target.ask("GET", "/v1/library/models"))["models"]
    identifier = min(
        (model for model in models if model["model_type"] == media),
        key=lambda model: (_price(model["model_pricing"]), model["model_identifier"]),
    )["model_identifier"]
    schemas = target.published.document["components"]["schemas"].values()
    (schema,) = [schema for schema in schemas if schema.get("x-babysea-model") == identifier]
    return Model(identifier, media, schema["example"])


def _price(pricing: Any) -> float:
    return min(pricing.values()) if isinstance(pricing, dict) else float(pricing)
