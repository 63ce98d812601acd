"""What belongs to another account is like what is not there, also under one's own address, for every role.

That each route is refused exactly when the table of roles says so is in `test_roles.py`; whom a role may invite, change
and remove is in `test_members.py`. Here every route that names something is asked for something that there is.
"""

import re
from collections.abc import Mapping
from uuid import UUID, uuid4

import httpx
import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, console_of
from tests.support import Deployment, make_account

from babysea_server.accounts import invitations
from babysea_server.accounts.activity import OPERATOR
from babysea_server.accounts.notices import notify
from babysea_server.accounts.roles import ROLES, Role, may
from babysea_server.console.routes import Route

#: Segments that name what is everybody's.
COMMON = {"lab", "model"}
#: What nobody outside of an account changes.
_TABLES = (
    "api_keys",
    "webhook_endpoints",
    "webhook_deliveries",
    "generations",
    "invitations",
    "memberships",
    "notices",
    "activity",
)


async def _belongings(console: Deployment, client: ConsoleClient) -> Mapping[str, UUID]:
    """One of each thing that a path can name, all of the client's account, by the name of the segment."""
    db, account_id = console.db, client.account_id
    endpoint, delivery, message, generation = (uuid4() for _ in range(4))
    await db.execute(
        """INSERT INTO webhook_endpoints (id, account_id, url, events, secret)
           VALUES ($1, $2, 'https://example.com/hook', '{generation.succeeded}', $3)""",
        endpoint,
        account_id,
        console_of(console).regions["us"].webhook_secrets.seal("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    )
    await db.execute(
        """INSERT INTO webhook_messages (id, account_id, event, data) VALUES ($1, $2, 'webhook.test', '{}')""",
        message,
        account_id,
    )
    await db.execute(
        """INSERT INTO webhook_deliveries (id, message_id, endpoint_id, account_id, due_at)
           VALUES ($1, $2, $3, $4, 'infinity')""",
        delivery,
        message,
        endpoint,
        account_id,
    )
    await db.execute(
        """INSERT INTO generations (id, account_id, apikey_id, model, media, inputs, provider_order, prediction_id,
               reserved, expires_at, due_at)
           VALUES ($1, $2, $1, 'm', 'image', '{}', '{p}', $1, 0, 'infinity', 'infinity')""",
        generation,
        account_id,
    )
    invitation, _ = await invitations.invite(
        db, account_id, email="x@example.com", role="member", by_role="primary-owner", actor=OPERATOR
    )
    return {
        "key_id": await db.fetchval("SELECT id FROM api_keys WHERE account_id = $1", account_id),
        "endpoint_id": endpoint,
        "delivery_id": delivery,
        "generation_id": generation,
        "invitation_id": invitation,
        "user_id": client.person.user.id,
        "session_id": await db.fetchval("SELECT id FROM sessions WHERE user_id = $1", client.person.user.id),
        "notice_id": await notify(db, account_id, "credits.low_balance", "Low", {}),
    }


def _naming(console: Deployment) -> list[Route]:
    """The routes that name something of an account."""
    named = [
        (route, set(re.findall(r"\{(\w+)\}", route.path))) for route in console_of(console).app.routes.routes
    ]
    return [route for route, segments in named if segments - COMMON]


async def _ask(client: ConsoleClient, route: Route, ids: Mapping[str, UUID]) -> httpx.Response:
    path = re.sub(r"\{(\w+)\}", lambda match: str(ids[match[1]]), route.path)
    return await (client.get(path) if route.method == "GET" else client.post(path))


def _told(response: httpx.Response) -> tuple[int, str]:
    """An answer without what differs in each: ids."""
    ids = r"req_[0-9a-f]{24}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return response.status_code, re.sub(ids, "", response.text)


async def _state(console: Deployment, account_id: UUID) -> list[str]:
    """All that another account must not be able to change, as text."""
    found = []
    for table in _TABLES:
        rows = await console.db.fetch(
            f"SELECT t::text AS row FROM {table} t WHERE account_id = $1", account_id
        )
        found += sorted(row["row"] for row in rows)
    return found


@pytest.mark.parametrize("role", ROLES)
async def test_what_is_another_accounts_is_answered_as_what_is_not_there(
    console: Deployment, console_client: ConsoleClientOf, role: Role
) -> None:
    client, other = await console_client(role), await console_client("member")
    theirs = await _belongings(console, other)
    nothing = {name: uuid4() for name in theirs}
    own = await _belongings(console, await console_client("member", account_id=client.account_id))
    before = await _state(console, other.account_id)
    wrong = []
    for route in _naming(console):
        missing = await _ask(client, route, nothing)
        # All of them foreign; and, where a path names several, what is foreign beneath what is one's own.
        mixed = [{**theirs, "endpoint_id": own["endpoint_id"]}] if route.path.count("{") > 1 else []
        for ids in (theirs, *mixed):
            foreign = await _ask(client, route, ids)
            if _told(foreign) != _told(missing):
                wrong.append((route.method, route.path, foreign.status_code, missing.status_code))
        expected = 404 if may(role, route.action) else 403
        if missing.status_code != expected:
            wrong.append((route.method, route.path, missing.status_code, expected))
    assert wrong == []
    assert await _state(console, other.account_id) == before


async def test_every_segment_that_a_path_names_is_tried(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    theirs = await _belongings(console, await console_client())
    named = {name for route in _naming(console) for name in re.findall(r"\{(\w+)\}", route.path)}
    assert named - COMMON <= theirs.keys()


async def test_a_form_of_somebody_who_is_not_signed_in_does_nothing(
    console: Deployment, stranger: ConsoleClient
) -> None:
    account_id, _ = await make_account(console.db)
    slug = await console.db.fetchval("SELECT slug FROM accounts WHERE id = $1", account_id)
    before = await _state(console, account_id)
    for route in console_of(console).app.routes.routes:
        if route.method == "POST":
            path = re.sub(r"\{\w+\}", lambda _: str(uuid4()), route.path)
            response = await stranger.http.post(f"/console/us/{slug}{path}", data={"csrf": "0" * 64})
            assert response.status_code == 303, route
            assert response.headers["location"] == "/console/sign-in?region=us", "a form is not sent again"
    assert await _state(console, account_id) == before
