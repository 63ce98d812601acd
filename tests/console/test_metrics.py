"""Metrics: what is counted where it happens, and what the page makes of it."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from uuid import uuid4

import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient
from tests.console.traffic import counted, generation, key_of, log

from babysea_server.console import metrics_store
from babysea_server.console.metrics_store import Span
from babysea_server.console.pages.metrics import duration
from babysea_server.telemetry import store

EVIL = "<img src=x onerror=alert(1)>"
DAY = 86_400.0


def figures(html: str, caption: str) -> list[list[str]]:
    """The rows of a table of the page, as text."""
    found = re.search(rf'<caption class="hidden">{caption}</caption>.*?<tbody>(.*?)</tbody>', html, re.S)
    assert found is not None, caption
    rows = re.findall(r"<tr>(.*?)</tr>", found[1], re.S)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]
    return [[" ".join(unescape(re.sub("<[^>]+>", "", cell)).split()) for cell in row] for row in cells]


def sums(html: str, caption: str) -> list[float]:
    """The sums of the columns of a chart's table, by column."""
    columns = zip(*[row[1:] for row in figures(html, caption)], strict=True)
    return [sum(float(value.replace("$", "").replace(",", "")) for value in column) for column in columns]


async def _traffic(client: ConsoleClient) -> None:
    db, account = client.deployment.db, client.account_id
    key = await key_of(db, account)
    await log(
        db,
        account,
        key,
        *[{"endpoint": "GET /v1/status", "duration_us": 2000}] * 98,
        {"status": 429, "code": "BSE1009", "duration_us": 90_000},
        {"endpoint": "GET /v1/usage", "status": 500, "code": "BSE5001", "duration_us": 3_000_000},
    )
    await generation(db, account, model="a/fast", providers=("fal",))
    await generation(db, account, model="a/fast", providers=("bfl", "fal"))
    await generation(db, account, model="b/slow", providers=("bfl",), status="failed")
    await generation(db, account, model="b/slow", providers=("bfl",), status="canceled")


