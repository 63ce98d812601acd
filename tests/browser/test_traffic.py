"""Metrics, Logs, Credits and a generation in a real browser: what happened is found on each of them."""

from tests.browser.conftest import LOOKS, ConsolePage, OpenConsole
from tests.console.traffic import generation, key_of, log
from tests.support import eventually

LONG = "Mozilla/5.0 (a client with a very long name and no end of it) " * 4
RTL = "خادم الإنتاج ومشغل الاختبارات"


async def _fill(page: ConsolePage, *, many: bool = False) -> None:
    key = await key_of(page.db, page.account_id)
    await page.db.execute("UPDATE api_keys SET name = $2 WHERE id = $1", key, RTL)
    endpoints = [
        "POST /v1/generate/image/{model_identifier}",
        "GET /v1/content/{generation_id}",
        "GET /v1/content/list",
        "GET /v1/usage",
    ]
    await log(
        page.db,
        page.account_id,
        key,
        *[
            {
                "endpoint": endpoints[number % 4],
                "age_s": number * 211.0 + (number % 7) ** 4,
                "status": 429 if number % 17 == 0 else 500 if number % 43 == 0 else 200,
                "code": "BSE1009" if number % 17 == 0 else "BSE5001" if number % 43 == 0 else None,
                "query": {"limit": 50, "offset": number} if number % 4 == 2 else None,
                "replayed": number % 11 == 0,
                "agent": LONG if number % 5 == 0 else "babysea-python/1.2",
                "duration_us": 1500 + number % 13 * 900 + (number % 29 == 0) * 400_000,
            }
            for number in range(10_000 if many else 300)
        ],
    )
    for number in range(14):
        await generation(
            page.db,
            page.account_id,
            model=(
                "bfl/flux-schnell",
                "google/veo-3-fast",
                "a-vendor/with-a-rather-long-model-name-v2.5-ultra",
            )[number % 3],
            providers=("bfl", "fal") if number % 4 == 0 else ("fal",),
            status="failed" if number % 6 == 5 else "canceled" if number == 7 else "succeeded",
            price=30_000 * (1 + number % 3),
        )


@LOOKS
async def test_the_pages_of_a_busy_account(console_page: OpenConsole, width: int, theme: str) -> None:
    page = await console_page("member", width=width, theme=theme)
    await _fill(page)
    name = f"{width}-{theme}"
    tab = await page.open("/metrics")
    await page.check(f"metrics-{name}")
    await tab.get_by_role("link", name="7 days").click()
    await tab.wait_for_url("**period=7d")
    await tab.locator("summary", has_text="Show as table").first.click()
    await page.check()
    await page.open("/logs")
    await page.check(f"logs-{name}")
    await tab.get_by_label("Status").select_option("4")
    await tab.wait_for_url("**status=4**")
    assert await tab.locator("td[data-label=Status]").all_inner_texts() == ["429"] * 18
    await page.open("/credits")
    await page.check(f"credits-{name}")
    await tab.locator("td[data-label=Generation] a").first.click()
    await tab.wait_for_url("**/generations/**")
    await page.check(f"generation-{name}")


@LOOKS
async def test_the_pages_of_a_new_account(console_page: OpenConsole, width: int, theme: str) -> None:
    page = await console_page(width=width, theme=theme, credits="0")
    for path in ("metrics", "logs", "credits"):
        await page.open(f"/{path}")
        await page.check(f"{path}-empty-{width}-{theme}")


async def test_a_generation_that_was_made_shows_what_was_made(console_page: OpenConsole) -> None:
    """Made by the real worker, found in Credits and Logs by clicking, seen as a picture."""
    page = await console_page("owner", credits="12.5")
    key = await key_of(page.db, page.account_id)
    tab = await page.open("/credits")
    assert await tab.locator("h1").inner_text() == "Credits : $12.500"
    await page.open("/api-keys/new")
    await tab.get_by_label("Name").fill("Browser")
    await tab.get_by_role("button", name="Create API key").click()
    secret = await tab.locator(".secret code").inner_text()
    asked = await tab.request.post(
        f"{page.served.origin}/v1/generate/image/sandbox/image",
        headers={"Authorization": f"Bearer {secret}"},
        data={"generation_prompt": "a lighthouse in the morning", "generation_output_number": 2},
    )
    id = (await asked.json())["data"]["generation_id"]

    async def made() -> bool:
        status = await page.db.fetchval("SELECT status::text FROM generations WHERE id = $1::uuid", id)
        return bool(status == "succeeded")

    await eventually(made)
    await page.open(f"/generations/{id}")
    await tab.wait_for_load_state("networkidle")
    sizes = await tab.locator("figure img").evaluate_all("images => images.map(each => each.naturalWidth)")
    assert sizes == [64, 64]
    await page.check("generation-made")

    async def logged() -> bool:
        return bool(await page.db.fetchval("SELECT count(*) FROM request_log WHERE apikey_id <> $1", key))

    await eventually(logged)
    await page.open("/logs")
    assert "/v1/generate/image/{model_identifier}" in await tab.inner_text("table")


async def test_ten_thousand_requests_are_one_page_like_any_other(console_page: OpenConsole) -> None:
    page = await console_page("member", width=1440)
    await _fill(page, many=True)
    tab = await page.open("/logs?size=100")
    assert await tab.locator("tbody tr").count() == 100
    await tab.get_by_role("link", name="Next").click()
    await tab.wait_for_url("**after=**")
    assert await tab.locator("tbody tr").count() == 100
    await page.open("/metrics?period=30d")
    await page.check("metrics-many-1440-light")
