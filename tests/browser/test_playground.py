"""The Playground and the models in a real browser: making, watching, canceling, deleting, and what goes wrong."""

import json
import re

from playwright.async_api import Locator, Page, Request, Route, expect
from tests.browser.conftest import LOOKS, ConsolePage, OpenConsole

from babysea_server.keys.scopes import SCOPES
from babysea_server.keys.service import issue


async def _key(console: ConsolePage) -> str:
    """A key of the account that may do everything."""
    issued = await issue(console.db, account_id=console.account_id, name="play", scopes=SCOPES, allowlist=[])
    return issued.secret


def _newest(tab: Page) -> Locator:
    """The call that was made last."""
    return tab.locator(".play-call").first


async def _send(tab: Page, prompt: str) -> Locator:
    await tab.get_by_label("Prompt", exact=True).fill(prompt)
    await tab.get_by_role("button", name="Send").click()
    return _newest(tab)


def _forget(console: ConsolePage, status: int) -> None:
    """Take out what the browser says of answers that are expected to be refused."""
    expected = re.compile(rf"status of {status}\b")
    assert console.faults
    assert all(expected.search(fault) for fault in console.faults)
    console.faults.clear()


@LOOKS
async def test_a_picture_is_made_and_seen(console_page: OpenConsole, width: int, theme: str) -> None:
    console = await console_page(width=width, theme=theme)
    secret = await _key(console)
    tab = await console.open("/playground")
    await expect(tab.locator("#play-price")).to_contain_text("Estimate: $0.001. The balance covers")
    await console.check(f"playground-{theme}-{width}")
    await tab.get_by_label("API key", exact=True).fill(secret)
    await tab.get_by_label("Output number").fill("2")
    await expect(tab.locator("#play-price")).to_contain_text("$0.002")
    call = await _send(tab, "A lighthouse at dusk, gouache")
    await expect(call.get_by_role("status")).to_have_text("Succeeded")
    pictures = call.get_by_role("img", name="A lighthouse at dusk, gouache")
    await expect(pictures).to_have_count(2)
    for picture in await pictures.all():
        await picture.evaluate("async (image) => { await image.decode(); }")
        assert await picture.evaluate("(image) => image.naturalWidth * image.naturalHeight") > 0
    await expect(call).to_contain_text("$0.002, by sandbox")
    await call.get_by_text("GET /v1/content/").click()
    await expect(call.get_by_role("region", name="Answer")).to_contain_text("x-request-id: req_")
    await console.check(f"playground-{theme}-{width}-picture")


async def test_a_clip_is_made_and_deleted(console_page: OpenConsole) -> None:
    console = await console_page()
    secret = await _key(console)
    tab = await console.open("/playground")
    await tab.get_by_label("API key", exact=True).fill(secret)
    await tab.get_by_label("Prompt", exact=True).fill("Waves")
    await tab.get_by_role("radio", name="Video").check()
    await expect(tab.get_by_role("button", name="Model sandbox/video")).to_be_visible()
    await expect(tab.get_by_label("API key", exact=True)).to_have_value(secret)
    await expect(tab.get_by_label("Prompt", exact=True)).to_have_value("Waves")
    call = await _send(tab, "Waves at night")
    await expect(call.get_by_role("status")).to_have_text("Succeeded")
    clip = call.locator("video")
    await clip.evaluate(
        "(video) => video.readyState >= 2 || new Promise((done, failed) => {"
        " video.onloadeddata = done; video.onerror = () => failed(video.error.message); })"
    )
    assert await clip.evaluate("(video) => video.videoWidth * video.duration") > 0
    await console.check("playground-clip")
    await call.get_by_role("button", name="Delete").click()
    await expect(call.get_by_role("status")).to_have_text("Deleted")
    await expect(clip).to_have_count(0)


