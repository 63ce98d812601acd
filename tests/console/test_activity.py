"""Activity in the console: narrowed by category, actor and text, paged, and exported as a stream."""

import csv
import io
import json
import re
from typing import Any

import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, make_person

from babysea_server.accounts.activity import CATEGORIES, OPERATOR, SYSTEM, Actor, record
from babysea_server.accounts.users import actor_of
from babysea_server.console import activity_store
from babysea_server.console.pages import activity


async def _record(
    client: ConsoleClient, *descriptions: str, action: str = "credit.granted", actor: Actor = SYSTEM
) -> None:
    for description in descriptions:
        await record(client.deployment.db, client.account_id, actor, action, description)


def _listed(html: str) -> list[str]:
    return re.findall(r"<bdi[^>]*>(.*?)</bdi>", html.partition("</h1>")[2])


async def _exported(client: ConsoleClient, query: str = "") -> list[dict[str, Any]]:
    response = await client.get(f"/activity/export.json{query}")
    assert response.status_code == 200
    entries: list[dict[str, Any]] = json.loads(response.content)
    return entries


async def test_every_category_can_be_filtered(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    for category in CATEGORIES:
        await _record(client, f"of {category}", action=f"{category}.done")
    assert len(_listed(await client.page("/activity"))) == len(CATEGORIES) == 14
    for category in CATEGORIES:
        html = await client.page(f"/activity?category={category}")
        assert _listed(html) == [f"of {category}"]
        assert f'<option value="{category}" selected>' in html


async def test_actors_can_be_filtered_also_former_ones(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    deployment = client.deployment
    former = await make_person(
        deployment, client.account_id, "member", email=f"former-{client.person.slug}@example.com"
    )
    await _record(client, "by former", actor=actor_of(former.user))
    await _record(client, "by me", actor=actor_of(client.person.user))
    await _record(client, "by operator", actor=OPERATOR)
    await _record(client, "by system")
    await deployment.db.execute("DELETE FROM memberships WHERE user_id = $1", former.user.id)
    assert _listed(await client.page("/activity?actor=operator")) == ["by operator"]
    assert _listed(await client.page("/activity?actor=system")) == ["by system"]
    assert _listed(await client.page(f"/activity?actor={client.person.user.id}")) == ["by me"]
    html = await client.page(f"/activity?actor={former.user.id}")
    assert _listed(html) == ["by former"]
    assert f'<option value="{former.user.id}" selected>{former.user.email}</option>' in html
    assert _listed(await client.page("/activity?q=OPERATOR")) == ["by operator"]
    assert "No entry matches" in await client.page("/activity?q=%25")


async def test_entries_are_paged_newest_or_oldest_first(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    names = [f"entry {number}" for number in range(60)]
    await _record(client, *names)
    for sort, expected in (("-created", names[::-1]), ("created", names)):
        seen, query = [], f"?sort={sort}"
        while True:
            html = await client.page(f"/activity{query}")
            seen += _listed(html)
            following = re.search(r'rel="next" href="[^?]*([^"]*)"', html)
            if following is None:
                break
            query = following[1].replace("&amp;", "&")
        assert seen == expected
    assert len(_listed(await client.page("/activity?after=-1"))) == 25
    assert "end of the list" in await client.page("/activity?after=0")


async def test_a_narrow_search_looks_through_so_many_and_offers_to_go_on(
    console_client: ConsoleClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await console_client("owner")
    await _record(client, "the first", *(f"entry {number}" for number in range(30)))
    monkeypatch.setattr(activity_store, "LOOKED_THROUGH", 20)
    html = await client.page("/activity?q=the+first")
    assert "20 entries were looked through." in html
    further = re.search(r'href="[^"]*\?([^"]*)">Look further', html)
    assert further
    html = await client.page(f"/activity?{further[1].replace('&amp;', '&')}")
    assert _listed(html) == ["the first"]
    assert [entry["description"] for entry in await _exported(client, "?q=the+first")] == ["the first"]


async def test_a_page_is_read_in_the_order_of_an_index(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db = client.deployment.db
    await db.execute(
        """INSERT INTO activity (account_id, actor, actor_name, action, description)
           SELECT $1, 'system', 'BabySea', 'generation.deleted', 'n ' || n FROM generate_series(1, 10000) AS n""",
        client.account_id,
    )
    await db.execute("ANALYZE activity")
    for descending in (True, False):
        statement = activity_store.entries_statement(descending=descending)
        start = 2**63 - 1 if descending else 0
        rows = await db.fetch(f"EXPLAIN {statement}", client.account_id, start, None, None, None, "", 26)
        plan = "\n".join(row[0] for row in rows)
        assert re.search(r"Index Scan.* using activity_(of_account|pkey)", plan)
        assert "Sort" not in plan


async def test_an_export_holds_what_the_page_is_narrowed_to(
    console_client: ConsoleClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await console_client("member")
    monkeypatch.setattr(activity, "EXPORT_STEP", 7)
    names = [f"entry {number}" for number in range(30)]
    await _record(client, *names)
    await _record(client, "a key", action="api_key.created", actor=actor_of(client.person.user))
    every = await _exported(client)
    assert [entry["description"] for entry in every] == ["a key", *names[::-1]]
    assert every[0]["actor_id"] == str(client.person.user.id)
    assert every[0]["created_at"].endswith("Z")
    assert [entry["description"] for entry in await _exported(client, "?category=api_key")] == ["a key"]
    assert await _exported(client, "?q=nothing") == []
    response = await client.get("/activity/export.csv?category=credit&sort=created")
    assert response.headers["content-disposition"] == 'attachment; filename="activity.csv"'
    assert response.headers["x-content-type-options"] == "nosniff"
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["description"] for row in rows] == names[::-1]
    monkeypatch.setattr(activity, "EXPORT_MAX", 10)
    assert len(await _exported(client)) == 10
    html = await client.page("/activity?category=credit&q=entry")
    assert "/activity/export.csv?q=entry&amp;category=credit" in html


async def test_a_spreadsheet_takes_no_cell_for_a_formula(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    await _record(client, *(f"{sign}1+1" for sign in "=+-@\t"), 'a "b",\nc')
    response = await client.get("/activity/export.csv")
    rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
    cells = [row["description"] for row in rows]
    assert cells == ['a "b",\nc', *(f"'{sign}1+1" for sign in "\t@-+=")]


async def test_entries_of_another_account_are_not_there(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    await _record(other, "theirs")
    assert "Nothing was done yet" in await client.page("/activity")
    assert await _exported(client) == []
    assert (await client.get(f"/console/us/{other.person.slug}/activity/export.csv")).status_code == 404


async def test_texts_are_never_markup(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    evil = "<img src=x onerror=alert(1)>\"'"
    await _record(client, evil, actor=Actor("user", evil, client.person.user.id))
    for query in ("", f"?q={evil}", f"?actor={evil}", f"?category={evil}"):
        html = await client.page(f"/activity{query}")
        assert "<img" not in html
        assert ("&lt;img src=x" in html) == ("category" not in query), (
            "a category that there is not is not shown"
        )
