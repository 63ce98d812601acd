"""What strangers write into every field that a page shows: it comes out as text, on every page there is.

Each field gets markup of its own through the way by which such text really comes: forms, the API, a provider's answer,
a receiver's answer, the operator. Then the console is walked link by link, until every route of its table was seen.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import pyotp
import pytest
from tests.conftest import MakeDeployment, deployment_settings
from tests.console.support import ConsoleClient, Person, console_of, deployed, make_person, open_client
from tests.console.traffic import generation
from tests.databases import Databases
from tests.support import Customer, Deployment, ManualClock, eventually, make_account
from tests.webhooks.receiver import receiver

from babysea_server.accounts import notices, user_store
from babysea_server.accounts.sessions import Visitor
from babysea_server.app.shared import build_shared
from babysea_server.app.workers import Workers
from babysea_server.console.attempts import PER_ADDRESS, PER_EMAIL
from babysea_server.console.routes import Route
from babysea_server.ledger import store as ledger

#: What each field's markup is called.
FIELDS = (
    "account",
    "team",
    "user",
    "member",
    "email",
    "key",
    "endpoint",
    "description",
    "prompt",
    "input",
    "agent",
    "answer",
    "browser",
    "ledger",
    "notice",
    "provider",
    "model",
    "message",
    "error",
)
_CUT = 24
"""So much of a text is shown where it is cut."""


def evil(name: str) -> str:
    """Markup that leaves an attribute, a script, a text area; with what must neither be decoded nor computed."""
    return f"<x-{name}/onx>&lt;{{{{7*7}}}}\"'></script></textarea><x-{name}/onx=1>"


class _Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        """Elements, attributes and addresses that must not be."""
        self.texts: list[str] = []
        self.links: list[str] = []
        self._script = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag if tag == "script" else ""
        if tag.startswith("x-"):
            self.made.append(f"<{tag}>")
        for name, value in attrs:
            self.texts.append(value or "")
            if not re.fullmatch(r"[a-z][a-z0-9:-]*", name) or name.startswith("on") or name == "style":
                self.made.append(f"<{tag} {name}>")
            if name in ("href", "src", "action", "formaction") and not _is_ours(value or ""):
                self.made.append(f"{name}={value}")
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._script and "<" in data:
            self.made.append("< in a script")

    def handle_endtag(self, tag: str) -> None:
        self._script = ""


def _is_ours(address: str) -> bool:
    """Whether an address leads to the console, a file of the API, or its documentation."""
    parts = urlsplit(address)
    return parts.scheme in ("", "http", "https") and parts.netloc in ("", "localhost", "api.us.localhost")


@dataclass
class Walk:
    """The console, walked link by link."""

    client: ConsoleClient
    seen: dict[str, str] = field(default_factory=dict)
    """Path to HTML."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    texts: str = ""

    async def look(self, path: str, status: int = 200) -> None:
        """Read a page, and remember where it leads."""
        waiting = [path]
        while waiting:
            address = waiting.pop()
            key = re.sub(r"%7B|\?.*", "", address)
            if key in self.seen and address != path:
                continue
            response = await self.client.get(address)
            expected = (status,) if address == path else (200, 303)
            if "/models/" in address:
                expected = (200, 404)  # a model that the catalog has no more
            if response.status_code not in expected:
                self.faults.append((address, f"status {response.status_code}"))
            self.faults += [(address, fault) for fault in headers_missing(response.headers)]
            self.seen[key] = response.text
            if not response.headers.get("content-type", "").startswith("text/html"):
                continue
            reader = _Reader()
            reader.feed(response.text)
            reader.close()
            self.faults += [(address, made) for made in reader.made]
            self.texts += "\n".join(reader.texts)
            waiting += [link for link in reader.links if link.startswith(self.client.url("/"))]


def headers_missing(headers: object) -> Iterator[str]:
    """What of the protection of a page is not there."""
    assert hasattr(headers, "get")
    policy = headers.get("content-security-policy", "")
    parts = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    for name in ("default-src", "frame-ancestors", "base-uri"):
        if parts.get(name) != "'none'":
            yield name
    if not re.fullmatch(r"'self' 'nonce-[\w-]{22}'", parts.get("script-src", "")):
        yield "script-src"
    if "unsafe" in policy or "*" in policy:
        yield f"policy {policy}"
    for name, value in (
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ):
        if headers.get(name) != value:
            yield name


async def _by_forms(client: ConsoleClient) -> None:
    """What the account's people type."""
    for path, fields in (
        ("/settings", {"name": evil("account")}),
        ("/new-account", {"name": evil("team")}),
        ("/profile", {"name": evil("user")}),
        ("/api-keys/new", {"name": evil("key"), "preset": "full_access"}),
        (
            "/webhook/new",
            {"url": f"https://127.0.0.1/?{evil('endpoint')}", "description": evil("description")},
        ),
    ):
        response = await client.submit(path, fields)
        assert response.status_code == 303, (path, response.text)
        if path == "/api-keys/new":
            assert evil("key") not in (await client.follow(response)).text


