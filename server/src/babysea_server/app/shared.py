"""What all regions of a process share, and who is called in them."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from babysea_server.accounts.plans import load_plans
from babysea_server.app.registries import live_providers
from babysea_server.catalog.catalog import Catalog, load_catalog
from babysea_server.catalog.schema import body_schema, example_body
from babysea_server.contract.openapi import ModelBody, build_document
from babysea_server.db.pool import Database
from babysea_server.execution.verdict import RULES
from babysea_server.kit.calls import Plan
from babysea_server.kit.clock import Clock, SystemClock
from babysea_server.master_key import load_master_key, load_other_master_key
from babysea_server.outputs.links import LinkSigner
from babysea_server.providers.adapters import adapters
from babysea_server.routing.health import ProviderHealth
from babysea_server.settings import Settings

#: The failure classes that speak against a provider.
PROVIDER_FAILURES = tuple(failure for failure, rule in RULES.items() if rule.trips_breaker)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all regions of a process share."""

    settings: Settings
    clock: Clock
    catalog: Catalog
    plans: Mapping[str, Plan]
    signer: LinkSigner
    master_key: bytes = field(repr=False)
    other_master_key: bytes | None = field(default=None, repr=False)
    """Accepted, too, while the master key is changed."""


def build_shared(settings: Settings, clock: Clock | None = None) -> Shared:
    """Load catalog, plans and the master key; every fault of theirs is found here, at start.

    Raises:
        CatalogError, PlanError, SettingsError
    """
    clock = clock or SystemClock()
    master_key, other = load_master_key(settings), load_other_master_key(settings)
    return Shared(
        settings=settings,
        clock=clock,
        catalog=catalog_of(settings),
        plans=load_plans(None if settings.plans_file is None else Path(settings.plans_file)),
        signer=LinkSigner(master_key, clock, settings.file_link_lifetime_s, other=other),
        master_key=master_key,
        other_master_key=other,
    )


def catalog_of(settings: Settings) -> Catalog:
    """The catalog of an installation: with the files of provider packages, the operator's, and all live providers.

    Raises:
        CatalogError, SettingsError
    """
    packages = [adapter.catalog_dir for adapter in adapters().values() if adapter.catalog_dir is not None]
    return load_catalog(
        None if settings.catalog_dir is None else Path(settings.catalog_dir),
        packages=packages,
        joined=live_providers(settings).keys(),
    )


def provider_health(db: Database, shared: Shared) -> ProviderHealth:
    """The health of a region's providers, by the failures that trip the breaker."""
    return ProviderHealth(
        db,
        shared.clock,
        providers=shared.catalog.providers,
        failures=PROVIDER_FAILURES,
    )


def openapi_documents(
    settings: Settings, catalog: Catalog, regions: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The OpenAPI document of each region."""
    models = [
        ModelBody(model.identifier, model.media, body_schema(model), example_body(model))
        for model in catalog.models.values()
    ]
    return {
        region: build_document(region, server_url=_regional_url(settings, region), models=models)
        for region in regions
    }


def public_origin(settings: Settings, region: str) -> str:
    """Scheme and authority of links where no caller has told which they use."""
    return (settings.public_url or _regional_url(settings, region)).rstrip("/")


def _regional_url(settings: Settings, region: str) -> str:
    local = settings.domain == "localhost"
    port = f":{settings.port}" if local and settings.port else ""
    return f"{'http' if local else 'https'}://api.{region}.{settings.domain}{port}"


async def together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it, also when one fails; then raise the first failure."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
