"""My profile: name, address, password, second step, sessions, one's data, one's end."""

import asyncio
import html as markup
import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pyotp
import pytest
from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.people import (
    EVIL,
    PASSWORD,
    mail_server,
    next_token,
    signed_in,
    signed_up,
)
from tests.console.support import ConsoleClient, activity_of, console_of, make_person, open_client
from tests.support import Deployment, eventually

from babysea_server.accounts import profiles, user_store
from babysea_server.accounts.sessions import Visitor
from babysea_server.accounts.user_store import User
from babysea_server.console.attempts import PER_EMAIL
from babysea_server.console.browsers import browser_name
from babysea_server.console.faults import PageFaultError
from babysea_server.kit.faults import NotFoundError

PROOF = {"current_password": PASSWORD}
NEW = "another horse battery"


async def _user(deployment: Deployment, user: User) -> User:
    found = await user_store.get(deployment.db, user.id)
    assert found is not None
    return found


async def _elsewhere(deployment: Deployment, user: User) -> str:
    """The token of another session of the user."""
    sessions = console_of(deployment).regions["us"].sessions
    return await sessions.begin(user.id, Visitor("Elsewhere", "1" * 12))


async def _opens(deployment: Deployment, token: str) -> bool:
    return await console_of(deployment).regions["us"].sessions.find(token) is not None


# ------------------------------------------------------------------------------- name and address


async def test_a_name_is_changed_and_one_with_markup_is_text(console: Deployment) -> None:
    made = await signed_up(console)
    async with signed_in(console, made) as client:
        response = await client.submit("/profile", {"name": EVIL})
        page = (await client.follow(response)).text
        assert "Your name was saved." in page
        assert "<script>alert" not in page
        assert (await client.submit("/profile", {"name": " "})).status_code == 422
    assert (await _user(console, made.user)).name == EVIL
    assert (await activity_of(console, made.account.id))[-1][0] == "auth.name_changed"


async def test_an_address_is_changed_by_a_link_to_the_new_one(make_deployment: MakeDeployment) -> None:
    new = f"{uuid4().hex[:8]}@example.com"
    async with mail_server() as (mailbox, settings):
        deployment = await make_deployment(worker=False, **settings)
        made = await signed_up(deployment)
        async with signed_in(deployment, made) as client, open_client(deployment) as anywhere:
            wrong = await client.submit("/profile/email", {"email": new, "current_password": "no"})
            assert wrong.status_code == 422
            response = await client.submit("/profile/email", {"email": new, **PROOF})
            assert "A link is on its way" in response.text
            assert (await _user(deployment, made.user)).email == made.user.email
            link = await mailbox.link_to(new)
            assert new in await anywhere.page(link)
            assert (await _user(deployment, made.user)).email == made.user.email, "looking changes nothing"
            action = link.partition("?")[0]
            done = await anywhere.submit(link, action=action)
            assert "Your address is changed" in done.text
            assert (await anywhere.get(link)).status_code == 404
            assert (await client.get("/profile")).status_code == 200
        assert (await _user(deployment, made.user)).email == new
        assert (
            await deployment.db.fetchval("SELECT email FROM accounts WHERE id = $1", made.account.id) == new
        )
        assert (await activity_of(deployment, made.account.id))[-1][0] == "auth.email_changed"
        assert "tell the operator" in await mailbox.text_to(made.user.email)


async def test_a_link_to_a_new_address_is_bound_to_the_user_as_it_was(console: Deployment) -> None:
    made, other = await signed_up(console), await signed_up(console)
    key = console_of(console).regions["us"].keys.forms
    now = datetime.now(UTC)
    user = made.user
    token = profiles.email_change_token(key, user, "new@example.com", now)
    assert (await profiles.pending_email(console.db, key, token, now))[1] == "new@example.com"
    body, _, seal = token.partition(".")
    for wrong in (
        "",
        ".",
        body,
        f"{body}.{'B' if seal[0] == 'A' else 'A'}{seal[1:]}",
        f"{body}.",
        "é.é",
        f"{profiles.email_change_token(key, user, 'x@example.com', now).partition('.')[0]}.{seal}",
        profiles.email_change_token(bytes(32), user, "new@example.com", now),
    ):
        with pytest.raises(NotFoundError):
            await profiles.change_email(console.db, key, wrong, now)
    with pytest.raises(NotFoundError):
        await profiles.change_email(console.db, key, token, now + timedelta(hours=1, seconds=1))
    taken = profiles.email_change_token(key, user, other.user.email.upper(), now)
    with pytest.raises(profiles.EmailTakenError):
        await profiles.change_email(console.db, key, taken, now)
    await profiles.change_password(console.db, console_of(console).regions["us"].passwords, user, NEW)
    with pytest.raises(NotFoundError):
        await profiles.change_email(console.db, key, token, now)


