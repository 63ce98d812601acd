"""What an account buys: packs of credits and plans, and what follows when the payment service says that it is paid.

Only an event adds credits, never the customer's return from paying. Events come twice, late and in any order, so

- each is carried out once: its id is a row of the same transaction;
- credits have a source (the checkout session, the invoice) under which they are granted once, whichever event says so;
- what a subscription is like is asked of Stripe under the customer's lock, never taken from an event.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec
import structlog

from babysea_server.accounts import activity
from babysea_server.accounts import billing_store as store
from babysea_server.accounts import store as accounts
from babysea_server.accounts.activity import SYSTEM
from babysea_server.accounts.billing_store import Customer
from babysea_server.accounts.plans import Offers, Pack
from babysea_server.accounts.service import enter_plan
from babysea_server.accounts.stripe_api import PaymentsUnavailableError, StripeApi
from babysea_server.accounts.stripe_events import (
    BadEventError,
    CheckoutSession,
    CustomerRef,
    Event,
    Invoice,
    Price,
    Subscription,
)
from babysea_server.db.pool import Database
from babysea_server.kit.calls import Plan
from babysea_server.kit.clock import Clock
from babysea_server.kit.money import MICROS_PER_CREDIT

_log = structlog.get_logger(__name__)

#: A subscription that gives its plan. One that is past due is still being collected.
LIVE = frozenset({"active", "trialing", "past_due"})
_ENDED = frozenset({"canceled", "unpaid", "incomplete_expired"})
_PRICE_S = 600.0
_PACK_CREDITS_MAX = 1_000_000


class AlreadySubscribedError(Exception):
    """The account has a subscription; it is changed in the payment service's portal."""


class Buyer(msgspec.Struct, frozen=True):
    """The account that buys, and where its people come back to."""

    account_id: UUID
    name: str
    email: str
    """Of who buys."""
    return_url: str


