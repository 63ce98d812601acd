"""A browser without scripts: follows links, fills in the forms that a page really has, keeps cookies."""

import itertools
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from uuid import UUID, uuid4

import httpx
from tests.support import Deployment

from babysea_server.accounts import member_store, user_store
from babysea_server.accounts.roles import Role
from babysea_server.accounts.sessions import Sessions, Visitor, csrf_token
from babysea_server.accounts.user_store import User
from babysea_server.app.api import Api
from babysea_server.app.console import Console
from babysea_server.app.shared import Shared

BASE = "http://localhost"
#: The last two bytes of an address for each browser: the limits of one are not another's.
_addresses = (f"{number >> 8}.{number & 255}" for number in itertools.count(1))


@dataclass(frozen=True)
class Person:
    """A user with a role in an account, signed in."""

    user: User
    account_id: UUID
    slug: str
    role: Role
    token: str


@dataclass
class HtmlForm:
    """A form as it stands in a page, with the values that a browser would send."""

    action: str
    method: str
    enctype: str
    fields: list[tuple[str, str]]
    buttons: list[tuple[str, str]]


class _Forms(HTMLParser):
    """Reads the forms of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[HtmlForm] = []
        self._select = ""
        self._options: list[tuple[str, bool]] = []
        self._area: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(
                HtmlForm(
                    found.get("action", ""),
                    found.get("method", "get").lower(),
                    found.get("enctype", "application/x-www-form-urlencoded"),
                    [],
                    [],
                )
            )
        elif tag == "select":
            self._select, self._options = found.get("name", ""), []
        elif tag == "option" and self._select:
            self._options.append((found.get("value", ""), "selected" in found))
        elif tag == "textarea":
            self._area = (found.get("name", ""), [])
        elif tag == "input" and self.forms and "name" in found:
            kind = found.get("type", "text")
            if kind in ("checkbox", "radio") and "checked" not in found:
                return
            if kind not in ("file", "submit"):
                self.forms[-1].fields.append((found["name"], found.get("value", "")))
        elif tag == "button" and self.forms and "name" in found:
            self.forms[-1].buttons.append((found["name"], found.get("value", "")))

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._area[1].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "select" and self._select and self.forms:
            chosen = [value for value, selected in self._options if selected] or [
                value for value, _ in self._options[:1]
            ]
            self.forms[-1].fields += [(self._select, value) for value in chosen]
            self._select = ""
        elif tag == "textarea" and self._area is not None:
            if self.forms:
                self.forms[-1].fields.append((self._area[0], "".join(self._area[1])))
            self._area = None


def forms_of(html: str) -> list[HtmlForm]:
    """The forms of a page."""
    parser = _Forms()
    parser.feed(html)
    return parser.forms


class ConsoleClient:
    """One browser."""

    def __init__(self, http: httpx.AsyncClient, deployment: Deployment, person: Person | None) -> None:
        self.http = http
        self.deployment = deployment
        self._person = person

    @property
    def person(self) -> Person:
        """Who is signed in."""
        assert self._person is not None
        return self._person

    @property
    def account_id(self) -> UUID:
        """The account of who is signed in."""
        return self.person.account_id

    @property
    def csrf(self) -> str:
        """The token of the session's forms."""
        return csrf_token(self.person.token, console_of(self.deployment).regions["us"].keys.forms)

    def take_token(self, token: str) -> None:
        """Have this token as the session's cookie."""
        # The jar's own name for a host without dots, so that what the server sets takes its place.
        self.http.cookies.set("babysea-us", token, domain="localhost.local")

    def url(self, path: str) -> str:
        """The address of a page: of the account for `/api-keys`, as it is for `/console/...`."""
        if path.startswith("/console"):
            return path
        return f"/console/us/{self.person.slug}{path}"

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """A page, whatever its status; redirects are not followed."""
        return await self.http.get(self.url(path), **options)

    async def page(self, path: str, **options: Any) -> str:
        """The HTML of a page that must be there."""
        response = await self.get(path, **options)
        assert response.status_code == 200, (
            response.status_code,
            response.headers.get("location"),
            response.text,
        )
        return response.text

    async def post(
        self, path: str, fields: Mapping[str, Any] | None = None, **options: Any
    ) -> httpx.Response:
        """Post fields with the session's token, whether or not a page has such a form."""
        return await self.http.post(self.url(path), data={"csrf": self.csrf, **(fields or {})}, **options)

    async def submit(
        self, path: str, fields: Mapping[str, Any] | None = None, *, action: str | None = None, **options: Any
    ) -> httpx.Response:
        """Load a page, fill in its form and send it, with the fields that the page hides.

        Args:
            fields: what is typed or chosen; a list for boxes that are ticked, None for a field that is emptied.
            action: the end of the form's address, where the page has several; by default `path` itself.
        """
        html = await self.page(path)
        wanted = self.url(action or path).partition("?")[0]
        found = [form for form in forms_of(html) if form.method == "post" and form.action.endswith(wanted)]
        assert found, f"no form for {wanted} in {path}"
        data: dict[str, Any] = {}
        for name, value in found[0].fields:
            data.setdefault(name, []).append(value)
        data |= fields or {}
        return await self.http.post(
            found[0].action,
            data={name: value for name, value in data.items() if value is not None},
            **options,
        )

    async def follow(self, response: httpx.Response) -> httpx.Response:
        """Where a redirect leads."""
        assert response.status_code == 303, (response.status_code, response.text)
        return await self.http.get(response.headers["location"])


