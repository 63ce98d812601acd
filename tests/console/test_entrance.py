"""Coming in: signing up, signing in, the second step, links that work once, invitations."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from typing import Any
from uuid import uuid4

import httpx
import pyotp
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, activity_of, console_of, make_person, open_client
from tests.support import Deployment, ManualClock, eventually, make_account

from babysea_server.accounts import invitations, user_store, users
from babysea_server.accounts.activity import OPERATOR
from babysea_server.accounts.passwords import LENGTH_MIN
from babysea_server.accounts.totp import new_recovery_codes, recovery_hash
from babysea_server.accounts.user_store import User
from babysea_server.console.attempts import PER_EMAIL

PASSWORD = "correct horse battery"


async def _user(deployment: Deployment, *, password: str | None = PASSWORD) -> User:
    """A user with a personal account."""
    region = console_of(deployment).regions["us"]
    hash = None if password is None else await region.passwords.hash(password)
    async with deployment.db.transaction() as connection:
        made = await users.sign_up(
            connection,
            email=f"{uuid4().hex[:10]}@example.com",
            name="Grace Hopper",
            password=hash,
            plan=region.plans["free"],
        )
    return made.user


async def _sign_in(
    client: ConsoleClient, user: User, password: str = PASSWORD, **fields: Any
) -> httpx.Response:
    return await client.submit("/console/sign-in", {"email": user.email, "password": password, **fields})


async def _inside(client: ConsoleClient) -> bool:
    """Whether somebody is signed in in this browser."""
    response = await client.get("/console/region/us")
    location: str = response.headers.get("location", "")
    return location.endswith("/metrics")


async def _only_account(deployment: Deployment, user: User) -> Any:
    return await deployment.db.fetchval("SELECT account_id FROM memberships WHERE user_id = $1", user.id)


# ------------------------------------------------------------------------------- e-mail and password


async def test_the_right_password_opens_with_a_fresh_session(
    console: Deployment, stranger: ConsoleClient
) -> None:
    user = await _user(console)
    response = await _sign_in(stranger, user, next="/console/us/x/logs")
    assert response.status_code == 303
    assert response.headers["location"] == "/console/us/x/logs"
    first = stranger.http.cookies["babysea-us"]
    assert len(first) >= 43
    assert await _inside(stranger)
    # Whoever signs in again gets another token, and the one before opens nothing any more.
    await _sign_in(stranger, user)
    assert stranger.http.cookies["babysea-us"] != first
    async with open_client(console) as thief:
        thief.take_token(first)
        assert not await _inside(thief)
    done = await activity_of(console, await _only_account(console, user))
    assert [action for action, _ in done] == ["account.created", "auth.signed_in", "auth.signed_in"]


async def test_a_wrong_password_and_an_unknown_address_are_answered_alike(
    console: Deployment, stranger: ConsoleClient
) -> None:
    user = await _user(console)
    wrong = await _sign_in(stranger, user, "wrong horse battery")
    unknown = await stranger.submit(
        "/console/sign-in", {"email": "nobody@example.com", "password": "wrong horse battery"}
    )
    without = await _sign_in(stranger, await _user(console, password=None), "no hash")
    for response in (wrong, unknown, without):
        assert response.status_code == 422
        assert "E-mail address or password is not right." in response.text
    strip = re.compile(r"req_\w+|value=\"[^\"]*\"|nonce-[\w-]+")
    assert strip.sub("", wrong.text) == strip.sub("", unknown.text) == strip.sub("", without.text)
    assert "wrong horse battery" not in wrong.text
    assert not await _inside(stranger)


async def test_guessing_a_password_is_ended_for_a_minute_even_for_the_right_one(
    make_deployment: MakeDeployment,
) -> None:
    clock = ManualClock()
    deployment = await make_deployment(worker=False, clock=clock)
    user = await _user(deployment)
    for number in range(PER_EMAIL):  # from many addresses
        async with open_client(deployment) as client:
            assert (await _sign_in(client, user, f"guess number {number}")).status_code == 422
    async with open_client(deployment) as client:
        response = await _sign_in(client, user)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert "Too many attempts" in response.text
        clock.advance(60)
        assert (await _sign_in(client, user)).status_code == 303


@pytest.mark.parametrize("next", ["https://evil.example/", "//evil.example", "/\\evil.example"])
async def test_signing_in_leads_nowhere_else(console: Deployment, stranger: ConsoleClient, next: str) -> None:
    response = await _sign_in(stranger, await _user(console), next=next)
    assert response.headers["location"] == "/console/region/us"


# ------------------------------------------------------------------------------- the second step


async def _with_second_step(deployment: Deployment) -> tuple[User, pyotp.TOTP, list[str]]:
    user = await _user(deployment)
    secret, codes = pyotp.random_base32(), list(new_recovery_codes())
    sealed = console_of(deployment).regions["us"].secrets.seal(secret)
    await user_store.set_totp_pending(deployment.db, user.id, sealed)
    async with deployment.db.transaction() as connection:
        await user_store.confirm_totp(connection, user.id, 0, [recovery_hash(code) for code in codes])
    return user, pyotp.TOTP(secret), codes


async def test_the_second_step_lets_in_and_none_of_its_codes_works_twice(
    make_deployment: MakeDeployment,
) -> None:
    clock = ManualClock()
    deployment = await make_deployment(worker=False, clock=clock)
    user, totp, _ = await _with_second_step(deployment)
    async with open_client(deployment) as client:
        response = await _sign_in(client, user)
        assert response.headers["location"].startswith("/console/second-step?region=us")
        between = client.http.cookies["babysea-us"]
        assert not await _inside(client)
        assert (await client.submit("/console/second-step", {"code": "000 000"})).status_code == 422
        code = totp.at(clock.now())
        assert (
            await client.submit("/console/second-step", {"code": f"{code[:3]} {code[3:]}"})
        ).status_code == 303
        assert await _inside(client)
        assert client.http.cookies["babysea-us"] != between
    async with open_client(deployment) as client:
        await _sign_in(client, user)
        assert (await client.submit("/console/second-step", {"code": code})).status_code == 422
        clock.advance(30)
        response = await client.submit("/console/second-step", {"code": totp.at(clock.now())})
        assert response.status_code == 303


async def test_a_recovery_code_lets_in_once(console: Deployment) -> None:
    user, _, codes = await _with_second_step(console)
    for expected in (303, 422):
        async with open_client(console) as client:
            await _sign_in(client, user)
            written = codes[0].upper().replace("-", " ")
            assert (await client.submit("/console/second-step", {"code": written})).status_code == expected


async def test_a_one_time_link_does_not_go_around_the_second_step(console: Deployment) -> None:
    user, _, _ = await _with_second_step(console)
    token = await users.new_sign_in_link(console.db, user.id)
    async with open_client(console) as client:
        assert (await client.submit(f"/console/link/us/{token}")).status_code == 403
        assert not await _inside(client)


# ------------------------------------------------------------------------------- links


async def test_a_sign_in_link_works_once_and_only_by_its_button(console: Deployment) -> None:
    user = await _user(console, password=None)
    token = await users.new_sign_in_link(console.db, user.id)
    async with open_client(console) as client:
        await client.page(f"/console/link/us/{token}")  # as whoever looks at links in chats does
        assert not await _inside(client)
        assert (await client.submit(f"/console/link/us/{token}")).status_code == 303
        assert await _inside(client)
    async with open_client(console) as client:
        assert (await client.get(f"/console/link/us/{token}")).status_code == 404


async def test_a_sign_in_link_is_over_after_an_hour_and_with_the_next_one(console: Deployment) -> None:
    user = await _user(console, password=None)
    first = await users.new_sign_in_link(console.db, user.id)
    second = await users.new_sign_in_link(console.db, user.id)
    async with open_client(console) as client:
        assert (await client.get(f"/console/link/us/{first}")).status_code == 404
        assert (await client.get(f"/console/link/us/{second}")).status_code == 200
        await console.db.execute("UPDATE sign_in_links SET expires_at = now() WHERE user_id = $1", user.id)
        assert (await client.get(f"/console/link/us/{second}")).status_code == 404


class _Mailbox:
    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  (the library's name)
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.texts.append((str(message["Subject"]), message.get_content()))
        return "250 OK"


@asynccontextmanager
async def _mail_server() -> AsyncIterator[tuple[_Mailbox, str]]:
    mailbox = _Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(mailbox, hostname="localhost", loop=loop), "127.0.0.1", 0)
    try:
        yield mailbox, f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}?starttls=never"
    finally:
        server.close()


async def test_a_forgotten_password_is_set_anew_by_mail_and_ends_all_sessions(
    make_deployment: MakeDeployment,
) -> None:
    async with _mail_server() as (mailbox, url):
        deployment = await make_deployment(
            worker=False,
            smtp_url=url,
            smtp_from="BabySea <console@example.org>",
            console_url="http://localhost",
        )
        user = await _user(deployment)
        async with open_client(deployment) as signed_in, open_client(deployment) as client:
            await _sign_in(signed_in, user)
            answers = [
                await client.submit("/console/forgot-password", {"email": email})
                for email in ("nobody@example.com", user.email.upper())
            ]
            assert all("a link is on its way" in answer.text for answer in answers)

            async def mailed() -> str | None:
                return mailbox.texts[0][1] if mailbox.texts else None

            link = re.search(r"http://localhost(/console/reset/us/\S+)", await eventually(mailed))
            assert link is not None
            assert len(mailbox.texts) == 1
            assert mailbox.texts[0][0] == "Reset your password"
            assert (await client.submit(link[1], {"password": "short"})).status_code == 422
            response = await client.submit(link[1], {"password": "another horse battery"})
            assert "Your password is set." in (await client.follow(response)).text
            assert (await client.get(link[1])).status_code == 404
            assert not await _inside(signed_in)
            assert (await _sign_in(client, user)).status_code == 422
            assert (await _sign_in(client, user, "another horse battery")).status_code == 303


async def test_without_a_mail_server_the_page_says_whom_to_ask(stranger: ConsoleClient) -> None:
    html = await stranger.page("/console/forgot-password")
    assert "babysea-server users reset-password" in html
    assert "<form" not in html.partition('class="outside-card"')[2]


# ------------------------------------------------------------------------------- signing up


async def _sign_up(client: ConsoleClient, query: str = "", **fields: Any) -> httpx.Response:
    given = {"name": "Ada", "email": f"{uuid4().hex[:10]}@example.com", "password": PASSWORD, **fields}
    return await client.submit(f"/console/sign-up{query}", given)


async def test_the_first_user_of_a_region_needs_no_invitation_and_the_second_does(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(worker=False)
    async with open_client(deployment) as client, open_client(deployment) as second:
        html = await second.page("/console/sign-up")
        assert (await _sign_up(client)).status_code == 303
        assert await _inside(client)
        assert "Only who is invited can sign up" in await second.page("/console/sign-up")
        late = await second.http.post(
            "/console/sign-up",
            data={
                "csrf": re.findall(r'name="csrf" value="(\w+)"', html)[0],
                "region": "us",
                "name": "Late",
                "email": "late@example.com",
                "password": PASSWORD,
            },
        )
        assert late.status_code == 403
    assert await user_store.by_email(deployment.db, "late@example.com") is None


async def test_of_two_first_users_at_once_one_is_made(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False)
    async with open_client(deployment) as one, open_client(deployment) as other:
        answers = await asyncio.gather(_sign_up(one), _sign_up(other))
    assert sorted(answer.status_code for answer in answers)[0] == 303
    assert await deployment.db.fetchval("SELECT count(*) FROM users") == 1


async def test_signing_up_makes_a_personal_account_with_the_credits_of_its_plan(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(worker=False, sign_up="open")
    async with open_client(deployment) as client:
        await _sign_up(client, name="Ada Lovelace", email="Ada@Example.com")
        where = (await client.get("/console/region/us")).headers["location"]
        assert where == "/console/us/ada-lovelace/metrics"
        assert "$1.000" in (await client.get(where)).text
        again = await _sign_up(client, email="ada@example.COM")
        assert again.status_code == 422
        assert "There is a user with this e-mail address already." in again.text
        other = await _sign_up(client, name="Ada Lovelace")
        assert other.status_code == 303


async def test_where_signing_up_is_closed_nobody_does_even_invited(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(worker=False, sign_up="closed")
    account_id, _ = await make_account(deployment.db)
    _, token = await invitations.invite(
        deployment.db, account_id, email="new@example.com", role="member", by_role="owner", actor=OPERATOR
    )
    async with open_client(deployment) as client:
        html = await client.page(f"/console/sign-up?invitation={token}")
        assert "Nobody can sign up here" in html
        assert 'name="password"' not in html


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"password": "x" * (LENGTH_MIN - 1)}, "A password has 12 to 200 characters."),
        ({"password": "x" * 201}, "A password has 12 to 200 characters."),
        ({"password": "a" * 20}, "This password is too easy to guess."),
        ({"email": "nobody"}, "This is not an e-mail address."),
        ({"email": "a b@example.com"}, "This is not an e-mail address."),
        ({"name": " "}, "A name has 1 to 100 characters."),
    ],
)
async def test_what_cannot_be_is_told_beside_its_field(
    console: Deployment, stranger: ConsoleClient, fields: dict[str, str], told: str
) -> None:
    account_id, _ = await make_account(console.db)
    _, token = await invitations.invite(
        console.db, account_id, email="x@example.com", role="member", by_role="owner", actor=OPERATOR
    )
    response = await _sign_up(stranger, f"?invitation={token}", **fields)
    assert response.status_code == 422
    assert told in response.text


# ------------------------------------------------------------------------------- invitations


async def _invite(client: ConsoleClient, role: str = "member") -> str:
    _, token = await invitations.invite(
        client.deployment.db,
        client.account_id,
        email=f"{uuid4().hex[:10]}@example.com",
        role="owner" if role == "owner" else "member",
        by_role="primary-owner",
        actor=OPERATOR,
    )
    return token


async def test_an_invitation_makes_somebody_new_a_member_once(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    owner = await console_client()
    token = await _invite(owner, "owner")
    async with open_client(console) as client:
        html = await client.page(f"/console/invitation/us/{token}")
        assert "invites you as owner" in html
        response = await _sign_up(client, f"?invitation={token}", name="Edsger")
        assert response.headers["location"] == f"/console/us/{owner.person.slug}/metrics"
        assert (await client.get(f"/console/us/{owner.person.slug}/api-keys/new")).status_code == 200
        assert (await client.get(f"/console/invitation/us/{token}")).status_code == 404
    done = await activity_of(console, owner.account_id)
    assert [action for action, _ in done] == ["invitation.created", "invitation.accepted"]


async def test_an_invitation_makes_a_user_a_member_under_a_new_token(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    owner, guest = await console_client(), await console_client()
    token = await _invite(owner)
    response = await guest.submit(f"/console/invitation/us/{token}")
    assert response.headers["location"] == f"/console/us/{owner.person.slug}/metrics"
    assert guest.http.cookies["babysea-us"] != guest.person.token
    assert (await guest.follow(response)).status_code == 200


async def test_an_invitation_is_over_after_seven_days_and_when_it_is_revoked(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    owner, guest = await console_client(), await console_client()
    for change in ("expires_at = now()", "revoked_at = now()"):
        token = await _invite(owner)
        path = f"/console/invitation/us/{token}"
        assert (await guest.get(path)).status_code == 200
        await console.db.execute(
            f"UPDATE invitations SET {change} WHERE account_id = $1 AND revoked_at IS NULL", owner.account_id
        )
        assert (await guest.get(path)).status_code == 404


async def test_a_team_account_belongs_to_who_made_it(console: Deployment) -> None:
    user = await _user(console)
    async with open_client(console) as client:
        await _sign_in(client, user)
        where = (await client.get("/console/region/us")).headers["location"].removesuffix("/metrics")
        response = await client.submit(f"{where}/new-account", {"name": "Studio Ghibli"})
        assert response.headers["location"] == "/console/us/studio-ghibli/metrics"
        html = (await client.follow(response)).text
        assert "Studio Ghibli" in html
        assert "Team · primary-owner" in html
        assert (await client.submit(f"{where}/new-account", {"name": ""})).status_code == 422


async def test_whoever_is_in_no_account_is_told(console: Deployment) -> None:
    account_id, _ = await make_account(console.db)
    person = await make_person(console, account_id, "member")
    async with open_client(console, person) as client:
        await console.db.execute("DELETE FROM memberships WHERE user_id = $1", person.user.id)
        assert "You are in no account" in await client.page("/console/region/us")
        assert (await client.get(f"/console/us/{person.slug}/api-keys")).status_code == 404
        await client.submit("/console/region/us", action="/console/leave")
        assert (await client.get("/console/region/us")).status_code == 303


async def test_the_theme_is_remembered(stranger: ConsoleClient) -> None:
    assert 'data-theme="auto"' in await stranger.page("/console/sign-in")
    fields = {"theme": "dark", "next": "/console/sign-in"}
    response = await stranger.http.post("/console/theme", data=fields)
    assert response.headers["location"] == "/console/sign-in"
    assert 'data-theme="dark"' in await stranger.page("/console/sign-in")
    refused = await stranger.http.post(
        "/console/theme", data=fields, headers={"origin": "https://evil.example"}
    )
    assert refused.status_code == 403
