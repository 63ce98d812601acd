"""Every page of the sidebar in a real browser: both themes, a phone and a desk; empty, strange and very full."""

import hashlib
import math
import os
from collections.abc import Sequence
from uuid import UUID

from playwright.async_api import expect
from tests.browser.conftest import ConsolePage, OpenConsole
from tests.console.support import make_person
from tests.console.traffic import generation, key_of, log
from tests.console.webhook_log import happen, make_endpoint, newest, tried

from babysea_server.accounts import domain_store, invitations, notices
from babysea_server.accounts.activity import OPERATOR, SYSTEM, Actor, record
from babysea_server.console.navigation import SIDEBAR
from babysea_server.db.pool import Database
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import issue
from babysea_server.ledger import store as ledger

_SIZES = {375: 812, 1440: 900}
_LOOKS = [(width, theme) for width in _SIZES for theme in ("light", "dark")]
_MODELS = ("bfl/flux-schnell", "google/veo-3-fast", "wan/2.6-t2v", "bfl/flux-1.1-pro")
_REQUESTS = 1_200
_ENDPOINTS = (
    "POST /v1/generate/image/{model_identifier}",
    "GET /v1/content/{generation_id}",
    "GET /v1/content/{generation_id}",
    "GET /v1/content/list",
    "GET /v1/usage",
)
#: Leaves an attribute, asks for a picture that is not there, and runs a script where the policy lets it.
_EVIL = "<img src=x onerror=alert(1)>\"'><script>alert(1)</script>"
_LONG = "Donaudampfschifffahrtsgesellschaftskapitän" * 2
_RTL = "استوديو الصور والفيديو"


async def _seed(
    db: Database, account_id: UUID, *, name: str, people: Sequence[str], keys: Sequence[str]
) -> None:
    """An account that has been used for a while: something of everything that a page shows."""
    await db.execute("UPDATE accounts SET name = $2, is_personal = false WHERE id = $1", account_id, name)
    first = await key_of(db, account_id)
    await db.execute("UPDATE api_keys SET name = $2 WHERE id = $1", first, keys[0])
    ids = [first]
    for each, preset in zip(keys[1:], ("generate_only", "read_only"), strict=False):
        issued = await issue(
            db, account_id=account_id, name=each, scopes=PRESETS[preset], allowlist=["203.0.113.0/24"]
        )
        ids.append(issued.key.id)
    await _traffic(db, account_id, ids)
    endpoint = await make_endpoint(db, account_id, description=f"Orders of {name}")
    await db.execute("UPDATE webhook_endpoints SET state = 'disabled' WHERE account_id = $1", account_id)
    for status in (204, 500):
        await happen(db, account_id, "generation.completed")
        await tried(
            db,
            await newest(db, endpoint),
            (status, None if status < 300 else "http_5xx", name),
            state="delivered",
        )
    async with db.transaction() as connection:
        await domain_store.insert(connection, account_id, f"media-{account_id.hex[-6:]}.studio.example")
        # Too old for the worker to go on looking for its records: no name is asked for outside of this machine.
        await connection.execute(
            """UPDATE custom_domains SET created_at = now() - interval '60 days', checked_at = now()
               WHERE account_id = $1""",
            account_id,
        )
    await ledger.add(db, account_id, 25_000_000, f"Pack of {name}")
    await notices.notify(
        db, account_id, "credits.low_balance", f"The balance of {name} is below 5 credits.", {}
    )
    who = Actor("user", people[0], account_id)
    await invitations.invite(
        db, account_id, email="grace@example.com", role="member", by_role="primary-owner", actor=OPERATOR
    )
    for action, text in (
        ("api_key.created", f"Key “{keys[-1]}” was created"),
        ("credit.granted", "25 credits were added"),
        ("webhook.disabled", "An endpoint was disabled"),
        ("membership.added", f"{people[-1]} became a member"),
    ):
        await record(db, account_id, who if action.startswith("api") else SYSTEM, action, text)


async def _traffic(db: Database, account_id: UUID, keys: Sequence[UUID]) -> None:
    """A day of requests and generations, with the swing of a day and a few failures."""
    requests = []
    for number in range(_REQUESTS):
        place = number / _REQUESTS
        status, code = (
            (429, "BSE1009") if number % 61 == 0 else (500, "BSE5001") if number % 401 == 50 else (200, None)
        )
        requests.append(
            {
                "key": keys[number % 7 % len(keys)],
                "endpoint": _ENDPOINTS[number % len(_ENDPOINTS)],
                "age_s": 80_000 * place + 9_000 * (1 - math.cos(math.tau * place)) / 2 + number % 7 * 31,
                "status": status,
                "code": code,
                "query": {"limit": 50} if number % 5 == 3 else None,
                "replayed": number % 31 == 0,
                "ip_hash": hashlib.sha256(bytes([number % 5])).digest()[:16],
                "agent": "babysea-python/0.1.0" if number % 3 else "curl/8.14.1",
                "duration_us": round(1_800 + 60_000 * (number * 7919 % 97 / 97) ** 5),
            }
        )
    await log(db, account_id, keys[0], *requests)
    for number in range(12):
        await generation(
            db,
            account_id,
            model=_MODELS[number % 4],
            providers=("bfl", "fal") if number % 4 == 0 else ("fal",),
            status="failed" if number == 5 else "canceled" if number == 7 else "succeeded",
            price=30_000 * (1 + number % 3),
        )
    # What ended before the present hour, as settling would have counted it then.
    await db.execute(
        """INSERT INTO usage_generations (account_id, hour, model, provider, status, error_code, generations, charged,
                                          total_ms)
           SELECT $1, date_trunc('hour', now(), 'UTC') - make_interval(hours => hour), model,
                  CASE status WHEN 'succeeded' THEN provider ELSE '' END, status::generation_status,
                  CASE status WHEN 'failed' THEN 'BSE4001' ELSE '' END, many,
                  CASE status WHEN 'succeeded' THEN many * 30000 ELSE 0 END,
                  many * 2400
           FROM generate_series(1, 23) AS hour
           CROSS JOIN unnest($2::text[], ARRAY['fal', 'replicate', 'fal', 'bfl']) AS m (model, provider)
           CROSS JOIN LATERAL (VALUES
               ('succeeded', round(2.4 + 1.6 * sin(hour / 24.0 * 6.28) + length(model) % 2)::bigint),
               ('failed', (hour % 9 = length(model) % 9)::int::bigint)
           ) AS v (status, many)
           WHERE many > 0
           ON CONFLICT DO NOTHING""",
        account_id,
        list(_MODELS),
    )


