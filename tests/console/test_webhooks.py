"""Webhook in the console: endpoints, their secrets and states, what they were sent, and sending again."""

import json
import re
from typing import Any
from uuid import UUID

import pytest
from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, activity_of, console_of, make_person, open_client
from tests.console.webhook_log import generation_id, happen, make_endpoint, many, newest, tried
from tests.support import eventually, make_account
from tests.webhooks.receiver import receiver

from babysea_server.console import webhook_store
from babysea_server.db.pool import Database
from babysea_server.webhooks import endpoint_store, endpoints, replay
from babysea_server.webhooks.endpoint_store import Delivery, Endpoint
from babysea_server.webhooks.endpoints import ENDPOINTS_MAX, SUBSCRIBABLE

_EVIL = "<img src=x onerror=alert(1)>\"'"
_URL = "https://shop.example.com/hook?token=hush"


@pytest.fixture
async def client(console_client: ConsoleClientOf) -> ConsoleClient:
    """An owner's browser."""
    return await console_client("owner")


async def _endpoints(client: ConsoleClient) -> list[Endpoint]:
    return list(await endpoints.page(client.deployment.db, client.account_id))


async def _log(client: ConsoleClient, endpoint: Endpoint) -> list[Delivery]:
    """Deliveries, newest first."""
    return list(await replay.list_deliveries(client.deployment.db, client.account_id, endpoint.id))


async def _told(client: ConsoleClient) -> list[str]:
    return [action for action, _ in await activity_of(client.deployment, client.account_id)]


def _toast(html: str) -> str:
    found = re.search(r'<div class="toast [^>]*>.*?<p dir="auto">(.*?)</p>', html, re.S)
    assert found, "no toast"
    return found[1]


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
    assert _toast((await client.follow(response)).text) == "Saved."
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
    assert "Deliver queued events" in _toast(enabled)
    assert "3 events wait" in enabled
    response = await client.submit(there, action=f"{there}/deliver-queued")
    assert _toast((await client.follow(response)).text) == "3 deliveries are on the way."
    assert sorted(each.state for each in await _log(client, endpoint)) == ["expired"] * 3 + ["pending"] * 3
    assert "events wait" not in await client.page(there)
    again = await client.post(f"{there}/deliver-queued")
    assert _toast((await client.follow(again)).text) == "Nothing waits."
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
    assert _toast((await client.follow(response)).text) == "The endpoint was deleted."
    assert await _endpoints(client) == []
    left = "SELECT count(*) FROM webhook_deliveries WHERE account_id = $1"
    assert await db.fetchval(left, client.account_id) == 0
    assert await _told(client) == ["webhook.deleted"]


# ------------------------------------------------------------------------------- deliveries


async def test_a_test_event_is_sent_to_an_enabled_endpoint_only(client: ConsoleClient) -> None:
    endpoint = await make_endpoint(client.deployment.db, client.account_id)
    there = f"/webhook/{endpoint.id}"
    response = await client.submit(there, action=f"{there}/test")
    html = (await client.follow(response)).text
    assert "webhook.test" in html
    await client.submit(f"{there}/disable")
    refused = await client.post(f"{there}/test")
    assert "Enable it first" in _toast((await client.follow(refused)).text)
    assert [each.event for each in await _log(client, endpoint)] == ["webhook.test"]
    assert await _told(client) == ["webhook.test_sent", "webhook.disabled"]


async def test_a_delivery_shows_what_was_sent_and_each_answer(client: ConsoleClient) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    generation = generation_id()
    await happen(
        db,
        client.account_id,
        "generation.completed",
        generation_id=generation,
        generation_output_file=["outputs/2026/04/28/a.png"],
    )
    delivery_id = await newest(db, endpoint)
    await tried(
        db,
        delivery_id,
        (None, "timeout", None),
        (503, "http_5xx", f"down {_EVIL}"),
        (200, None, ""),
        state="delivered",
    )
    table = await client.page(f"/webhook/{endpoint.id}")
    row = re.search(rf'<tr data-row="{delivery_id}">(.*?)</tr>', table, re.S)
    assert row
    cells = re.sub(r"<[^>]+>", " ", row[1]).split()
    assert cells[:5] == ["generation.completed", f"…{str(generation)[-12:]}", "Delivered", "200", "–"]
    html = await client.page(f"/webhook/{endpoint.id}/deliveries/{delivery_id}")
    assert "<img src=x" not in html
    assert "down &lt;img src=x onerror=alert(1)&gt;" in html
    assert re.findall(r"#(\d)</span>", html) == ["3", "2", "1"]
    assert "No answer within 10 s" in html
    found = re.search(r'aria-label="Body of the request">(.*?)</pre>', html, re.S)
    assert found
    body = json.loads(found[1].replace("&#34;", '"').replace("&amp;", "&"))
    assert body["webhook_delivery_id"] == str(delivery_id)
    assert body["webhook_data"]["generation_id"] == str(generation)
    [link] = body["webhook_data"]["generation_output_file"]
    assert link.startswith("http://localhost/files/outputs/2026/04/28/a.png?")


