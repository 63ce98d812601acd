"""What others try: forged forms, planted sessions, links elsewhere, frames, guessing, large and odd bodies."""

import re

import pytest
from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, console_of, make_person, open_client
from tests.support import Deployment, make_account

from babysea_server.accounts.sessions import Visitor, token_hash
from babysea_server.console.security import local_path
from babysea_server.keys import store as keys


async def _key_names(client: ConsoleClient) -> list[str]:
    return [key.name for key in await keys.of_account(client.deployment.db, client.account_id)]


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
async def test_a_form_without_the_token_of_the_session_changes_nothing(
    console_client: ConsoleClientOf, token: str
) -> None:
    client = await console_client("owner")
    response = await client.http.post(client.url("/api-keys/new"), data={"name": "Forged", "csrf": token})
    assert response.status_code == 403
    assert "Forged" not in await _key_names(client)


async def test_the_token_of_another_session_is_none_here(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    response = await client.http.post(
        client.url("/api-keys/new"), data={"name": "Forged", "csrf": other.csrf, "preset": "read_only"}
    )
    assert response.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
    ],
)
async def test_a_form_that_another_site_sends_is_refused_even_with_the_token(
    console_client: ConsoleClientOf, headers: dict[str, str]
) -> None:
    client = await console_client("owner")
    fields = {"name": "Forged", "preset": "read_only"}
    assert (await client.post("/api-keys/new", fields, headers=headers)).status_code == 403
    assert "Forged" not in await _key_names(client)
    ours = {"sec-fetch-site": "same-origin", "origin": "http://localhost"}
    assert (await client.post("/api-keys/new", fields, headers=ours)).status_code == 303


