"""Models: the catalog as a list, and of each model its inputs, prices, examples, and where it would run now."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.catalog.catalog import Catalog
from babysea_server.catalog.schema import PROVIDER_ORDER, body_schema, example_body
from babysea_server.catalog.types import Model
from babysea_server.console.faults import not_found
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.model_view import (
    Place,
    can_run,
    inputs_of,
    kinds_of,
    least_of,
    narrower,
    price_of,
    tiers_of,
    unit_of,
)
from babysea_server.console.region import ConsoleRegion
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.console.snippets import snippets
from babysea_server.routing.explain import Evidence, Explanation, explain
from babysea_server.routing.job import read_records
from babysea_server.routing.ranking import DECAYED, figures

_SORTS: Mapping[str, Callable[["ModelRow"], Any]] = {
    "model": lambda row: row.model.identifier,
    "type": lambda row: row.model.media,
    "price": lambda row: least_of(row.model),
}
_COLUMNS = (
    Column("model", "Model", sort=True),
    Column("type", "Type", sort=True),
    Column("providers", "Providers"),
    Column("price", "Price", sort=True),
    Column("inputs", "Inputs"),
)
_INPUT_COLUMNS = (
    Column("name", "Input"),
    Column("type", "Type"),
    Column("accepted", "Takes"),
    Column("default", "Default"),
    Column("description", "Meaning"),
)
_PROVIDER_COLUMNS = (
    Column("provider", "Provider"),
    Column("place", "Place now"),
    Column("state", "State"),
    Column("attempts", "Attempts 24 h", kind="number"),
    Column("success", "Success", kind="number"),
    Column("wasted", "Wasted", kind="number"),
    Column("p95", "p95", kind="number"),
    Column("score", "Score", kind="number"),
)


class ModelRow(msgspec.Struct, frozen=True):
    """One model in the list."""

    model: Model
    places: Sequence[Place]
    price: str
    kinds: Sequence[str]

    @property
    def runs(self) -> bool:
        """Whether it can be asked for here."""
        return can_run(self.places)


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view = Action.MODELS_VIEW
    return [
        Route("GET", "/models", view, _list),
        Route("GET", "/models/{lab}/{model}", view, _detail),
    ]


async def model_rows(region: ConsoleRegion) -> list[ModelRow]:
    """Every model on offer, alphabetically, with where it can run now."""
    statuses = await region.provider_health.statuses()

    def place(provider: str) -> Place:
        return Place(provider, region.registry.available(provider), statuses.get(provider, "unknown"))

    return [
        ModelRow(model, [place(each) for each in model.provider_ids], price_of(model), kinds_of(model))
        for model in region.catalog.models.values()
    ]


def find_model(catalog: Catalog, identifier: str) -> Model:
    """The model on offer with exactly this identifier.

    Raises:
        PageFaultError: 404.
    """
    model = catalog.models.get(identifier)
    if model is None:
        raise not_found()
    return model


# ------------------------------------------------------------------------------- list


async def _list(page: PageRequest) -> Response:
    listing = Listing.read(
        page.url("/models"),
        page.query,
        sorts=dict.fromkeys(_SORTS, ""),
        default="model",
        filters=["type", "provider", "state"],
    )
    rows = await model_rows(page.region)
    providers = [
        (each.id, each.name)
        for each in page.region.catalog.providers.values()
        if any(each.id in row.model.provider_ids for row in rows)
    ]
    found = sorted(
        (row for row in rows if _is_wanted(row, listing)),
        key=_SORTS[listing.sort],
        reverse=listing.descending,
    )
    shown = found[listing.offset : listing.offset + listing.size + 1]
    return await page.render(
        "models.html",
        listing=listing,
        result=Page.of(shown, listing, len(found)),
        columns=_COLUMNS,
        providers=providers,
        total=len(rows),
        running=sum(row.runs for row in rows),
    )


def _is_wanted(row: ModelRow, listing: Listing) -> bool:
    model, filters = row.model, listing.filters
    if filters.get("type", model.media) != model.media:
        return False
    if "provider" in filters and filters["provider"] not in model.provider_ids:
        return False
    if "state" in filters and (filters["state"] == "available") != row.runs:
        return False
    words = (model.identifier, model.display_name, model.lab, *model.aliases, *model.workflows)
    text = " ".join(words).lower()
    return all(word in text for word in listing.q.lower().split())


# ------------------------------------------------------------------------------- one model


async def _detail(page: PageRequest) -> Response:
    region = page.region
    model = find_model(region.catalog, f"{page.params['lab']}/{page.params['model']}")
    explanation = await explained(region, model)
    names = {each.id: each.name for each in region.catalog.providers.values()}
    return await page.render(
        "models/detail.html",
        model=model,
        inputs=inputs_of(model),
        input_columns=_INPUT_COLUMNS,
        provider_order=PROVIDER_ORDER,
        tiers=tiers_of(model),
        unit=unit_of(model),
        price=price_of(model),
        routing=explanation,
        provider_columns=_PROVIDER_COLUMNS,
        names=names,
        narrower={name: narrower(provider) for name, provider in model.providers.items()},
        examples=snippets(model, example_body(model), page.api_origin),
        schema=json.dumps(body_schema(model), indent=2, ensure_ascii=False),
    )


async def explained(region: ConsoleRegion, model: Model) -> Explanation:
    """In which order the model's providers would be tried now, and why, as this process decides it."""
    records = await read_records(region.db, DECAYED, model.identifier)
    return explain(
        Evidence(
            model=model.identifier,
            region=region.name,
            static_order=model.provider_ids,
            ranking=region.rankings.ranking(model.identifier),
            figures=figures(records.get(model.identifier, {}), DECAYED),
            window=await region.provider_health.window(),
            exploration=region.settings.exploration_share,
            rule=DECAYED.name,
        ),
        region.registry.available,
    )
