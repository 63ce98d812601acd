"""Types of members that several answers have; the published document takes their descriptions over."""

from typing import Annotated

from msgspec import Meta

Moment = Annotated[
    str, Meta(description="RFC 3339, UTC, milliseconds.", extra_json_schema={"format": "date-time"})
]
Count = Annotated[int, Meta(ge=0)]