async def test_a_call_is_canceled_while_another_goes_on(console_page: OpenConsole) -> None:
    console = await console_page()
    secret = await _key(console)
    tab = await console.open("/playground")
    await tab.get_by_label("API key", exact=True).fill(secret)
    slow = await _send(tab, "Slow [sandbox:slow:600]")
    await expect(slow.get_by_role("button", name="Cancel")).to_be_visible()
    quick = await _send(tab, "Quick")
    await expect(quick.get_by_role("status")).to_have_text("Succeeded")
    slow = tab.locator(".play-call").nth(1)
    await slow.locator("summary").first.click()
    await slow.get_by_role("button", name="Cancel").click()
    await expect(slow.get_by_role("status")).to_have_text("Canceled")
    await expect(slow.get_by_role("button", name="Cancel")).to_be_hidden()
    spent = await console.db.fetchval(
        "SELECT count(*) FROM generations WHERE account_id = $1 AND status = 'canceled'", console.account_id
    )
    assert spent == 1


async def test_a_failed_generation_says_what_to_do(console_page: OpenConsole) -> None:
    console = await console_page()
    secret = await _key(console)
    tab = await console.open("/playground?model=sandbox/image")
    await tab.get_by_label("API key", exact=True).fill(secret)
    call = await _send(tab, "[sandbox:refuse_policy]")
    await expect(call.get_by_role("status")).to_have_text("Failed")
    await expect(call.get_by_role("alert")).to_contain_text("BSE2006")
    await expect(call.get_by_role("alert")).to_contain_text("Change the prompt or the input files.")
    await console.check("playground-failed")


async def test_a_wrong_field_is_shown_where_it_is(console_page: OpenConsole) -> None:
    console = await console_page()
    secret = await _key(console)
    tab = await console.open("/playground?model=sandbox/image")
    await tab.get_by_label("API key", exact=True).fill(secret)
    await tab.get_by_text("More: ").click()
    await tab.get_by_label("Provider order").fill("nobody")
    order = tab.get_by_label("Provider order")
    await expect(order).to_have_attribute("aria-invalid", "true")  # before anything is sent
    call = await _send(tab, "A fox")
    await expect(call.get_by_role("status")).to_have_text("Refused")
    await expect(call.get_by_role("alert")).to_contain_text("BSE2013")
    await expect(order).to_be_focused()
    await expect(tab.locator("#f-generation_provider_order-error")).to_contain_text(
        "generation_provider_order"
    )
    await console.check("playground-wrong-field")
    _forget(console, 400)


async def test_a_key_that_does_not_work_is_refused(console_page: OpenConsole) -> None:
    console = await console_page()
    tab = await console.open("/playground")
    await tab.get_by_role("button", name="Send").click()
    await expect(tab.locator("#f-key-error")).to_have_text("Enter an API key of this region.")
    await expect(tab.get_by_label("API key", exact=True)).to_be_focused()
    await tab.get_by_label("API key", exact=True).fill("bye_" + "x" * 40)
    call = await _send(tab, "A fox")
    await expect(call.get_by_role("alert")).to_contain_text("BSE1002")
    await expect(call.get_by_role("alert")).to_contain_text(
        "a key works only in the region where it was made"
    )
    _forget(console, 401)


async def test_the_key_stays_in_memory_and_out_of_the_code(console_page: OpenConsole) -> None:
    console = await console_page()
    secret = await _key(console)
    tab = await console.open("/playground")
    asked: list[Request] = []

    def note(request: Request) -> None:
        asked.append(request)

    tab.on("request", note)
    await tab.get_by_label("API key", exact=True).fill(secret)
    await tab.get_by_text("curl", exact=True).click()
    code = tab.get_by_role("region", name="curl")
    await expect(code).to_contain_text("Authorization: Bearer bye_your_key")
    lock = tab.get_by_role("button", name="Show the key, here and in the code")
    await lock.click()
    await expect(code).to_contain_text(f"Authorization: Bearer {secret}")
    await tab.locator("#play-curl").get_by_role("button", name="Copy").click()
    assert secret in await tab.evaluate("navigator.clipboard.readText()")
    await console.check("playground-unlocked")
    await lock.click()
    await expect(code).not_to_contain_text(secret)
    call = await _send(tab, "A fox")
    await expect(call.get_by_role("status")).to_have_text("Succeeded")
    for request in asked:
        told = json.dumps(await request.all_headers()) + (request.post_data or "") + request.url
        assert (secret in told) == ("/v1/" in request.url), request.url
        if "/v1/" in request.url:
            assert "cookie" not in await request.all_headers()
    kept = await tab.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert secret not in kept
    await tab.reload()
    await expect(tab.get_by_label("API key", exact=True)).to_have_value("")


