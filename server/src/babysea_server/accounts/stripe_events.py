"""What Stripe sends and answers, as far as it is looked at: its events, checkout sessions, invoices, subscriptions.

An event has the shape of the API version that its endpoint was made with, an answer the one of the library; where
fields have moved between versions both places are read. Source: Stripe's API reference and its changelog.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from msgspec import Struct, field

#: An event that was signed longer ago is refused: it may be one that somebody recorded.
TOLERANCE_S = 300


class BadEventError(Exception):
    """Not an event of ours: its signature or its form is wrong."""


class Event(Struct, frozen=True):
    """One event, its object not yet read."""

    id: str
    type: str
    data: "_EventData"


class _EventData(Struct, frozen=True):
    object: msgspec.Raw


class CheckoutSession(Struct, frozen=True):
    """A purchase."""

    id: str
    mode: str
    payment_status: str
    customer: str | None = None
    subscription: str | None = None
    metadata: Mapping[str, str] | None = None


class _Period(Struct, frozen=True):
    start: int
    end: int


class _Price(Struct, frozen=True):
    id: str


class _PriceDetails(Struct, frozen=True):
    price: str | None = None


class _Pricing(Struct, frozen=True):
    price_details: _PriceDetails | None = None


class _ItemDetails(Struct, frozen=True):
    proration: bool = False


class _LineParent(Struct, frozen=True):
    subscription_item_details: _ItemDetails | None = None


class InvoiceLine(Struct, frozen=True):
    """One line of an invoice; `amount` is in the currency's smallest unit."""

    amount: int
    period: _Period
    pricing: _Pricing | None = None
    parent: _LineParent | None = None
    price: _Price | None = None  # before 2025-03-31
    proration: bool = False

    @property
    def price_id(self) -> str | None:
        """The price that it is about."""
        if self.pricing is not None and self.pricing.price_details is not None:
            return self.pricing.price_details.price
        return None if self.price is None else self.price.id

    @property
    def is_proration(self) -> bool:
        """Whether it settles a part of a period, after a change in its middle."""
        details = None if self.parent is None else self.parent.subscription_item_details
        return self.proration or (details is not None and details.proration)

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """The period that is paid."""
        return moment(self.period.start), moment(self.period.end)


class _Lines(Struct, frozen=True):
    data: list[InvoiceLine]


class _SubscriptionDetails(Struct, frozen=True):
    subscription: str | None = None


class _InvoiceParent(Struct, frozen=True):
    subscription_details: _SubscriptionDetails | None = None


class Invoice(Struct, frozen=True):
    """An invoice."""

    id: str
    lines: _Lines
    customer: str | None = None
    parent: _InvoiceParent | None = None
    subscription: str | None = None  # before 2025-03-31

    @property
    def subscription_id(self) -> str | None:
        """The subscription that it is for, if it is for one."""
        if self.parent is not None and self.parent.subscription_details is not None:
            return self.parent.subscription_details.subscription
        return self.subscription


class _Item(Struct, frozen=True):
    price: _Price
    current_period_start: int | None = None
    current_period_end: int | None = None


class _Items(Struct, frozen=True):
    data: list[_Item] = field(default_factory=list)


class Subscription(Struct, frozen=True):
    """A subscription as it stands."""

    id: str
    customer: str
    status: str
    items: _Items
    cancel_at_period_end: bool = False
    cancel_at: int | None = None
    currency: str | None = None
    current_period_start: int | None = None  # before 2025-03-31
    current_period_end: int | None = None

    @property
    def price_ids(self) -> list[str]:
        """The prices that are subscribed to."""
        return [item.price.id for item in self.items.data]

    @property
    def ends(self) -> bool:
        """Whether it has been cancelled for later."""
        return self.cancel_at_period_end or self.cancel_at is not None

    @property
    def bounds(self) -> tuple[datetime, datetime] | None:
        """The present period."""
        item = self.items.data[0] if self.items.data else None
        start = (item and item.current_period_start) or self.current_period_start
        end = (item and item.current_period_end) or self.current_period_end
        return None if start is None or end is None else (moment(start), moment(end))


class Price(Struct, frozen=True):
    """What something costs; `unit_amount` is in the currency's smallest unit, None where it has steps."""

    id: str
    currency: str
    unit_amount: int | None = None
    active: bool = True


class CustomerRef(Struct, frozen=True):
    """The customer that any object is about."""

    customer: str | None = None


def read_event(body: bytes, signature: str, secret: str) -> Event:
    """An event that Stripe signed within the last five minutes.

    Args:
        body: exactly as it came.
        signature: the header `Stripe-Signature`.
        secret: of the endpoint, `whsec_...`.

    Raises:
        BadEventError
    """
    import stripe  # here: it takes half a second, and most installations never need it

    if not signature.isascii():
        raise BadEventError("the signature has characters that none has")
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret, TOLERANCE_S)
        return msgspec.json.decode(body, type=Event)
    except (stripe.SignatureVerificationError, UnicodeDecodeError, ValueError) as error:
        raise BadEventError(type(error).__name__) from None


def moment(seconds: int) -> datetime:
    """A moment as Stripe counts it."""
    return datetime.fromtimestamp(seconds, UTC)
