"""Billing: the plan, what can be bought, what was added, and at which balances people are warned."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response

from babysea_server.accounts import alerts, billing_store
from babysea_server.accounts import store as accounts
from babysea_server.accounts.billing import LIVE, AlreadySubscribedError, Billing, Buyer
from babysea_server.accounts.billing_store import Customer
from babysea_server.accounts.roles import Action
from babysea_server.accounts.store import Account
from babysea_server.accounts.stripe_api import PaymentsUnavailableError
from babysea_server.accounts.stripe_events import Price
from babysea_server.console.faults import PageFaultError
from babysea_server.console.forms import FieldErrors
from babysea_server.console.listing import Column
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.kit import money
from babysea_server.kit.faults import NotFoundError

_ADDITIONS = 10
_COLUMNS = (
    Column("created", "Time"),
    Column("amount", "Amount", kind="number"),
    Column("description", "Description"),
)
#: Where the payment service has people pay and manage payments.
_PAYING = ("https://checkout.stripe.com", "https://billing.stripe.com")
#: Currencies whose smallest unit is not a hundredth (Stripe's reference, "Supported currencies").
_WHOLE = frozenset(
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"]
)
_THOUSANDTHS = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])
_STATUS_TONES = {
    "active": "good",
    "trialing": "info",
    "past_due": "warn",
    "unpaid": "bad",
    "incomplete": "warn",
}
_AWAY = "The payment service cannot be reached. Nothing was bought; try again in a moment."


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, edit = Action.BILLING_VIEW, Action.BILLING_EDIT
    return [
        Route("GET", "/billing", view, _show),
        Route("POST", "/billing/packs", edit, _buy),
        Route("POST", "/billing/plans", edit, _subscribe),
        Route("POST", "/billing/portal", edit, _portal),
        Route("POST", "/billing/alerts", edit, _add_alert),
        Route("POST", "/billing/alerts/remove", edit, _remove_alert),
    ]


async def _show(page: PageRequest) -> Response:
    return await _render(page, FieldErrors())


async def _render(page: PageRequest, errors: FieldErrors) -> Response:
    account = await accounts.get(page.db, page.account_id)
    if account is None:
        raise NotFoundError("There is no such account.")
    customer = await billing_store.customer(page.db, page.account_id)
    selling: Mapping[str, Any] = {}
    if page.region.billing is not None:
        page.forms_to = _forms_to(page)
        selling = await _selling(page, page.region.billing, customer)
    return await page.render(
        "billing.html",
        422 if errors else 200,
        errors=errors,
        form=page.form,
        plan=page.region.plans.get(account.plan),
        plan_name=account.plan,
        balance=account.credit_balance,
        customer=customer,
        live=customer is not None and customer.subscription_status in LIVE,
        period=_period(account, customer),
        selling=selling,
        paid=page.query.get("paid") == "1" and bool(selling),
        alerts=await alerts.get_alerts(page.db, page.account_id),
        alerts_max=alerts.THRESHOLDS_MAX,
        additions=await billing_store.additions(page.db, page.account_id, limit=_ADDITIONS),
        columns=_COLUMNS,
        tones=_STATUS_TONES,
    )


def _period(account: Account, customer: Customer | None) -> Any:
    """When the present period begins and ends, or None."""
    if account.period is not None:
        return account.period.starts_at, account.period.ends_at
    if customer is not None and customer.subscription_status in LIVE and customer.period_ends_at is not None:
        return customer.period_starts_at, customer.period_ends_at
    return None


async def _selling(page: PageRequest, billing: Billing, customer: Customer | None) -> Mapping[str, Any]:
    prices = await billing.prices()
    return {
        "packs": [(pack, price_text(prices.get(pack.price_id))) for pack in billing.offers.packs.values()],
        "plans": [
            (plan, price_text(prices.get(price)))
            for name, price in billing.offers.plans.items()
            if (plan := page.region.plans.get(name)) is not None
        ],
        "portal": customer is not None,
    }


def price_text(price: Price | None) -> str:
    """A price for people, e.g. `10.00 USD`; nothing where it is not known."""
    if price is None or price.unit_amount is None:
        return ""
    currency = price.currency.lower()
    digits = 0 if currency in _WHOLE else 3 if currency in _THOUSANDTHS else 2
    whole, rest = divmod(price.unit_amount, 10**digits)
    return f"{whole:,}" + (f".{rest:0{digits}d}" if digits else "") + f" {currency.upper()}"


def _forms_to(page: PageRequest) -> str:
    """Where a purchase leads, as the browser is told."""
    api = page.region.settings.stripe_api_url
    own = [] if api is None else [f"{urlsplit(api).scheme}://{urlsplit(api).netloc}"]
    return " ".join([*_PAYING, *own])


# ------------------------------------------------------------------------------- buying


def _billing(page: PageRequest) -> Billing:
    if page.region.billing is None:
        raise NotFoundError("Payments are not set up here.")
    return page.region.billing


def _buyer(page: PageRequest) -> Buyer:
    return Buyer(
        page.account_id, page.account.name, page.user.email, page.region.origin + page.url("/billing")
    )


async def _buy(page: PageRequest) -> Response:
    billing = _billing(page)
    pack = billing.offers.packs.get(page.form.text("pack"))
    if pack is None:
        raise NotFoundError("There is no such pack.")
    try:
        address = await billing.buy_pack(_buyer(page), pack)
    except PaymentsUnavailableError as error:
        raise _away() from error
    await page.record("order.begun", f"Buying pack {pack.name} ({pack.credits} credits) was begun")
    return page.leave(address)


async def _subscribe(page: PageRequest) -> Response:
    billing = _billing(page)
    plan = page.form.text("plan")
    if plan not in billing.offers.plans or plan not in page.region.plans:
        raise NotFoundError("There is no such plan.")
    try:
        address = await billing.subscribe(_buyer(page), plan)
    except AlreadySubscribedError:
        text = "There is a subscription already. Change it under “Manage payments”."
        return await page.redirect("/billing", text, "warning")
    except PaymentsUnavailableError as error:
        raise _away() from error
    await page.record("subscription.begun", f"Subscribing to plan {plan} was begun")
    return page.leave(address)


async def _portal(page: PageRequest) -> Response:
    try:
        address = await _billing(page).portal(page.account_id, page.region.origin + page.url("/billing"))
    except PaymentsUnavailableError as error:
        raise _away() from error
    if address is None:
        return await page.redirect("/billing", "Nothing has been bought yet.", "info")
    return page.leave(address)


def _away() -> PageFaultError:
    return PageFaultError(503, "Payments are not possible now", _AWAY, {"retry-after": "30"})


# ------------------------------------------------------------------------------- alerts


async def _add_alert(page: PageRequest) -> Response:
    try:
        threshold = money.micros(page.form.text("threshold").removeprefix("$"))
        async with page.db.transaction() as connection:
            await alerts.edit_thresholds(connection, page.account_id, add=threshold)
            text = f"Alert below {money.text(threshold)} credits was added"
            await page.record("credit_alert.added", text, connection)
    except ValueError as error:
        text = str(error)
        if isinstance(error, money.InvalidAmountError):
            text = "Enter an amount of credits, with at most six decimals."
        return await _render(page, FieldErrors(threshold=text[:1].upper() + text[1:].removesuffix(".") + "."))
    return await page.redirect("/billing", f"You will be warned below {money.text(threshold)} credits.")


async def _remove_alert(page: PageRequest) -> Response:
    text = page.form.text("threshold")
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise NotFoundError("There is no such alert.")
    async with page.db.transaction() as connection:
        await alerts.edit_thresholds(connection, page.account_id, remove=int(text))
        shown = money.text(int(text))
        await page.record("credit_alert.removed", f"Alert below {shown} credits was removed", connection)
    return await page.redirect("/billing", f"The alert below {shown} credits was removed.")