async def _by_the_api(customer: Customer) -> None:
    """What programs send, and what a provider and a receiver answer."""
    deployment = customer.deployment
    async with receiver() as one:
        one.path("/hook", statuses=[500], body=evil("answer").encode())
        await deployment.db.execute(
            "UPDATE webhook_endpoints SET url = $2 WHERE account_id = $1",
            customer.account_id,
            f"{one.origin}/hook?{evil('endpoint')}",
        )
        await customer.made(generation_prompt=evil("prompt"))
        await customer.made(generation_prompt=f"{evil('prompt')} [sandbox:fail]")
        asked = await customer.request("GET", "/v1/status", headers={"user-agent": evil("agent")})
        assert asked.status_code == 200
        await one.has("/hook", 2)

        async def told() -> bool:
            sql = "SELECT count(*) FROM webhook_attempts WHERE response LIKE '%x-answer%'"
            return bool(await deployment.db.fetchval(sql))

        await eventually(told)

    async def logged() -> bool:
        sql = "SELECT count(*) FROM request_log WHERE user_agent LIKE '%x-agent%'"
        return bool(await deployment.db.fetchval(sql))

    await eventually(logged)


async def _by_others(deployment: Deployment, client: ConsoleClient) -> None:
    """What operators, other people and providers beside the sandbox write."""
    db, account_id = deployment.db, client.account_id
    await ledger.add(db, account_id, 1_000, evil("ledger"))
    await notices.notify(db, account_id, "credits.low_balance", evil("notice"), {"note": evil("notice")})
    await make_person(
        deployment, account_id, "member", name=evil("member"), email=f'"{evil("email")}"@example.com'
    )
    await (
        console_of(deployment)
        .regions["us"]
        .sessions.begin(client.person.user.id, Visitor(evil("browser"), evil("browser")))
    )
    await generation(
        db,
        account_id,
        model=f"{evil('model')}/{evil('model')}",
        status="failed",
        providers=(evil("provider"), evil("provider") + "2"),
        inputs={evil("input"): evil("input"), "generation_input_file": [evil("input")]},
        error=("BSE5002", evil("error")),
        failure=("failed", evil("message")),
    )
    assert (
        await client.submit("/members/invite", {"email": "new@example.com", "role": "member"})
    ).is_redirect


