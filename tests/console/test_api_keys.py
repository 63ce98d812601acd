"""API keys in the console: created, shown once, rotated, revoked, deleted, listed."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, activity_of

from babysea_server.keys import store
from babysea_server.keys.scopes import PRESETS, SCOPES
from babysea_server.keys.service import issue


async def _keys(client: ConsoleClient) -> list[store.ApiKey]:
    return list(await store.of_account(client.deployment.db, client.account_id))


def _secret_in(html: str) -> str:
    found = re.search(r"bye_[\w-]{40}", html)
    assert found is not None, "no key in the page"
    return found[0]


async def _create(client: ConsoleClient, **fields: Any) -> str:
    """Create a key; the page that shows it."""
    response = await client.submit("/api-keys/new", {"name": "Production", **fields})
    return (await client.follow(response)).text


async def test_a_new_key_is_shown_once_and_works(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    response = await client.submit("/api-keys/new", {"name": "Production"})
    shown = await client.follow(response)
    assert "You can only see this key once. Store it safely." in shown.text
    secret = _secret_in(shown.text)
    assert "curl http://localhost/v1/status" in shown.text
    answer = await client.http.get("/v1/status", headers={"authorization": f"Bearer {secret}"})
    assert answer.json()["data"]["apikey_name"] == "Production"
    again = await client.follow(response)
    assert secret not in again.text
    assert "has been shown" in again.text
    assert secret not in await client.page("/api-keys")


async def test_the_key_that_waits_to_be_shown_is_sealed(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    response = await client.submit("/api-keys/new", {"name": "Production"})
    kept = await client.deployment.db.fetchval(
        "SELECT flash::text FROM sessions WHERE user_id = $1", client.person.user.id
    )
    secret = _secret_in((await client.follow(response)).text)
    assert kept
    assert secret not in kept
    assert secret.encode().hex() not in kept


async def test_a_key_gets_preset_allowlist_and_expiry(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    await _create(
        client,
        preset="monitor_only",
        allowlist="203.0.113.7, 198.51.100.0/24",
        expires="custom",
        expires_on="2031-03-01",
    )
    key = (await _keys(client))[-1]
    assert key.scopes == list(PRESETS["monitor_only"])
    assert key.allowlist == ["203.0.113.7/32", "198.51.100.0/24"]
    assert key.expires_at == datetime(2031, 3, 2, tzinfo=UTC)


async def test_a_key_gets_the_scopes_that_are_ticked(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    await _create(client, preset="custom", scopes=[SCOPES[1], SCOPES[4]])
    assert (await _keys(client))[-1].scopes == [SCOPES[1], SCOPES[4]]


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"name": ""}, "name", "Enter a name of 1 to 100 characters."),
        ({"name": "x" * 101}, "name", "Enter a name of 1 to 100 characters."),
        ({"allowlist": "203.0.113.7, nowhere"}, "allowlist", "is not an IP address or network."),
        ({"expires": "custom", "expires_on": "2001-01-01"}, "expires_on", "would have expired"),
        ({"expires": "custom", "expires_on": "soon"}, "expires_on", "Enter a date."),
        ({"expires": "custom", "expires_on": "9999-12-31"}, "expires_on", "Enter a date."),
    ],
)
async def test_a_wrong_field_is_told_beside_it_and_the_rest_is_kept(
    console_client: ConsoleClientOf, fields: dict[str, str], field: str, told: str
) -> None:
    client = await console_client("owner")
    before = await _keys(client)
    response = await client.submit("/api-keys/new", {"name": "Kept name", "preset": "read_only", **fields})
    assert response.status_code == 422
    assert told in response.text
    assert re.search(rf'id="f-{field}"[^>]*aria-describedby="f-{field}-error', response.text)
    assert 'value="read_only" checked' in response.text
    if field != "name":
        assert 'value="Kept name"' in response.text
    assert await _keys(client) == before


async def test_no_scope_and_no_preset_are_refused(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    for fields in ({"preset": "custom"}, {"preset": "everything"}, {"preset": "custom", "scopes": "root"}):
        response = await client.submit("/api-keys/new", {"name": "x", **fields})
        assert response.status_code == 422


async def test_a_rotated_key_works_through_its_grace_and_its_replacement_is_shown(
    console_client: ConsoleClientOf,
) -> None:
    client = await console_client("owner")
    old = _secret_in(await _create(client))
    key = (await _keys(client))[-1]
    response = await client.submit(f"/api-keys/{key.id}/rotate", {"grace": "6"})
    shown = (await client.follow(response)).text
    new = _secret_in(shown)
    assert new != old
    assert "The old key works until" in shown
    for secret in (old, new):
        answer = await client.http.get("/v1/status", headers={"authorization": f"Bearer {secret}"})
        assert answer.status_code == 200
    again = await client.submit(f"/api-keys/{key.id}/rotate", {"grace": "6"})
    assert again.status_code == 422
    assert "Only an active key can be rotated. It is rotated." in again.text


async def test_there_are_only_the_graces_of_the_contract(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    await _create(client)
    key = (await _keys(client))[-1]
    html = await client.page(f"/api-keys/{key.id}/rotate")
    assert re.findall(r'<option value="(\d+)"', html) == ["1", "6", "12", "24", "48", "72", "168"]
    response = await client.submit(f"/api-keys/{key.id}/rotate", {"grace": "100000"})
    assert response.status_code == 422


async def test_a_revoked_and_a_deleted_key_stop_working(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    for verb, told in (("revoke", "was revoked"), ("delete", "was deleted")):
        secret = _secret_in(await _create(client, name=f"To {verb}"))
        key = (await _keys(client))[-1]
        response = await client.submit(f"/api-keys/{key.id}/{verb}")
        assert told in (await client.follow(response)).text
        answer = await client.http.get("/v1/status", headers={"authorization": f"Bearer {secret}"})
        assert answer.status_code == 401
    assert [key.name for key in await _keys(client)][1:] == ["To revoke"]


async def test_every_change_is_in_the_activity_with_its_actor(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    await _create(client, name="Server")
    key = (await _keys(client))[-1]
    await client.submit(f"/api-keys/{key.id}/rotate", {"grace": "1"})
    await client.submit(f"/api-keys/{key.id}/revoke")
    await client.submit(f"/api-keys/{key.id}/delete")
    done = await activity_of(client.deployment, client.account_id)
    assert [action for action, _ in done] == [
        "api_key.created",
        "api_key.rotated",
        "api_key.revoked",
        "api_key.deleted",
    ]
    assert all("Server" in description and "bye_" in description for _, description in done)
    actors = await client.deployment.db.fetch(
        "SELECT DISTINCT actor, actor_id FROM activity WHERE account_id = $1", client.account_id
    )
    assert [tuple(row) for row in actors] == [("user", client.person.user.id)]


async def test_the_list_is_searched_filtered_sorted_and_paged(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db = client.deployment.db
    for number in range(30):
        await issue(db, account_id=client.account_id, name=f"Key {number:02}", scopes=SCOPES)
    first = await client.page("/api-keys?sort=name")
    assert "31 results" in first
    assert re.findall(r"Key (\d\d)</a>", first) == [f"{number:02}" for number in range(25)]
    second = await client.page("/api-keys?sort=name&page=2")
    assert re.findall(r"Key (\d\d)</a>", second) == ["25", "26", "27", "28", "29"]
    found = await client.page("/api-keys?q=KEY+07")
    assert re.findall(r"Key (\d\d)</a>", found) == ["07"]
    assert "No key matches" in await client.page("/api-keys?state=revoked")
    assert "No key matches" in await client.page("/api-keys?q=%25")


async def test_a_key_of_another_account_is_not_there(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    theirs = (await _keys(other))[0]
    for path in ("", "/rotate", "/revoke", "/delete", "/secret"):
        assert (await client.get(f"/api-keys/{theirs.id}{path}")).status_code == 404
    for verb in ("rotate", "revoke", "delete"):
        assert (await client.post(f"/api-keys/{theirs.id}/{verb}", {"grace": "1"})).status_code == 404
    assert [key.state for key in await _keys(other)] == ["active"]


async def test_a_member_sees_keys_and_no_buttons(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    html = await client.page("/api-keys")
    assert "/api-keys/new" not in html
    assert "/revoke" not in html
    key = (await _keys(client))[0]
    assert "/revoke" not in await client.page(f"/api-keys/{key.id}")


async def test_without_keys_the_page_says_what_to_do(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    await client.deployment.db.execute("DELETE FROM api_keys WHERE account_id = $1", client.account_id)
    assert "Create your first API key" in await client.page("/api-keys")


async def test_names_are_never_markup(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    evil = "<img src=x onerror=alert(1)>\"'"
    await _create(client, name=evil)
    key = (await _keys(client))[-1]
    for path in (
        "",
        f"/{key.id}",
        f"/{key.id}/rotate",
        f"/{key.id}/revoke",
        f"/{key.id}/delete",
        "?q=" + evil,
    ):
        html = await client.page(f"/api-keys{path}")
        assert "<img src=x" not in html
        assert "&lt;img src=x onerror=alert(1)&gt;" in html


async def test_what_is_no_id_is_no_page(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    assert (await client.get("/api-keys/none")).status_code == 404
    assert (await client.get(f"/api-keys/{UUID(int=7)}")).status_code == 404
