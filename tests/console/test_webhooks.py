"""Webhook endpoints in the console: their secrets and states, who sees them, who changes them."""

import re
from typing import Any
from uuid import UUID

import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, activity_of, console_of, toast_of
from tests.console.webhook_log import generation_id, happen, log_of, make_endpoint, many, newest, tried

from babysea_server.webhooks import endpoint_store, endpoints
from babysea_server.webhooks.endpoint_store import Endpoint
from babysea_server.webhooks.endpoints import ENDPOINTS_MAX, SUBSCRIBABLE

_EVIL = "<img src=x onerror=alert(1)>\"'"
_URL = "https://shop.example.com/hook?token=hush"


@pytest.fixture
async def client(console_client: ConsoleClientOf) -> ConsoleClient:
    """An owner's browser."""
    return await console_client("owner")


async def _endpoints(client: ConsoleClient) -> list[Endpoint]:
    return list(await endpoints.page(client.deployment.db, client.account_id))


async def _told(client: ConsoleClient) -> list[str]:
    return [action for action, _ in await activity_of(client.deployment, client.account_id)]


# ------------------------------------------------------------------------------- create, change


async def test_a_new_endpoint_shows_its_secret_once(client: ConsoleClient) -> None:
    response = await client.submit("/webhook/new", {"url": _URL, "description": "Orders"})
    shown = (await client.follow(response)).text
    [secret] = set(re.findall(r"whsec_[A-Za-z0-9+/]{32}", shown))
    assert "You can only see this secret once. Store it safely." in shown
    assert "from babysea.webhooks import verify" in shown
    [endpoint] = await _endpoints(client)
    assert (endpoint.url, endpoint.description, endpoint.state) == (_URL, "Orders", "enabled")
    assert endpoint.events == tuple(event for event in SUBSCRIBABLE if event.startswith("generation."))
    sealed = await endpoint_store.sealed_secret(client.deployment.db, endpoint.id, client.account_id)
    assert sealed is not None
    box = console_of(client.deployment).regions["us"].webhook_secrets
    assert box.open(sealed) == secret
    again = (await client.follow(response)).text
    assert secret not in again
    assert "has been shown" in again
    assert secret not in await client.page(f"/webhook/{endpoint.id}")
    [(action, text)] = await activity_of(client.deployment, client.account_id)
    assert (action, text) == ("webhook.created", "Endpoint “Orders” at shop.example.com was created")


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"url": ""}, "url", "Enter the URL"),
        ({"url": "http://shop.example.com/"}, "url", "starts with https://"),
        ({"url": "https://shop.example.com:8443/"}, "url", "port 443"),
        ({"url": "https://192.168.1.1/"}, "url", "not public"),
        ({"url": "https://metadata.internal/"}, "url", ""),
        ({"url": _URL, "description": "x" * 201}, "description", "at most 200 characters"),
        ({"url": _URL, "events": []}, "events", "Choose at least one event"),
        ({"url": _URL, "events": ["webhook.test"]}, "events", "Choose at least one event"),
    ],
)
async def test_what_is_refused_is_told_beside_its_field(
    client: ConsoleClient, fields: dict[str, Any], field: str, sentence: str
) -> None:
    response = await client.submit("/webhook/new", {"description": "kept", **fields})
    assert response.status_code == 422
    found = re.search(
        rf'<p class="error-text" id="f-{field}-error">.*?<span>(.*?)</span>', response.text, re.S
    )
    assert found, response.text
    assert sentence in found[1]
    if "description" not in fields:
        assert 'value="kept"' in response.text
    assert await _endpoints(client) == []
    assert await _told(client) == []


async def test_an_account_has_so_many_endpoints_and_no_more(client: ConsoleClient) -> None:
    for _ in range(ENDPOINTS_MAX):
        await make_endpoint(client.deployment.db, client.account_id)
    response = await client.submit("/webhook/new", {"url": _URL})
    assert response.status_code == 422
    assert f"at most {ENDPOINTS_MAX} endpoints" in response.text
    assert await _told(client) == []


async def test_an_endpoint_is_changed_and_activity_keeps_no_address(client: ConsoleClient) -> None:
    await client.submit("/webhook/new", {"url": _URL, "description": "Orders"})
    [endpoint] = await _endpoints(client)
    changed = {
        "url": "https://other.example.com/?token=new",
        "description": "",
        "events": ["generation.failed"],
    }
    response = await client.submit(f"/webhook/{endpoint.id}/edit", changed)
    assert toast_of((await client.follow(response)).text) == "Saved."
    [after] = await _endpoints(client)
    assert (after.url, after.description, after.events) == (changed["url"], "", ("generation.failed",))
    _, (action, text) = await activity_of(client.deployment, client.account_id)
    assert action == "webhook.changed"
    assert text == (
        "Endpoint “Orders” at shop.example.com was changed: its URL, now at other.example.com, its description, "
        "its events, now generation.failed"
    )
    await client.submit(f"/webhook/{endpoint.id}/edit", {})
    assert len(await _told(client)) == 2
    refused = await client.submit(f"/webhook/{endpoint.id}/edit", {"url": "https://10.0.0.1/"})
    assert refused.status_code == 422
    assert await _endpoints(client) == [after]


