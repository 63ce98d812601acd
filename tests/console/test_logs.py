"""Logs: searched, narrowed, paged by time, exported; nothing in them is markup."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient
from tests.console.traffic import key_of, log

from babysea_server.console import logs_store
from babysea_server.console.logs_store import Filter, Place
from babysea_server.console.row_export import EXPORT_MAX
from babysea_server.keys.scopes import SCOPES
from babysea_server.keys.service import issue
from babysea_server.kit.ids import uuid7
from babysea_server.telemetry import store

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
STATUS, USAGE = "GET /v1/status", "GET /v1/usage"


def ids_in(html: str) -> list[str]:
    """The requests of a page, in its order."""
    return re.findall(r'data-request="(req_[0-9a-z]+)"', html)


def next_of(html: str) -> str | None:
    """The address of the next page."""
    found = re.search(r'rel="next" href="([^"]+)"', html) or re.search(r'href="([^"]+)">Look further', html)
    return None if found is None else unescape(found[1])


async def walk(client: ConsoleClient, path: str) -> list[str]:
    """The requests of all pages, in their order."""
    html = await client.page(path)
    found = ids_in(html)
    while (following := next_of(html)) is not None:
        html = await client.page(following)
        found += ids_in(html)
    return found


async def traffic(client: ConsoleClient, *requests: dict[str, Any]) -> list[str]:
    """Write requests with the account's first key; their ids."""
    db = client.deployment.db
    return await log(db, client.account_id, await key_of(db, client.account_id), *requests)


