"""What the account, usage, billing and health operations send."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType

Moment = Annotated[
    str, Meta(description="RFC 3339, UTC, milliseconds.", extra_json_schema={"format": "date-time"})
]
Count = Annotated[int, Meta(ge=0)]
Credits = Annotated[float, Meta(description="Credits; 1 credit is 1 USD, at most six decimals.")]


class UsageEndpoint(Struct, frozen=True, kw_only=True):
    """The requests of one endpoint template, e.g. `POST /v1/generate/image/{model_identifier}`."""

    endpoint: str
    total_requests: Count
    success_count: Count
    client_error_count: Count
    server_error_count: Count
    error_codes: Annotated[dict[str, int], Meta(description="Answers by error code.")]


class UsageProvider(Struct, frozen=True, kw_only=True):
    """What was submitted to one provider, and what became of it."""

    provider: str
    total_submissions: Count
    used_count: Count
    cancelled_count: Count
    discarded_count: Count
    failed_count: Count
    total_estimated_cost: Credits
    wasted_estimated_cost: Credits


class UsageData(Struct, frozen=True, kw_only=True):
    """The account's traffic of the last `usage_period_days` days."""

    account_id: UUID
    usage_period_days: int
    usage_credit_balance: Credits
    usage_total_requests: Count
    usage_total_success: Count
    usage_total_client_errors: Count
    usage_total_server_errors: Count
    usage_total_generations: Count
    usage_total_provider_submissions: Count
    usage_total_estimated_cost: Credits
    usage_endpoints: list[UsageEndpoint]
    usage_providers: list[UsageProvider]


class AccountData(Struct, frozen=True, kw_only=True):
    """The account of the key that made the call."""

    account_id: UUID
    account_name: str
    account_email: str | None
    account_is_personal: bool
    account_picture_url: str | None
    account_created_at: Moment


class BillingData(Struct, frozen=True, kw_only=True):
    """The account's plan and balance."""

    account_id: UUID
    billing_plan: str | None
    billing_credit_balance: Credits
    billing_subscription_status: str | None
    billing_cancel_at_period_end: bool | None
    billing_currency: str | None
    billing_period_starts_at: Moment | None
    billing_period_ends_at: Moment | None
    billing_created_at: Moment | None
    billing_updated_at: Moment | None


class HealthWindow(Struct, frozen=True, kw_only=True):
    """The attempts that a provider's health is judged by."""

    total_attempts: Count
    failures: Count
    successes: Count
    duration_seconds: Count


class ProviderHealth(Struct, frozen=True, kw_only=True):
    """How one provider did lately in this region."""

    provider: str
    status: Literal["healthy", "recovering", "degraded", "unknown"]
    failure_rate: Annotated[float, Meta(description="Failures per attempt in the window.", ge=0, le=1)]
    window: HealthWindow


class HealthProvidersData(Struct, frozen=True, kw_only=True):
    """The health of every provider."""

    service: Literal["providers"]
    healthy: bool
    providers_total: Count
    providers: list[ProviderHealth]


class ModelAvailability(Struct, frozen=True, kw_only=True):
    """Whether one provider serves a model now, and under which name."""

    available: bool
    raw_model_id: str | None


class ModelHealth(Struct, frozen=True, kw_only=True):
    """Where one model can run now."""

    model_identifier: str
    model_type: Literal["image", "video"]
    providers: Annotated[dict[str, ModelAvailability], Meta(description="By provider id.")]
    model_pricing: float | dict[str, float] | UnsetType = UNSET


class HealthModelsData(Struct, frozen=True, kw_only=True):
    """The availability of every model."""

    service: Literal["models"]
    healthy: bool
    models_total: Count
    models: list[ModelHealth]


class HealthStorageData(Struct, frozen=True, kw_only=True):
    """A round trip to the storage of outputs."""

    service: Literal["storage"]
    healthy: bool
    latency_ms: Annotated[float, Meta(ge=0)]
    bucket: str
    error: Annotated[str | UnsetType, Meta(description="Only when not healthy.")] = UNSET


class HealthCacheData(Struct, frozen=True, kw_only=True):
    """A round trip to the configured cache."""

    service: Literal["redis"]
    healthy: bool
    latency_ms: Annotated[float, Meta(ge=0)]
    error: Annotated[str | UnsetType, Meta(description="Only when not healthy.")] = UNSET