async def test_of_two_that_use_a_link_at_once_one_succeeds(console: Deployment) -> None:
    made = await signed_up(console)
    key, now = console_of(console).regions["us"].keys.forms, datetime.now(UTC)
    token = profiles.email_change_token(key, made.user, f"{uuid4().hex[:8]}@example.com", now)
    results = await asyncio.gather(
        *(profiles.change_email(console.db, key, token, now) for _ in range(4)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert all(isinstance(result, tuple | NotFoundError) for result in results)


async def test_without_a_mail_server_an_address_stays(console: Deployment) -> None:
    made = await signed_up(console)
    async with signed_in(console, made) as client:
        assert "Ask its operator" in await client.page("/profile/email")
        response = await client.post("/profile/email", {"email": "new@example.com", **PROOF})
        assert response.status_code == 422
        assert "sends no mail" in response.text


# ------------------------------------------------------------------------------- password


async def test_another_password_ends_all_other_sessions_and_changes_the_token(console: Deployment) -> None:
    made = await signed_up(console)
    other = await _elsewhere(console, made.user)
    async with signed_in(console, made) as client:
        before = client.person.token
        fields = {"password": NEW, "again": NEW, **PROOF}
        response = await client.submit("/profile/password", fields)
        assert response.status_code == 303
        after = next_token(client)
        assert after != before
        assert "signed out everywhere else" in (await client.follow(response)).text
        assert not await _opens(console, before)
        assert not await _opens(console, other)
        assert (await client.submit("/profile/password", fields)).status_code == 422, "the old one is none"
    assert (await activity_of(console, made.account.id))[-1][0] == "auth.password_changed"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"password": NEW, "again": NEW, "current_password": "wrong"}, "This is not your password."),
        ({"password": NEW, "again": NEW + "x", **PROOF}, "two different passwords"),
        ({"password": "short", "again": "short", **PROOF}, "12 to 200 characters"),
        ({"password": "a" * 40, "again": "a" * 40, **PROOF}, "too easy to guess"),
    ],
)
async def test_a_password_is_not_changed_when_something_is_wrong(
    console: Deployment, fields: dict[str, str], told: str
) -> None:
    made = await signed_up(console)
    async with signed_in(console, made) as client:
        response = await client.submit("/profile/password", fields)
        assert response.status_code == 422
        assert told in response.text
        assert NEW not in response.text
        assert (await _user(console, made.user)).password == made.user.password


async def test_who_came_by_a_link_sets_a_first_password_without_one(console: Deployment) -> None:
    made = await signed_up(console, password=None)
    async with signed_in(console, made) as client:
        assert "Your password" not in await client.page("/profile/password")
        response = await client.submit("/profile/password", {"password": NEW, "again": NEW})
        assert response.status_code == 303
    assert "set the password" in (await activity_of(console, made.account.id))[-1][1]


async def test_passwords_of_a_session_are_not_tried_without_end(console: Deployment) -> None:
    made = await signed_up(console)
    attempts = console_of(console).regions["us"].attempts
    async with signed_in(console, made) as client:

        async def refused() -> bool | None:
            # All tries of this minute; when it is over just now, of the next.
            with suppress(PageFaultError):
                for _ in range(2 * PER_EMAIL + 1):
                    await attempts.take("", f"password:{made.user.id}")
            fields = {**PROOF, "password": NEW, "again": NEW}
            response = await client.post("/profile/password", fields)
            return response.status_code == 429 or None

        assert await eventually(refused)
    assert (await _user(console, made.user)).password == made.user.password


