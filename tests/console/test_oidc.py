"""Signing in through an identity provider: a real one on this machine, from the button to the session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit
from uuid import uuid4

import httpx
import pytest
from tests.conftest import deployment_settings
from tests.console.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, running_provider
from tests.console.people import EVIL, PASSWORD, signed_in, signed_up
from tests.console.support import ConsoleClient, activity_of, console_of, deployed, forms_of, open_client
from tests.databases import Databases
from tests.support import Deployment, JumpingClock

from babysea_server.accounts import user_store
from babysea_server.accounts.totp import new_secret
from babysea_server.app.shared import build_shared
from babysea_server.console.oidc import OidcSettings, begin_way, find_way
from babysea_server.console.oidc_client import OidcClient
from babysea_server.kit.clock import SystemClock
from babysea_server.settings import SettingsError

CALLBACK = "/console/oidc/callback"


@asynccontextmanager
async def _deployed(databases: Databases, provider: Provider, **settings: Any) -> AsyncIterator[Deployment]:
    chosen = {
        "console_url": "http://localhost",
        "oidc_issuer": provider.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        "oidc_name": "Example ID",
        "sign_up": "open",
        **settings,
    }
    with TemporaryDirectory(prefix="babysea-oidc-") as folder:
        async with databases.fresh() as dsn:
            shared = build_shared(deployment_settings(Path(folder), **chosen), JumpingClock())
            async with deployed(shared, dsn) as deployment:
                provider.clock = shared.clock
                yield deployment


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[Provider]:
    """The provider of this module."""
    async with running_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
async def shared_console(databases: Databases, provider: Provider) -> AsyncIterator[Deployment]:
    """A console where everybody may sign up, for all tests of this module."""
    async with _deployed(databases, provider) as deployment:
        yield deployment


@pytest.fixture
async def oidc(shared_console: Deployment, provider: Provider) -> Deployment:
    """The same, with a provider that is as it should be and knows somebody new."""
    fresh = Provider()
    for name in ("id_claims", "in_userinfo", "userinfo_subject", "sign_with", "discovery"):
        setattr(provider, name, getattr(fresh, name))
    someone = uuid4().hex[:10]
    provider.person = {
        "sub": f"sub-{someone}",
        "email": f"{someone}@example.com",
        "email_verified": True,
        "name": "Hedy Lamarr",
    }
    provider.requests.clear()
    client = console_of(shared_console).regions["us"].oidc
    assert client is not None
    client._provider = client._keys = None  # as after a start
    provider.clock = console_of(shared_console).regions["us"].clock
    return shared_console


async def _go(client: ConsoleClient, next: str = "") -> httpx.Response:
    """From the button to the provider; its answer, which leads back."""
    html = await client.page("/console/sign-in" + (f"?next={next}" if next else ""))
    assert "Continue with Example ID" in html
    response = await client.get("/console/oidc/start/us" + (f"?next={next}" if next else ""))
    assert response.status_code == 303, response.text
    async with httpx.AsyncClient() as there:
        return await there.get(response.headers["location"])


async def _sign_in(client: ConsoleClient, next: str = "") -> httpx.Response:
    """The whole way there and back."""
    back = await _go(client, next)
    assert back.status_code == 302
    return await client.get(_path(back.headers["location"]))


def _path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def _changed(url: str, **changes: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{urlencode({**dict(parse_qsl(parts.query)), **changes})}"


async def _who(client: ConsoleClient) -> str | None:
    """The address of who is signed in in this browser, or None."""
    token = client.http.cookies.get("babysea-us")
    found = await console_of(client.deployment).regions["us"].sessions.find(token) if token else None
    return None if found is None or found.session.awaits_totp else found.user.email


# ------------------------------------------------------------------------------- coming in


async def test_somebody_new_gets_a_user_and_comes_back_as_the_same(
    oidc: Deployment, provider: Provider
) -> None:
    async with open_client(oidc) as client:
        response = await _sign_in(client)
        assert response.status_code == 303
        assert response.headers["location"] == "/console/region/us"
        assert await _who(client) == provider.person["email"]
        home = await client.follow(await client.follow(response))
        assert "Hedy Lamarr" in home.text
        assert "have no password yet" not in home.text
        assert provider.issuer in await client.page(
            urlsplit(str(home.url)).path.replace("metrics", "profile/security")
        )
    user = await user_store.by_email(oidc.db, provider.person["email"])
    assert user is not None
    account = await oidc.db.fetchval("SELECT account_id FROM memberships WHERE user_id = $1", user.id)
    done = [action for action, _ in await activity_of(oidc, account)]
    assert done == ["account.created", "auth.identity_linked", "auth.signed_in"]
    # It is the subject that counts: the address may change there.
    provider.person["email"] = f"new-{provider.person['email']}"
    async with open_client(oidc) as client:
        await _sign_in(client)
        assert await _who(client) == user.email


async def test_the_way_goes_on_to_where_it_began_and_never_to_another_site(oidc: Deployment) -> None:
    async with open_client(oidc) as client:
        response = await _sign_in(client, "/console/us/x/logs")
        assert response.headers["location"] == "/console/us/x/logs"
    for next in ("https://evil.example", "//evil.example", "/console//evil.example", "/console/../x"):
        async with open_client(oidc) as client:
            response = await _sign_in(client, next)
            assert response.headers["location"] == "/console/region/us"


async def test_a_session_is_fresh_whatever_was_planted(oidc: Deployment) -> None:
    async with open_client(oidc) as client:
        client.take_token("planted" * 6)
        await _sign_in(client)
        assert client.http.cookies["babysea-us"] != "planted" * 6
        assert await _who(client) is not None


async def test_the_address_may_come_from_the_userinfo_endpoint(oidc: Deployment, provider: Provider) -> None:
    provider.in_userinfo = True
    async with open_client(oidc) as client:
        await _sign_in(client)
        assert await _who(client) == provider.person["email"]
    provider.userinfo_subject = "somebody-else"
    async with open_client(oidc) as client:
        assert (await _sign_in(client)).status_code == 502


async def test_a_name_with_markup_is_text_and_one_that_is_none_is_made_up(
    oidc: Deployment, provider: Provider
) -> None:
    provider.person["name"] = EVIL
    async with open_client(oidc) as client:
        response = await client.follow(await client.follow(await _sign_in(client)))
        assert "<script>alert" not in response.text
    provider.person |= {"sub": "other-" + provider.person["sub"], "email": "x" + provider.person["email"]}
    provider.person["name"] = ["a", "list"]
    async with open_client(oidc) as client:
        await _sign_in(client)
        user = await user_store.by_email(oidc.db, provider.person["email"])
        assert user is not None
        assert user.name == provider.person["email"].partition("@")[0]


async def test_the_second_step_of_a_user_is_asked_for_here_too(oidc: Deployment, provider: Provider) -> None:
    async with open_client(oidc) as client:
        await _sign_in(client)
    box = console_of(oidc).regions["us"].secrets
    await oidc.db.execute(
        "UPDATE users SET totp_secret = $2 WHERE email = $1", provider.person["email"], box.seal(new_secret())
    )
    async with open_client(oidc) as client:
        response = await _sign_in(client, "/console/us/x/logs")
        assert (
            response.headers["location"] == "/console/second-step?region=us&next=%2Fconsole%2Fus%2Fx%2Flogs"
        )
        assert await _who(client) is None


# ------------------------------------------------------------------------------- linking


async def test_a_user_with_a_password_is_linked_once_it_was_given(
    oidc: Deployment, provider: Provider
) -> None:
    made = await signed_up(oidc, email=provider.person["email"].upper())
    async with open_client(oidc) as client:
        asked = await _sign_in(client, "/console/us/x/logs")
        assert asked.status_code == 200
        assert "There is a user with the address" in asked.text
        assert await _who(client) is None
        wrong = await _give_password(client, asked, "wrong horse battery")
        assert wrong.status_code == 422
        assert "The password is not right." in wrong.text
        response = await _give_password(client, wrong, PASSWORD)
        assert response.headers["location"] == "/console/us/x/logs"
        assert await _who(client) == made.user.email
    async with open_client(oidc) as client:
        assert (await _sign_in(client)).status_code == 303
        assert await _who(client) == made.user.email


async def _give_password(client: ConsoleClient, page: httpx.Response, password: str) -> httpx.Response:
    form = next(form for form in forms_of(page.text) if form.action == "/console/oidc/link")
    return await client.http.post(form.action, data={**dict(form.fields), "password": password})


async def test_who_waits_to_be_linked_does_so_in_one_browser_for_ten_minutes(
    oidc: Deployment, provider: Provider
) -> None:
    await signed_up(oidc, email=provider.person["email"])
    async with open_client(oidc) as client, open_client(oidc) as other:
        asked = await _sign_in(client)
        foreign = await _sign_in(other)
        sealed = {name: value for name, value in forms_of(asked.text)[-1].fields if name == "identity"}
        form = next(form for form in forms_of(foreign.text) if form.action == "/console/oidc/link")
        stolen = await other.http.post(
            form.action, data={**dict(form.fields), **sealed, "password": PASSWORD}
        )
        assert stolen.status_code == 403
        for wrong in ("", "zz", "00" * 40):
            fields = {**dict(form.fields), "identity": wrong, "password": PASSWORD}
            assert (await other.http.post(form.action, data=fields)).status_code == 403
        clock = console_of(oidc).regions["us"].clock
        assert isinstance(clock, JumpingClock)
        clock.jump(601)
        assert (await _give_password(client, asked, PASSWORD)).status_code == 403
        assert await _who(client) is None


async def test_a_user_without_a_password_is_linked_by_the_verified_address(
    oidc: Deployment, provider: Provider
) -> None:
    made = await signed_up(oidc, password=None, email=provider.person["email"])
    async with open_client(oidc) as client:
        await _sign_in(client)
        assert await _who(client) == made.user.email
    # Somebody else there who gets the address later is not that user.
    provider.person["sub"] = "sub-of-the-next-one"
    async with open_client(oidc) as client:
        assert (await _sign_in(client)).status_code == 403
        assert await _who(client) is None


@pytest.mark.parametrize("verified", [False, None, "false", 1, "yes"])
async def test_an_address_that_is_not_verified_opens_nothing(
    oidc: Deployment, provider: Provider, verified: object
) -> None:
    made = await signed_up(oidc, password=None, email=provider.person["email"])
    provider.person["email_verified"] = verified
    async with open_client(oidc) as client:
        response = await _sign_in(client)
        assert response.status_code == 403
        assert "has not verified your e-mail address" in response.text
        assert await _who(client) is None
    assert await oidc.db.fetchval("SELECT count(*) FROM identities WHERE user_id = $1", made.user.id) == 0


@pytest.mark.parametrize("email", [None, "", "nobody", "a@b@c", f"{EVIL}@example.com", 5])
async def test_without_an_address_nobody_comes_in(
    oidc: Deployment, provider: Provider, email: object
) -> None:
    provider.person["email"] = email
    async with open_client(oidc) as client:
        assert (await _sign_in(client)).status_code == 403


# ------------------------------------------------------------------------------- what is forged


async def test_a_way_back_belongs_to_the_browser_that_set_out(oidc: Deployment) -> None:
    async with open_client(oidc) as attacker, open_client(oidc) as victim:
        back = _path((await _go(attacker)).headers["location"])
        await victim.page("/console/sign-in")
        assert (await victim.get(back)).status_code == 403
        assert await _who(victim) is None
    async with open_client(oidc) as nobody:
        assert (await nobody.get(back)).status_code == 403


async def test_a_way_back_that_was_changed_or_is_too_old_leads_nowhere(oidc: Deployment) -> None:
    async with open_client(oidc) as client:
        back = (await _go(client)).headers["location"]
        state = parse_qs(urlsplit(back).query)["state"][0]
        for wrong in ("", ".", state[:-1], f"x{state}", state.partition(".")[0], "é.é"):
            assert (await client.get(_changed(back, state=wrong))).status_code == 403
        for changes in ({"code": ""}, {"code": "guessed"}, {"iss": "https://other.example"}):
            assert (await client.get(_changed(back, **changes))).status_code == 502
        clock = console_of(oidc).regions["us"].clock
        assert isinstance(clock, JumpingClock)
        clock.jump(601)
        assert (await client.get(_path(back))).status_code == 403


async def test_a_code_is_used_once_and_only_with_the_proof_of_its_way(oidc: Deployment) -> None:
    async with open_client(oidc) as client, open_client(oidc) as other:
        first, second = (await _go(client)).headers["location"], (await _go(other)).headers["location"]
        injected = _changed(second, code=parse_qs(urlsplit(first).query)["code"][0])
        assert (await other.get(injected)).status_code == 502
        assert await _who(other) is None
        assert (await client.get(_path(first))).status_code == 502, "the provider has seen it used"


@pytest.mark.parametrize("sign_with", ["unknown", "none", "client_secret"])
async def test_an_id_token_that_the_provider_did_not_sign_is_refused(
    oidc: Deployment, provider: Provider, sign_with: str
) -> None:
    provider.sign_with = sign_with
    async with open_client(oidc) as client:
        response = await _sign_in(client)
        assert response.status_code == 502
        assert "could not say who you are" in response.text
        assert await _who(client) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "another-client"},
        {"aud": [CLIENT_ID, "another-client"]},
        {"azp": "another-client"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"iat": None},
        {"nonce": "of another way"},
        {"nonce": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 5},
        {"sub": "x" * 256},
        {"at_hash": "of another token"},
    ],
    ids=str,
)
async def test_an_id_token_that_is_not_for_this_way_is_refused(
    oidc: Deployment, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.id_claims = claims
    async with open_client(oidc) as client:
        assert (await _sign_in(client)).status_code == 502
        assert await _who(client) is None


async def test_keys_that_the_provider_changed_are_read_again(oidc: Deployment, provider: Provider) -> None:
    async with open_client(oidc) as client:
        await _sign_in(client)
    before = provider.key
    try:
        provider.key = type(before).generate_key(2048, {"kid": "second", "use": "sig"})
        async with open_client(oidc) as client:
            assert (await _sign_in(client)).status_code == 502, "not again within half a minute"
        clock = console_of(oidc).regions["us"].clock
        assert isinstance(clock, JumpingClock)
        clock.jump(31)
        async with open_client(oidc) as client:
            assert (await _sign_in(client)).status_code == 303
    finally:
        provider.key = before
    assert provider.requests.count("keys") == 2
    assert provider.requests.count("discovery") == 1


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "ftp://127.0.0.1/"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
    ],
    ids=str,
)
async def test_a_discovery_document_that_cannot_be_used_is_not(
    oidc: Deployment, provider: Provider, discovery: dict[str, Any]
) -> None:
    provider.discovery = discovery
    async with open_client(oidc) as client:
        assert (await client.get("/console/oidc/start/us")).status_code == 502


# ------------------------------------------------------------------------------- who may


async def test_with_domains_named_only_their_people_come_in_invited_or_not(
    databases: Databases, oidc: Deployment, provider: Provider
) -> None:
    async with _deployed(
        databases, provider, sign_up="invite", oidc_allowed_domains=["Example.com"]
    ) as deployment:
        await signed_up(deployment)
        async with open_client(deployment) as client:
            assert (await _sign_in(client)).status_code == 303
        provider.person |= {"sub": "x", "email": "x@evil-example.com"}
        async with open_client(deployment) as client:
            response = await _sign_in(client)
            assert response.status_code == 403
            assert "your domain cannot sign in here" in response.text


async def test_by_invitation_only_somebody_new_needs_one(
    databases: Databases, oidc: Deployment, provider: Provider
) -> None:
    async with _deployed(databases, provider, sign_up="invite") as deployment:
        owner = await signed_up(deployment)
        async with open_client(deployment) as client:
            response = await _sign_in(client)
            assert response.status_code == 403
            assert "Only who is invited" in response.text
        async with signed_in(deployment, owner) as inviting:
            response = await inviting.submit(
                "/members/invite", {"email": provider.person["email"], "role": "member"}
            )
            shown = (await inviting.follow(response)).text
        link = "/console/invitation/us/" + shown.partition("/console/invitation/us/")[2].partition("<")[0]
        async with open_client(deployment) as client:
            response = await _sign_in(client, link)
            assert response.headers["location"] == link
            assert (await client.submit(link)).status_code == 303
    async with (
        _deployed(databases, provider, sign_up="closed") as deployment,
        open_client(deployment) as client,
    ):
        assert (await _sign_in(client)).status_code == 403


async def test_without_a_provider_there_is_no_button_and_no_way(stranger: ConsoleClient) -> None:
    assert "Continue with" not in await stranger.page("/console/sign-in")
    assert (await stranger.get("/console/oidc/start/us")).status_code == 404


async def test_at_another_name_of_the_console_the_way_begins_at_its_own(oidc: Deployment) -> None:
    async with open_client(oidc, base="http://127.0.0.1") as client:
        response = await client.get("/console/oidc/start/us?next=/console/us/x/logs")
        assert (
            response.headers["location"] == "http://localhost/console/oidc/start/us?next=/console/us/x/logs"
        )


@pytest.mark.parametrize(
    "issuer", ["http://login.example.com", "ftp://x", "login.example.com", "https://u:p@x", "https://x/#y"]
)
def test_an_issuer_must_be_one_that_can_be_trusted(issuer: str) -> None:
    with pytest.raises(ValueError, match="https"):
        OidcClient(OidcSettings(issuer, "x", None, "x"), SystemClock())


async def test_half_of_the_settings_is_refused_at_the_start(databases: Databases, provider: Provider) -> None:
    with pytest.raises(SettingsError, match="set together"):
        async with _deployed(databases, provider, oidc_client_id=None):
            pass


def test_a_way_is_found_with_its_cookie_and_its_key_only() -> None:
    now = SystemClock().now()
    way = begin_way(b"key", "visit", "us", "/console/us", now)
    assert find_way(b"key", "visit", way.state, now) == way
    assert find_way(b"key", "other", way.state, now) is None
    assert find_way(b"kez", "visit", way.state, now) is None
    assert find_way(b"key", "", way.state, now) is None
    assert len({way.state, way.nonce, way.verifier}) == 3
    assert 43 <= len(way.verifier) <= 128
