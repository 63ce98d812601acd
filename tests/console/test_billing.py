"""Billing: what the page says, what is bought over Stripe's real protocol, and what its signed events do."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import httpx
import pytest
from tests.conftest import deployment_settings
from tests.console.conftest import ConsoleClientOf
from tests.console.stripe_emulator import SECRET_KEY, WEBHOOK_SECRET, StripeEmulator, signed, stripe_emulator
from tests.console.support import ConsoleClient, activity_of, deployed, make_person, open_client
from tests.databases import Databases
from tests.support import Deployment, make_account

from babysea_server.accounts import billing_store
from babysea_server.accounts import store as accounts
from babysea_server.accounts.plans import PlanError, load_offers, load_plans
from babysea_server.accounts.service import Renewals, change_plan
from babysea_server.accounts.stripe_events import Price
from babysea_server.app.selling import billing_of
from babysea_server.app.shared import build_shared
from babysea_server.console.pages.billing import price_text
from babysea_server.db.pool import Database
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import issue
from babysea_server.kit.money import MICROS_PER_CREDIT
from babysea_server.settings import SettingsError

CREDIT = MICROS_PER_CREDIT
PLANS = """
[free]
requests_per_minute = 60
[starter]
monthly_credits = 9
stripe_price = "price_starter"
[pro]
requests_per_minute = 300
monthly_credits = 29
stripe_price = "price_pro"
[enterprise]
monthly_credits = 199
[packs.small]
credits = 10
stripe_price = "price_small"
[packs.large]
credits = 1000
stripe_price = "price_large"
"""


@pytest.fixture(scope="module")
async def stripe() -> AsyncIterator[StripeEmulator]:
    """The payment service of this module's deployment."""
    async with stripe_emulator() as emulator:
        emulator.prices = {
            "price_starter": (900, "usd"),
            "price_pro": (2900, "usd"),
            "price_small": (1000, "usd"),
        }
        yield emulator


@pytest.fixture(scope="module")
async def console(databases: Databases, stripe: StripeEmulator) -> AsyncIterator[Deployment]:
    """A deployment that sells over that payment service."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="babysea-billing-")))
        (folder / "plans.toml").write_text(PLANS)
        dsn = await stack.enter_async_context(databases.fresh())
        settings = deployment_settings(
            folder,
            plans_file=str(folder / "plans.toml"),
            stripe_secret_key=SECRET_KEY,
            stripe_webhook_secret=WEBHOOK_SECRET,
            stripe_api_url=stripe.origin,
        )
        yield await stack.enter_async_context(deployed(build_shared(settings), dsn))


@pytest.fixture
async def owner(console_client: ConsoleClientOf) -> ConsoleClient:
    """The primary owner of a new account of plan free without credits."""
    return await console_client("primary-owner", plan="free", credits="0")


async def _send(client: ConsoleClient, body: bytes, **signature: Any) -> httpx.Response:
    return await client.http.post("/stripe/events", content=body, headers=signed(body, **signature))


async def _tell(client: ConsoleClient, body: bytes) -> None:
    response = await _send(client, body)
    assert response.status_code == 200, response.text


async def _state(client: ConsoleClient) -> tuple[str, int]:
    """Plan and balance, in whole credits."""
    account = await accounts.get(client.deployment.db, client.account_id)
    assert account is not None
    return account.plan, account.credit_balance // CREDIT


async def _customer(client: ConsoleClient) -> str:
    """Who the account is at the payment service, known from its first purchase on."""
    await client.submit("/billing", {"pack": "small"}, action="/billing/packs")
    known = await billing_store.customer(client.deployment.db, client.account_id)
    assert known is not None
    return known.customer_id


async def _begun(client: ConsoleClient, stripe: StripeEmulator, pack: str = "small") -> str:
    """Begin to buy a pack; the session's id."""
    response = await client.submit("/billing", {"pack": pack}, action="/billing/packs")
    assert response.status_code == 303
    assert response.headers["location"].startswith(f"{stripe.origin}/c/pay/")
    return response.headers["location"].rpartition("/")[2]