async def test_every_page_forbids_frames_foreign_scripts_and_sniffing(
    console_client: ConsoleClientOf,
) -> None:
    client = await console_client()
    for path in ("/api-keys", "/console/sign-in", "/none", "/console/static/console.js"):
        response = await client.get(path)
        policy = dict(
            part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert re.fullmatch(r"'self' 'nonce-[\w-]{22}'", policy["script-src"])
        assert "unsafe" not in response.headers["content-security-policy"]
        assert policy["form-action"] == "'self'"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "same-origin"
        assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert (await client.get("/api-keys")).headers["cache-control"] == "no-store"


async def test_no_page_has_inline_styles_or_handlers(console_client: ConsoleClientOf) -> None:
    client = await console_client()
    for path in ("/api-keys", "/api-keys/new", "/new-account", "/console/sign-in", "/none"):
        html = (await client.get(path)).text
        assert not re.search(r"<[^>]+\s(style|on\w+)=", html)
        assert not re.search(r"<script(?![^>]*(\ssrc=|application/json))", html)


async def test_cookies_are_locked_to_the_browser_and_over_tls_to_the_host(
    console: Deployment, make_deployment: MakeDeployment
) -> None:
    async with open_client(console) as client:
        cookie = (await client.get("/console/sign-in")).headers["set-cookie"]
        assert cookie.startswith("babysea-visit=")
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Path=/" in cookie
        assert "Secure" not in cookie
    tls = await make_deployment(worker=False, console_url="https://localhost")
    async with open_client(tls, base="https://localhost") as client:
        cookie = (await client.get("/console/sign-in")).headers["set-cookie"]
        assert cookie.startswith("__Host-babysea-visit=")
        assert "Secure" in cookie
        assert "Domain" not in cookie


async def test_a_planted_token_never_becomes_a_session(console: Deployment) -> None:
    async with open_client(console) as client:
        client.take_token("planted" * 6)
        client.http.cookies.set("babysea-visit", "planted" * 6)
        assert (await client.get("/console/us/any/api-keys")).status_code == 303
        found = await console.db.fetchval(
            "SELECT count(*) FROM sessions WHERE token_hash = $1", token_hash("planted" * 6)
        )
        assert found == 0


async def test_a_token_is_kept_only_as_its_hash(console: Deployment, console_client: ConsoleClientOf) -> None:
    client = await console_client()
    row = await console.db.fetchval(
        "SELECT s::text FROM sessions s WHERE token_hash = $1", token_hash(client.person.token)
    )
    assert client.person.token not in row


async def test_a_session_ends_after_two_weeks_without_use_and_after_ninety_days(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    for change in ("seen_at = now() - interval '14 days'", "expires_at = now()"):
        client = await console_client()
        assert (await client.get("/api-keys")).status_code == 200
        await console.db.execute(f"UPDATE sessions SET {change} WHERE user_id = $1", client.person.user.id)
        assert (await client.get("/api-keys")).status_code == 303


async def test_signing_out_ends_the_session_here_or_everywhere(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client()
    response = await client.post("/sign-out")
    assert response.headers["location"] == "/console/sign-in?region=us"
    client.take_token(client.person.token)
    assert (await client.get("/api-keys")).status_code == 303

    account_id, _ = await make_account(console.db)
    person = await make_person(console, account_id, "owner")
    sessions = console_of(console).regions["us"].sessions
    from_elsewhere = await sessions.begin(person.user.id, Visitor("Another browser", ""))
    async with open_client(console, person) as here:
        await here.post("/sign-out-everywhere")
        for token in (person.token, from_elsewhere):
            here.take_token(token)
            assert (await here.get("/api-keys")).status_code == 303


@pytest.mark.parametrize(
    "there",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/console//evil.example",
        "/console/../v1",
        "/consoleevil",
        "/console/\nx",
        "javascript:alert(1)",
        "http:/console",
        "/%09/evil.example",
        "/v1/status",
        "",
    ],
)
def test_nobody_is_led_out_of_the_console(there: str) -> None:
    assert local_path(there, "default") == "default"


@pytest.mark.parametrize("there", ["/console", "/console/us/a/logs?q=//x&sort=-created", "/console?x=1"])
def test_a_page_of_the_console_is_led_to(there: str) -> None:
    assert local_path(there, "default") == there


async def test_the_page_that_was_wanted_is_remembered_through_signing_in(stranger: ConsoleClient) -> None:
    response = await stranger.get("/console/us/any/logs?q=a%20b")
    assert response.headers["location"] == (
        "/console/sign-in?region=us&next=%2Fconsole%2Fus%2Fany%2Flogs%3Fq%3Da%2520b"
    )
    html = (await stranger.follow(response)).text
    assert 'name="next" value="/console/us/any/logs?q=a%20b"' in html


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x=" + b"y" * 70_000, "application/x-www-form-urlencoded", 413),
        (b"{}", "application/json", 415),
        (b"csrf=%ff", "application/x-www-form-urlencoded", 400),
        (b"name=a%00b", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a=b" for _ in range(600)), "application/x-www-form-urlencoded", 400),
        (b"no boundary", "multipart/form-data", 400),
        (b"no parts", "multipart/form-data; boundary=x", 400),
    ],
)
async def test_odd_bodies_are_refused(
    console_client: ConsoleClientOf, body: bytes, kind: str, status: int
) -> None:
    client = await console_client("owner")
    response = await client.http.post(
        client.url("/api-keys/new"), content=body, headers={"content-type": kind}
    )
    assert response.status_code == status


async def test_the_error_pages_have_a_heading_and_the_request_id(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    for response, title in (
        (await client.get("/none"), "Page not found"),
        (await client.get("/api-keys/new"), "Not allowed"),
        (await client.post("/api-keys"), "Not possible"),
        (await client.get("/console/eu/any/logs"), "Page not found"),
    ):
        assert title in response.text
        assert response.headers["x-request-id"] in response.text
    refused = await client.post("/api-keys")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, HEAD"


async def test_other_names_than_ours_do_not_lead_to_the_console(console: Deployment) -> None:
    async with open_client(console, base="http://evil.example") as client:
        response = await client.get("/console/sign-in")
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "BSE1010"


async def test_where_the_console_is_disabled_there_is_none(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False, console_enabled=False)
    assert (await deployment.client.get("/console/sign-in")).status_code == 403


async def test_static_files_are_kept_for_a_year_under_an_address_that_changes(
    stranger: ConsoleClient,
) -> None:
    html = await stranger.page("/console/sign-in")
    found = re.search(r'href="(/console/static/console\.css\?v=\w+)"', html)
    assert found is not None
    response = await stranger.get(found[1])
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    again = await stranger.get(found[1], headers={"if-none-match": response.headers["etag"]})
    assert again.status_code == 304
    assert (await stranger.get("/console/static/../app.py")).status_code in (403, 404)


async def test_the_scripts_together_are_small(console: Deployment) -> None:
    assets = console_of(console).app.templates.assets
    assert sum(len(asset.content) for name, asset in assets.items() if name.endswith(".js")) < 20 * 1024
