"""API keys in a real browser: as the quickstart tells it, in both themes, on a phone, by keyboard, without scripts."""

import re

from playwright.async_api import expect
from tests.browser.conftest import LOOKS, OpenConsole

from babysea_server.keys.scopes import SCOPES
from babysea_server.keys.service import issue


@LOOKS
async def test_a_key_is_created_shown_once_and_copied(
    console_page: OpenConsole, width: int, theme: str
) -> None:
    console = await console_page(width=width, theme=theme, credits="12.48")
    db, account_id = console.db, console.account_id
    await issue(
        db,
        account_id=account_id,
        name="مفتاح الإنتاج " + "long name " * 6,
        scopes=SCOPES[:2],
        allowlist=["203.0.113.7", "198.51.100.0/24"],
    )
    shot = f"api-keys-{theme}-{width}"
    tab = await console.open("/metrics")
    if width == 375:
        await tab.get_by_role("link", name="Open the menu").click()
        await console.check(f"sidebar-{theme}-{width}")
    await tab.get_by_role("navigation", name="Pages").get_by_role("link", name="API keys").click()
    await expect(tab.get_by_role("heading", name="API keys", exact=True)).to_be_visible()
    await console.check(shot)
    await tab.get_by_role("link", name="Create API key").click()
    dialog = tab.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("Production server")
    await dialog.get_by_label("IP allowlist").fill("nowhere")
    await console.check(f"{shot}-create")
    await dialog.get_by_role("button", name="Create API key").click()
    await expect(dialog.get_by_text("is not an IP address or network")).to_be_visible()
    await console.check(f"{shot}-refused")
    await dialog.get_by_label("IP allowlist").fill("")
    await dialog.get_by_role("button", name="Create API key").click()
    await expect(dialog.get_by_text("You can only see this key once. Store it safely.")).to_be_visible()
    await console.check(f"{shot}-shown")
    await dialog.get_by_role("button", name="Copy key").click()
    copied = await tab.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"bye_[\w-]{40}", copied)
    await dialog.get_by_role("link", name="Done").click()
    await expect(tab.get_by_role("link", name="Production server")).to_be_visible()
    assert copied not in await tab.content()


async def test_a_key_is_rotated_by_keyboard_alone(console_page: OpenConsole) -> None:
    console = await console_page()
    tab = await console.open("/api-keys")
    menu = tab.get_by_label("Actions for test")
    rotate = tab.get_by_role("link", name="Rotate")
    await menu.focus()
    await tab.keyboard.press("Enter")
    await expect(rotate).to_be_visible()
    await tab.keyboard.press("ArrowDown")
    await expect(rotate).to_be_focused()
    await console.check("api-keys-menu")
    await tab.keyboard.press("Enter")
    dialog = tab.get_by_role("dialog")
    await expect(dialog.get_by_role("heading")).to_be_focused()
    await tab.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(menu).to_be_focused()
    await tab.keyboard.press("Enter")
    await expect(rotate).to_be_visible()
    await tab.keyboard.press("ArrowDown")
    await expect(rotate).to_be_focused()
    await tab.keyboard.press("Enter")
    await dialog.get_by_label("The old key goes on working for").focus()
    await tab.keyboard.press("Enter")
    await dialog.get_by_role("button", name="Rotate key").focus()
    await tab.keyboard.press("Enter")
    await expect(dialog.get_by_text("The old key works until")).to_be_visible()
    await tab.keyboard.press("Escape")
    await expect(tab.locator(".badge", has_text="Rotated")).to_be_visible()


async def test_keys_are_created_and_revoked_without_scripts(console_page: OpenConsole) -> None:
    console = await console_page(scripts=False)
    tab = await console.open("/api-keys")
    await tab.get_by_role("link", name="Create API key").click()
    await tab.get_by_label("Name").fill("By hand")
    await tab.get_by_text("Custom", exact=True).click()
    await tab.get_by_text("generation:read").click()
    await tab.get_by_role("button", name="Create API key").click()
    await expect(tab.get_by_text("You can only see this key once.")).to_be_visible()
    await tab.get_by_role("link", name="Done").click()
    await expect(tab.get_by_text("1 scope")).to_be_visible()
    await tab.get_by_label("Actions for By hand").click()
    await tab.get_by_role("link", name="Revoke").click()
    await tab.get_by_role("button", name="Revoke key").click()
    await expect(tab.get_by_text("“By hand” was revoked.")).to_be_visible()
