"""What the library and estimate operations send. From these types the published document is made."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType


def _meta(description: str, example: Any) -> Meta:
    return Meta(description=description, examples=[example])


class EstimateData(msgspec.Struct, kw_only=True):
    """What a generation would cost, and whether the balance covers it. Amounts are credits."""

    model_identifier: Annotated[str, _meta("The model's canonical identifier.", "sandbox/video")]
    model_type: Annotated[Literal["image", "video"], _meta("The kind of media the model makes.", "video")]
    assets_count: Annotated[int, _meta("The number of generations the estimate is for.", 10)]
    cost_per_generation: Annotated[float, _meta("What one generation costs.", 0.005)]
    cost_per_second: Annotated[float, _meta("Video: what one second costs.", 0.001)] | UnsetType = UNSET
    duration_seconds: Annotated[int, _meta("Video: the length that was priced.", 5)] | UnsetType = UNSET
    resolution: (
        Annotated[str, _meta("The resolution that was priced, where the price depends on it.", "480p")]
        | UnsetType
    ) = UNSET
    cost_total_consumed: Annotated[float, _meta("What all of them cost together.", 0.05)]
    credit_balance: Annotated[float, _meta("The account's balance.", 9.5)]
    credit_balance_can_afford: Annotated[bool, _meta("Whether the balance covers the total.", True)]
    credit_balance_max_affordable: Annotated[
        int, _meta("How many such generations the balance covers.", 1900)
    ]


class ProviderImplementation(msgspec.Struct, kw_only=True):
    """How this server works with a provider."""

    delivery_method: Annotated[
        Literal["webhook_with_polling", "synchronous", "polling"],
        _meta("How results arrive.", "webhook_with_polling"),
    ]
    cancel_method: Annotated[
        Literal["prediction_cancel_api", "queue_cancel_api"] | None,
        _meta("How a running job is canceled there; null where it cannot be.", "prediction_cancel_api"),
    ]
    webhook_verification: Annotated[
        Literal["hmac_sha256", "ed25519"] | None,
        _meta("How the provider's callbacks are verified; null where there are none.", "hmac_sha256"),
    ]
    error_mapping: Annotated[
        Literal["bse_error_codes"], _meta("How its errors are told.", "bse_error_codes")
    ] = "bse_error_codes"
    cost_tracking: Annotated[
        Literal["per_generation_usd"], _meta("How its cost is tracked.", "per_generation_usd")
    ] = "per_generation_usd"
    schema_conversion: Annotated[
        Literal["unified_to_native"], _meta("How inputs are converted.", "unified_to_native")
    ] = "unified_to_native"
    failover_strategy: Annotated[
        Literal["sequential_provider_chain"],
        _meta("What happens when it fails.", "sequential_provider_chain"),
    ] = "sequential_provider_chain"
    health_monitoring: Annotated[
        Literal["circuit_breaker"], _meta("How its health is watched.", "circuit_breaker")
    ] = "circuit_breaker"
    supported_media_types: Annotated[
        list[Literal["image", "video"]], _meta("The media of its models on offer.", ["image", "video"])
    ]
    supported_models_total: Annotated[int, _meta("The number of its models on offer.", 120)]


class LibraryProvider(msgspec.Struct, kw_only=True):
    """One inference provider."""

    provider_id: Annotated[str, _meta("The id to use in `generation_provider_order`.", "replicate")]
    provider_name: Annotated[str, _meta("Its name.", "Replicate")]
    provider_description: Annotated[str, _meta("What it is.", "Prediction API hosting many models.")]
    provider_website: Annotated[str | None, _meta("Its website.", "https://replicate.com")]
    provider_docs: Annotated[str | None, _meta("Its documentation.", "https://replicate.com/docs")]
    provider_status: Annotated[
        Literal["available", "unavailable"],
        _meta("Whether this server can use it now: configured and not switched off.", "available"),
    ]
    babysea_implementation: ProviderImplementation


class LibraryProvidersData(msgspec.Struct, kw_only=True):
    """The providers that this server knows."""

    providers_total: Annotated[int, _meta("The number of providers.", 9)]
    providers: list[LibraryProvider]


class LibraryModelSchema(msgspec.Struct, kw_only=True):
    """The common inputs of a model. An empty list means that the caller cannot choose."""

    generation_prompt: Annotated[bool, _meta("Whether it takes a prompt.", True)]
    generation_ratio: Annotated[list[str], _meta("The ratios to choose from.", ["1:1", "16:9"])]
    generation_output_format: Annotated[list[str], _meta("The file types.", ["png", "jpg"])]
    generation_output_number: Annotated[int, _meta("The most outputs of one request.", 4)]
    generation_input_file: Annotated[bool, _meta("Whether it takes input images.", True)]
    generation_duration: (
        Annotated[list[int], _meta("Video: the lengths to choose from, in seconds.", [5, 10])] | UnsetType
    ) = UNSET
    generation_resolution: (
        Annotated[list[str], _meta("The resolutions; the first is the default.", ["480p", "720p"])]
        | UnsetType
    ) = UNSET
    generation_generate_audio: (
        Annotated[bool, _meta("Video: whether sound can be asked for.", True)] | UnsetType
    ) = UNSET


class LibraryModel(msgspec.Struct, kw_only=True):
    """One model on offer."""

    model_type: Annotated[Literal["image", "video"], _meta("The kind of media it makes.", "image")]
    model_identifier: Annotated[str, _meta("The identifier to generate with.", "bfl/flux-schnell")]
    model_pricing: Annotated[
        float | dict[str, float],
        _meta("Credits per image or per second: one figure, or by resolution and sound.", 0.005),
    ]
    model_supported_provider: Annotated[
        list[str], _meta("Its providers, in default order.", ["replicate", "fal"])
    ]
    schema: LibraryModelSchema
    specific_schema: Annotated[
        list[str], _meta("The names of the inputs beyond the common ones.", ["generation_seed"])
    ]


class LibraryModelsData(msgspec.Struct, kw_only=True):
    """The models on offer."""

    models_total: Annotated[int, _meta("The number of models.", 136)]
    models: list[LibraryModel]
