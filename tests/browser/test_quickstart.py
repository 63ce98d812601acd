"""The quickstart as a newcomer walks it: a real `up`, a browser, a shell, and only what page and console show."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect
from tests.browser.conftest import shoot
from tests.docs.pages import blocks, headings, page
from tests.e2e.system import PATIENCE_S, QUICK, running_system
from tests.support import FINAL, eventually

_STEPS = headings(page("docs/quickstart.md"))


@pytest.fixture
async def sign_in_link() -> AsyncIterator[str]:
    """What a first `up` prints, while it runs."""
    async with running_system(QUICK) as system:
        up = await system.up(BABYSEA_CONSOLE_ENABLED="true")
        link = re.search(r"Sign in +(http://\S+)", up.out)
        assert link is not None
        yield link[1]
        assert up.err.count("Traceback") == 0, up.err


def _step(number: int, language: str) -> list[str]:
    """The blocks of one step of the page."""
    (text,) = [text for heading, text in _STEPS.items() if heading.startswith(f"{number}. ")]
    return blocks(text, language)


async def _run(*command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run a command in a folder; what it writes to standard output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def _follow(tab: Page, entry: str) -> None:
    """Click an entry of the sidebar."""
    await tab.get_by_role("navigation", name="Pages").get_by_role("link", name=entry, exact=True).click()
    await expect(tab.get_by_role("heading", name=entry, level=1)).to_be_visible()


async def _copied(tab: Page) -> str:
    return str(await tab.evaluate("navigator.clipboard.readText()"))


async def _create_key(tab: Page, link: str) -> tuple[str, str]:
    """Step 1: from the printed link to the key; the key and the line that checks it, as they were copied."""
    await tab.goto(link)
    await tab.get_by_role("button", name="Continue to the console").click()
    await _follow(tab, "API keys")
    await tab.get_by_role("link", name="Create API key").click()
    dialog = tab.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("Production server")
    await dialog.get_by_text("Full Access", exact=True).click()
    await dialog.get_by_role("button", name="Create API key").click()
    await dialog.get_by_role("button", name="Copy key").click()
    key = await _copied(tab)
    await shoot(tab, "quickstart-key")
    await dialog.get_by_role("button", name="Copy", exact=True).click()
    line = await _copied(tab)
    await dialog.get_by_role("link", name="Done").click()
    return key, line


async def _audit(poll: str, generation_id: str, folder: Path, environment: Mapping[str, str]) -> Any:
    """Step 4: ask until it is final."""
    lines = poll.replace("GENERATION_ID=...", f"GENERATION_ID={generation_id}")

    async def final() -> Any:
        answer = json.loads(await _run("sh", "-c", lines, folder=folder, environment=environment))["data"]
        return answer if answer["generation_status"] in FINAL else None

    return await eventually(final, within_s=PATIENCE_S)


async def test_the_five_steps_work_as_they_are_written(
    browser: Browser, sign_in_link: str, tmp_path: Path
) -> None:
    context = await browser.new_context(
        viewport={"width": 1440, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    tab = await context.new_page()
    faults: list[str] = []
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))

    key, line = await _create_key(tab, sign_in_link)
    (exports,) = _step(1, "sh")
    origin = re.search(r"http://[^/\s]+", line)
    assert origin is not None
    written = dict(re.findall(r"export (\w+)=(\S+)", exports))
    assert set(written) == {"BABYSEA_BASE_URL", "BABYSEA_API_KEY"}
    environment = {"BABYSEA_BASE_URL": origin[0], "BABYSEA_API_KEY": key, "HOME": str(tmp_path)}

    # Verified by the line of the dialog, and by the one of the page.
    for check in (line, *_step(2, "sh")):
        answer = json.loads(await _run("sh", "-c", check, folder=tmp_path, environment=environment))
        assert answer["message"] == "API connected successfully"
        assert answer["data"]["apikey_name"] == "Production server"

    made = []
    requests, (poll,) = _step(3, "sh"), _step(4, "sh")
    for request in requests:
        first, again = [
            json.loads(await _run("sh", "-c", request, folder=tmp_path, environment=environment))["data"]
            for _ in range(2)
        ]
        assert first["generation_id"] == again["generation_id"]
        generation = await _audit(poll, first["generation_id"], tmp_path, environment)
        assert generation["generation_status"] == "succeeded"
        made.append(generation)
    assert [each["model_identifier"] for each in made] == ["bfl/flux-schnell", "wan/2.6-t2v"]

    (program,) = _step(5, "python")
    out = await _run(sys.executable, "-c", program, folder=tmp_path, environment=environment)
    saved = re.search(r"[\w.-]+\.(png|jpe?g|webp)", out)
    assert saved is not None, out
    picture = await asyncio.to_thread((tmp_path / saved[0]).read_bytes)
    assert picture.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF"))

    await _sees_what_was_made(tab)
    assert faults == []
    await context.close()


async def _sees_what_was_made(tab: Page) -> None:
    """Logs, Credits and Metrics tell of it, one click away."""
    await _follow(tab, "Logs")
    rows = tab.locator("tbody tr").filter(has_text="Production server")

    async def logged() -> bool:
        await _follow(tab, "Logs")
        await tab.get_by_role("link", name="100", exact=True).click()
        await expect(tab.locator(".sizes [aria-current]")).to_have_text("100")
        return await rows.filter(has_text="generate").count() >= 5  # two twice, and the one of the SDK

    await eventually(logged)
    await expect(rows.filter(has_text="/v1/status").first).to_contain_text("200")
    assert await rows.filter(has_text="Replay").count() == 2
    await shoot(tab, "quickstart-logs")

    await _follow(tab, "Credits")
    charges = tab.locator("tbody tr")
    for kind in ("Reserve", "Charge"):
        rows = charges.filter(has_text=kind)
        await expect(rows.filter(has_text="wan/2.6-t2v")).to_have_count(1)
        await expect(rows.filter(has_text="bfl/flux-schnell")).to_have_count(3)  # `up` made the first one
    await shoot(tab, "quickstart-credits")
    await charges.filter(has_text="wan/2.6-t2v").first.get_by_role("link").last.click()
    await expect(tab.get_by_role("main")).to_contain_text("waves at night")
    await expect(tab.locator("video")).to_have_count(1)

    await _follow(tab, "Metrics")
    models = tab.get_by_role("region", name="Generations by model")
    await expect(models).to_contain_text("bfl/flux-schnell")
    await expect(models).to_contain_text("wan/2.6-t2v")
    await expect(tab.get_by_role("region", name="API calls by key")).to_contain_text("Production server")
    await shoot(tab, "quickstart-metrics")
