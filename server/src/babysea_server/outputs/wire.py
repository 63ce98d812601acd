"""What the health of storage looks like on the wire."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class HealthStorageData(Struct, frozen=True, kw_only=True):
    """A round trip to the storage of outputs: written, read back, deleted."""

    service: Literal["storage"]
    healthy: bool
    latency_ms: Annotated[float, Meta(description="How long the round trip, or its failing, took.", ge=0)]
    bucket: Annotated[str, Meta(description="The bucket's name; `local` for a directory.")]
    error: Annotated[str | UnsetType, Meta(description="Only when not healthy.")] = UNSET
