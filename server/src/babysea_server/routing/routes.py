"""`GET /v1/health/inference/{subject}`: how the providers do, and where each model can run."""

from collections.abc import Callable, Collection

from babysea_server.catalog.catalog import Catalog
from babysea_server.catalog.routes import wire_pricing
from babysea_server.catalog.types import Model
from babysea_server.kit.calls import Call, Reply
from babysea_server.routing.health import WINDOW_S, ProviderHealth, Window
from babysea_server.routing.wire import (
    HealthModel,
    HealthModelsData,
    HealthProvider,
    HealthProvidersData,
    HealthWindow,
    ModelAvailability,
)


class HealthRoutes:
    """Handler over one region's health.

    Args:
        callable: whether the server can call a provider at all.
    """

    def __init__(self, catalog: Catalog, health: ProviderHealth, callable: Callable[[str], bool]) -> None:
        self._catalog = catalog
        self._health = health
        self._callable = callable

    async def inference(self, call: Call) -> Reply:
        """`GET /v1/health/inference/{subject}`."""
        window = await self._health.window()
        if call.path["subject"] == "providers":
            return Reply(_providers_data(self._health.providers, window))
        available = {
            provider
            for provider in self._health.providers
            if self._callable(provider) and window.status(provider) != "degraded"
        }
        return Reply(_models_data(self._catalog, available))


def _providers_data(providers: Collection[str], window: Window) -> HealthProvidersData:
    shown = [_provider(provider, window) for provider in providers]
    return HealthProvidersData(
        service="providers",
        healthy=all(provider.status != "degraded" for provider in shown),
        providers_total=len(shown),
        providers=shown,
    )


def _provider(provider: str, window: Window) -> HealthProvider:
    tally = window.tally(provider)
    return HealthProvider(
        provider=provider,
        status=window.status(provider),
        failure_rate=round(tally.failure_rate, 4),
        window=HealthWindow(
            total_attempts=tally.attempts,
            failures=tally.failures,
            successes=tally.successes,
            duration_seconds=WINDOW_S,
        ),
    )


def _models_data(catalog: Catalog, available: Collection[str]) -> HealthModelsData:
    models = [_model(model, available) for model in catalog.models.values()]
    return HealthModelsData(
        service="models",
        healthy=all(any(at.available for at in model.providers.values()) for model in models),
        models_total=len(models),
        models=models,
    )


def _model(model: Model, available: Collection[str]) -> HealthModel:
    assert model.pricing is not None, "only priced models are on offer"
    return HealthModel(
        model_identifier=model.identifier,
        model_type=model.media,
        model_pricing=wire_pricing(model.pricing),
        providers={
            provider: ModelAvailability(
                available=provider in available, raw_model_id=model.providers[provider].model or None
            )
            for provider in model.provider_ids
        },
    )
