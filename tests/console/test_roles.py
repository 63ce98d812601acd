"""Every route x every role x own and foreign account, over HTTP: the table of roles decides, and nothing else."""

import re
from uuid import uuid4

import httpx
import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, console_of
from tests.support import Deployment

from babysea_server.accounts.roles import ALLOWED, INVITES, MANAGES, ROLES, Action, Role, may
from babysea_server.console.routes import Route

#: What a role may do, from the areas of the specification: the table of the code is held against it.
_VIEWED = (
    "metrics",
    "api_keys",
    "webhooks",
    "logs",
    "credits",
    "models",
    "domains",
    "settings",
    "members",
    "billing",
)
_VIEWED_TOO = ("notifications", "activity", "profile")


def _routes(console: Deployment) -> tuple[Route, ...]:
    return tuple(console_of(console).app.routes.routes)


async def _ask(client: ConsoleClient, route: Route, slug: str) -> httpx.Response:
    """Ask for a route with ids that nothing has, so that what is allowed changes nothing."""
    inner = re.sub(r"\{\w+\}", lambda _: str(uuid4()), route.path)
    path = f"/console/us/{slug}{inner}"
    if route.path == "/events":
        # A stream that is allowed has no end: a closed method is refused by the same check, before it.
        return (
            await client.http.head(path) if not may(client.person.role, route.action) else httpx.Response(200)
        )
    return await (client.get(path) if route.method == "GET" else client.post(path))


@pytest.mark.parametrize("role", ROLES)
async def test_a_route_is_refused_exactly_when_the_table_says_so(
    console: Deployment, console_client: ConsoleClientOf, role: Role
) -> None:
    reader = await console_client(role)
    wrong = []
    for route in _routes(console):
        # What is allowed may well do something, as leaving the account: then the next begins with another one.
        client = reader if route.method == "GET" else await console_client(role)
        response = await _ask(client, route, client.person.slug)
        refused = response.status_code == 403
        if refused == may(role, route.action) or response.status_code >= 500:
            wrong.append((route.method, route.path, response.status_code))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
async def test_a_foreign_account_is_like_one_that_is_not_there(
    console: Deployment, console_client: ConsoleClientOf, role: Role
) -> None:
    client, other = await console_client(role), await console_client("primary-owner")
    for route in _routes(console):
        foreign = await client.http.request(
            route.method, f"/console/us/{other.person.slug}{route.path}", data={"csrf": client.csrf}
        )
        missing = await client.http.request(
            route.method, f"/console/us/nobody-is-called-so{route.path}", data={"csrf": client.csrf}
        )
        assert foreign.status_code == missing.status_code == 404, route
        assert _body(foreign) == _body(missing)


def _body(response: httpx.Response) -> str:
    """An answer without what differs in each: request id."""
    return re.sub(r"req_[0-9a-f]{24}", "", response.text)


async def test_nobody_who_is_not_signed_in_gets_in(console: Deployment, stranger: ConsoleClient) -> None:
    for route in _routes(console):
        response = await stranger.http.request(route.method, f"/console/us/any{route.path}")
        assert response.status_code == 303, route
        assert response.headers["location"].startswith("/console/sign-in?region=us")


def test_every_action_is_in_the_table_and_nobody_has_less_than_a_weaker_role() -> None:
    assert set(ALLOWED) == set(Action)
    for roles in ALLOWED.values():
        assert "primary-owner" in roles
        assert "owner" in roles or "member" not in roles


def test_the_table_is_the_one_of_the_specification() -> None:
    for role in ROLES:
        for area in (*_VIEWED, *_VIEWED_TOO):
            assert may(role, Action(f"{area}.view")), (role, area)
        for area in ("logs", "credits", "activity"):
            assert may(role, Action(f"{area}.export"))
        managing = role != "member"
        for area in ("api_keys", "webhooks", "domains"):
            assert may(role, Action(f"{area}.manage")) == managing
        only = role == "primary-owner"
        for action in ("settings.edit", "billing.edit", "account.delete", "account.transfer"):
            assert may(role, Action(action)) == only
    assert INVITES["member"] == ("member",)
    assert INVITES["owner"] == INVITES["primary-owner"] == ("owner", "member")
    assert MANAGES == {"primary-owner": ("owner", "member"), "owner": ("member",), "member": ()}
