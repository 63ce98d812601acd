"""Credits: the balance and the ledger behind it; a generation with what it cost and who was tried."""

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from uuid import UUID, uuid4

import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient
from tests.console.traffic import generation, settle

from babysea_server.console import credits_store
from babysea_server.console.row_export import EXPORT_MAX
from babysea_server.ledger import store as ledger

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def rows_of(html: str) -> list[tuple[str, str, str]]:
    """Type, amount and balance after of each row of the ledger's table."""
    found = re.findall(
        r'data-label="Type">(.*?)</td>.*?data-label="Amount">(.*?)</td>.*?data-label="Balance after">(.*?)</td>',
        html,
        re.S,
    )
    return [tuple(re.sub("<[^>]+>", "", cell).strip() for cell in row) for row in found]  # type: ignore[misc]  # three cells


def next_of(html: str) -> str | None:
    """The address of the next page."""
    found = re.search(r'rel="next" href="([^"]+)"', html)
    return None if found is None else unescape(found[1])


async def test_the_heading_is_the_balance(console_client: ConsoleClientOf) -> None:
    client = await console_client("member", credits="12.48")
    assert "<h1><bdi>Credits : $12.480</bdi></h1>" in await client.page("/credits")


async def test_every_row_tells_its_change_and_the_balance_after_it(console_client: ConsoleClientOf) -> None:
    client = await console_client("member", credits="1")
    db = client.deployment.db
    done = await generation(db, client.account_id, price=30_000)
    failed = await generation(db, client.account_id, price=20_000, status="failed")
    html = await client.page("/credits")
    assert rows_of(html) == [
        ("Refund", "+$0.020", "$0.970"),
        ("Reserve", "−$0.020", "$0.950"),
        ("Charge", "$0.030", "$0.970"),
        ("Reserve", "−$0.030", "$0.970"),
        ("Add", "+$1.000", "$1.000"),
    ]
    for id in (done, failed):
        assert client.url(f"/generations/{id}") in html
    assert client.url("/models/sandbox/image") in html
    assert "test" in html  # why it was added


async def test_the_ledger_is_filtered_searched_and_sorted(console_client: ConsoleClientOf) -> None:
    client = await console_client("member", credits="1")
    db = client.deployment.db
    ids = [
        await generation(db, client.account_id, price=10_000, status=each) for each in ("succeeded", "failed")
    ]
    for kind, number in (("add", 1), ("reserve", 2), ("charge", 1), ("refund", 1)):
        found = rows_of(await client.page(f"/credits?type={kind}"))
        assert [row[0] for row in found] == [kind.capitalize()] * number
    assert [row[0] for row in rows_of(await client.page(f"/credits?q={ids[0]}"))] == ["Charge", "Reserve"]
    oldest = rows_of(await client.page("/credits?sort=time"))
    assert oldest == rows_of(await client.page("/credits"))[::-1]
    for query in (f"q={uuid4()}", "q=nothing"):
        assert "Nothing matches" in await client.page(f"/credits?{query}")
    assert len(rows_of(await client.page("/credits?type=theft"))) == 5


@pytest.mark.parametrize("order", ["", "&sort=time"])
async def test_pages_go_on_where_the_one_before_ended(console_client: ConsoleClientOf, order: str) -> None:
    client = await console_client("member", credits="0")
    for number in range(1, 61):
        await ledger.add(client.deployment.db, client.account_id, number * 1_000_000, f"No. {number}")
    html = await client.page(f"/credits?type=add{order}")
    amounts = [row[1] for row in rows_of(html)]
    while (following := next_of(html)) is not None:
        html = await client.page(following)
        amounts += [row[1] for row in rows_of(html)]
    expected = [f"+${number}.000" for number in range(1, 61)]
    assert amounts == (expected if order else expected[::-1])


async def test_without_a_ledger_the_page_says_what_to_do(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner", credits="0")
    html = await client.page("/credits")
    assert "No credits yet" in html
    assert client.url("/billing") in html


async def test_balances_of_the_past_are_those_of_the_ledger(console_client: ConsoleClientOf) -> None:
    """Found by bisection between rows of other accounts, which are in the same ledger."""
    client, other = await console_client("owner", credits="0"), await console_client("owner", credits="0")
    db = client.deployment.db
    start = datetime.now(UTC) - timedelta(days=20)
    insert = """INSERT INTO ledger (account_id, kind, amount, balance_after, description, created_at)
                VALUES ($1, 'add', 1, $2, 'test', $3)"""
    for day in range(20):
        for account, factor in ((client.account_id, 1), (other.account_id, 1000), (client.account_id, 2)):
            at = start + timedelta(days=day, minutes=factor)
            await db.execute(insert, account, factor * 10 + day * 100, at)
    moments = [start - timedelta(days=1), *[start + timedelta(days=day, hours=1) for day in range(20)]]
    found = await credits_store.balances(db, client.account_id, moments)
    assert found == [0, *[20 + day * 100 for day in range(20)]]
    between = await credits_store.balances(db, client.account_id, [start + timedelta(days=3, seconds=90)])
    assert between == [10 + 300]
    assert await credits_store.balances(db, uuid4(), moments) == [0] * 21


async def test_the_chart_ends_at_the_present_balance(console_client: ConsoleClientOf) -> None:
    client = await console_client("member", credits="3")
    for period, slots in (("", 30), ("?period=24h", 24), ("?period=7d", 28), ("?period=90d", 90)):
        html = await client.page(f"/credits{period}")
        chart = html.partition('<caption class="hidden">Balance</caption>')[2].partition("</table>")[0]
        values = re.findall(r"<td>([^<]*)</td>", chart)
        assert len(values) == slots
        assert values[-1] == "$3.00"
        assert values[0] == "$0.00"


async def test_exports_hold_what_the_filters_show(console_client: ConsoleClientOf) -> None:
    client = await console_client("member", credits="1")
    id = await generation(client.deployment.db, client.account_id, price=250_000)
    await ledger.add(client.deployment.db, client.account_id, 1, "=cmd()")
    rows = (await client.get("/credits/export.json?type=reserve")).json()
    assert [row | {"time": "", "id": 0} for row in rows] == [
        {
            "time": "",
            "id": 0,
            "type": "reserve",
            "amount": 0.25,
            "balance_change": -0.25,
            "balance_after": 0.75,
            "model": "sandbox/image",
            "generation_id": str(id),
            "description": "sandbox/image",
        }
    ]
    response = await client.get("/credits/export.csv")
    assert response.headers["content-disposition"] == 'attachment; filename="credits.csv"'
    table = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["type"] for row in table] == ["add", "charge", "reserve", "add"]
    assert table[0]["description"] == "'=cmd()"
    assert table[2]["balance_change"] == "-0.25"
    assert f"at most {EXPORT_MAX:,} rows" in await client.page("/credits")
    assert (await client.get("/credits/export.json?q=nothing")).json() == []


