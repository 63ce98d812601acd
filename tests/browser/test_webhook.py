"""Webhook, Notifications and Activity in a real browser: their main flows, both themes, a phone and a desk."""

import re

from playwright.async_api import expect
from tests.browser.conftest import LOOKS, ConsolePage, OpenConsole
from tests.console.webhook_log import generation_id, happen, make_endpoint, many, newest, tried

from babysea_server.accounts import notices
from babysea_server.accounts.activity import OPERATOR, SYSTEM, record
from babysea_server.webhooks.endpoint_store import Endpoint

#: Every page on a phone and on a desk, in the dark and in the light; the colours do not depend on the width.

_ANSWER = '<script>alert(1)</script><h1 style="font-size:90px">Internal Server Error</h1> ' + "x" * 900


async def _log(console: ConsolePage) -> Endpoint:
    """An endpoint with a little of everything in its log."""
    db, account_id = console.db, console.account_id
    endpoint = await make_endpoint(
        db,
        account_id,
        url="https://127.0.0.1/hooks/babysea?for=" + "orders-" * 20,
        description="طلبات الإنتاج",
    )
    await make_endpoint(db, account_id, url="https://127.0.0.1/other", events=["generation.failed"])
    # The worker takes nothing before all is as it should be.
    await db.execute("UPDATE webhook_endpoints SET state = 'disabled' WHERE account_id = $1", account_id)
    for event in ("generation.started", "generation.completed"):
        await happen(
            db, account_id, event, generation_id=generation_id(), model_identifier="bfl/flux-schnell"
        )
        await tried(db, await newest(db, endpoint), (204, None, None), state="delivered")
    await happen(db, account_id, "generation.failed", generation_id=generation_id())
    failures = [(None, "timeout", None)] * 2 + [(503, "http_5xx", _ANSWER)] * 3
    await tried(db, await newest(db, endpoint), *failures)
    await happen(db, account_id, "generation.canceled", generation_id=generation_id())
    await tried(db, await newest(db, endpoint), *[(404, "http_4xx", "gone")] * 9, state="failed")
    await db.execute(
        "DELETE FROM webhook_deliveries WHERE account_id = $1 AND endpoint_id <> $2", account_id, endpoint.id
    )
    await db.execute("UPDATE webhook_endpoints SET state = 'enabled' WHERE account_id = $1", account_id)
    return endpoint


@LOOKS
async def test_an_endpoint_is_added_and_its_secret_shown_once(
    console_page: OpenConsole, width: int, theme: str
) -> None:
    console = await console_page(width=width, theme=theme)
    shot = f"webhook-{theme}-{width}"
    tab = await console.open("/webhook")
    await console.check(f"{shot}-empty")
    await tab.get_by_role("main").get_by_role("link", name="Add endpoint").first.click()
    dialog = tab.get_by_role("dialog")
    await dialog.get_by_label("URL").fill("https://127.0.0.1/hook")
    await dialog.get_by_role("button", name="Add endpoint").click()
    await expect(dialog.locator("#f-url-error")).to_be_visible()
    await console.check(f"{shot}-refused")
    await dialog.get_by_label("URL").fill("https://hooks.example.com/babysea")
    await dialog.get_by_label("Description").fill("Orders")
    await dialog.get_by_role("button", name="Add endpoint").click()
    await expect(dialog.get_by_text("You can only see this secret once.")).to_be_visible()
    await console.check(f"{shot}-secret")
    await dialog.get_by_role("button", name="Copy secret").click()
    copied = await tab.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{32}", copied)
    await dialog.get_by_role("link", name="Done").click()
    await expect(tab.get_by_role("heading", name="Orders")).to_be_visible()
    assert copied not in await tab.content()
    await console.check(f"{shot}-new")


@LOOKS
async def test_a_delivery_is_opened_and_replayed(console_page: OpenConsole, width: int, theme: str) -> None:
    console = await console_page(width=width, theme=theme)
    endpoint = await _log(console)
    shot = f"webhook-{theme}-{width}"
    tab = await console.open("/webhook")
    await console.check(f"{shot}-list")
    await tab.get_by_role("link", name=re.compile("babysea")).click()
    await expect(tab.get_by_role("heading", name="Deliveries")).to_be_visible()
    await console.check(f"{shot}-detail")
    await tab.get_by_role("link", name="generation.failed").click()
    dialog = tab.get_by_role("dialog")
    await expect(dialog.get_by_label("Answer of attempt 5")).to_be_visible()
    await console.check(f"{shot}-delivery")
    await tab.keyboard.press("Escape")
    await tab.get_by_role("link", name="generation.canceled").click()
    await dialog.get_by_role("button", name="Replay").click()
    await expect(tab.get_by_text("generation.canceled is being sent again.")).to_be_visible()
    await tab.get_by_label("More actions").click()
    await console.check(f"{shot}-menu")
    await tab.get_by_role("link", name="Replay all failed since").click()
    await expect(dialog.get_by_label("Since, UTC")).to_be_visible()
    await console.check(f"{shot}-replay")
    await tab.keyboard.press("Escape")
    await console.db.execute("UPDATE webhook_endpoints SET state = 'failing' WHERE id = $1", endpoint.id)
    await happen(console.db, console.account_id, "generation.started", generation_id=generation_id())
    await console.open(f"/webhook/{endpoint.id}")
    await console.check(f"{shot}-failing")
    await tab.get_by_role("button", name="Enable", exact=True).click()
    await expect(tab.get_by_role("button", name="Deliver queued events")).to_be_visible()
    await console.check(f"{shot}-queued")
    await tab.get_by_label("More actions").click()
    await tab.get_by_role("link", name="Delete").click()
    await expect(dialog.get_by_label("to confirm")).to_be_visible()
    await console.check(f"{shot}-delete")


