"""Fixtures of the browser's tests: the whole product behind a real port, and Debian's Chromium in front of it."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from tests.conftest import deployment_settings
from tests.console.support import Person, make_person
from tests.databases import Databases
from tests.effort import EFFORT
from tests.support import Deployment, make_account

from babysea_server.accounts.roles import Role
from babysea_server.app.api import Api
from babysea_server.app.shared import build_shared
from babysea_server.app.workers import Workers
from babysea_server.db.pool import Database
from babysea_server.processes.listening import listening_socket
from babysea_server.processes.serve import http_config

CHROMIUM = Path("/usr/bin/chromium")
_HAS_CHROMIUM = CHROMIUM.exists()
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-quic",
    "--in-process-gpu",  # a process less for each test
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1",
]
_TIMEOUT_MS = 15_000
_HEIGHTS = {375: 812, 1440: 900}
#: How a flow is walked: on a phone in the dark and on a desk in the light; thoroughly in both themes on both.
LOOKS = pytest.mark.parametrize(
    ("width", "theme"),
    [(375, "dark"), (1440, "light"), *([(375, "light"), (1440, "dark")] if EFFORT >= 2 else [])],
)

#: How the whole page is checked in the browser, beside what a test looks for.
_AUDIT = (Path(__file__).with_name("audit.js")).read_text(encoding="utf-8")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Served:
    """The product behind a port of this machine."""

    deployment: Deployment
    origin: str


@dataclass
class ConsolePage:
    """A tab in which somebody is signed in."""

    tab: Page
    served: Served
    person: Person
    faults: list[str] = field(default_factory=list)
    """What the browser complained about: errors in its console, violations of the policy, failed scripts."""

    @property
    def db(self) -> Database:
        """The region's database."""
        return self.served.deployment.db

    @property
    def account_id(self) -> UUID:
        """The account of who is signed in."""
        return self.person.account_id

    def url(self, path: str) -> str:
        """The address of a page of the account."""
        return f"{self.served.origin}/console/us/{self.person.slug}{path}"

    async def open(self, path: str) -> Page:
        """Go to a page of the account."""
        await self.tab.goto(self.url(path))
        return self.tab

    async def check(self, name: str = "") -> None:
        """Audit the page as it is now, and keep a picture of it when it has a name.

        Labels, contrast, names of buttons, one heading, nothing wider than the window, unique ids.
        """
        problems = await self.tab.evaluate(_AUDIT)
        if name:
            await shoot(self.tab, name)
        assert problems == []


async def shoot(tab: Page, name: str) -> None:
    """Keep a picture of the whole page in `$SCREENSHOTS`, where that is set."""
    if folder := os.environ.get("SCREENSHOTS"):
        await tab.screenshot(path=f"{folder}/{name}.png", full_page=True)


@asynccontextmanager
async def product(databases: Databases, *, worker: bool, **settings: Any) -> AsyncIterator[Served]:
    """API and console of region us on a port of this machine, perhaps with a worker; `settings` beside quick ones."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="babysea-browser-"))
        dsn = await stack.enter_async_context(databases.fresh())
        listener = listening_socket("127.0.0.1", 0)
        stack.callback(listener.close)
        origin = f"http://localhost:{listener.getsockname()[1]}"
        shared = build_shared(deployment_settings(Path(folder), port=listener.getsockname()[1], **settings))
        api, workers = Api(shared, {"us": dsn}), Workers(shared, {"us": dsn}) if worker else None
        await api.open()
        stack.push_async_callback(api.close)
        if workers is not None:
            await workers.open()
            stack.push_async_callback(workers.close)
        server = _Server(http_config(api))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=origin, trust_env=False))
        yield Served(Deployment(shared.settings, api, workers, api.regions["us"].db, client), origin)
        server.should_exit = True
        server.force_exit = True  # streams of live updates are still open
        await serving


@pytest.fixture(scope="session")
async def served(databases: Databases) -> AsyncIterator[Served]:
    """API, console and worker, for all tests of the session."""
    async with product(databases, worker=True) as served:
        yield served


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests of the session."""
    if not _HAS_CHROMIUM:
        pytest.skip(f"there is no {CHROMIUM} on this machine")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=_FLAGS)
        yield started
        await started.close()


OpenConsole = Callable[..., Awaitable[ConsolePage]]


@pytest.fixture
async def console_page(browser: Browser, served: Served) -> AsyncIterator[OpenConsole]:
    """Make a tab in which a member of an account is signed in: `await console_page(width=375, theme="dark")`.

    Other keyword arguments: `role`, `account_id` of an account there is, `scripts=False`, and those of `make_account`.
    When the test ends, nothing may have been complained about in the browser.
    """
    pages: list[ConsolePage] = []
    async with AsyncExitStack() as stack:

        async def make(
            role: Role = "primary-owner",
            *,
            width: int = 1440,
            theme: str = "light",
            scripts: bool = True,
            account_id: UUID | None = None,
            name: str = "Ada Lovelace",
            **account: Any,
        ) -> ConsolePage:
            if account_id is None:
                account_id, _ = await make_account(served.deployment.db, **account)
            person = await make_person(served.deployment, account_id, role, name=name)
            context = await browser.new_context(
                viewport={"width": width, "height": _HEIGHTS.get(width, 900)},
                java_script_enabled=scripts,
                reduced_motion="reduce",
                permissions=["clipboard-read", "clipboard-write"],
                color_scheme="dark" if theme == "dark" else "light",
            )
            stack.push_async_callback(context.close)
            context.set_default_timeout(_TIMEOUT_MS)
            await context.add_cookies(
                [{"name": "babysea-us", "value": person.token, "url": served.origin, "httpOnly": True}]
            )
            page = ConsolePage(await context.new_page(), served, person)
            _listen(page)
            pages.append(page)
            return page

        yield make
        for page in pages:
            assert page.faults == []


def _listen(page: ConsolePage) -> None:
    def told(message: ConsoleMessage) -> None:
        # A form that is refused is answered 422, which browsers call an error.
        expected = re.search(r"status of 4(22|29)", message.text)
        if message.type == "error" and not expected:
            page.faults.append(message.text)

    page.tab.on("console", told)
    page.tab.on("pageerror", lambda error: page.faults.append(str(error)))