# ------------------------------------------------------------------------------- the second step


async def _set_up(client: ConsoleClient) -> tuple[str, list[str]]:
    """Turn the second step on; its secret and the recovery codes."""
    response = await client.submit("/profile/security", action="/profile/totp")
    page = (await client.follow(response)).text
    found = re.search(r'class="secret"><code>([A-Z2-7 ]+)</code>', page)
    assert found is not None
    secret = found[1].replace(" ", "")
    assert "QR code for an authenticator app" in page
    fields = {"code": pyotp.TOTP(secret).now(), **PROOF}
    response = await client.submit("/profile/totp", fields, action="/profile/totp/confirm")
    assert response.status_code == 303, response.text
    next_token(client)
    shown = (await client.follow(response)).text
    codes = re.findall(r"\b[a-z2-7]{4}(?:-[a-z2-7]{4}){3}\b", shown.partition("</pre>")[0])
    return secret, codes


async def test_the_second_step_is_set_up_used_and_turned_off(console: Deployment) -> None:
    made = await signed_up(console)
    async with signed_in(console, made) as client:
        before = client.person.token
        secret, codes = await _set_up(client)
        assert len(set(codes)) == 10
        assert not await _opens(console, before)
        assert "The codes have been shown." in await client.page("/profile/recovery-codes/secret")
        assert "10 recovery codes left" in await client.page("/profile/security")
        assert (await client.post("/profile/totp")).headers["location"].endswith("/profile/security")
        async with open_client(console) as other:
            response = await other.submit(
                "/console/sign-in", {"email": made.user.email, "password": PASSWORD}
            )
            assert response.headers["location"].startswith("/console/second-step")
            response = await other.submit(
                response.headers["location"], {"code": codes[0]}, action="/console/second-step"
            )
            assert response.status_code == 303
        assert "9 recovery codes left" in await client.page("/profile/security")
        wrong = await client.submit("/profile/totp/off", {"current_password": "no"})
        assert wrong.status_code == 422
        assert (await _user(console, made.user)).totp_secret is not None
        response = await client.submit("/profile/totp/off", PROOF)
        assert response.status_code == 303
    user = await _user(console, made.user)
    assert user.totp_secret is None
    assert await user_store.recovery_codes_left(console.db, user.id) == 0
    done = [action for action, _ in await activity_of(console, made.account.id)]
    assert "auth.totp_enabled" in done
    assert done[-1] == "auth.totp_disabled"
    assert secret not in str(await console.db.fetchrow("SELECT u::text FROM users u WHERE id = $1", user.id))


async def test_the_second_step_is_not_on_before_its_first_code_and_the_password(console: Deployment) -> None:
    made = await signed_up(console)
    async with signed_in(console, made) as client:
        assert (await client.get("/profile/totp")).status_code == 303
        await client.submit("/profile/security", action="/profile/totp")
        for fields in ({"code": "000000", **PROOF}, {"code": "", **PROOF}):
            response = await client.submit("/profile/totp", fields, action="/profile/totp/confirm")
            assert response.status_code == 422
            assert "This code is not right." in response.text
        sealed = (await _user(console, made.user)).totp_pending
        assert sealed is not None
        code = pyotp.TOTP(console_of(console).regions["us"].secrets.open(sealed)).now()
        response = await client.submit("/profile/totp", {"code": code}, action="/profile/totp/confirm")
        assert response.status_code == 422
        assert (await _user(console, made.user)).totp_secret is None


async def test_new_recovery_codes_take_the_place_of_the_old_ones(console: Deployment) -> None:
    made = await signed_up(console)
    async with signed_in(console, made) as client:
        assert (await client.get("/profile/recovery-codes")).status_code == 404
        _, old = await _set_up(client)
        response = await client.submit("/profile/recovery-codes", PROOF)
        next_token(client)
        shown = (await client.follow(response)).text
        assert len(re.findall(r"[a-z2-7]{4}(?:-[a-z2-7]{4}){3}", shown.partition("</pre>")[0])) == 10
        assert not any(code in shown for code in old)
        assert await user_store.recovery_codes_left(console.db, made.user.id) == 10


