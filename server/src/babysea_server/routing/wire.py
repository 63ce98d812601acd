"""What the health of providers and models looks like on the wire."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from babysea_server.kit.wire import Count
from babysea_server.routing.health import Status


class HealthWindow(Struct, frozen=True, kw_only=True):
    """The attempts that a provider's health is judged by; what the caller caused is not among them."""

    total_attempts: Count
    failures: Count
    successes: Count
    duration_seconds: Annotated[int, Meta(description="How far back the window reaches.", ge=0)]


class HealthProvider(Struct, frozen=True, kw_only=True):
    """How one provider did lately in this region."""

    provider: str
    status: Annotated[
        Status,
        Meta(
            description="`degraded`: at least half of five or more attempts failed, or one for the operator's "
            "credentials or funds, the last less than a minute ago; `recovering`: the minute has passed, and one "
            "attempt at a time is let through until one succeeds; `unknown`: no attempt in the window."
        ),
    ]
    failure_rate: Annotated[float, Meta(description="Failures per attempt in the window.", ge=0, le=1)]
    window: HealthWindow


class HealthProvidersData(Struct, frozen=True, kw_only=True):
    """The health of every provider."""

    service: Literal["providers"]
    healthy: Annotated[bool, Meta(description="Whether no provider is degraded.")]
    providers_total: Count
    providers: list[HealthProvider]


class ModelAvailability(Struct, frozen=True, kw_only=True):
    """Whether one provider serves a model now, and under which name."""

    available: Annotated[bool, Meta(description="Whether the server can call it and it is not degraded.")]
    raw_model_id: Annotated[str | None, Meta(description="The provider's own name of the model.")]


class HealthModel(Struct, frozen=True, kw_only=True):
    """Where one model can run now."""

    model_identifier: str
    model_type: Literal["image", "video"]
    model_pricing: float | dict[str, float]
    providers: Annotated[dict[str, ModelAvailability], Meta(description="By provider id.")]


class HealthModelsData(Struct, frozen=True, kw_only=True):
    """The availability of every model."""

    service: Literal["models"]
    healthy: Annotated[bool, Meta(description="Whether every model has an available provider.")]
    models_total: Count
    models: list[HealthModel]
