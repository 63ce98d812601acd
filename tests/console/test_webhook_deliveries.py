"""Webhook deliveries in the console: what was sent, what was answered, and sending again."""

import json
import re
from uuid import UUID

import pytest
from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, activity_of, make_person, open_client, toast_of
from tests.console.webhook_log import generation_id, happen, log_of, make_endpoint, many, newest, tried
from tests.support import eventually, make_account
from tests.webhooks.receiver import receiver

from babysea_server.console import webhook_store
from babysea_server.db.pool import Database
from babysea_server.webhooks import endpoints
from babysea_server.webhooks.endpoint_store import Endpoint

_EVIL = "<img src=x onerror=alert(1)>\"'"


@pytest.fixture
async def client(console_client: ConsoleClientOf) -> ConsoleClient:
    """An owner's browser."""
    return await console_client("owner")


# ------------------------------------------------------------------------------- deliveries


async def test_a_test_event_is_sent_to_an_enabled_endpoint_only(client: ConsoleClient) -> None:
    endpoint = await make_endpoint(client.deployment.db, client.account_id)
    there = f"/webhook/{endpoint.id}"
    response = await client.submit(there, action=f"{there}/test")
    html = (await client.follow(response)).text
    assert "webhook.test" in html
    await client.submit(f"{there}/disable")
    refused = await client.post(f"{there}/test")
    assert "Enable it first" in toast_of((await client.follow(refused)).text)
    assert [each.event for each in await log_of(client, endpoint)] == ["webhook.test"]
    told = await activity_of(client.deployment, client.account_id)
    assert [action for action, _ in told] == ["webhook.test_sent", "webhook.disabled"]


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
    assert "has not ended" in toast_of((await client.follow(refused)).text)
    await tried(db, delivery_id, *[(500, "http_5xx", "no")] * 9, state="failed")
    response = await client.submit(
        f"{there}/deliveries/{delivery_id}", action=f"{there}/deliveries/{delivery_id}/replay"
    )
    assert toast_of((await client.follow(response)).text) == "credits.low_balance is being sent again."
    fresh, old = await log_of(client, endpoint)
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
    assert toast_of((await client.follow(response)).text) == "2 deliveries are on the way."
    again = await client.submit(f"{there}/replay-failed", {})
    assert toast_of((await client.follow(again)).text) == "Nothing failed since then."
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
        [endpoint] = await endpoints.page(client.deployment.db, client.account_id)
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


async def test_deliveries_are_searched_filtered_and_paged(client: ConsoleClient) -> None:
    db = client.deployment.db
    endpoint = await make_endpoint(db, client.account_id)
    there = f"/webhook/{endpoint.id}"
    await many(db, endpoint, 60)
    generation = generation_id()
    await happen(db, client.account_id, "generation.started", generation_id=generation)
    every = [str(each.id) for each in await log_of(client, endpoint)]

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
            for each in await log_of(client, endpoint)
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
    oldest = (await log_of(client, endpoint))[-1]
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