@asynccontextmanager
async def open_client(
    deployment: Deployment, person: Person | None = None, *, base: str = BASE, address: str | None = None
) -> AsyncIterator[ConsoleClient]:
    """A browser, perhaps with somebody signed in; each at another address, unless one is given."""
    transport = httpx.ASGITransport(
        app=deployment.api, client=(address or f"10.0.{next(_addresses)}", 50_000)
    )
    async with httpx.AsyncClient(
        transport=transport, base_url=base, headers={"user-agent": "Test browser"}
    ) as http:
        client = ConsoleClient(http, deployment, person)
        if person is not None:
            client.take_token(person.token)
        yield client


@asynccontextmanager
async def deployed(shared: Shared, dsn: str) -> AsyncIterator[Deployment]:
    """An API of region us with its console, in this process, and no worker."""
    api = Api(shared, {"us": dsn})
    await api.open()
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url=BASE) as client:
            yield Deployment(shared.settings, api, None, api.regions["us"].db, client)
    finally:
        await api.close()


def console_of(deployment: Deployment) -> Console:
    """The console of a deployment."""
    assert deployment.api.console is not None
    return deployment.api.console


async def make_person(
    deployment: Deployment, account_id: UUID, role: Role, *, name: str = "Ada", email: str | None = None
) -> Person:
    """A user with a role in an account, with a session, and with a password that nobody knows."""
    db = deployment.db
    user = await user_store.insert(
        db, email=email or f"{uuid4().hex[:12]}@example.com", name=name, password="no hash"
    )
    assert user is not None
    await member_store.add(db, account_id, user.id, role)
    token = await Sessions(db).begin(user.id, Visitor("Test browser", "0123456789ab"))
    slug = await db.fetchval("SELECT slug FROM accounts WHERE id = $1", account_id)
    return Person(user, account_id, slug, role, token)


async def activity_of(deployment: Deployment, account_id: UUID) -> list[tuple[str, str]]:
    """What the account's activity holds, oldest first: actions and descriptions."""
    rows = await deployment.db.fetch(
        "SELECT action, description FROM activity WHERE account_id = $1 ORDER BY id", account_id
    )
    return [(row["action"], row["description"]) for row in rows]


def toast_of(html: str) -> str:
    """What the page's toast says."""
    found = re.search(r'<div class="toast [^>]*>.*?<p dir="auto">(.*?)</p>', html, re.S)
    assert found, "no toast"
    return found[1]
