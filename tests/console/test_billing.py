"""Billing: what the page says, and what is bought over the payment service's real protocol."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import deployment_settings
from tests.console.conftest import ConsoleClientOf
from tests.console.selling import PLANS, begun, console, customer_of, owner, send, state, stripe, tell
from tests.console.stripe_emulator import SECRET_KEY, StripeEmulator
from tests.console.support import ConsoleClient, activity_of, deployed, make_person, open_client
from tests.databases import Databases
from tests.support import make_account

from babysea_server.accounts import billing_store
from babysea_server.accounts.plans import PlanError, load_offers, load_plans
from babysea_server.accounts.service import Renewals, change_plan
from babysea_server.accounts.stripe_events import Price
from babysea_server.app.selling import billing_of
from babysea_server.app.shared import build_shared
from babysea_server.console.pages.billing import price_text
from babysea_server.db.pool import Database
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import issue
from babysea_server.settings import SettingsError

__all__ = ["console", "owner", "stripe"]  # fixtures


# ------------------------------------------------------------------------------- buying


async def test_a_pack_is_bought_and_its_credits_come_once_with_the_event(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await begun(owner, stripe)
    session = stripe.sessions[session_id]
    assert session["mode"] == "payment"
    assert session["line_items"] == {"0": {"price": "price_small", "quantity": "1"}}
    assert session["success_url"].endswith(f"/console/us/{owner.person.slug}/billing?paid=1")
    assert stripe.customers[session["customer"]]["email"] == owner.person.user.email
    # Coming back from paying adds nothing: only the event does.
    assert "appears here as soon as" in await owner.page("/billing?paid=1")
    assert await state(owner) == ("free", 0)

    body = stripe.event("checkout.session.completed", stripe.pay(session_id))
    await tell(owner, body)
    assert await state(owner) == ("free", 10)
    await tell(owner, body)
    # The same purchase in another event, as when an endpoint was made anew.
    await tell(owner, stripe.event("checkout.session.completed", stripe.pay(session_id)))
    assert await state(owner) == ("free", 10)
    assert "Pack small: 10 credits" in await owner.page("/billing")
    actions = [action for action, _ in await activity_of(owner.deployment, owner.account_id)]
    assert actions == ["order.begun", "order.paid"]
    assert await owner.deployment.differences() == []


async def test_the_same_event_many_times_at_once_adds_once(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await begun(owner, stripe)
    body = stripe.event("checkout.session.completed", stripe.pay(session_id))
    other = stripe.event("checkout.session.completed", stripe.pay(session_id))
    answers = await asyncio.gather(*(send(owner, each) for each in [body, other] * 8))
    assert {answer.status_code for answer in answers} == {200}
    assert await state(owner) == ("free", 10)


async def test_what_is_paid_later_is_added_when_it_is_paid(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await begun(owner, stripe)
    await tell(owner, stripe.event("checkout.session.completed", stripe.pay(session_id, "unpaid")))
    assert await state(owner) == ("free", 0)
    paid = stripe.event("checkout.session.async_payment_succeeded", stripe.pay(session_id))
    await tell(owner, paid)
    assert await state(owner) == ("free", 10)


async def test_a_pack_has_the_credits_that_were_promised_when_it_was_bought(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await begun(owner, stripe, "large")
    assert stripe.sessions[session_id]["metadata"]["credits"] == "1000"
    await tell(owner, stripe.event("checkout.session.completed", stripe.pay(session_id)))
    assert await state(owner) == ("free", 1000)


async def test_an_account_is_one_customer(owner: ConsoleClient, stripe: StripeEmulator) -> None:
    made = len(stripe.customers)
    first, second = await asyncio.gather(customer_of(owner), customer_of(owner))
    assert first == second == await customer_of(owner)
    assert len(stripe.customers) == made + 1


async def test_prices_are_those_of_the_payment_service(owner: ConsoleClient) -> None:
    html = await owner.page("/billing")
    for text in ("29.00 USD a month", "10.00 USD", "Price shown at checkout", "1,000 credits"):
        assert text in html
    assert "babysea-server credits add" not in html
    assert "Manage payments" not in html


async def test_the_browser_is_told_where_a_purchase_may_lead(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    policy = (await owner.get("/billing")).headers["content-security-policy"]
    allowed = f"form-action 'self' https://checkout.stripe.com https://billing.stripe.com {stripe.origin};"
    assert allowed in policy
    assert "form-action 'self';" in (await owner.get("/domains")).headers["content-security-policy"]


async def test_the_portal_is_there_once_something_was_bought(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    nothing = await owner.follow(await owner.post("/billing/portal"))
    assert "Nothing has been bought yet." in nothing.text
    customer = await customer_of(owner)
    response = await owner.submit("/billing", action="/billing/portal")
    assert response.headers["location"].startswith(f"{stripe.origin}/p/session/")
    assert stripe.requests[-1][2]["customer"] == customer


async def test_a_payment_service_that_is_away_is_said_and_nothing_is_begun(
    owner: ConsoleClient, stripe: StripeEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    stripe.down = True
    try:
        page = await owner.get("/billing")
        response = await owner.post("/billing/packs", {"pack": "small"})
    finally:
        stripe.down = False
    assert page.status_code == 200
    assert response.status_code == 503
    assert "Nothing was bought" in response.text
    assert await activity_of(owner.deployment, owner.account_id) == []
    assert SECRET_KEY not in response.text + caplog.text


async def test_what_is_not_sold_cannot_be_bought(owner: ConsoleClient, stripe: StripeEmulator) -> None:
    asked = len(stripe.requests)
    assert (await owner.post("/billing/packs", {"pack": "huge"})).status_code == 404
    assert (await owner.post("/billing/plans", {"plan": "enterprise"})).status_code == 404
    assert len(stripe.requests) == asked


@pytest.mark.parametrize("role", ["owner", "member"])
async def test_only_the_primary_owner_buys_and_edits_alerts(
    console_client: ConsoleClientOf, role: Any
) -> None:
    client = await console_client(role)
    html = await client.page("/billing")
    assert "/billing/packs" not in html
    assert "The primary owner of this account buys" in html
    for path in ("/packs", "/plans", "/portal", "/alerts", "/alerts/remove"):
        answer = await client.post(f"/billing{path}", {"pack": "small", "threshold": "5"})
        assert answer.status_code == 403, path


# ------------------------------------------------------------------------------- subscriptions


async def _subscribed(
    owner: ConsoleClient, stripe: StripeEmulator, price: str = "price_pro"
) -> dict[str, Any]:
    """A paid subscription, told by its events in their usual order."""
    subscription = stripe.subscribe(await customer_of(owner), price)
    await tell(owner, stripe.event("customer.subscription.created", subscription))
    await tell(owner, stripe.event("invoice.paid", stripe.invoice(subscription)))
    return subscription


async def test_a_subscription_gives_its_plan_and_the_credits_of_each_paid_month(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    begun = await owner.submit("/billing", {"plan": "pro"}, action="/billing/plans")
    session = stripe.sessions[begun.headers["location"].rpartition("/")[2]]
    assert session["mode"] == "subscription"
    subscription = stripe.subscribe(session["customer"], "price_pro")
    session["subscription"] = subscription["id"]
    await tell(owner, stripe.event("checkout.session.completed", stripe.pay(session["id"])))
    assert await state(owner) == ("pro", 0)
    first = stripe.invoice(subscription)
    await tell(owner, stripe.event("invoice.paid", first))
    assert await state(owner) == ("pro", 29)
    await tell(owner, stripe.event("invoice.paid", first))
    assert await state(owner) == ("pro", 29)
    await tell(owner, stripe.event("invoice.paid", stripe.invoice(subscription)))
    assert await state(owner) == ("pro", 58)
    # Time alone renews nothing: the next month comes when it is paid.
    await Renewals(owner.deployment.db, load_plans()).run()
    assert await state(owner) == ("pro", 58)
    html = await owner.page("/billing")
    for text in ("Renews", "Active", "Change the plan under", "Manage payments"):
        assert text in html
    again = await owner.follow(await owner.post("/billing/plans", {"plan": "starter"}))
    assert "There is a subscription already." in again.text


async def test_events_in_any_order_end_in_the_same_state(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    """The events say `incomplete`, `active` and `past_due`; what counts is what the subscription is like now."""
    subscription = stripe.subscribe(await customer_of(owner), "price_pro", "past_due")
    told = [
        stripe.event("invoice.paid", stripe.invoice(subscription)),
        stripe.event("customer.subscription.deleted", {**subscription, "status": "canceled"}),
        stripe.event("customer.subscription.updated", {**subscription, "status": "active"}),
        stripe.event("customer.subscription.created", {**subscription, "status": "incomplete"}),
    ]
    for body in told:
        await tell(owner, body)
    known = await billing_store.customer(owner.deployment.db, owner.account_id)
    assert known is not None
    assert known.subscription_status == "past_due"
    assert await state(owner) == ("pro", 29)
    assert "The last payment failed." in await owner.page("/billing")


async def test_an_ended_subscription_leads_back_and_takes_no_credits(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = await _subscribed(owner, stripe)
    subscription["cancel_at_period_end"] = True
    await tell(owner, stripe.event("customer.subscription.updated", subscription))
    assert "Ends" in await owner.page("/billing")
    assert await state(owner) == ("pro", 29)
    subscription["status"] = "canceled"
    await tell(owner, stripe.event("customer.subscription.deleted", subscription))
    assert await state(owner) == ("free", 29)
    assert "/billing/plans" in await owner.page("/billing"), "one may subscribe again"
    actions = [action for action, _ in await activity_of(owner.deployment, owner.account_id)]
    assert actions[-3:] == ["subscription.plan_changed", "subscription.paid", "subscription.ended"]


async def test_the_operators_plan_outlives_a_subscription(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = await _subscribed(owner, stripe)
    plans = owner.deployment.api.regions["us"]._shared.plans
    await change_plan(owner.deployment.db, plans, owner.account_id, plans["enterprise"])
    subscription["status"] = "canceled"
    await tell(owner, stripe.event("customer.subscription.deleted", subscription))
    assert (await state(owner))[0] == "enterprise"


async def test_another_plan_in_the_middle_of_a_month_gives_its_limits_and_no_credits_for_a_part(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = await _subscribed(owner, stripe, "price_starter")
    assert await state(owner) == ("starter", 9)
    for _ in range(3):  # to and fro would otherwise add credits each time
        subscription["items"]["data"][0]["price"]["id"] = "price_pro"
        await tell(owner, stripe.event("customer.subscription.updated", subscription))
        await tell(
            owner, stripe.event("invoice.paid", stripe.invoice(subscription, amount=900, proration=True))
        )
        assert await state(owner) == ("pro", 9)
        subscription["items"]["data"][0]["price"]["id"] = "price_starter"
        await tell(owner, stripe.event("customer.subscription.updated", subscription))


async def test_a_trial_gives_the_plan_and_no_credits(owner: ConsoleClient, stripe: StripeEmulator) -> None:
    subscription = stripe.subscribe(await customer_of(owner), "price_pro", "trialing")
    await tell(owner, stripe.event("invoice.paid", stripe.invoice(subscription, amount=0)))
    assert await state(owner) == ("pro", 0)


async def test_an_old_subscription_does_not_end_the_new_one(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    old = await _subscribed(owner, stripe)
    old["status"] = "canceled"
    await tell(owner, stripe.event("customer.subscription.deleted", old))
    await _subscribed(owner, stripe, "price_starter")
    await tell(owner, stripe.event("customer.subscription.updated", old))
    assert (await state(owner))[0] == "starter"


async def test_invoices_of_older_api_versions_are_understood(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = stripe.subscribe(await customer_of(owner), "price_pro")
    item = subscription["items"]["data"][0]
    period = {"start": item["current_period_start"], "end": item["current_period_end"]}
    line = {"amount": 2900, "period": period, "price": {"id": "price_pro"}, "proration": False}
    invoice = {
        "id": stripe.id("in"),
        "customer": subscription["customer"],
        "subscription": subscription["id"],
        "lines": {"data": [line, {**line, "proration": True}]},
    }
    await tell(owner, stripe.event("invoice.paid", invoice))
    assert await state(owner) == ("pro", 29)


async def test_the_api_tells_the_subscription(owner: ConsoleClient, stripe: StripeEmulator) -> None:
    issued = await issue(
        owner.deployment.db, account_id=owner.account_id, name="k", scopes=PRESETS["full_access"]
    )
    await _subscribed(owner, stripe)
    answer = await owner.http.get("/v1/user/billing", headers={"authorization": f"Bearer {issued.secret}"})
    data = answer.json()["data"]
    assert data["billing_plan"] == "pro"
    assert data["billing_subscription_status"] == "active"
    assert data["billing_cancel_at_period_end"] is False
    assert data["billing_currency"] == "usd"
    assert data["billing_period_starts_at"] == "2026-05-01T01:46:40.000Z"
    assert data["billing_period_ends_at"] == "2026-05-31T01:46:40.000Z"


# ------------------------------------------------------------------------------- settings


async def test_without_the_payment_service_the_page_names_the_operators_command(
    databases: Databases, tmp_path: Path
) -> None:
    async with databases.fresh() as dsn, deployed(build_shared(deployment_settings(tmp_path)), dsn) as plain:
        account_id, _ = await make_account(plain.db)
        person = await make_person(plain, account_id, "primary-owner")
        async with open_client(plain, person) as client:
            html = await client.page("/billing")
            assert f"babysea-server credits add --region us --account {account_id} --amount 10" in html
            assert (await client.post("/billing/packs", {"pack": "small"})).status_code == 404
            assert (await client.http.post("/stripe/events")).status_code == 403


@pytest.mark.parametrize("name", ["stripe_secret_key", "stripe_webhook_secret"])
def test_one_of_the_two_secrets_alone_stops_the_start(name: str, tmp_path: Path) -> None:
    shared = build_shared(deployment_settings(tmp_path, **{name: "x"}))
    with pytest.raises(SettingsError, match="needed together"):
        billing_of(shared, "us", Database("", name="test"))


def test_plans_and_packs_are_read_from_one_file(tmp_path: Path) -> None:
    path = tmp_path / "plans.toml"
    path.write_text(PLANS)
    assert list(load_plans(path)) == ["free", "starter", "pro", "enterprise"]
    offers = load_offers(path)
    assert [(pack.name, pack.credits, pack.price_id) for pack in offers.packs.values()] == [
        ("small", 10, "price_small"),
        ("large", 1000, "price_large"),
    ]
    assert offers.plans == {"starter": "price_starter", "pro": "price_pro"}
    assert load_offers().packs == {}


@pytest.mark.parametrize(
    "text",
    [
        '[a]\n[packs.x]\ncredits = 0\nstripe_price = "price_x"',
        "[a]\n[packs.x]\ncredits = 1",
        '[a]\n[packs.x]\ncredits = 1\nstripe_price = "prod_x"',
        '[a]\nstripe_price = "price_x"\n[packs.x]\ncredits = 1\nstripe_price = "price_x"',
        '[packs.x]\ncredits = 1\nstripe_price = "price_x"',
        "packs = 3\n[a]",
    ],
)
def test_offers_with_a_fault_stop_the_start(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plans.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match="plans file"):
        load_offers(path)


def test_prices_are_shown_in_their_currencys_units() -> None:
    assert price_text(Price("p", "usd", 123_456)) == "1,234.56 USD"
    assert price_text(Price("p", "jpy", 1500)) == "1,500 JPY"
    assert price_text(Price("p", "kwd", 1005)) == "1.005 KWD"
    assert price_text(Price("p", "usd", None)) == ""