# ------------------------------------------------------------------------------- buying


async def test_a_pack_is_bought_and_its_credits_come_once_with_the_event(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await _begun(owner, stripe)
    session = stripe.sessions[session_id]
    assert session["mode"] == "payment"
    assert session["line_items"] == {"0": {"price": "price_small", "quantity": "1"}}
    assert session["success_url"].endswith(f"/console/us/{owner.person.slug}/billing?paid=1")
    assert stripe.customers[session["customer"]]["email"] == owner.person.user.email
    # Coming back from paying adds nothing: only the event does.
    assert "appears here as soon as" in await owner.page("/billing?paid=1")
    assert await _state(owner) == ("free", 0)

    body = stripe.event("checkout.session.completed", stripe.pay(session_id))
    await _tell(owner, body)
    assert await _state(owner) == ("free", 10)
    await _tell(owner, body)
    # The same purchase in another event, as when an endpoint was made anew.
    await _tell(owner, stripe.event("checkout.session.completed", stripe.pay(session_id)))
    assert await _state(owner) == ("free", 10)
    assert "Pack small: 10 credits" in await owner.page("/billing")
    actions = [action for action, _ in await activity_of(owner.deployment, owner.account_id)]
    assert actions == ["order.begun", "order.paid"]
    assert await owner.deployment.differences() == []


async def test_the_same_event_many_times_at_once_adds_once(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await _begun(owner, stripe)
    body = stripe.event("checkout.session.completed", stripe.pay(session_id))
    other = stripe.event("checkout.session.completed", stripe.pay(session_id))
    answers = await asyncio.gather(*(_send(owner, each) for each in [body, other] * 8))
    assert {answer.status_code for answer in answers} == {200}
    assert await _state(owner) == ("free", 10)


async def test_what_is_paid_later_is_added_when_it_is_paid(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await _begun(owner, stripe)
    await _tell(owner, stripe.event("checkout.session.completed", stripe.pay(session_id, "unpaid")))
    assert await _state(owner) == ("free", 0)
    paid = stripe.event("checkout.session.async_payment_succeeded", stripe.pay(session_id))
    await _tell(owner, paid)
    assert await _state(owner) == ("free", 10)


async def test_a_pack_has_the_credits_that_were_promised_when_it_was_bought(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await _begun(owner, stripe, "large")
    assert stripe.sessions[session_id]["metadata"]["credits"] == "1000"
    await _tell(owner, stripe.event("checkout.session.completed", stripe.pay(session_id)))
    assert await _state(owner) == ("free", 1000)


async def test_an_account_is_one_customer(owner: ConsoleClient, stripe: StripeEmulator) -> None:
    made = len(stripe.customers)
    first, second = await asyncio.gather(_customer(owner), _customer(owner))
    assert first == second == await _customer(owner)
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
    customer = await _customer(owner)
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
    subscription = stripe.subscribe(await _customer(owner), price)
    await _tell(owner, stripe.event("customer.subscription.created", subscription))
    await _tell(owner, stripe.event("invoice.paid", stripe.invoice(subscription)))
    return subscription


async def test_a_subscription_gives_its_plan_and_the_credits_of_each_paid_month(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    begun = await owner.submit("/billing", {"plan": "pro"}, action="/billing/plans")
    session = stripe.sessions[begun.headers["location"].rpartition("/")[2]]
    assert session["mode"] == "subscription"
    subscription = stripe.subscribe(session["customer"], "price_pro")
    session["subscription"] = subscription["id"]
    await _tell(owner, stripe.event("checkout.session.completed", stripe.pay(session["id"])))
    assert await _state(owner) == ("pro", 0)
    first = stripe.invoice(subscription)
    await _tell(owner, stripe.event("invoice.paid", first))
    assert await _state(owner) == ("pro", 29)
    await _tell(owner, stripe.event("invoice.paid", first))
    assert await _state(owner) == ("pro", 29)
    await _tell(owner, stripe.event("invoice.paid", stripe.invoice(subscription)))
    assert await _state(owner) == ("pro", 58)
    # Time alone renews nothing: the next month comes when it is paid.
    await Renewals(owner.deployment.db, load_plans()).run()
    assert await _state(owner) == ("pro", 58)
    html = await owner.page("/billing")
    for text in ("Renews", "Active", "Change the plan under", "Manage payments"):
        assert text in html
    again = await owner.follow(await owner.post("/billing/plans", {"plan": "starter"}))
    assert "There is a subscription already." in again.text


async def test_events_in_any_order_end_in_the_same_state(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    """The events say `incomplete`, `active` and `past_due`; what counts is what the subscription is like now."""
    subscription = stripe.subscribe(await _customer(owner), "price_pro", "past_due")
    told = [
        stripe.event("invoice.paid", stripe.invoice(subscription)),
        stripe.event("customer.subscription.deleted", {**subscription, "status": "canceled"}),
        stripe.event("customer.subscription.updated", {**subscription, "status": "active"}),
        stripe.event("customer.subscription.created", {**subscription, "status": "incomplete"}),
    ]
    for body in told:
        await _tell(owner, body)
    known = await billing_store.customer(owner.deployment.db, owner.account_id)
    assert known is not None
    assert known.subscription_status == "past_due"
    assert await _state(owner) == ("pro", 29)
    assert "The last payment failed." in await owner.page("/billing")


async def test_an_ended_subscription_leads_back_and_takes_no_credits(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = await _subscribed(owner, stripe)
    subscription["cancel_at_period_end"] = True
    await _tell(owner, stripe.event("customer.subscription.updated", subscription))
    assert "Ends" in await owner.page("/billing")
    assert await _state(owner) == ("pro", 29)
    subscription["status"] = "canceled"
    await _tell(owner, stripe.event("customer.subscription.deleted", subscription))
    assert await _state(owner) == ("free", 29)
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
    await _tell(owner, stripe.event("customer.subscription.deleted", subscription))
    assert (await _state(owner))[0] == "enterprise"


async def test_another_plan_in_the_middle_of_a_month_gives_its_limits_and_no_credits_for_a_part(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = await _subscribed(owner, stripe, "price_starter")
    assert await _state(owner) == ("starter", 9)
    for _ in range(3):  # to and fro would otherwise add credits each time
        subscription["items"]["data"][0]["price"]["id"] = "price_pro"
        await _tell(owner, stripe.event("customer.subscription.updated", subscription))
        await _tell(
            owner, stripe.event("invoice.paid", stripe.invoice(subscription, amount=900, proration=True))
        )
        assert await _state(owner) == ("pro", 9)
        subscription["items"]["data"][0]["price"]["id"] = "price_starter"
        await _tell(owner, stripe.event("customer.subscription.updated", subscription))


async def test_a_trial_gives_the_plan_and_no_credits(owner: ConsoleClient, stripe: StripeEmulator) -> None:
    subscription = stripe.subscribe(await _customer(owner), "price_pro", "trialing")
    await _tell(owner, stripe.event("invoice.paid", stripe.invoice(subscription, amount=0)))
    assert await _state(owner) == ("pro", 0)


async def test_an_old_subscription_does_not_end_the_new_one(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    old = await _subscribed(owner, stripe)
    old["status"] = "canceled"
    await _tell(owner, stripe.event("customer.subscription.deleted", old))
    await _subscribed(owner, stripe, "price_starter")
    await _tell(owner, stripe.event("customer.subscription.updated", old))
    assert (await _state(owner))[0] == "starter"


async def test_invoices_of_older_api_versions_are_understood(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = stripe.subscribe(await _customer(owner), "price_pro")
    item = subscription["items"]["data"][0]
    period = {"start": item["current_period_start"], "end": item["current_period_end"]}
    line = {"amount": 2900, "period": period, "price": {"id": "price_pro"}, "proration": False}
    invoice = {
        "id": stripe.id("in"),
        "customer": subscription["customer"],
        "subscription": subscription["id"],
        "lines": {"data": [line, {**line, "proration": True}]},
    }
    await _tell(owner, stripe.event("invoice.paid", invoice))
    assert await _state(owner) == ("pro", 29)


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


# ------------------------------------------------------------------------------- events


async def test_what_is_not_signed_with_the_secret_changes_nothing(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session_id = await _begun(owner, stripe)
    body = stripe.event("checkout.session.completed", stripe.pay(session_id))
    right = signed(body)["stripe-signature"]
    answers = [
        await _send(owner, body, secret="whsec_other"),
        await _send(owner, body, at=time.time() - 301),
        await owner.http.post("/stripe/events", content=body),
        await owner.http.post("/stripe/events", content=body + b" ", headers={"stripe-signature": right}),
        await owner.http.post(
            "/stripe/events", content=body, headers={b"stripe-signature": "t=1,v1=é".encode()}
        ),
        await owner.http.post("/stripe/events", content=b"\xff", headers={"stripe-signature": right}),
        await owner.http.post(
            "/stripe/events", content=body, headers=[("stripe-signature", right), ("stripe-signature", right)]
        ),
    ]
    assert [answer.status_code for answer in answers] == [400] * len(answers)
    assert await _state(owner) == ("free", 0)
    await _tell(owner, body)
    assert await _state(owner) == ("free", 10)


async def test_a_second_signature_of_a_changing_secret_is_enough(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    body = stripe.event("checkout.session.completed", stripe.pay(await _begun(owner, stripe)))
    old, new = (signed(body, secret=secret)["stripe-signature"] for secret in ("whsec_old", WEBHOOK_SECRET))
    both = f"{old},{new.partition(',')[2]}"
    answer = await owner.http.post("/stripe/events", content=body, headers={"stripe-signature": both})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b'{"id": "evt_x"}', 400),
        (b'{"id": "evt_x", "type": "ping", "data": {"object": {}}}', 200),
        (b'{"id": "evt_x", "type": "invoice.paid", "data": {"object": {"customer": 7}}}', 422),
        (b'{"id": "evt_x", "type": "invoice.paid", "data": {"object": {"customer": "cus_nobody"}}}', 200),
        (b'{"id": "evt_x", "type": "invoice.paid", "data": {"object": {"customer": null}}}', 200),
    ],
)
async def test_signed_events_that_are_not_ours_are_taken_and_nonsense_is_not(
    owner: ConsoleClient, body: bytes, status: int
) -> None:
    assert (await _send(owner, body)).status_code == status


async def test_events_are_posted_and_bounded(owner: ConsoleClient) -> None:
    answer = await owner.http.get("/stripe/events")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert (await _send(owner, b" " * (1024 * 1024 + 1))).status_code == 413


async def test_a_purchase_of_something_else_and_a_pack_without_credits_add_nothing(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    session = stripe.pay(await _begun(owner, stripe))
    foreign = {**session, "metadata": {"order": "17"}}
    await _tell(owner, stripe.event("checkout.session.completed", foreign))
    for credits in ("", "-5", "1e3", "0", "1000001", "٣"):
        broken = {**session, "metadata": {"pack": "small", "credits": credits}}
        answer = await _send(owner, stripe.event("checkout.session.completed", broken))
        assert answer.status_code == 422, credits
    assert await _state(owner) == ("free", 0)
    assert (
        await owner.deployment.db.fetchval(
            "SELECT count(*) FROM stripe_events WHERE account_id = $1", owner.account_id
        )
        == 1
    )


async def test_a_subscription_of_another_customer_is_not_believed(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    mine = await _customer(owner)
    other = stripe.subscribe("cus_other", "price_pro")
    answer = await _send(owner, stripe.event("customer.subscription.updated", {**other, "customer": mine}))
    assert answer.status_code == 422
    assert (await _state(owner))[0] == "free"


async def test_with_the_payment_service_away_an_event_is_put_off_whole(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    subscription = stripe.subscribe(await _customer(owner), "price_pro")
    body = stripe.event("invoice.paid", stripe.invoice(subscription))
    stripe.down = True
    try:
        assert (await _send(owner, body)).status_code == 503
    finally:
        stripe.down = False
    assert await _state(owner) == ("free", 0)
    await _tell(owner, body)
    assert await _state(owner) == ("pro", 29)


async def test_a_crash_between_the_credits_and_the_commit_leaves_nothing_and_the_repetition_all(
    owner: ConsoleClient, stripe: StripeEmulator, console: Deployment
) -> None:
    """Whoever carries the event out loses its connection after all has been written and before it is committed."""
    db = console.db
    body = stripe.event("checkout.session.completed", stripe.pay(await _begun(owner, stripe)))
    session_ends = """
        CREATE FUNCTION end_the_session() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER crash AFTER INSERT ON stripe_events DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION end_the_session()
    """
    admin = await asyncpg.connect(db.dsn)
    try:
        await admin.execute(session_ends)
        assert (await _send(owner, body)).status_code == 503
    finally:
        await admin.execute("DROP TRIGGER IF EXISTS crash ON stripe_events; DROP FUNCTION end_the_session")
        await admin.close()
    assert await _state(owner) == ("free", 0)
    assert await _events(db, body) == 0
    await _tell(owner, body)
    await _tell(owner, body)
    assert await _state(owner) == ("free", 10)
    assert await _events(db, body) == 1


async def _events(db: Database, body: bytes) -> int:
    found: int = await db.fetchval("SELECT count(*) FROM stripe_events WHERE id = $1", json.loads(body)["id"])
    return found


async def test_old_events_are_forgotten_and_still_add_nothing_twice(
    owner: ConsoleClient, stripe: StripeEmulator
) -> None:
    body = stripe.event("checkout.session.completed", stripe.pay(await _begun(owner, stripe)))
    await _tell(owner, body)
    db = owner.deployment.db
    await db.execute(
        "UPDATE stripe_events SET received_at = now() - interval '91 days' WHERE account_id = $1",
        owner.account_id,
    )
    assert await billing_store.delete_old_events(db) == 1
    await _tell(owner, body)
    assert await _state(owner) == ("free", 10)


# ------------------------------------------------------------------------------- alerts


async def test_alerts_are_added_and_removed(owner: ConsoleClient) -> None:
    assert "the default, while there is none of your own" in await owner.page("/billing")
    for threshold in ("5", "$0.75", "12.5"):
        await owner.submit("/billing", {"threshold": threshold}, action="/billing/alerts")
    html = await owner.page("/billing")
    assert [html.index(text) for text in ("$12.50<", "$5.00<", "$0.75<")] == sorted(
        html.index(text) for text in ("$12.50<", "$5.00<", "$0.75<")
    )
    removed = await owner.submit("/billing", {"threshold": "5000000"}, action="/billing/alerts/remove")
    assert "The alert below 5 credits was removed." in (await owner.follow(removed)).text
    assert "$5.00<" not in await owner.page("/billing")
    actions = [action for action, _ in await activity_of(owner.deployment, owner.account_id)]
    assert actions == ["credit_alert.added"] * 3 + ["credit_alert.removed"]


@pytest.mark.parametrize("typed", ["", "0", "-1", "five", "0.0000001", "1e99", "<b>1</b>", "NaN"])
async def test_an_alert_that_is_no_amount_is_refused_beside_its_field(
    owner: ConsoleClient, typed: str
) -> None:
    response = await owner.submit("/billing", {"threshold": typed}, action="/billing/alerts")
    assert response.status_code == 422
    assert 'aria-invalid="true"' in response.text
    assert "<b>1</b>" not in response.text
    assert await activity_of(owner.deployment, owner.account_id) == []


async def test_of_alerts_that_are_added_at_once_none_is_lost_and_ten_are_enough(owner: ConsoleClient) -> None:
    answers = await asyncio.gather(
        *(owner.post("/billing/alerts", {"threshold": str(number)}) for number in range(1, 12))
    )
    assert sorted(answer.status_code for answer in answers) == [303] * 10 + [422]
    rows = await owner.deployment.db.fetchval(
        "SELECT count(*) FROM credit_alerts WHERE account_id = $1", owner.account_id
    )
    assert rows == 10


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