async def _looks(page: ConsolePage, name: str, looks: Sequence[tuple[int, str]]) -> list[str]:
    """What is wrong with the page that is open, in each size and theme; keeps a picture of each."""
    found = []
    for width, theme in looks:
        await page.tab.set_viewport_size({"width": width, "height": _SIZES[width]})
        await page.tab.emulate_media(
            color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce"
        )
        try:
            await page.check(f"look-{name}-{width}-{theme}")
        except AssertionError as error:
            found.append(f"{name} at {width} in {theme}: {error}")
    return found


async def _every_page(page: ConsolePage, name: str, looks: Sequence[tuple[int, str]]) -> list[str]:
    found = []
    for entry in SIDEBAR:
        await page.open(entry.path)
        found += await _looks(page, f"{name}{entry.path.replace('/', '-')}", looks)
    return found


async def test_every_page_of_a_busy_account_looks_right(console_page: OpenConsole) -> None:
    page = await console_page(credits="87.5")
    people = ["Grace Hopper", "Katherine Johnson", "Alan Turing"]
    for each in people:
        await make_person(page.served.deployment, page.account_id, "member", name=each)
    await _seed(
        page.db, page.account_id, name="Acme Studio", people=people, keys=["Production", "Website", "Reports"]
    )
    assert len(SIDEBAR) == 14
    assert await _every_page(page, "busy", _LOOKS) == []
    for path in ("/metrics", "/logs"):  # the README's pictures
        await page.tab.emulate_media(color_scheme="light", reduced_motion="reduce")
        tab = await page.open(path)
        if folder := os.environ.get("SCREENSHOTS"):
            await tab.screenshot(path=f"{folder}/console{path.replace('/', '-')}.png")


async def test_every_page_of_a_new_account_looks_right(console_page: OpenConsole) -> None:
    page = await console_page(credits="0")
    await page.db.execute("DELETE FROM api_keys WHERE account_id = $1", page.account_id)
    assert await _every_page(page, "empty", [(375, "light"), (1440, "dark")]) == []


async def test_every_page_bears_long_and_hostile_text_and_the_other_direction(
    console_page: OpenConsole,
) -> None:
    page = await console_page(credits="87.5", name=f"{_RTL} {_LONG[:60]}")
    people = [f"{_LONG} {_RTL[:10]}", _EVIL, _RTL]
    for each in people:
        await make_person(page.served.deployment, page.account_id, "member", name=each[:100])
    await _seed(page.db, page.account_id, name=f"{_RTL} {_EVIL}", people=people, keys=[_LONG, _EVIL, _RTL])
    assert await _every_page(page, "strange", [(375, "dark"), (1440, "light")]) == []


async def test_ten_thousand_rows_are_one_page_like_any_other(console_page: OpenConsole) -> None:
    page = await console_page(credits="1000000")
    await page.db.execute(
        """WITH told AS (
               INSERT INTO activity (account_id, actor, actor_name, action, description)
               SELECT $1, 'operator', 'Operator', 'credit.granted', n || ' credits were added'
               FROM generate_series(1, 10000) AS n
           ), noticed AS (
               INSERT INTO notices (id, account_id, kind, text, data)
               SELECT new_id_v1(), $1, 'credits.low_balance', 'The balance is below ' || n || ' credits.', '{}'
               FROM generate_series(1, 10000) AS n
           )
           INSERT INTO ledger (account_id, kind, amount, balance_after, description)
           SELECT $1, 'add', n, 1000000000000 + n, 'Pack ' || n FROM generate_series(1, 10000) AS n""",
        page.account_id,
    )
    found = []
    for path in ("/activity", "/notifications", "/credits"):
        tab = await page.open(f"{path}?size=100")
        await tab.get_by_role("link", name="Next").click()
        await tab.wait_for_url("**after=**")
        await expect(tab.get_by_role("navigation", name="Pages of the list")).to_be_visible()
        found += await _looks(page, f"many{path.replace('/', '-')}", [(375, "light"), (1440, "dark")])
    assert found == []