async def test_an_ended_delivery_is_replayed_and_a_pending_one_is_not(client: ConsoleClient) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    await happen(db, client.account_id)
    delivery_id = await newest(db, endpoint)
    there = f"/webhook/{endpoint.id}"
    assert '/replay"' not in await client.page(f"{there}/deliveries/{delivery_id}")
    refused = await client.post(f"{there}/deliveries/{delivery_id}/replay")
    assert "has not ended" in _toast((await client.follow(refused)).text)
    await tried(db, delivery_id, *[(500, "http_5xx", "no")] * 9, state="failed")
    response = await client.submit(
        f"{there}/deliveries/{delivery_id}", action=f"{there}/deliveries/{delivery_id}/replay"
    )
    assert _toast((await client.follow(response)).text) == "credits.low_balance is being sent again."
    fresh, old = await _log(client, endpoint)
    assert (fresh.replay_of, fresh.state, old.state) == (delivery_id, "pending", "failed")
    assert str(fresh.id) in await client.page(f"{there}/deliveries/{old.id}")
    [(action, text)] = await activity_of(client.deployment, client.account_id)
    assert (action, str(fresh.id) in text) == ("webhook.replayed", True)
    other = await make_endpoint(db, client.account_id)
    assert (await client.get(f"/webhook/{other.id}/deliveries/{old.id}")).status_code == 404
    assert (await client.post(f"/webhook/{other.id}/deliveries/{old.id}/replay")).status_code == 404


async def test_all_that_failed_since_a_moment_is_replayed(client: ConsoleClient) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    there = f"/webhook/{endpoint.id}"
    await many(db, endpoint, 20)
    ask = await client.page(f"{there}/replay-failed")
    assert re.search(r'type="datetime-local" value="\d{4}-\d\d-\d\dT\d\d:\d\d"', ask)
    for since, sentence in (
        ("", "Enter a date"),
        ("soon", "Enter a date"),
        ("2999-01-01T00:00", "in the past"),
    ):
        refused = await client.submit(f"{there}/replay-failed", {"since": since})
        assert refused.status_code == 422
        assert sentence in refused.text
    response = await client.submit(f"{there}/replay-failed", {})
    assert _toast((await client.follow(response)).text) == "2 deliveries are on the way."
    again = await client.submit(f"{there}/replay-failed", {})
    assert _toast((await client.follow(again)).text) == "Nothing failed since then."
    [(action, text)] = await activity_of(client.deployment, client.account_id)
    assert action == "webhook.failed_replayed"
    assert text.startswith("2 failed deliveries since ")
    await client.submit(f"{there}/disable")
    refused = await client.submit(f"{there}/replay-failed", {})
    assert refused.status_code == 422
    assert "Enable it first" in refused.text