async def test_ten_thousand_deliveries_are_paged(console_page: OpenConsole) -> None:
    console = await console_page(theme="dark")
    endpoint = await make_endpoint(console.db, console.account_id)
    await many(console.db, endpoint, 10_000)
    tab = await console.open(f"/webhook/{endpoint.id}")
    await tab.get_by_role("link", name="Next").click()
    await expect(tab.get_by_role("link", name="Newest")).to_be_visible()
    await tab.get_by_role("combobox", name="Status").select_option("failed")
    await expect(tab.locator("tbody .badge.bad", has_text="Failed")).to_have_count(25)
    await console.check("webhook-dark-1440-many")


@LOOKS
async def test_notifications_are_read(console_page: OpenConsole, width: int, theme: str) -> None:
    console = await console_page(width=width, theme=theme)
    db, account_id = console.db, console.account_id
    tab = await console.open("/notifications")
    await console.check(f"notifications-{theme}-{width}-empty")
    endpoint = await make_endpoint(db, account_id)
    told = f"The webhook endpoint {endpoint.url} was disabled because 15 deliveries in a row failed. What happens from "
    told += "now on waits 72 hours for it to be enabled."
    await notices.notify(db, account_id, "credits.low_balance", "رصيدك منخفض: 0.42", {})
    await notices.notify(db, account_id, "webhook.disabled", told, {"endpoint_id": str(endpoint.id)})
    await notices.notify(db, account_id, "credits.low_balance", "The balance is below 0.5 credits.", {})
    await notices.mark_read(db, account_id, [(await notices.page(db, account_id))[0].id])
    await console.open("/notifications")
    await console.check(f"notifications-{theme}-{width}")
    await tab.get_by_role("button", name="Mark all as read").click()
    await expect(tab.get_by_text("2 notifications were marked as read.")).to_be_visible()
    await tab.get_by_role("link", name="Open the endpoint").click()
    await expect(tab.get_by_role("heading", name="127.0.0.1")).to_be_visible()


@LOOKS
async def test_activity_is_narrowed_and_exported(console_page: OpenConsole, width: int, theme: str) -> None:
    console = await console_page(width=width, theme=theme)
    db, account_id = console.db, console.account_id
    tab = await console.open("/activity")
    await console.check(f"activity-{theme}-{width}-empty")
    await make_endpoint(db, account_id)
    await record(db, account_id, OPERATOR, "credit.granted", "$25.000 were granted: تعويض")
    await record(
        db, account_id, SYSTEM, "subscription.renewed", "Plan unlimited was renewed " + "on and on " * 30
    )
    for number in range(40):
        await record(db, account_id, SYSTEM, "generation.deleted", f"Generation {number} was deleted")
    await tab.get_by_role("link", name="Open API keys").click()
    await console.open("/activity")
    await console.check(f"activity-{theme}-{width}")
    await tab.get_by_role("combobox", name="Category").select_option("credit")
    await expect(tab.get_by_text("$25.000 were granted")).to_be_visible()
    await expect(tab.locator("tbody tr")).to_have_count(1)
    async with tab.expect_download() as download:
        await tab.get_by_role("link", name="Export CSV").click()
    exported = await (await download.value).path()
    assert len(exported.read_text("utf-8").splitlines()) == 2


async def test_a_delivery_is_followed_while_the_page_is_open(console_page: OpenConsole) -> None:
    console = await console_page()
    db, account_id = console.db, console.account_id
    endpoint = await make_endpoint(db, account_id)
    await db.execute("UPDATE webhook_endpoints SET state = 'disabled' WHERE id = $1", endpoint.id)
    await happen(db, account_id, "generation.started", generation_id=generation_id())
    tab = await console.open(f"/webhook/{endpoint.id}")
    await expect(tab.locator("tbody tr")).to_have_count(1)
    await tried(db, await newest(db, endpoint), (204, None, None), state="delivered")
    row = tab.locator("tbody tr").last
    await expect(row.get_by_text("204")).to_be_visible()
    await expect(row.get_by_text("Delivered")).to_be_visible()
    await happen(db, account_id, "generation.completed", generation_id=generation_id())
    await expect(tab.locator("tbody tr")).to_have_count(2)