# ------------------------------------------------------------------------------- a generation


async def _page(client: ConsoleClient, id: UUID) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", await client.page(f"/generations/{id}")))


async def test_a_generation_tells_its_attempts_outputs_and_money(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    key = "outputs/2026/04/28/019dd3a0-5b1e-7d65-8c7a-2f0b8e1c9a44/0.png"
    id = await generation(
        client.deployment.db,
        client.account_id,
        providers=("bfl", "fal"),
        price=30_000,
        inputs={"generation_prompt": "a lighthouse", "generation_ratio": "16:9"},
        outputs=[
            {"key": key, "content_type": "image/png"},
            {"key": key[:-5] + "1.mp4", "content_type": "video/mp4"},
        ],
    )
    html = await client.page(f"/generations/{id}")
    text = await _page(client, id)
    assert f'data-live="generation:{id}">Succeeded' in html
    for told in (
        "a lighthouse",
        "16:9",
        "1. bfl",
        "refused_busy",
        "BSE6001",
        "2. fal",
        "$0.03",
        "1.0 s",
        "900 ms",
    ):
        assert told in text
    assert re.search(rf'<img src="http://localhost/files/{key}\?expires=\d+&amp;signature=', html)
    assert re.search(r"<video controls[^>]* src=\"http://localhost/files/[^\"]*1\.mp4", html)
    assert [row[0] for row in rows_of(html)] == ["Reserve", "Charge"]


async def test_what_was_removed_or_is_running_has_no_outputs(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    db = client.deployment.db
    id = await generation(db, client.account_id, status="pending")
    assert "They are being made." in await client.page(f"/generations/{id}")
    await settle(
        db, client.account_id, id, "succeeded", "fal", [{"key": "outputs/a", "content_type": "image/png"}]
    )
    assert "<img" in await client.page(f"/generations/{id}")
    await db.execute("UPDATE generations SET files_removed_at = now() WHERE id = $1", id)
    html = await client.page(f"/generations/{id}")
    assert "when the plan's time for files was over" in unescape(html)
    assert "<img" not in html


async def test_of_a_deleted_generation_money_and_attempts_stay(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    db = client.deployment.db
    id = await generation(db, client.account_id, model="a/b", inputs={"generation_prompt": "a secret"})
    await db.execute(
        "SELECT remove_generations_v1(ARRAY[$1::uuid], ARRAY[$2::uuid], false)", client.account_id, id
    )
    text = await _page(client, id)
    assert "This generation was deleted" in text
    assert "1. fal" in text
    assert "a secret" not in text
    assert [row[0] for row in rows_of(await client.page(f"/generations/{id}"))] == ["Reserve", "Charge"]


async def test_a_generation_of_another_account_is_not_there(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    id = await generation(other.deployment.db, other.account_id)
    for path in (f"/generations/{id}", f"/generations/{uuid4()}", "/generations/none"):
        assert (await client.get(path)).status_code == 404
    assert rows_of(await client.page("/credits")) == rows_of(await client.page("/credits?type=add"))
    assert "Nothing matches" in await client.page(f"/credits?q={id}")


async def test_nothing_that_was_sent_is_markup(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db = client.deployment.db
    await ledger.add(db, client.account_id, 1, EVIL)
    id = await generation(
        db,
        client.account_id,
        model=EVIL,
        status="failed",
        providers=(EVIL,),
        inputs={EVIL: EVIL, "generation_input_file": [EVIL, EVIL]},
        error=("BSE5002", EVIL),
        failure=("failed", EVIL),
    )
    for path in ("/credits", f"/credits?q={EVIL}", f"/credits?type={EVIL}", f"/generations/{id}"):
        html = await client.page(path)
        assert "<img src=x" not in html
        assert "<script>alert" not in html
    assert unescape(await client.page(f"/generations/{id}")).count(EVIL) >= 6
