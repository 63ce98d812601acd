"""What the catalog holds: providers, models, and how each provider takes a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import jsonschema_rs
import msgspec

Media = Literal["image", "video"]
#: Credits: one figure, or a figure per resolution, sound or quality.
Price = Decimal | Mapping[str, Decimal]
#: A combination of values; for texts, files and lists `True` means given and `False` absent.
Condition = Mapping[str, str | int | bool]


class FieldSpec(msgspec.Struct, frozen=True):
    """One input of a model.

    `type` is `string`, `integer`, `number`, `boolean`, `enum` (of strings), `url`, `url-array`,
    `string-array` or `object`; `default` is None where there is none.
    """

    name: str
    type: str
    required: bool = False
    default: str | int | float | bool | None = None
    enum: tuple[str | int, ...] | None = None
    min: int | float | None = None
    max: int | float | None = None
    max_length: int | None = None
    max_items: int | None = None
    description: str = ""


class ProviderModel(msgspec.Struct, frozen=True, eq=False):
    """How one provider takes one model.

    `limits`: by field the accepted values (list), the most (number), `False` for never, `many` for no known
    limit. Only a `partial` provider is narrower than the model. `usd` is the operator's cost in US dollars.
    """

    provider_id: str
    model: str
    """The provider's own id; `models_by_workflow` and `models_by_resolution` choose another."""
    models_by_workflow: Mapping[str, str]
    models_by_resolution: Mapping[str, Mapping[str, str]]
    route: str | None
    params: Mapping[str, str]
    """Our field name to the provider's parameter."""
    ratio_map: Mapping[str, Any]
    value_map: Mapping[str, Mapping[str, Any]]
    formats: Mapping[str, str]
    """Our field name to how its value is spelled, e.g. `{}s` for seconds as text."""
    fixed_params: Mapping[str, Any]
    limits: Mapping[str, Any]
    partial: bool
    excludes: tuple[Condition, ...]
    usd: Price | None
    price_confidence: str
    deprecated_on: date | None
    note: str | None
    raw: Mapping[str, Any]
    """The whole entry of the data file."""


class Traits(msgspec.Struct, frozen=True):
    """How a provider is worked with, told by its adapter.

    `verification` is None where callbacks are confirmed by asking the provider, or where there are none.
    """

    delivery: Literal["webhook_with_polling", "synchronous", "polling"]
    cancel: Literal["prediction_cancel_api", "queue_cancel_api"] | None = None
    verification: Literal["hmac_sha256", "ed25519"] | None = None


class Provider(msgspec.Struct, frozen=True):
    """One inference provider. An `optional` one is shown and used only where the operator configured it."""

    id: str
    name: str
    description: str
    website: str | None
    docs: str | None
    optional: bool = False
    note: str | None = None


class ModelSchema(msgspec.Struct, frozen=True):
    """The common inputs as the library shows them; an empty list means the caller cannot choose."""

    prompt: bool
    ratios: tuple[str, ...]
    output_formats: tuple[str, ...]
    output_number: int
    input_file: bool
    durations: tuple[int, ...] | None
    resolutions: tuple[str, ...] | None
    audio: bool | None


class CompiledBody(msgspec.Struct):
    """What is worked out once for a model: its body's validator and prices; empty until the first request."""

    validator: jsonschema_rs.Draft202012Validator | None = None
    quotes: dict[tuple[Any, ...], Any] = {}
    """Prices by the inputs they depend on; see `pricing.quote`."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One model. `pricing` and `pricing_tiers` are final: the markup is in them. Compared by identity."""

    identifier: str
    media: Media
    lab: str
    display_name: str
    description: str
    workflows: tuple[str, ...]
    aliases: tuple[str, ...]
    pricing: Price | None
    """Credits per output or per second; None: not offered."""
    pricing_unit: Literal["generation", "second"]
    pricing_tiers: Mapping[str, Decimal]
    pricing_covers_all_providers: bool
    max_seconds: int | None
    """The length follows the source clip, and this much is reserved; None for every other model."""
    fields: Mapping[str, FieldSpec]
    schema: ModelSchema
    specific_schema: tuple[str, ...]
    provider_ids: tuple[str, ...]
    """The default order."""
    providers: Mapping[str, ProviderModel]
    excludes: tuple[Condition, ...]
    ignored: tuple[str, ...]
    """Fields that are accepted and dropped, because published examples send them."""
    unverified: bool
    note: str | None
    compiled: CompiledBody = field(default_factory=CompiledBody, repr=False)

    @property
    def offered(self) -> bool:
        """Whether customers see it: it has a price and a provider."""
        return self.pricing is not None and bool(self.provider_ids)
