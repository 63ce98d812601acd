"""What the health of the cache looks like on the wire."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class HealthCacheData(Struct, frozen=True, kw_only=True):
    """A round trip to whatever holds the counters of rate limits: written, and read back."""

    service: Literal["redis"]
    healthy: bool
    latency_ms: Annotated[float, Meta(description="How long the round trip, or its failing, took.", ge=0)]
    error: Annotated[str | UnsetType, Meta(description="Only when not healthy.")] = UNSET