async def test_a_request_whose_answer_was_lost_is_sent_again_with_its_idempotency_key(
    console_page: OpenConsole,
) -> None:
    console = await console_page()
    secret = await _key(console)
    tab = await console.open("/playground")
    tokens: list[str | None] = []

    async def lose(route: Route) -> None:
        tokens.append(await route.request.header_value("idempotency-key"))
        if len(tokens) == 1:
            await route.fetch()  # it arrives, and its answer does not
            await route.abort()
        else:
            await route.continue_()

    await tab.route("**/v1/generate/**", lose)
    await tab.get_by_label("API key", exact=True).fill(secret)
    call = await _send(tab, "A fox")
    await expect(call.get_by_role("status")).to_have_text("No answer")
    await expect(call.get_by_role("alert")).to_contain_text("nothing is bought twice")
    await tab.get_by_role("button", name="Send").click()
    await expect(_newest(tab).get_by_role("status")).to_have_text("Succeeded")
    assert tokens[0] is not None
    assert tokens[0] == tokens[1]
    made = await console.db.fetchval(
        "SELECT count(*) FROM generations WHERE account_id = $1", console.account_id
    )
    assert made == 1
    assert all("ERR_FAILED" in fault for fault in console.faults)
    console.faults.clear()


async def test_everything_is_done_by_keyboard(console_page: OpenConsole) -> None:
    console = await console_page()
    secret = await _key(console)
    tab = await console.open("/playground")
    await tab.get_by_label("API key", exact=True).focus()
    await tab.keyboard.type(secret)
    await tab.get_by_role("button", name=re.compile("^Model ")).focus()
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_label("Search models")).to_be_focused()
    await tab.keyboard.type("no such")
    await expect(tab.get_by_text("No model of this kind matches.")).to_be_visible()
    await tab.keyboard.press("ControlOrMeta+a")
    await tab.keyboard.type("schnell flux")
    await console.check("playground-models")
    await tab.keyboard.press("Tab")
    await expect(tab.get_by_role("link", name="bfl/flux-schnell")).to_be_focused()
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("button", name="Model bfl/flux-schnell")).to_be_visible()
    assert tab.url.endswith("?model=bfl%2Fflux-schnell")
    await tab.get_by_label("Prompt", exact=True).focus()
    await tab.keyboard.type("A fox")
    await tab.get_by_role("button", name="Send").focus()
    await tab.keyboard.press("Enter")
    await expect(_newest(tab).get_by_role("status")).to_have_text("Succeeded")
    await expect(_newest(tab)).to_contain_text("bfl/flux-schnell")


@LOOKS
async def test_the_models_can_be_read(console_page: OpenConsole, width: int, theme: str) -> None:
    console = await console_page(role="member", width=width, theme=theme)
    tab = await console.open("/models?type=video")
    await console.check(f"models-{theme}-{width}")
    await tab.get_by_role("searchbox").fill("sandbox")
    await tab.keyboard.press("Enter")
    await tab.get_by_role("link", name="sandbox/video").click()
    await expect(tab.get_by_role("heading", name="Routing now")).to_be_visible()
    await tab.get_by_text("JSON schema of the body").click()
    await console.check(f"model-{theme}-{width}")
    await tab.get_by_role("link", name="Try it").click()
    await expect(tab.get_by_role("button", name="Model sandbox/video")).to_be_visible()


async def test_the_playground_says_why_it_does_nothing_without_scripts(console_page: OpenConsole) -> None:
    console = await console_page(scripts=False)
    tab = await console.open("/playground")
    await expect(tab.get_by_text("The Playground needs JavaScript")).to_be_visible()
