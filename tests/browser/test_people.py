"""Settings, Members and My profile in a real browser: in both themes, on a phone, by dialogs and without scripts."""

import re

import pyotp
import pytest
from playwright.async_api import expect
from tests.browser.conftest import LOOKS, OpenConsole
from tests.console.support import make_person

from babysea_server.accounts import user_store

LONG = "A very long name of somebody who has many given names and uses all of them every day of the week"


@LOOKS
async def test_pages_of_people_look_right(console_page: OpenConsole, width: int, theme: str) -> None:
    console = await console_page(width=width, theme=theme)
    await make_person(console.served.deployment, console.account_id, "owner", name="عبد الرحمن")
    await make_person(console.served.deployment, console.account_id, "member", name=LONG)
    for path in (
        "/settings",
        "/settings/transfer",
        "/members",
        "/members/invitations",
        "/members/invite",
        "/profile",
        "/profile/security",
        "/profile/sessions",
        "/profile/password",
        "/profile/delete",
    ):
        await console.open(path)
        await console.check(f"people{path.replace('/', '-')}-{theme}-{width}")


async def test_somebody_is_invited_and_the_link_copied(console_page: OpenConsole) -> None:
    console = await console_page()
    tab = await console.open("/members")
    await tab.get_by_role("link", name="Invite", exact=True).click()
    dialog = tab.get_by_role("dialog")
    await dialog.get_by_label("E-mail").fill("nobody")
    await dialog.get_by_role("button", name="Invite").click()
    await expect(dialog.get_by_text("This is not an e-mail address.")).to_be_visible()
    await dialog.get_by_label("E-mail").fill("grace@example.com")
    await dialog.get_by_text("Manages API keys").click()
    await dialog.get_by_role("button", name="Invite").click()
    await expect(dialog.get_by_text("It is shown only now.")).to_be_visible()
    await console.check("people-link-light-1440")
    await dialog.get_by_role("button", name="Copy link").click()
    copied = await tab.evaluate("navigator.clipboard.readText()")
    assert re.search(r"/console/invitation/us/[\w-]{43}$", copied)
    await dialog.get_by_role("link", name="Done").click()
    await tab.get_by_role("link", name="Invitations (1)").click()
    await expect(tab.get_by_text("grace@example.com")).to_be_visible()
    await console.check("people-invited-light-1440")


@pytest.mark.parametrize("width", [375, 1440])
async def test_the_second_step_is_set_up(console_page: OpenConsole, width: int) -> None:
    console = await console_page(width=width, theme="dark")
    # Whoever has no password has signed in just now.
    await console.db.execute("UPDATE users SET password = NULL WHERE id = $1", console.person.user.id)
    tab = await console.open("/profile/security")
    await tab.get_by_role("button", name="Set up").click()
    await expect(tab.get_by_role("img", name=re.compile("QR code"))).to_be_visible()
    await console.check(f"people-totp-dark-{width}")
    secret = (await tab.locator(".secret code").inner_text()).replace(" ", "")
    await tab.get_by_label("Code", exact=True).fill(pyotp.TOTP(secret).now())
    await tab.get_by_role("button", name="Turn on").click()
    await expect(tab.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    await console.check(f"people-codes-dark-{width}")
    await tab.get_by_role("link", name="Done").click()
    await expect(tab.get_by_text("10 recovery codes left")).to_be_visible()
    user = await user_store.get(console.db, console.person.user.id)
    assert user is not None
    assert user.totp_secret is not None


@pytest.mark.parametrize("scripts", [True, False])
async def test_an_account_is_named_and_deleted(console_page: OpenConsole, scripts: bool) -> None:
    console = await console_page(scripts=scripts)
    await console.db.execute("UPDATE accounts SET is_personal = false WHERE id = $1", console.account_id)
    tab = await console.open("/settings")
    await tab.get_by_label("Name", exact=True).fill("Acme Studio")
    await tab.get_by_label("Name in addresses").fill(f"acme-{console.account_id.hex[-8:]}")
    await tab.get_by_role("button", name="Save").click()
    await expect(tab.get_by_text("The account was saved.")).to_be_visible()
    await tab.get_by_role("link", name="Delete account").click()
    await expect(tab.get_by_role("heading", name="Delete “Acme Studio”?")).to_be_visible()
    await tab.get_by_label("Type “Acme Studio” to confirm").fill("Acme Studio")
    if scripts:
        await console.check("people-delete-light-1440")
    await tab.get_by_role("button", name="Delete account").click()
    await expect(tab.get_by_role("heading", name="You are in no account")).to_be_visible()
