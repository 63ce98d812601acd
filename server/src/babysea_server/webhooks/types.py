"""What webhooks are made of: events, deliveries, and what became of one try."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

#: Everything that an endpoint can subscribe to.
EVENTS: tuple[str, ...] = (
    "generation.started",
    "generation.completed",
    "generation.failed",
    "generation.canceled",
    "credits.low_balance",
    "webhook.test",
)


class SendFailure(StrEnum):
    """Why a try was no success; kept with the attempt and told to the endpoint's owner."""

    FORBIDDEN_URL = "forbidden_url"  # not https on port 443, or with credentials
    FORBIDDEN_ADDRESS = "forbidden_address"  # the name leads to an address that is not public
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"  # after the connection stood, before there was an answer
    PROTOCOL = "protocol"  # the answer was not HTTP
    REDIRECT = "redirect"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    UNSIGNED = "unsigned"  # the secret could not be opened: it was sealed under another master key
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A delivery that a worker has claimed, with all that sending it needs."""

    id: UUID
    fence: int
    attempts: int
    """Made before."""
    event: str
    data: Mapping[str, Any]
    """`webhook_data`, with storage keys where links will stand."""
    happened_at: datetime
    created_at: datetime
    """Of the delivery: what its body is made from never changes between attempts."""
    endpoint_id: UUID
    account_id: UUID
    url: str
    secret: bytes = field(repr=False)
    """As `SecretBox.seal` made it."""


class Answer(msgspec.Struct, frozen=True):
    """What came of one request."""

    failure: SendFailure | None
    """None: 2xx in time."""
    duration_ms: int
    status: int | None = None
    response: str | None = None
    """The first 2 KiB of the answer's body as text."""
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the endpoint has it."""
        return self.failure is None


class Sent(msgspec.Struct, frozen=True):
    """The result of one try, as it is recorded."""

    delivery: DueDelivery
    answer: Answer
    again_after_s: float | None
    """When it is tried again; None: never, whether it was delivered or not."""