# ------------------------------------------------------------------------------- life


async def test_a_rotated_secret_is_another_one(client: ConsoleClient) -> None:
    first = (await client.follow(await client.submit("/webhook/new", {"url": _URL}))).text
    [endpoint] = await _endpoints(client)
    second = (await client.follow(await client.submit(f"/webhook/{endpoint.id}/rotate"))).text
    secrets = [set(re.findall(r"whsec_[A-Za-z0-9+/]{32}", html)) for html in (first, second)]
    assert [len(found) for found in secrets] == [1, 1]
    assert secrets[0] != secrets[1]
    assert await _told(client) == ["webhook.created", "webhook.secret_rotated"]


async def test_a_secret_is_not_shown_for_another_endpoint(client: ConsoleClient) -> None:
    other = await make_endpoint(client.deployment.db, client.account_id)
    await client.submit("/webhook/new", {"url": _URL})
    assert "has been shown" in await client.page(f"/webhook/{other.id}/secret")


async def test_an_endpoint_is_disabled_and_what_waits_is_delivered_when_asked(client: ConsoleClient) -> None:
    endpoint = await make_endpoint(client.deployment.db, client.account_id)
    there = f"/webhook/{endpoint.id}"
    await client.submit(f"{there}/disable")
    assert "has been disabled since" in await client.page(there)
    for _ in range(3):
        await happen(client.deployment.db, client.account_id)
    html = await client.page(there)
    assert "3 events wait" in html
    assert "/deliver-queued" not in html
    assert "/test" not in html
    enabled = (await client.follow(await client.submit(there, action=f"{there}/enable"))).text
    assert "Deliver queued events" in toast_of(enabled)
    assert "3 events wait" in enabled
    response = await client.submit(there, action=f"{there}/deliver-queued")
    assert toast_of((await client.follow(response)).text) == "3 deliveries are on the way."
    assert sorted(each.state for each in await log_of(client, endpoint)) == ["expired"] * 3 + ["pending"] * 3
    assert "events wait" not in await client.page(there)
    again = await client.post(f"{there}/deliver-queued")
    assert toast_of((await client.follow(again)).text) == "Nothing waits."
    assert await _told(client) == ["webhook.disabled", "webhook.enabled", "webhook.queued_delivered"]


async def test_a_failing_endpoint_says_what_to_do(client: ConsoleClient) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    await db.execute("UPDATE webhook_endpoints SET state = 'failing' WHERE id = $1", endpoint.id)
    html = await client.page(f"/webhook/{endpoint.id}")
    assert "15 deliveries in a row failed, so this endpoint was disabled" in html
    assert "enable the endpoint, send a test event, and deliver what waited" in html
    assert "Failing" in await client.page("/webhook?state=failing")


async def test_an_endpoint_is_deleted_after_its_host_was_typed(client: ConsoleClient) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    await happen(db, client.account_id)
    refused = await client.submit(f"/webhook/{endpoint.id}/delete", {"confirm": "yes"})
    assert refused.status_code == 422
    assert "Type 127.0.0.1 to delete it." in refused.text
    assert await _endpoints(client) == [endpoint]
    response = await client.submit(f"/webhook/{endpoint.id}/delete", {"confirm": "127.0.0.1"})
    assert toast_of((await client.follow(response)).text) == "The endpoint was deleted."
    assert await _endpoints(client) == []
    left = "SELECT count(*) FROM webhook_deliveries WHERE account_id = $1"
    assert await db.fetchval(left, client.account_id) == 0
    assert await _told(client) == ["webhook.deleted"]


# ------------------------------------------------------------------------------- lists


async def test_endpoints_are_searched_filtered_and_sorted(client: ConsoleClient) -> None:
    db = client.deployment.db
    for host in ("b", "a", "c"):
        await make_endpoint(
            db, client.account_id, url=f"https://127.0.0.1/{host}", description=f"Host {host}"
        )
    await db.execute("UPDATE webhook_endpoints SET state = 'disabled' WHERE description = 'Host c'")

    async def listed(query: str) -> list[str]:
        return re.findall(r">https://127\.0\.0\.1/(\w)</a>", await client.page(f"/webhook{query}"))

    assert await listed("") == ["c", "a", "b"]
    assert await listed("?sort=url") == ["a", "b", "c"]
    assert await listed("?q=HOST+A") == ["a"]
    assert await listed("?state=disabled") == ["c"]
    assert "No endpoint matches" in await client.page("/webhook?q=%25")
    assert "3 results" in await client.page("/webhook?state=")