class Billing:
    """Payments of one region.

    Args:
        plans: by name.
        ended_plan: what an account is put on when its subscription ends; None: it stays where it is.
    """

    def __init__(
        self,
        db: Database,
        region: str,
        stripe: StripeApi,
        offers: Offers,
        plans: Mapping[str, Plan],
        clock: Clock,
        *,
        ended_plan: Plan | None,
    ) -> None:
        self.offers = offers
        self._db = db
        self._region = region
        self._stripe = stripe
        self._plans = plans
        self._clock = clock
        self._ended_plan = ended_plan
        self._prices: dict[str, tuple[float, Price]] = {}

    async def close(self) -> None:
        """Close connections."""
        await self._stripe.close()

    # ---------------------------------------------------------------------------------- buying

    async def buy_pack(self, buyer: Buyer, pack: Pack) -> str:
        """Begin to buy credits; where it is paid.

        Raises:
            PaymentsUnavailableError
        """
        # As many as are promised now: the plans file may be another when it is paid.
        told = {"pack": pack.name, "credits": str(pack.credits)}
        return await self._checkout(buyer, "payment", pack.price_id, told)

    async def subscribe(self, buyer: Buyer, plan: str) -> str:
        """Begin to subscribe to a plan that is sold; where it is paid.

        Raises:
            AlreadySubscribedError, PaymentsUnavailableError
        """
        known = await store.customer(self._db, buyer.account_id)
        if known is not None and known.subscription_status in LIVE:
            raise AlreadySubscribedError
        return await self._checkout(buyer, "subscription", self.offers.plans[plan], {"plan": plan})

    async def portal(self, account_id: UUID, return_url: str) -> str | None:
        """Where an account manages its payments; None: it never bought anything.

        Raises:
            PaymentsUnavailableError
        """
        known = await store.customer(self._db, account_id)
        return None if known is None else await self._stripe.portal(known.customer_id, return_url=return_url)

    async def prices(self) -> Mapping[str, Price]:
        """What is sold costs, by price id, as of the last ten minutes; prices that cannot be had are left out."""
        wanted = [*self.offers.plans.values(), *(pack.price_id for pack in self.offers.packs.values())]
        found = await asyncio.gather(*map(self._price, wanted))
        return {price.id: price for price in found if price is not None}

    async def _price(self, price_id: str) -> Price | None:
        read_at, price = self._prices.get(price_id, (0.0, None))
        if price is None or self._clock.monotonic() - read_at > _PRICE_S:
            try:
                price = await self._stripe.price(price_id)
            except PaymentsUnavailableError:
                return price
            self._prices[price_id] = (self._clock.monotonic(), price)
        return price

    async def _checkout(self, buyer: Buyer, mode: Any, price: str, told: Mapping[str, str]) -> str:
        return await self._stripe.checkout(
            mode,
            customer=await self._customer(buyer),
            price=price,
            metadata={"account_id": str(buyer.account_id), "region": self._region, **told},
            success_url=f"{buyer.return_url}?paid=1",
            cancel_url=buyer.return_url,
        )

    async def _customer(self, buyer: Buyer) -> str:
        known = await store.customer(self._db, buyer.account_id)
        if known is not None:
            return known.customer_id
        # Kept before anything is bought, so that every event finds whose it is.
        made = await self._stripe.create_customer(
            buyer.account_id, self._region, name=buyer.name, email=buyer.email
        )
        return await store.keep_customer(self._db, buyer.account_id, made)

    # ---------------------------------------------------------------------------------- events

    async def apply(self, event: Event) -> bool:
        """Carry out an event, unless it has been; whether it is about an account of this region.

        Raises:
            BadEventError: its object is not what its type says.
            PaymentsUnavailableError, DatabaseUnavailableError, asyncpg.PostgresError: nothing was done.
        """
        work = self._works().get(event.type)
        if work is None:
            return False
        customer_id = _read(event, CustomerRef).customer
        if customer_id is None:
            return False
        async with self._db.transaction() as connection:
            customer = await store.lock_customer(connection, customer_id)
            if customer is None:
                return False
            if await store.take_event(connection, event.id, event.type, customer.account_id):
                await work(connection, customer, event)
        return True

    def _works(self) -> Mapping[str, Callable[[Any, Customer, Event], Awaitable[None]]]:
        return {
            "checkout.session.completed": self._checkout_ended,
            "checkout.session.async_payment_succeeded": self._checkout_ended,
            "invoice.paid": self._invoice_paid,
            "customer.subscription.created": self._subscription_changed,
            "customer.subscription.updated": self._subscription_changed,
            "customer.subscription.deleted": self._subscription_changed,
        }

    async def _checkout_ended(self, connection: Any, customer: Customer, event: Event) -> None:
        session = _read(event, CheckoutSession)
        if session.mode == "subscription" and session.subscription is not None:
            await self._look_at(connection, customer, session.subscription)
        # Paid later by some means: then another event says so.
        if session.mode != "payment" or session.payment_status not in ("paid", "no_payment_required"):
            return
        told = session.metadata or {}
        if "pack" not in told:
            return  # something else that the operator sells
        credits = told.get("credits", "")
        if not (credits.isascii() and credits.isdecimal() and 0 < int(credits[:12]) <= _PACK_CREDITS_MAX):
            raise BadEventError("a pack without credits")
        text = f"Pack {told['pack']}: {int(credits)} credits"
        amount = int(credits) * MICROS_PER_CREDIT
        if await store.grant(connection, customer.account_id, f"checkout:{session.id}", amount, text):
            await activity.record(
                connection, customer.account_id, SYSTEM, "order.paid", f"{text} were bought"
            )

    async def _invoice_paid(self, connection: Any, customer: Customer, event: Event) -> None:
        invoice = _read(event, Invoice)
        if invoice.subscription_id is None:
            return
        await self._look_at(connection, customer, invoice.subscription_id)
        granted = 0
        texts: list[str] = []
        for line in invoice.lines.data:
            plan = self._plans.get(self.offers.plan_of(line.price_id or "") or "")
            # A change within a period costs a part of it, and could be made again and again: it gives no credits.
            # Neither does a trial, which costs nothing.
            if plan is None or line.is_proration or line.amount <= 0:
                continue
            granted += plan.monthly_credits * MICROS_PER_CREDIT
            starts_at, ends_at = line.bounds
            texts.append(f"Plan {plan.name}, {starts_at.date()} to {ends_at.date()}")
        text = "; ".join(texts)
        if granted and await store.grant(
            connection, customer.account_id, f"invoice:{invoice.id}", granted, text
        ):
            await activity.record(
                connection, customer.account_id, SYSTEM, "subscription.paid", f"{text} was paid"
            )

    async def _subscription_changed(self, connection: Any, customer: Customer, event: Event) -> None:
        await self._look_at(connection, customer, _read(event, _Named).id)

    async def _look_at(self, connection: Any, customer: Customer, subscription_id: str) -> None:
        """Ask how the subscription stands, and have the account follow it. The customer is locked."""
        subscription = await self._stripe.subscription(subscription_id)
        if subscription.customer != customer.customer_id:
            raise BadEventError("a subscription of another customer")
        live = subscription.status in LIVE
        if customer.subscription_id not in (None, subscription.id):
            if not live:
                return  # an old one, or one that was never paid
            if customer.subscription_status in LIVE:
                _log.warning(
                    "second_subscription", account_id=str(customer.account_id), subscription=subscription.id
                )
        await store.note_subscription(
            connection,
            customer.account_id,
            subscription_id=subscription.id,
            status=subscription.status,
            cancel_at_period_end=subscription.ends,
            currency=subscription.currency,
            period=subscription.bounds,
        )
        plan = self._sold(subscription)
        if plan is None:
            _log.warning(
                "subscription_without_plan", account_id=str(customer.account_id), subscription=subscription.id
            )
        elif live:
            await _put_on(connection, customer.account_id, plan, subscription)
        elif subscription.status in _ENDED and self._ended_plan is not None:
            await _take_off(connection, customer.account_id, plan, self._ended_plan)

    def _sold(self, subscription: Subscription) -> Plan | None:
        """The plan that is subscribed to."""
        names = filter(None, map(self.offers.plan_of, subscription.price_ids))
        return next(filter(None, map(self._plans.get, names)), None)