async def test_who_has_no_password_confirms_by_having_signed_in_lately(console: Deployment) -> None:
    made = await signed_up(console, password=None)
    async with signed_in(console, made) as client:
        assert (await client.submit("/profile/totp/off")).status_code == 303
        next_token(client)
        await console.db.execute(
            "UPDATE sessions SET created_at = now() - interval '16 minutes' WHERE user_id = $1", made.user.id
        )
        response = await client.submit("/profile/totp/off")
        assert response.status_code == 422
        assert "Sign out and in again first" in response.text


# ------------------------------------------------------------------------------- sessions


async def test_sessions_are_listed_and_ended_one_by_one_or_all_others(console: Deployment) -> None:
    made = await signed_up(console)
    first, second, third = [await _elsewhere(console, made.user) for _ in range(3)]
    async with signed_in(console, made) as client:
        page = await client.page("/profile/sessions")
        assert page.count("data-row=") == 4
        assert "Firefox on Linux" in page
        assert page.count("This one") == 1
        assert (await client.page("/profile/sessions?q=elsewhere")).count("data-row=") == 3
        path = re.search(r"/profile/sessions/[0-9a-f-]+/end", page)
        assert path is not None
        await client.submit("/profile/sessions", action=path[0])
        assert sum([await _opens(console, token) for token in (first, second, third)]) == 2
        await client.submit("/profile/sessions", action="/profile/sessions/end-others")
        assert not any([await _opens(console, token) for token in (first, second, third)])
        assert (await client.page("/profile/sessions")).count("data-row=") == 1
    done = [action for action, _ in await activity_of(console, made.account.id)]
    assert done[-2:] == ["auth.session_ended", "auth.sessions_ended"]


async def test_a_session_of_somebody_else_is_none(console: Deployment) -> None:
    made, other = await signed_up(console), await signed_up(console)
    token = await _elsewhere(console, other.user)
    session_id = await console.db.fetchval("SELECT id FROM sessions WHERE user_id = $1", other.user.id)
    async with signed_in(console, made) as client:
        assert (await client.post(f"/profile/sessions/{session_id}/end")).status_code == 404
        assert (await client.post(f"/profile/sessions/{uuid4()}/end")).status_code == 404
    assert await _opens(console, token)


async def test_what_a_browser_calls_itself_is_text(console: Deployment) -> None:
    made = await signed_up(console)
    await console_of(console).regions["us"].sessions.begin(made.user.id, Visitor(EVIL, "x"))
    async with signed_in(console, made) as client:
        page = await client.page("/profile/sessions")
        assert "<script>alert" not in page
        assert markup.escape(EVIL[:20], quote=False) in page


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile Safari/604.1",
            "Safari on iPhone",
        ),
        ("Mozilla/5.0 (Linux; Android 16) Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8.0", "curl/8.0"),
        ("", "Unknown browser"),
    ],
)
def test_browsers_are_called_as_people_know_them(agent: str, name: str) -> None:
    assert browser_name(agent) == name


# ------------------------------------------------------------------------------- data


