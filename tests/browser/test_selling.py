"""Domains and Billing in a real browser: their main flows, both themes, a phone and a desk."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import expect
from tests.browser.conftest import LOOKS, OpenConsole, Served, product
from tests.console.name_server import NameServer, name_server
from tests.console.selling import PLANS, PRICES
from tests.console.stripe_emulator import SECRET_KEY, WEBHOOK_SECRET, StripeEmulator, signed, stripe_emulator
from tests.databases import Databases

from babysea_server.accounts import billing_store, domain_store, domains
from babysea_server.accounts.stripe_events import read_event
from babysea_server.ledger import store as ledger


@pytest.fixture(scope="module")
async def names() -> AsyncIterator[NameServer]:
    """The name server of this module's product."""
    async with name_server() as server:
        yield server


@pytest.fixture(scope="module")
async def stripe() -> AsyncIterator[StripeEmulator]:
    """The payment service of this module's product."""
    async with stripe_emulator() as emulator:
        emulator.prices = dict(PRICES)
        yield emulator


@pytest.fixture(scope="module")
async def served(
    databases: Databases, names: NameServer, stripe: StripeEmulator, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """API and console with a name server and a payment service."""
    plans = tmp_path_factory.mktemp("selling") / "plans.toml"
    plans.write_text(PLANS)
    async with product(
        databases,
        worker=False,
        plans_file=str(plans),
        dns_resolver=names.address,
        stripe_secret_key=SECRET_KEY,
        stripe_webhook_secret=WEBHOOK_SECRET,
        stripe_api_url=stripe.origin,
    ) as served:
        yield served


@LOOKS
async def test_a_domain_is_added_verified_and_removed(
    console_page: OpenConsole, names: NameServer, width: int, theme: str
) -> None:
    page = await console_page(width=width, theme=theme)
    tab = await page.open("/domains")
    shot = f"domains-{width}-{theme}"
    await page.check(f"{shot}-empty")
    await tab.get_by_role("link", name="Add domain").first.click()
    await tab.get_by_label("Host name").fill("https://no")
    await tab.get_by_role("button", name="Add domain").click()
    await expect(tab.get_by_text("Enter the name alone")).to_be_visible()
    await page.check(f"{shot}-refused")
    host = f"generate-{width}-{theme}.studio-with-a-rather-long-name.Bücher.example"
    await tab.get_by_label("Host name").fill(host)
    await tab.get_by_role("button", name="Add domain").click()
    await expect(tab.get_by_text("Pending")).to_be_visible()
    await tab.get_by_role("button", name="Verify").click()
    await expect(tab.get_by_text("There is no CNAME record yet.")).to_be_visible()
    await page.check(f"{shot}-pending")
    domain = await domain_store.of_account(page.db, page.account_id)
    assert domain is not None
    for record in domains.records(domain, "api.us.localhost"):
        names.set(record.name, record.type, record.value)
    await tab.get_by_role("button", name="Verify").click()
    await expect(tab.get_by_text("Active", exact=True)).to_be_visible()
    await page.check(f"{shot}-active")
    await tab.get_by_role("link", name="Remove").click()
    await tab.get_by_role("button", name="Remove domain").click()
    await expect(tab.get_by_text("Use a domain of your own")).to_be_visible()


@LOOKS
async def test_a_pack_is_bought_and_an_alert_added(
    console_page: OpenConsole, stripe: StripeEmulator, width: int, theme: str
) -> None:
    page = await console_page(width=width, theme=theme, plan="free", credits="12.48")
    text = "شحن الرصيد " + "thank-you-" * 12 + "<script>alert(1)</script>"
    await ledger.add(page.db, page.account_id, 1_250_000_000, text)
    tab = await page.open("/billing")
    await page.check(f"billing-{width}-{theme}")
    await tab.get_by_label("Warn below").fill("nothing")
    await tab.get_by_role("button", name="Add alert").click()
    await expect(tab.get_by_text("Enter an amount of credits")).to_be_visible()
    await tab.get_by_label("Warn below").fill("7.5")
    await tab.get_by_role("button", name="Add alert").click()
    await expect(tab.get_by_text("$7.50", exact=True)).to_be_visible()
    await tab.get_by_title("Buy 10 credits").click()
    await tab.wait_for_url(f"{stripe.origin}/c/pay/*")
    known = await billing_store.customer(page.db, page.account_id)
    assert known is not None
    subscription = stripe.subscribe(known.customer_id, "price_pro", "past_due")
    body = stripe.event("invoice.paid", stripe.invoice(subscription))
    billing = page.served.deployment.api.regions["us"].billing
    assert billing is not None
    assert await billing.apply(read_event(body, signed(body)["stripe-signature"], WEBHOOK_SECRET))
    await page.open("/billing?paid=1")
    await expect(tab.get_by_text("Past due")).to_be_visible()
    await page.check(f"billing-{width}-{theme}-subscribed")
    await tab.get_by_role("button", name="Manage payments").click()
    await tab.wait_for_url(f"{stripe.origin}/p/session/*")