class _Named(msgspec.Struct, frozen=True):
    id: str


def _read(event: Event, type: Any) -> Any:
    try:
        return msgspec.json.decode(event.data.object, type=type)
    except msgspec.ValidationError as error:
        raise BadEventError(str(error)) from None


async def _put_on(connection: Any, account_id: UUID, plan: Plan, subscription: Subscription) -> None:
    """Put the account on the plan that it subscribes to; its credits come with each invoice, not with a period."""
    account = await accounts.lock(connection, account_id)
    if account is None:
        return
    if account.period is not None:
        await accounts.set_periods(connection, [(account_id, None)])
    if account.plan != plan.name:
        await accounts.set_plan(connection, account_id, plan.name)
        text = f"The plan is {plan.name} now, was {account.plan}: the subscription is {subscription.status}"
        await activity.record(connection, account_id, SYSTEM, "subscription.plan_changed", text)


async def _take_off(connection: Any, account_id: UUID, plan: Plan, ended_plan: Plan) -> None:
    """Put the account on the plan of those without a subscription, unless the operator gave it another one."""
    account = await accounts.lock(connection, account_id)
    if account is None or account.plan != plan.name or plan.name == ended_plan.name:
        return
    await accounts.set_plan(connection, account_id, ended_plan.name)
    changed = await accounts.get(connection, account_id)
    assert changed is not None
    await enter_plan(connection, changed, ended_plan)
    text = f"The plan is {ended_plan.name} now, was {plan.name}: the subscription has ended"
    await activity.record(connection, account_id, SYSTEM, "subscription.ended", text)
