"""What the API answers, under the API's own names. Members that this version does not know are in `extra`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from babysea._reading import Credits, Record

Media = Literal["image", "video"] | str
GenerationStatus = Literal["pending", "processing", "succeeded", "failed", "canceled"] | str

FINAL = ("succeeded", "failed", "canceled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Record):
    """What a call was answered: `raw` is its data as JSON says it; by `request_id` the operator can look it up."""

    request_id: str = field(compare=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Answer):
    """The key that made the call, and its account."""

    account_id: str
    apikey_id: str
    apikey_name: str
    apikey_prefix: str
    apikey_created_at: datetime
    apikey_last_used_at: datetime | None = None
    apikey_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEndpoint(Record):
    """The requests of one endpoint; `error_codes` counts them by code."""

    endpoint: str
    total_requests: int
    success_count: int
    client_error_count: int
    server_error_count: int
    error_codes: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageProvider(Record):
    """What was submitted to one provider, and what became of it; costs in credits."""

    provider: str
    total_submissions: int
    used_count: int
    cancelled_count: int
    discarded_count: int
    failed_count: int
    total_estimated_cost: Credits
    wasted_estimated_cost: Credits


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Answer):
    """The account's traffic of the last `usage_period_days` days."""

    account_id: str
    usage_period_days: int
    usage_credit_balance: Credits
    usage_total_requests: int
    usage_total_success: int
    usage_total_client_errors: int
    usage_total_server_errors: int
    usage_total_generations: int
    usage_total_provider_submissions: int
    usage_total_estimated_cost: Credits
    usage_endpoints: tuple[UsageEndpoint, ...] = ()
    usage_providers: tuple[UsageProvider, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Answer):
    """The account of the key."""

    account_id: str
    account_name: str
    account_is_personal: bool
    account_created_at: datetime
    account_email: str | None = None
    account_picture_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing(Answer):
    """The account's plan and its balance in credits."""

    account_id: str
    billing_credit_balance: Credits
    billing_plan: str | None = None
    billing_subscription_status: str | None = None
    billing_cancel_at_period_end: bool | None = None
    billing_currency: str | None = None
    billing_period_starts_at: datetime | None = None
    billing_period_ends_at: datetime | None = None
    billing_created_at: datetime | None = None
    billing_updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Answer):
    """What generations would cost in credits, and whether the balance covers it."""

    model_identifier: str
    model_type: Media
    assets_count: int
    cost_per_generation: Credits
    cost_total_consumed: Credits
    credit_balance: Credits
    credit_balance_can_afford: bool
    credit_balance_max_affordable: int
    cost_per_second: Credits | None = None
    duration_seconds: int | None = None
    resolution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted(Answer):
    """A generation that was durably accepted, its credits reserved.

    `idempotency_key` is what it was sent with, and `replayed` tells that an earlier request with that key made it.
    `generation_status` is there only when it was canceled meanwhile.
    """

    generation_id: str
    model_identifier: str | None = None
    generation_provider_order: tuple[str, ...] = ()
    generation_prediction_id: str | None = None
    generation_initialized: bool = False
    generation_status: GenerationStatus | None = None
    idempotency_key: str = field(compare=False)
    replayed: bool = field(compare=False)

    @property
    def id(self) -> str:
        """`generation_id`."""
        return self.generation_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation(Answer):
    """One generation. The model's own inputs are in `extra`, under their `generation_` names; times in seconds."""

    account_id: str
    generation_id: str
    model_identifier: str
    generation_status: GenerationStatus
    generation_created_at: datetime
    generation_started_at: datetime | None = None
    generation_completed_at: datetime | None = None
    generation_provider_order: tuple[str, ...] = ()
    generation_provider_used: str | None = None
    generation_prediction_id: str | None = None
    generation_output_file: tuple[str, ...] | None = None
    generation_metrics_total_time: float | None = None
    generation_metrics_predict_time: float | None = None
    generation_prompt: str | None = None
    generation_ratio: str | None = None
    generation_output_format: str | None = None
    generation_output_number: int | None = None
    generation_input_file: tuple[str, ...] | None = None
    generation_input_file_last_content: str | None = None
    generation_duration: int | None = None
    generation_resolution: str | None = None
    generation_generate_audio: bool | None = None
    generation_audio_mode: Literal["audio", "noaudio"] | str | None = None
    generation_error: str | None = None
    generation_error_code: str | None = None
    generation_removed: bool = False

    @property
    def id(self) -> str:
        """`generation_id`."""
        return self.generation_id

    @property
    def status(self) -> GenerationStatus:
        """`generation_status`."""
        return self.generation_status

    @property
    def urls(self) -> tuple[str, ...]:
        """The signed links to its files; none until it succeeded, and none after their removal."""
        return self.generation_output_file or ()

    @property
    def done(self) -> bool:
        """Whether its status is final. One that this version does not know is not."""
        return self.generation_status in FINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Canceled(Answer):
    """A generation that this call canceled; None where the answer that said so was lost."""

    generation_id: str
    generation_status: GenerationStatus = "canceled"
    provider_cancel_sent: bool | None = None
    credits_refunded: Credits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted(Answer):
    """A generation that this call deleted; None where the answer that said so was lost."""

    generation_id: str
    files_deleted: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthWindow(Record):
    """The attempts that a provider's health is judged by."""

    total_attempts: int
    failures: int
    successes: int
    duration_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderHealth(Record):
    """How one provider did lately in this region."""

    provider: str
    status: Literal["healthy", "recovering", "degraded", "unknown"] | str
    failure_rate: float
    window: HealthWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidersHealth(Answer):
    """The health of every provider."""

    service: str
    healthy: bool
    providers_total: int
    providers: tuple[ProviderHealth, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAvailability(Record):
    """Whether one provider serves a model now, and under which name."""

    available: bool
    raw_model_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHealth(Record):
    """Where one model can run now, by provider id."""

    model_identifier: str
    model_type: Media
    providers: Mapping[str, ModelAvailability] = field(hash=False)
    model_pricing: float | Mapping[str, float] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsHealth(Answer):
    """The availability of every model."""

    service: str
    healthy: bool
    models_total: int
    models: tuple[ModelHealth, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageHealth(Answer):
    """A round trip to the storage of outputs; `error` only when it is not healthy."""

    service: str
    healthy: bool
    latency_ms: float
    bucket: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheHealth(Answer):
    """A round trip to whatever holds the counters of rate limits; `error` only when it is not healthy."""

    service: str
    healthy: bool
    latency_ms: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderImplementation(Record):
    """How the server works with a provider."""

    delivery_method: Literal["webhook_with_polling", "synchronous", "polling"] | str
    supported_media_types: tuple[Media, ...]
    supported_models_total: int
    cancel_method: Literal["prediction_cancel_api", "queue_cancel_api"] | str | None = None
    webhook_verification: Literal["hmac_sha256", "ed25519"] | str | None = None
    error_mapping: str | None = None
    cost_tracking: str | None = None
    schema_conversion: str | None = None
    failover_strategy: str | None = None
    health_monitoring: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryProvider(Record):
    """One inference provider."""

    provider_id: str
    provider_name: str
    provider_description: str
    provider_status: Literal["available", "unavailable"] | str
    babysea_implementation: ProviderImplementation
    provider_website: str | None = None
    provider_docs: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryProviders(Answer):
    """The providers that the server knows."""

    providers_total: int
    providers: tuple[LibraryProvider, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSchema(Record):
    """The common inputs of a model. Nothing to choose from is an empty tuple; the first resolution is the default."""

    generation_prompt: bool
    generation_ratio: tuple[str, ...] = ()
    generation_output_format: tuple[str, ...] = ()
    generation_output_number: int = 1
    generation_input_file: bool = False
    generation_duration: tuple[int, ...] | None = None
    generation_resolution: tuple[str, ...] | None = None
    generation_generate_audio: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryModel(Record):
    """One model on offer; prices in credits per image or per second, one figure or by resolution and sound."""

    model_type: Media
    model_identifier: str
    model_pricing: float | Mapping[str, float] = field(hash=False)
    model_supported_provider: tuple[str, ...]
    schema: ModelSchema
    specific_schema: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryModels(Answer):
    """The models on offer."""

    models_total: int
    models: tuple[LibraryModel, ...]


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Item]):
    """A part of a list, newest first: `total` are all there are, `offset` those before this part."""

    items: tuple[Item, ...]
    total: int
    limit: int
    offset: int
    request_id: str = field(compare=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