async def test_without_requests_the_page_says_what_to_do(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    html = await client.page("/logs")
    assert "No requests yet" in html
    assert client.url("/api-keys") in html


async def test_a_row_tells_everything_but_bodies_keys_and_addresses(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    [id] = await traffic(
        client,
        {
            "endpoint": "GET /v1/content/list",
            "query": {"limit": 7},
            "status": 404,
            "code": "BSE3001",
            "replayed": True,
            "agent": "babysea-python/1.2",
            "duration_us": 12_340,
        },
    )
    html = await client.page("/logs")
    heads = re.findall(r'<th scope="col"[^>]*>(?:<a[^>]*>)?([A-Z][A-Za-z ]+)', html)
    assert heads == [
        "Time",
        "Key",
        "Method",
        "Endpoint",
        "Parameters",
        "Status",
        "Error code",
        "Replay",
        "IP hash",
        "User agent",
        "Duration",
    ]
    for told in (
        id,
        ">GET<",
        "/v1/content/list",
        "limit=7",
        "BSE3001",
        "Replay",
        "babysea-python/1.2",
        "12.3 ms",
    ):
        assert told in html
    assert 'class="badge warn">404' in html
    assert "000102030405</code>" in html  # twelve digits of the hash, not one more


async def test_pages_go_on_where_the_one_before_ended(console_client: ConsoleClientOf) -> None:
    """In both orders, also between requests of the same moment and over midnight."""
    client = await console_client("member")
    ages = [*([40.0] * 30), *range(100), *(float(day * 86_400) for day in range(3))]
    ids = await traffic(client, *[{"age_s": age} for age in ages])
    newest = sorted(zip(ages, ids, strict=True), key=lambda pair: pair[0])
    found = await walk(client, "/logs")
    assert sorted(found) == sorted(ids)
    age_of = dict(zip(ids, ages, strict=True))
    assert [age_of[id] for id in found] == [age for age, _ in newest]
    assert await walk(client, "/logs?sort=time&size=50") == found[::-1]
    # What arrives meanwhile moves nothing.
    following = next_of(await client.page("/logs"))
    assert following is not None
    await traffic(client, {}, {})
    assert ids_in(await client.page(following)) == found[25:50]


@pytest.mark.parametrize("order", ["", "&sort=time"])
async def test_filters_leave_out_what_does_not_match(console_client: ConsoleClientOf, order: str) -> None:
    client = await console_client("member")
    db = client.deployment.db
    other = await issue(db, account_id=client.account_id, name="Other", scopes=SCOPES)
    requests: list[dict[str, Any]] = [
        {
            "endpoint": (STATUS, USAGE)[number % 2],
            "status": (200, 429, 500)[number % 3],
            "code": (None, "BSE1009", "BSE5001")[number % 3],
            "age_s": number * 1800.0,
            **({"key": other.key.id} if number % 5 == 0 else {}),
        }
        for number in range(120)
    ]
    ids = await traffic(client, *requests)
    if order:
        ids, requests = ids[::-1], requests[::-1]
    wanted = {
        "status=2": [r["status"] == 200 for r in requests],
        "status=4": [r["status"] == 429 for r in requests],
        f"endpoint={USAGE}": [r["endpoint"] == USAGE for r in requests],
        "code=BSE5001": [r["code"] == "BSE5001" for r in requests],
        f"key={other.key.id}": ["key" in r for r in requests],
        f"key={other.key.id}&status=5&endpoint={STATUS}": [
            "key" in r and r["status"] == 500 and r["endpoint"] == STATUS for r in requests
        ],
        f"key={uuid4()}": [False for _ in requests],
        "code=BSE9999": [False for _ in requests],
        "period=24h&status=2": [r["status"] == 200 and r["age_s"] < 86_400 for r in requests],
        "period=1h": [r["age_s"] < 3600 for r in requests],
        "status=9&key=none&period=x": [True for _ in requests],
    }
    for query, matches in wanted.items():
        expected = [id for id, matching in zip(ids, matches, strict=True) if matching]
        assert await walk(client, f"/logs?{query}{order}") == expected, query
    assert "No request matches" in await client.page("/logs?code=BSE9999")


async def test_a_key_is_found_in_hours_that_have_been_condensed(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    db = client.deployment.db
    other = uuid7()
    ids = await traffic(
        client,
        *[{"age_s": 12 * 86_400.0 + hour * 3600} for hour in range(30)],
        {"age_s": 13 * 86_400.0, "key": other},
    )
    while await store.condense_usage(db):
        pass
    assert await walk(client, f"/logs?key={other}") == [ids[-1]]
    assert len(await walk(client, f"/logs?key={await key_of(db, client.account_id)}")) == 30


async def test_a_search_that_reads_much_stops_and_goes_on(
    console_client: ConsoleClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_store, "READ_MAX", 50)
    client = await console_client("member")
    requests = [
        {"age_s": hour * 3600.0 + number, "status": 500 if hour % 2 and number == 7 else 200}
        for hour in range(6)
        for number in range(40)
    ]
    ids = await traffic(client, *requests)
    expected = [id for id, request in zip(ids, requests, strict=True) if request["status"] == 500]
    first = await client.page("/logs?status=5")
    assert len(ids_in(first)) < len(expected)
    assert "Looked as far as" in first
    assert await walk(client, "/logs?status=5") == expected
    assert await walk(client, "/logs?status=5&sort=time") == expected[::-1]


async def test_a_request_is_found_by_its_whole_id(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    ids = await traffic(client, {}, {"age_s": 20 * 86_400.0}, {})
    assert ids_in(await client.page(f"/logs?q={ids[1]}")) == [ids[1]]
    assert "No request matches" in await client.page(f"/logs?q={ids[1][:-1]}")
    assert "No request matches" in await other.page(f"/logs?q={ids[1]}")


async def test_nothing_of_another_account_is_there(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    await traffic(client, {}, {"status": 500})
    assert await walk(other, "/logs") == []
    assert await walk(other, f"/logs?key={await key_of(client.deployment.db, client.account_id)}") == []
    assert (await other.get("/logs/export.json")).json() == []


async def test_cursors_that_make_no_sense_are_the_beginning(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    ids = await traffic(client, {})
    for cursor in ("x", ".", "1", "-5.req_a", "9" * 30 + ".req_a", "%00.%00", "١٢.req"):
        assert ids_in(await client.page(f"/logs?after={cursor}")) == ids
    assert "No more requests" in await client.page("/logs?after=0.req_a")


async def test_nothing_that_a_client_sends_is_markup(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db = client.deployment.db
    await db.execute(
        "UPDATE api_keys SET name = $2 WHERE id = $1", await key_of(db, client.account_id), EVIL[:100]
    )
    await traffic(
        client, {"agent": EVIL, "query": {EVIL: EVIL}, "endpoint": EVIL, "status": 400, "code": EVIL}
    )
    for path in (
        "/logs",
        f"/logs?code={EVIL}",
        f"/logs?endpoint={EVIL}",
        f"/logs?q={EVIL}",
        f"/logs?key={EVIL}",
    ):
        html = await client.page(path)
        assert "<img" not in html
        assert "<script>alert" not in html
    assert unescape(await client.page("/logs")).count(EVIL) >= 4


# ------------------------------------------------------------------------------- export


async def test_exports_hold_what_the_filters_show(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    ids = await traffic(
        client,
        *[{"age_s": age, "query": {"limit": age}, "agent": "=1+1"} for age in range(30)],
        {"status": 500, "code": "BSE5001"},
    )
    response = await client.get("/logs/export.json?status=2")
    assert response.headers["content-disposition"] == 'attachment; filename="logs.json"'
    rows = response.json()
    assert [row["request_id"] for row in rows] == ids[:30]
    assert rows[3] | {"time": "", "key_id": ""} == {
        "time": "",
        "request_id": ids[3],
        "key_id": "",
        "key_name": "test",
        "method": "GET",
        "endpoint": STATUS,
        "parameters": {"limit": 3},
        "status": 200,
        "error_code": None,
        "replay": False,
        "ip_hash": "000102030405",
        "user_agent": "=1+1",
        "duration_ms": 2.0,
    }
    response = await client.get("/logs/export.csv?status=2")
    assert response.headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["request_id"] for row in table] == ids[:30]
    assert table[0]["user_agent"] == "'=1+1"  # shown by a spreadsheet, not run
    assert json.loads(table[3]["parameters"]) == {"limit": 3}
    assert [row["request_id"] for row in (await client.get(f"/logs/export.json?q={ids[30]}")).json()] == ids[
        30:
    ]


async def test_an_export_has_so_many_rows_and_the_page_says_so(
    console_client: ConsoleClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await console_client("member")
    ids = await traffic(client, *[{"age_s": age} for age in range(30)])
    assert f"at most {EXPORT_MAX:,} requests" in await client.page("/logs")
    monkeypatch.setattr("babysea_server.console.pages.logs.EXPORT_MAX", 20)
    monkeypatch.setattr("babysea_server.console.pages.logs.EXPORT_STEP", 8)
    assert [row["request_id"] for row in (await client.get("/logs/export.json")).json()] == ids[:20]


# ------------------------------------------------------------------------------- what is read for it


async def _plan(client: ConsoleClient, which: Filter, after: Place | None) -> str:
    """How the database goes about a page without filters."""
    conditions, arguments = logs_store._conditions(client.account_id, which, after, True)
    async with client.deployment.db.connection() as connection:
        rows = await connection.fetch(
            f"""EXPLAIN SELECT {logs_store._COLUMNS} FROM request_log r WHERE {conditions}
                ORDER BY r.at DESC, r.request_id DESC LIMIT 26""",
            *arguments,
        )
    return "\n".join(row[0] for row in rows)


async def test_a_page_reads_the_days_it_needs_by_the_index(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    for age in range(5):
        await traffic(client, *[{"age_s": age * 86_400.0 + n} for n in range(400)])
    await client.deployment.db.execute("ANALYZE request_log")
    now = datetime.now(UTC)
    narrow = await _plan(client, Filter(since=now - timedelta(days=1)), None)
    # Partitions are ordered: the newest is read first and the others when it was not enough.
    assert "Seq Scan" not in narrow
    assert "account_id_at_idx" in narrow
    oldest = f"{now - timedelta(days=4):%Y%m%d}"
    assert oldest not in narrow
    beyond = await _plan(client, Filter(), Place(now - timedelta(days=3), "req_a"))
    assert f"{now:%Y%m%d}" not in beyond
    assert UUID(int=0) != client.account_id