async def test_a_real_receiver_gets_a_test_event_and_the_page_shows_its_answer(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(webhooks_allow_private=True)
    account_id, _ = await make_account(deployment.db)
    person = await make_person(deployment, account_id, "owner")
    async with receiver() as one, open_client(deployment, person) as client:
        one.path("/hook", body=b"thanks <b>a lot</b>")
        response = await client.submit("/webhook/new", {"url": f"{one.origin}/hook"})
        assert response.status_code == 303, response.text
        [endpoint] = await _endpoints(client)
        await client.submit(f"/webhook/{endpoint.id}", action=f"/webhook/{endpoint.id}/test")
        [received] = await one.has("/hook", 1)
        there = f"/webhook/{endpoint.id}/deliveries/{received.id}"

        async def recorded() -> str | None:
            html = await client.page(there)
            return html if "Delivered" in html else None

        html = await eventually(recorded)
        assert "thanks &lt;b&gt;a lot&lt;/b&gt;" in html
        found = re.search(r'aria-label="Body of the request">(.*?)</pre>', html, re.S)
        assert found
        assert json.loads(found[1].replace("&#34;", '"')) == json.loads(received.body)


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


async def test_deliveries_are_searched_filtered_and_paged(client: ConsoleClient) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    there = f"/webhook/{endpoint.id}"
    await many(db, endpoint, 60)
    generation = generation_id()
    await happen(db, client.account_id, "generation.started", generation_id=generation)
    every = [str(each.id) for each in await _log(client, endpoint)]

    async def listed(query: str) -> list[str]:
        return re.findall(r'<tr data-row="([^"]+)"', await client.page(f"{there}{query}"))

    seen, query = [], ""
    while True:
        html = await client.page(f"{there}{query}")
        seen += re.findall(r'<tr data-row="([^"]+)"', html)
        following = re.search(r'rel="next" href="[^?]*([^"]*)"', html)
        if following is None:
            break
        query = following[1].replace("&amp;", "&")
    assert seen == every
    assert await listed("?sort=created&size=100") == every[::-1]
    assert len(await listed("?state=failed")) == 6
    assert len(await listed("?event=generation.completed&state=delivered&size=100")) == len(
        [
            each
            for each in await _log(client, endpoint)
            if (each.event, each.state) == ("generation.completed", "delivered")
        ]
    )
    assert await listed(f"?q={generation}") == [every[0]]
    assert await listed(f"?q={every[7]}") == [every[7]]
    assert len(await listed("?q=http_5xx")) == 6
    assert len(await listed("?q=500")) == 6
    assert "No delivery matches" in await client.page(f"{there}?q=%25")
    assert "end of the list" in await client.page(f"{there}?after={UUID(int=0)}")
    assert len(await listed("?after=nonsense")) == 25


async def test_a_narrow_search_looks_through_so_many_and_offers_to_go_on(
    client: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    await many(db, endpoint, 30)
    oldest = (await _log(client, endpoint))[-1]
    await db.execute("UPDATE webhook_deliveries SET state = 'expired' WHERE id = $1", oldest.id)
    monkeypatch.setattr(webhook_store, "LOOKED_THROUGH", 20)
    html = await client.page(f"/webhook/{endpoint.id}?state=expired")
    assert "20 deliveries were looked through." in html
    further = re.search(r'href="[^"]*\?([^"]*)">Look further', html)
    assert further
    html = await client.page(f"/webhook/{endpoint.id}?{further[1].replace('&amp;', '&')}")
    assert re.findall(r'<tr data-row="([^"]+)"', html) == [str(oldest.id)]
    assert "Look further" not in html


async def test_a_page_of_ten_thousand_deliveries_is_read_in_the_order_of_an_index(
    client: ConsoleClient,
) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    await many(db, endpoint, 10_000)
    await db.execute("ANALYZE webhook_deliveries, webhook_messages, webhook_attempts")
    for descending in (True, False):
        plan = await _plan(db, endpoint, descending=descending)
        # Where one endpoint has most of all rows, the order of ids is as good as its own.
        assert re.search(r"Index Scan.* using webhook_deliveries_(of_endpoint|pkey)", plan)
        assert "Sort" not in plan
        assert "Seq Scan on webhook_deliveries" not in plan
        assert "Seq Scan on webhook_messages" not in plan
        assert "Seq Scan on webhook_attempts" not in plan
    page = await client.page(f"/webhook/{endpoint.id}?size=100")
    assert page.count("<tr data-row=") == 100


async def _plan(db: Database, endpoint: Endpoint, *, descending: bool) -> str:
    statement = webhook_store.deliveries_statement(descending=descending)
    start = UUID(int=2**128 - 1 if descending else 0)
    rows = await db.fetch(f"EXPLAIN {statement}", endpoint.id, start, None, None, None, "", 26)
    return "\n".join(row[0] for row in rows)


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
    assert len(await _log(client, endpoint)) == 1


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
