"""Models: the catalog searched, narrowed and sorted, and the page of one model with the routing in force."""

import html
import json
import re
from decimal import Decimal

import pytest
from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.support import console_of
from tests.routing.attempts import AGAINST, resolve
from tests.support import Deployment

from babysea_server.app.registries import provider_registry
from babysea_server.catalog.catalog import Catalog
from babysea_server.console.model_view import inputs_of, least_of, price_of, tiers_of
from babysea_server.db.pool import Database
from babysea_server.kit.clock import SystemClock
from babysea_server.providers.registry import Registry
from babysea_server.routing.job import RankingJob
from babysea_server.settings import Settings

MODEL = "bfl/flux-schnell"
CONFIGURED = ("fal", "cloudflare")


def _catalog(deployment: Deployment) -> Catalog:
    return console_of(deployment).regions["us"].catalog


def _shown(page: str) -> list[str]:
    """The models that a list shows, in its order."""
    return re.findall(r'<a class="strong break" href="[^"]*/models/([^"]+)"', page)


def _text(page: str) -> str:
    """The words of a page, without its tags."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def _partly(settings: Settings, catalog: Catalog, db: Database) -> Registry:
    """Only some of the providers are configured."""
    everybody = provider_registry(settings, catalog, db)
    return Registry({id: route for id in CONFIGURED if (route := everybody.route(id)) is not None})


async def test_the_whole_catalog_is_listed_page_by_page(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client("member")
    seen = [
        model for number in (1, 2) for model in _shown(await client.page(f"/models?size=100&page={number}"))
    ]
    assert seen == list(_catalog(console).models)


async def test_models_are_found_by_words_in_any_order(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    assert MODEL in _shown(await client.page("/models?q=SCHNELL+flux"))
    assert "No model matches" in await client.page("/models?q=no-such-model")


async def test_models_are_narrowed_by_type_and_provider_and_sorted_by_price(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client("member")
    shown = _shown(await client.page("/models?type=video&provider=fal&sort=-price&size=100"))
    models = [_catalog(console).models[identifier] for identifier in shown]
    assert models
    assert all(model.media == "video" and "fal" in model.provider_ids for model in models)
    prices = [least_of(model) for model in models]
    assert prices == sorted(prices, reverse=True)


async def test_what_cannot_run_here_says_why(
    console_client: ConsoleClientOf, make_deployment: MakeDeployment
) -> None:
    deployment = await make_deployment(worker=False, registries=_partly)
    client = await console_client("member", deployment=deployment)
    listed = await client.page(f"/models?q={MODEL}")
    assert "+1 not configured" in listed
    assert "replicate: not configured on this server" in listed
    able = set(_shown(await client.page("/models?state=available&size=100")))
    unable = set(_shown(await client.page("/models?state=unavailable&size=100")))
    models = _catalog(deployment).models
    assert able
    assert all(set(models[each].provider_ids) & {*CONFIGURED} for each in able)
    assert unable
    assert not any(set(models[each].provider_ids) & {*CONFIGURED} for each in unable)
    assert "BSE4011" in await client.page("/models/sandbox/image")


async def test_a_model_page_shows_the_routing_in_force(
    console_client: ConsoleClientOf, make_deployment: MakeDeployment
) -> None:
    deployment = await make_deployment(worker=False, registries=_partly)
    db = deployment.db
    await resolve(db, "cloudflare", "used", 10, took_s=2, times=20, model=MODEL)
    await resolve(db, "fal", "used", 400, took_s=9, times=20, model=MODEL)
    await resolve(db, "fal", "failed", 8, failure="failed", times=6, model=MODEL)
    assert await RankingJob(db, "us", SystemClock(), failures=AGAINST).run()
    await console_of(deployment).regions["us"].rankings.refresh()
    client = await console_client("member", deployment=deployment)
    told = _text(await client.page(f"/models/{MODEL}"))
    assert "would try them: cloudflare, fal" in told
    assert "The ranking (decayed) was computed" in told
    assert "Not configured on this server, so left out: replicate." in told
    assert "fal is degraded: 6 of 6 attempts failed in the last 300 s." in told


async def test_a_model_page_tells_every_input_and_price(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client("member")
    for identifier in (MODEL, "sandbox/video", "gpt/image-1"):
        model = _catalog(console).models[identifier]
        page = await client.page(f"/models/{identifier}")
        for name, spec in model.fields.items():
            assert f'<code class="break">{name}</code>' in page
            assert html.escape(spec.description, quote=False) in html.unescape(page)
        for tier, _ in tiers_of(model):
            assert (tier or "Every request") in page
        schema = re.search(r'aria-label="JSON schema">(.*?)</pre>', page, re.DOTALL)
        assert schema is not None
        assert set(json.loads(html.unescape(schema[1]))["properties"]) >= set(model.fields)


@pytest.mark.parametrize("path", ["/models/no/such", "/models/bfl/%3Cscript%3E"])
async def test_a_model_that_is_not_there_is_not_found(console_client: ConsoleClientOf, path: str) -> None:
    client = await console_client("member")
    response = await client.get(path)
    assert response.status_code == 404
    assert "<script>" not in re.sub(r"<script [^>]*>", "", response.text)


def test_prices_are_exact_and_told_by_tier(console: Deployment) -> None:
    for model in _catalog(console).models.values():
        tiers = tiers_of(model)
        figures = model.pricing_tiers or model.pricing
        expected = [figures] if isinstance(figures, Decimal) else list(dict(figures or {}).values())
        assert [Decimal(price).scaleb(-6) for _, price in tiers] == expected
        assert price_of(model).startswith("from $" if len(set(expected)) > 1 else "$")
        assert len({name for name, _ in tiers}) == len(tiers)


def test_every_input_of_the_catalog_can_be_filled_in(console: Deployment) -> None:
    for model in _catalog(console).models.values():
        for each in inputs_of(model):
            assert each.label
            assert each.accepted
            assert (each.widget == "select") == bool(each.options)
            if each.widget == "select":
                assert each.value in [value for value, _ in each.options] or each.spec.required