async def test_without_traffic_the_page_says_what_to_do(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    html = await client.page("/metrics")
    assert "No requests in the last 24 hours" in html
    assert client.url("/playground") in html


async def test_every_sum_is_that_of_what_happened(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    await _traffic(client)
    html = await client.page("/metrics")
    assert sums(html, "Generations by status") == [2, 1, 1]
    assert sums(html, "API calls by status") == [98, 1, 1]
    assert sums(html, "Credits charged") == [0.06]
    assert figures(html, "Generations by model") == [
        ["a/fast", "2", "100.0%", "0", "2.0 s", "$0.060"],
        ["b/slow", "2", "0.0%", "1", "2.0 s", "$0.000"],
    ]
    assert figures(html, "Generations by provider") == [["fal", "2", "2.0 s", "$0.060"]]
    assert figures(html, "Failovers") == [["bfl", "fal", "refused_busy", "1"]]
    assert figures(html, "Failed generations by error") == [["BSE5002", "1"]]
    assert [row[:5] for row in figures(html, "API calls by endpoint")] == [
        ["GET /v1/status", "99", "98", "1", "0"],
        ["GET /v1/usage", "1", "0", "0", "1"],
    ]
    assert [row[1:] for row in figures(html, "API calls by key")] == [["100", "98", "1", "1"]]
    assert figures(html, "Errors of API calls") == [
        ["BSE1009", "1", "GET /v1/status"],
        ["BSE5001", "1", "GET /v1/usage"],
    ]


async def test_the_plan_card_tells_plan_balance_use_and_renewal(console_client: ConsoleClientOf) -> None:
    client = await console_client("member", credits="12.5")
    await generation(client.deployment.db, client.account_id, price=20_000)
    html = await client.page("/metrics")
    assert "Unlimited" in html
    assert "$12.480" in html
    assert "Used in 30 days</dt><dd>$0.020" in html
    await client.deployment.db.execute(
        """UPDATE accounts SET period_anchor = now(), period_starts_at = now(),
               period_ends_at = now() + interval '1 month' WHERE id = $1""",
        client.account_id,
    )
    html = await client.page("/metrics")
    assert "Used this period</dt><dd>$0.020" in html
    assert re.search(r"Renewal</dt><dd>\d{4}-\d\d-\d\d", html)


async def test_quantiles_of_latency_are_right_to_a_fifth(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    key = await key_of(client.deployment.db, client.account_id)
    await log(
        client.deployment.db,
        client.account_id,
        key,
        *[{"duration_us": 500 * number} for number in range(1, 1001)],
    )
    [row] = figures(await client.page("/metrics"), "API calls by endpoint")
    told = [float(cell.removesuffix(" ms")) for cell in row[-3:]]
    assert told == [pytest.approx(250, rel=0.2), pytest.approx(475, rel=0.2), pytest.approx(495, rel=0.2)]


@pytest.mark.parametrize(
    ("period", "ages", "seen"),
    [
        ("24h", (0, 2, 8, 40), 1),
        ("7d", (0, 2, 8, 40), 2),
        ("30d", (0, 2, 8, 40), 3),
        ("90d", (0, 2, 8, 40, 89), 5),
    ],
)
async def test_a_period_has_what_lies_in_it(
    console_client: ConsoleClientOf, period: str, ages: tuple[int, ...], seen: int
) -> None:
    client = await console_client("member")
    db = client.deployment.db
    key = await key_of(db, client.account_id)
    await log(db, client.account_id, key, *[{"age_s": age * DAY} for age in ages])
    while await store.condense_usage(db):
        pass
    html = await client.page(f"/metrics?period={period}")
    assert sums(html, "API calls by status") == [seen, 0, 0]
    assert figures(html, "API calls by key")[0][1] == str(seen)
    assert sum(row[1:] != ["0"] * 3 for row in figures(html, "Latency of API calls")) == seen
    assert len(figures(html, "API calls by status")) == {"24h": 24, "7d": 28, "30d": 30, "90d": 90}[period]


async def test_an_unknown_period_is_the_usual_one(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    await _traffic(client)
    assert len(figures(await client.page("/metrics?period=1y"), "API calls by status")) == 24


async def test_nothing_of_another_account_is_counted(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    await _traffic(other)
    assert "No requests in the last 24 hours" in await client.page("/metrics")


async def test_charts_have_titles_and_their_figures_as_tables(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    await _traffic(client)
    html = await client.page("/metrics")
    assert html.count('role="img"') >= 4
    for title in ("Generations by status", "Credits charged", "API calls by status", "Latency of API calls"):
        assert f"<title>{title}</title><desc>" in html
        assert figures(html, title)


async def test_names_are_never_markup(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db, account = client.deployment.db, client.account_id
    key = await key_of(db, account)
    await db.execute("UPDATE api_keys SET name = $2 WHERE id = $1", key, EVIL)
    await log(db, account, key, {"endpoint": EVIL, "status": 400, "code": EVIL})
    await generation(db, account, model=EVIL, providers=(EVIL, EVIL + "2"), failure=("failed", EVIL))
    html = await client.page("/metrics")
    assert "<img" not in html
    assert unescape(html).count(EVIL) >= 6


# ------------------------------------------------------------------------------- roll-ups


async def test_old_hours_become_days_and_no_sum_changes(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db, account = client.deployment.db, client.account_id
    key = await key_of(db, account)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    age = (datetime.now(UTC) - midnight).total_seconds()
    # Three hours of a day that is over for long, one of them its first, and one hour of the last days.
    old = [age + 12 * DAY - hours * 3600 - 60 for hours in (0, 5, 9)]
    await log(db, account, key, *[{"age_s": each} for each in [*old, *old, age + 2 * DAY - 3 * 3600]])
    assert len(await counted(db, "usage_keys", account, "hour, requests, 1")) == 4
    while await store.condense_usage(db):
        pass
    days = [(midnight - timedelta(12), 6, 1), (midnight - timedelta(2), 1, 1)]
    kept = await counted(db, "usage_keys", account, "date_trunc('day', hour, 'UTC'), requests, 1")
    assert kept == days
    assert await counted(db, "usage_latency", account, "date_trunc('day', hour, 'UTC'), requests, 1") == days
    [first, last] = await counted(db, "usage_keys", account, "hour, requests, 1")
    assert first[0] == midnight - timedelta(12)
    assert last[0] == midnight - timedelta(days=2, hours=-3)


async def test_the_day_in_which_a_period_began_keeps_its_hours(console_client: ConsoleClientOf) -> None:
    """What a period has cost is asked for by the hour in which it began."""
    client = await console_client("owner")
    db, account = client.deployment.db, client.account_id
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    for days in (20, 21):
        for hours in (0, 1):
            await db.execute(
                """INSERT INTO usage_generations (account_id, hour, model, provider, status, generations, charged,
                                                  total_ms)
                   VALUES ($1, $2, 'm', 'p', 'succeeded', 1, 10, 5)""",
                account,
                noon - timedelta(days=days, hours=hours),
            )
    began = noon - timedelta(days=20)
    await db.execute(
        """UPDATE accounts SET period_anchor = $2, period_starts_at = $2,
               period_ends_at = $2::timestamptz + interval '31 days' WHERE id = $1""",
        account,
        began + timedelta(minutes=30),
    )
    while await store.condense_usage(db):
        pass
    assert await counted(db, "usage_generations", account, "hour, generations, charged, total_ms") == [
        (began - timedelta(days=1, hours=12), 2, 20, 10),
        (began - timedelta(hours=1), 1, 10, 5),
        (began, 1, 10, 5),
    ]
    assert (await metrics_store.standing(db, account))["charged"] == 10


async def test_old_roll_ups_are_forgotten(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db, account = client.deployment.db, client.account_id
    key = await key_of(db, account)
    for table, columns, values in (
        ("usage_keys", "apikey_id, status_class, requests", f"'{key}', 2, 1"),
        ("usage_latency", "endpoint, bucket, requests", "'e', 1, 1"),
        ("usage_failovers", "provider, next_provider, reason, failovers", "'a', 'b', 'c', 1"),
        (
            "usage_generations",
            "model, provider, status, generations, charged, total_ms",
            "'m', 'p', 'failed', 1, 0, 0",
        ),
    ):
        await db.execute(
            f"""INSERT INTO {table} (account_id, hour, {columns})
                SELECT $1, now() - make_interval(days => age), {values} FROM unnest(ARRAY[94, 96]) AS age""",
            account,
        )
        while await store.forget_usage(db):
            pass
        assert len(await counted(db, table, account, "1, 2, 3")) == 1


async def test_a_retry_at_the_same_provider_is_no_failover(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db, account = client.deployment.db, client.account_id
    await generation(db, account, providers=("fal", "fal", "bfl"))
    columns = "provider, next_provider, reason, failovers"
    assert await counted(db, "usage_failovers", account, columns) == [("fal", "bfl", "refused_busy", 1)]


async def test_a_refused_batch_of_the_log_counts_nothing(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db, account = client.deployment.db, client.account_id
    with pytest.raises(Exception, match="null value"):
        await log(db, account, uuid4(), {}, {"agent": "a", "ip_hash": None})
    assert await counted(db, "usage_keys", account, "1, 2, 3") == []
    assert await counted(db, "usage_latency", account, "1, 2, 3") == []


# ------------------------------------------------------------------------------- pure


@pytest.mark.parametrize(
    ("period", "since"),
    [
        ("24h", datetime(2026, 4, 27, 14, tzinfo=UTC)),
        ("7d", datetime(2026, 4, 21, 18, tzinfo=UTC)),
        ("30d", datetime(2026, 3, 30, tzinfo=UTC)),
        ("90d", datetime(2026, 1, 29, tzinfo=UTC)),
    ],
)
def test_the_last_slot_is_the_present_one(period: str, since: datetime) -> None:
    now = datetime(2026, 4, 28, 13, 59, 30, tzinfo=UTC)
    span = Span.of(period, now)
    assert span.since == since
    assert span.place(now) == span.slots - 1
    assert [span.place(moment) for moment in span.moments()] == list(range(span.slots))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "–"), (0.0042, "4.2 ms"), (0.31, "310 ms"), (2.44, "2.4 s"), (600, "10.0 min")],
)
def test_times_are_told_in_their_unit(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told
