"""The operations of the catalog: estimate, and the libraries of providers and models."""

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from uuid import UUID

import msgspec

from babysea_server.catalog.catalog import Catalog
from babysea_server.catalog.estimate import estimate
from babysea_server.catalog.types import Media, Model, Price, Provider, Traits
from babysea_server.catalog.wire import (
    LibraryModel,
    LibraryModelSchema,
    LibraryModelsData,
    LibraryProvider,
    LibraryProvidersData,
    ProviderImplementation,
)
from babysea_server.kit import money
from babysea_server.kit.calls import Call, Reply
from babysea_server.kit.json import dumps


class CatalogRoutes:
    """Handlers over one catalog.

    Args:
        catalog: what is on offer.
        balance: an account's balance in micro-credits.
        provider_available: whether a provider can be used now.
        traits: how each provider is worked with, as its adapter tells; absent ones are polled.
    """

    def __init__(
        self,
        catalog: Catalog,
        balance: Callable[[UUID], Awaitable[int]],
        provider_available: Callable[[str], bool],
        traits: Mapping[str, Traits],
    ) -> None:
        self._traits = traits
        self._catalog = catalog
        self._balance = balance
        self._provider_available = provider_available
        # The catalog does not change while the server runs, so its largest answer is encoded once.
        self._models = msgspec.Raw(dumps(library_models_data(catalog)))

    async def estimate(self, call: Call) -> Reply:
        """`GET /v1/estimate/{model_identifier}`."""
        model = self._catalog.model(f"{call.path['lab']}/{call.path['model']}")
        balance = await self._balance(call.principal.account_id)
        return Reply(estimate(model, call.query, balance))

    async def library_providers(self, _call: Call) -> Reply:
        """`GET /v1/library/providers`."""
        data = library_providers_data(self._catalog, self._provider_available, self._traits)
        return Reply(data)

    async def library_models(self, _call: Call) -> Reply:
        """`GET /v1/library/models`; the data is already encoded."""
        return Reply(self._models)


def library_models_data(catalog: Catalog) -> LibraryModelsData:
    """Every model on offer, alphabetically."""
    models = [_model(model) for model in catalog.models.values()]
    return LibraryModelsData(models_total=len(models), models=models)


def library_providers_data(
    catalog: Catalog, available: Callable[[str], bool], traits: Mapping[str, Traits]
) -> LibraryProvidersData:
    """Every provider, alphabetically, with the number of its models on offer."""
    providers = [
        _provider(provider, catalog, available, traits.get(provider.id, Traits("polling")))
        for provider in catalog.providers.values()
    ]
    return LibraryProvidersData(providers_total=len(providers), providers=providers)


def wire_pricing(price: Price) -> float | dict[str, float]:
    """A price as the wire carries it."""
    if isinstance(price, Mapping):
        return {key: _credits(value) for key, value in price.items()}
    return _credits(price)


def _credits(price: Decimal) -> float:
    return money.credits(money.round_micros(price * money.MICROS_PER_CREDIT))


def _model(model: Model) -> LibraryModel:
    assert model.pricing is not None, "only priced models are on offer"
    schema = model.schema
    shown = LibraryModelSchema(
        generation_prompt=schema.prompt,
        generation_ratio=list(schema.ratios),
        generation_output_format=list(schema.output_formats),
        generation_output_number=schema.output_number,
        generation_input_file=schema.input_file,
    )
    if schema.durations is not None:
        shown.generation_duration = list(schema.durations)
    if schema.resolutions is not None:
        shown.generation_resolution = list(schema.resolutions)
    if schema.audio is not None:
        shown.generation_generate_audio = schema.audio
    return LibraryModel(
        model_type=model.media,
        model_identifier=model.identifier,
        model_pricing=wire_pricing(model.pricing),
        model_supported_provider=list(model.provider_ids),
        schema=shown,
        specific_schema=list(model.specific_schema),
    )


def _provider(
    provider: Provider, catalog: Catalog, available: Callable[[str], bool], traits: Traits
) -> LibraryProvider:
    models = [model for model in catalog.models.values() if provider.id in model.provider_ids]
    kinds: tuple[Media, ...] = ("image", "video")
    return LibraryProvider(
        provider_id=provider.id,
        provider_name=provider.name,
        provider_description=provider.description,
        provider_website=provider.website,
        provider_docs=provider.docs,
        provider_status="available" if available(provider.id) else "unavailable",
        babysea_implementation=ProviderImplementation(
            delivery_method=traits.delivery,
            cancel_method=traits.cancel,
            webhook_verification=traits.verification,
            supported_media_types=[kind for kind in kinds if any(model.media == kind for model in models)],
            supported_models_total=len(models),
        ),
    )