async def test_ones_data_is_one_json_document_without_secrets(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    team = await console_client()
    made = await signed_up(console)
    await console.db.execute(
        "INSERT INTO memberships (account_id, user_id, role) VALUES ($1, $2, 'member')",
        team.account_id,
        made.user.id,
    )
    async with signed_in(console, made) as client:
        response = await client.submit("/api-keys/new", {"name": "Mine"})
        shown = re.search(r"bye_[\w-]+", (await client.follow(response)).text)
        assert shown is not None
        await console.db.execute(
            """INSERT INTO generations (id, account_id, apikey_id, model, media, inputs, provider_order, prediction_id,
                   reserved, expires_at)
               SELECT gen_random_uuid(), $1, gen_random_uuid(), 'm', 'image', jsonb_build_object('prompt', n), '{p}',
                   gen_random_uuid(), 0, now() FROM generate_series(1, 1001) AS n""",
            made.account.id,
        )
        response = await client.submit("/profile", action="/profile/data")
        assert response.headers["content-type"] == "application/json"
        assert response.headers["content-disposition"] == 'attachment; filename="babysea-us-my-data.json"'
        token = client.person.token
    data = json.loads(response.content)
    assert data["profile"]["email"] == made.user.email
    assert {each["account_id"] for each in data["memberships"]} == {
        str(made.account.id),
        str(team.account_id),
    }
    assert [account["id"] for account in data["accounts"]] == [str(made.account.id)], (
        "the team's is the team's"
    )
    account = data["accounts"][0]
    assert [key["name"] for key in account["keys"]] == ["Mine"]
    prompts = [generation["inputs"]["prompt"] for generation in account["generations"]]
    assert sorted(prompts) == list(range(1, 1002))
    assert [row["kind"] for row in account["ledger"]] == ["add"] * len(account["ledger"])
    assert "api_key.created" in [entry["action"] for entry in data["activity"]]
    assert "auth.data_exported" in [entry["action"] for entry in data["activity"]]
    for secret in (shown[0], token, made.user.password or ""):
        assert secret not in response.text


async def test_the_data_of_a_user_without_accounts_of_their_own_is_well_formed(
    console_client: ConsoleClientOf,
) -> None:
    client = await console_client("member")
    data = json.loads((await client.submit("/profile", action="/profile/data")).content)
    assert data["accounts"] == []
    assert data["activity"] == []


# ------------------------------------------------------------------------------- the end


async def test_a_deleted_user_is_gone_with_the_personal_account_and_leaves_others(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    team = await console_client()
    made = await signed_up(console)
    await console.db.execute(
        "INSERT INTO memberships (account_id, user_id, role) VALUES ($1, $2, 'owner')",
        team.account_id,
        made.user.id,
    )
    other = await _elsewhere(console, made.user)
    async with signed_in(console, made) as client:
        page = await client.page("/profile/delete")
        assert "You leave 1 account of others" in page
        assert "stop working at once" in page
        for wrong in ({"confirm": "x", **PROOF}, {"confirm": made.user.email, "current_password": "x"}):
            assert (await client.submit("/profile/delete", wrong)).status_code == 422
        response = await client.submit("/profile/delete", {"confirm": made.user.email.upper(), **PROOF})
        assert response.status_code == 303
        assert response.headers["location"] == "/console/sign-in?region=us"
        assert (await client.get("/metrics")).status_code == 303
        refused = await client.submit("/console/sign-in", {"email": made.user.email, "password": PASSWORD})
        assert refused.status_code == 422
    assert not await _opens(console, other)
    assert await user_store.get(console.db, made.user.id) is None
    assert await console.db.fetchval("SELECT count(*) FROM accounts WHERE id = $1", made.account.id) == 0
    assert (await activity_of(console, team.account_id))[-1][0] == "membership.left"
    assert (await activity_of(console, made.account.id))[-1][0] == "account.deleted"
    assert made.user.email not in await team.page("/members")


async def test_the_primary_owner_of_a_team_stays_until_it_is_handed_over(console: Deployment) -> None:
    made = await signed_up(console)
    async with signed_in(console, made) as client:
        await client.submit("/new-account", {"name": "The crew"})
        page = await client.page("/profile/delete")
        assert "The crew" in page
        assert 'name="confirm"' not in page
        response = await client.post("/profile/delete", {"confirm": made.user.email, **PROOF})
        assert response.status_code == 422
        assert "Transfer or delete that first" in response.text
        team = await console.db.fetchval(
            "SELECT account_id FROM memberships WHERE user_id = $1 AND account_id <> $2",
            made.user.id,
            made.account.id,
        )
        heir = await make_person(console, team, "owner")
        slug = heir.slug
        response = await client.submit(
            f"/console/us/{slug}/settings/transfer", {"to": str(heir.user.id), "confirm": "The crew"}
        )
        assert response.status_code == 303
        response = await client.submit("/profile/delete", {"confirm": made.user.email, **PROOF})
        assert response.status_code == 303
    roles = await console.db.fetch("SELECT role::text FROM memberships WHERE account_id = $1", team)
    assert [row["role"] for row in roles] == ["primary-owner"]