# ------------------------------------------------------------------------------- who may


async def test_a_member_sees_endpoints_and_changes_nothing(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    await many(db, endpoint, 1)
    there = f"/webhook/{endpoint.id}"
    html = await client.page("/webhook") + await client.page(there)
    delivery = f"{there}/deliveries/{await newest(db, endpoint)}"
    html += await client.page(delivery)
    for word in ("/new", "/edit", "/rotate", "/delete", "/test", "/replay", "/disable"):
        assert f'{word}"' not in html
    for path in (
        "/webhook/new",
        *(f"{there}/{verb}" for verb in ("edit", "rotate", "disable", "delete", "secret")),
    ):
        assert (await client.get(path)).status_code == 403
    for path in (
        "/webhook/new",
        *(f"{there}/{verb}" for verb in ("edit", "enable", "disable", "rotate", "delete", "test")),
        f"{there}/replay-failed",
        f"{there}/deliver-queued",
        f"{delivery}/replay",
    ):
        assert (await client.post(path, {"url": _URL, "confirm": "127.0.0.1"})).status_code == 403
    assert await _endpoints(client) == [endpoint]
    assert len(await log_of(client, endpoint)) == 1


async def test_an_endpoint_of_another_account_is_not_there(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    db = client.deployment.db
    theirs = await make_endpoint(db, other.account_id)
    await many(db, theirs, 1)
    there = f"/webhook/{theirs.id}"
    delivery = f"{there}/deliveries/{await newest(db, theirs)}"
    for path in ("", "/edit", "/rotate", "/disable", "/delete", "/secret", "/replay-failed"):
        assert (await client.get(f"{there}{path}")).status_code == 404
    assert (await client.get(delivery)).status_code == 404
    for path in (
        "/edit",
        "/enable",
        "/disable",
        "/rotate",
        "/delete",
        "/test",
        "/replay-failed",
        "/deliver-queued",
    ):
        fields = {
            "url": _URL,
            "events": "generation.failed",
            "confirm": "127.0.0.1",
            "since": "2026-01-01T00:00",
        }
        assert (await client.post(f"{there}{path}", fields)).status_code == 404
    assert (await client.post(f"{delivery}/replay")).status_code == 404
    mine = await make_endpoint(db, client.account_id)
    assert (await client.get(f"/webhook/{mine.id}/deliveries/{await newest(db, theirs)}")).status_code == 404
    assert await _endpoints(other) == [theirs]
    assert await _told(client) == []


async def test_descriptions_and_answers_are_never_markup(client: ConsoleClient) -> None:
    db = client.deployment.db
    await client.submit("/webhook/new", {"url": "https://shop.example.com/<b>?x='", "description": _EVIL})
    [endpoint] = await _endpoints(client)
    await happen(
        db, client.account_id, "generation.failed", generation_error=_EVIL, generation_id=generation_id()
    )
    delivery_id = await newest(db, endpoint)
    await tried(db, delivery_id, (500, "http_5xx", f"</pre>{_EVIL}"))
    for path in (
        "/webhook",
        f"/webhook?q={_EVIL}",
        f"/webhook/{endpoint.id}",
        f"/webhook/{endpoint.id}?q={_EVIL}",
        f"/webhook/{endpoint.id}/edit",
        f"/webhook/{endpoint.id}/delete",
        f"/webhook/{endpoint.id}/deliveries/{delivery_id}",
        "/activity",
    ):
        html = await client.page(path)
        assert "<img src=x" not in html, path
        assert "/<b>" not in html, path


async def test_without_endpoints_the_page_says_what_to_do(client: ConsoleClient) -> None:
    assert "Add the URL of your server" in await client.page("/webhook")
    endpoint = await make_endpoint(client.deployment.db, client.account_id)
    assert "Nothing was sent yet" in await client.page(f"/webhook/{endpoint.id}")


async def test_what_is_no_id_is_no_page(client: ConsoleClient) -> None:
    assert (await client.get("/webhook/none")).status_code == 404
    assert (await client.get(f"/webhook/{UUID(int=7)}")).status_code == 404
    endpoint = await make_endpoint(client.deployment.db, client.account_id)
    assert (await client.get(f"/webhook/{endpoint.id}/deliveries/{UUID(int=7)}")).status_code == 404