@pytest.fixture(scope="module")
async def written(databases: Databases) -> AsyncIterator[ConsoleClient]:
    """An account whose every text is hostile, and its primary owner's browser."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="babysea-hostile-"))
        dsn = await stack.enter_async_context(databases.fresh())
        shared = build_shared(deployment_settings(Path(folder), webhooks_allow_private=True))
        deployment = await stack.enter_async_context(deployed(shared, dsn))
        workers = Workers(shared, {"us": dsn})
        await workers.open()
        stack.push_async_callback(workers.close)
        account_id, key = await make_account(deployment.db)
        await deployment.db.execute("UPDATE accounts SET is_personal = false WHERE id = $1", account_id)
        person = await make_person(deployment, account_id, "primary-owner")
        client = await stack.enter_async_context(open_client(deployment, person))
        await _by_forms(client)
        await _by_the_api(Customer(deployment, account_id, key))
        await _by_others(deployment, client)
        slug = await deployment.db.fetchval("SELECT slug FROM accounts WHERE id = $1", account_id)
        client._person = Person(person.user, account_id, slug, person.role, person.token)
        yield client


def _routes(client: ConsoleClient) -> list[Route]:
    return list(console_of(client.deployment).app.routes.routes)


#: Pages that no link leads to: what they need is made by a form, or there is nothing at all to show.
_WITHOUT_LINK = {
    "",
    "/events",
    "/picture",
    "/api-keys/{key_id}/secret",
    "/webhook/{endpoint_id}/secret",
    "/members/invitations/{invitation_id}/secret",
    "/members/leave",
    "/domains/remove",
    "/playground/fields",
    "/profile/totp",
    "/profile/totp/off",
    "/profile/recovery-codes",
    "/profile/recovery-codes/secret",
}


async def test_text_of_every_field_is_only_ever_text(written: ConsoleClient) -> None:
    walk = Walk(written)
    await walk.look("/metrics")
    patterns = {
        route.path: re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(written.url(route.path))))
        for route in _routes(written)
        if route.method == "GET"
    }
    unseen = {
        path for path, pattern in patterns.items() if not any(pattern.fullmatch(seen) for seen in walk.seen)
    }
    assert unseen <= _WITHOUT_LINK, unseen - _WITHOUT_LINK
    for path in sorted(unseen - {"/events"}):
        response = await written.get(re.sub(r"\{\w+\}", str(written.account_id), path))
        assert list(headers_missing(response.headers)) == [], path
    assert walk.faults == []
    unshown = [name for name in FIELDS if evil(name)[:_CUT] not in walk.texts]
    assert unshown == []


async def test_what_is_asked_for_is_only_ever_text(written: ConsoleClient) -> None:
    """Searches, filters, sort orders, pages and addresses that the page says again."""
    walk = Walk(written)
    query = {
        name: evil("query")
        for name in ("q", "sort", "status", "endpoint", "key", "code", "type", "category", "model", "period")
    }
    names = re.findall(r"<a href=\"([^\"?]+)\"[^>]*>", (await written.page("/metrics")))
    pages = {name for name in names if name.startswith(written.url("/"))}
    assert len(pages) >= 14
    for path in pages:
        response = await written.get(path, params={**query, "page": evil("page"), "after": evil("after")})
        reader = _Reader()
        reader.feed(response.text)
        assert response.status_code in (200, 400, 404), path
        assert reader.made == [], path
        assert list(headers_missing(response.headers)) == []
    for path in ("/<x-path/onx>", "/models/<x-path>/<x-path>", "/api-keys/<x-path/onx>"):
        await walk.look(path, status=404)
    assert walk.faults == []


async def test_forms_that_are_refused_say_again_only_text(written: ConsoleClient) -> None:
    text = evil("again") + "a" * 2_000
    forms: dict[str, dict[str, Any]] = {
        "/settings": {"name": text, "slug": text},
        "/profile": {"name": text},
        "/profile/password": {"current": text, "password": text, "again": text},
        "/api-keys/new": {
            "name": text,
            "allowlist": text,
            "expires": text,
            "expires_on": text,
            "scopes": [text],
        },
        "/webhook/new": {"url": text, "description": text},
        "/members/invite": {"email": text, "role": text},
        "/domains/new": {"hostname": text},
        "/new-account": {"name": text},
        "/settings/transfer": {"user": text, "name": text},
        "/settings/delete": {"name": text, "confirm": text},
    }
    for path, fields in forms.items():
        response = await written.post(path, fields)
        reader = _Reader()
        reader.feed(response.text)
        assert response.status_code in (403, 404, 422), path
        assert reader.made == [], path
        assert list(headers_missing(response.headers)) == [], path


async def test_every_open_page_is_protected_too(written: ConsoleClient) -> None:
    for route in console_of(written.deployment).app.open_routes.routes:
        path = "/console" + re.sub(r"\{region\}", "us", route.path)
        path = re.sub(r"\{\w+\}", evil("token").replace("/", ""), path)
        query = {name: evil("asked") for name in ("next", "region", "email", "error", "state", "code")}
        responses = [await written.get(path, params=query)]
        if route.method == "POST":
            responses = [await written.http.post(path, data={"csrf": "", "email": evil("email"), **query})]
        for response in responses:
            reader = _Reader()
            reader.feed(response.text)
            assert reader.made == [], path
            assert list(headers_missing(response.headers)) == [], path
            assert urlsplit(response.headers.get("location", "")).netloc == ""


# ------------------------------------------------------------------------------- guessing


async def test_one_address_does_not_guess_for_many_people(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False, clock=ManualClock())
    attempts = console_of(deployment).regions["us"].attempts
    for _ in range(PER_ADDRESS):
        await attempts.take("10.9.8.7")
    fields = {"email": "somebody-else@example.com", "password": "a wrong password"}
    async with open_client(deployment, address="10.9.8.7") as client:
        assert (await client.submit("/console/sign-in", fields)).status_code == 429
    async with open_client(deployment) as client:
        assert (await client.submit("/console/sign-in", fields)).status_code == 422


async def test_codes_of_the_second_step_are_not_guessed_without_end(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False, clock=ManualClock())
    region = console_of(deployment).regions["us"]
    password = "correct horse battery"
    user = await user_store.insert(
        deployment.db, email="a@example.com", name="Ada", password=await region.passwords.hash(password)
    )
    assert user is not None
    await user_store.set_totp_pending(deployment.db, user.id, region.secrets.seal(pyotp.random_base32()))
    async with deployment.db.transaction() as connection:
        await user_store.confirm_totp(connection, user.id, 0, [])
    async with open_client(deployment) as client:
        response = await client.submit("/console/sign-in", {"email": user.email, "password": password})
        assert response.headers["location"].startswith("/console/second-step")
        statuses = [
            (await client.submit("/console/second-step", {"code": f"no-such-code-{number}"})).status_code
            for number in range(PER_EMAIL + 1)
        ]
    assert statuses == [422] * PER_EMAIL + [429]
