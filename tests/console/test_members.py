"""Members: the list, invitations from link to membership, roles, leaving."""

import re

import pytest
from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.people import EVIL, mail_server, signed_in, signed_up
from tests.console.support import ConsoleClient, activity_of, make_person, open_client
from tests.support import Deployment

from babysea_server.accounts.roles import INVITES, MANAGES, ROLES, Role

INVITED = ("owner", "member")


async def _invite(client: ConsoleClient, email: str, role: str = "member") -> str:
    """Invite somebody; the link without its origin."""
    response = await client.submit("/members/invite", {"email": email, "role": role})
    assert response.status_code == 303, response.text
    html = (await client.follow(response)).text
    link = re.search(r"http://localhost(?::\d+)?(/console/invitation/us/[\w-]+)", html)
    assert link is not None
    return link[1]


async def _role_of(deployment: Deployment, client: ConsoleClient, user_id: object) -> str | None:
    found: str | None = await deployment.db.fetchval(
        "SELECT role::text FROM memberships WHERE account_id = $1 AND user_id = $2",
        client.account_id,
        user_id,
    )
    return found


# ------------------------------------------------------------------------------- the list


async def test_members_are_searched_sorted_filtered_and_paged(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client()
    for number in range(30):
        await make_person(console, client.account_id, "member", name=f"Person {number:02}")
    await make_person(console, client.account_id, "owner", name="Zoë")
    html = await client.page("/members")
    assert html.count("data-row=") == 25
    assert "32 results" in html
    assert html.index("Primary owner") < html.index("Zoë") < html.index("Person 00")
    assert (await client.page("/members?page=2")).count("data-row=") == 7
    assert (await client.page("/members?q=PERSON+07")).count("data-row=") == 1
    assert (await client.page("/members?role=owner")).count("data-row=") == 1
    html = await client.page("/members?sort=-name&size=100")
    assert html.index("Zoë") < html.index("Person 29") < html.index("Person 00")
    assert "Nobody matches" in await client.page("/members?q=nobody")


async def test_names_with_markup_are_text(console: Deployment, console_client: ConsoleClientOf) -> None:
    client = await console_client()
    person = await make_person(console, client.account_id, "member", name=EVIL)
    for path in (
        "/members",
        f"/members/{person.user.id}/role",
        f"/members/{person.user.id}/remove",
        "/settings/transfer",
    ):
        html = await client.page(path)
        assert "<script>alert" not in html
        assert "&lt;script&gt;" in html


# ------------------------------------------------------------------------------- invitations


async def test_an_invitation_is_shown_once_and_makes_a_user_a_member(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client("owner")
    guest = await signed_up(console)
    response = await client.submit("/members/invite", {"email": guest.user.email, "role": "owner"})
    path = response.headers["location"]
    shown = await client.page(path)
    assert "copy the link and pass it on" in shown
    assert "/console/invitation/us/" not in await client.page(path)
    found = re.search(r"/console/invitation/us/[\w-]+", shown)
    assert found is not None
    link = found[0]
    async with signed_in(console, guest) as browser:
        before = browser.http.cookies["babysea-us"]
        assert "invites you as owner" in await browser.page(link)
        response = await browser.submit(link)
        assert response.headers["location"] == f"/console/us/{client.person.slug}/metrics"
        assert browser.http.cookies["babysea-us"] != before
        assert (await browser.follow(response)).status_code == 200
        assert (await browser.get(link)).status_code == 404
    assert await _role_of(console, client, guest.user.id) == "owner"
    done = await activity_of(console, client.account_id)
    assert [action for action, _ in done] == ["invitation.created", "invitation.accepted"]


async def test_an_invitation_lets_somebody_new_sign_up(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client()
    email = f"new-{client.account_id.hex[:8]}@example.com"
    link = await _invite(client, email)
    async with open_client(console) as browser:
        html = await browser.page(link)
        sign_up = re.search(r'href="(/console/sign-up[^"]+)"', html)
        assert sign_up is not None
        response = await browser.submit(
            sign_up[1].replace("&amp;", "&"),
            {"name": "New", "password": "correct horse battery"},
            action="/console/sign-up",
        )
        assert response.headers["location"] == f"/console/us/{client.person.slug}/metrics"
        assert (await browser.follow(response)).status_code == 200


async def test_an_invitation_is_mailed_where_there_is_a_mail_server(
    make_deployment: MakeDeployment, console_client: ConsoleClientOf
) -> None:
    async with mail_server() as (mailbox, settings):
        deployment = await make_deployment(worker=False, **settings)
        client = await console_client(deployment=deployment)
        shown = await _invite(client, "guest@example.com")
        assert await mailbox.link_to("guest@example.com") == shown
        assert mailbox.mails[0][1] == "You are invited to an account"


async def test_inviting_again_makes_a_new_link_and_kills_the_old_one(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client()
    first = await _invite(client, "guest@example.com")
    second = await _invite(client, "GUEST@example.com", "owner")
    html = await client.page("/members/invitations")
    assert html.count("data-row=") == 1
    async with open_client(console) as browser:
        assert (await browser.get(first)).status_code == 404
        assert "as owner" in await browser.page(second)


async def test_a_revoked_and_an_expired_invitation_open_nothing(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client()
    revoked, expired = await _invite(client, "a@example.com"), await _invite(client, "b@example.com")
    await console.db.execute(
        "UPDATE invitations SET expires_at = now() WHERE account_id = $1 AND email = 'b@example.com'",
        client.account_id,
    )
    html = await client.page("/members/invitations?sort=email")
    assert "Expired" in html
    path = re.search(r"/members/invitations/[0-9a-f-]+/revoke", html)
    assert path is not None
    assert (await client.submit(path[0])).status_code == 303
    async with open_client(console) as browser:
        assert (await browser.get(revoked)).status_code == 404
        assert (await browser.get(expired)).status_code == 404
    assert (await activity_of(console, client.account_id))[-1][0] == "invitation.revoked"


@pytest.mark.parametrize("email", ["", "nobody", "a b@example.com", f"{'x' * 250}@example.com", EVIL])
async def test_what_is_no_address_is_not_invited(console_client: ConsoleClientOf, email: str) -> None:
    client = await console_client()
    response = await client.submit("/members/invite", {"email": email, "role": "member"})
    assert response.status_code == 422
    assert "This is not an e-mail address." in response.text
    assert "<script>alert" not in response.text


async def test_a_member_is_not_invited_again(console_client: ConsoleClientOf) -> None:
    client = await console_client()
    response = await client.submit(
        "/members/invite", {"email": client.person.user.email.upper(), "role": "member"}
    )
    assert "is a member already" in response.text


async def test_a_link_of_another_tab_is_not_shown_as_this_ones(console_client: ConsoleClientOf) -> None:
    client = await console_client()
    first = await client.submit("/members/invite", {"email": "a@example.com", "role": "member"})
    await client.submit("/members/invite", {"email": "b@example.com", "role": "member"})
    html = (await client.follow(first)).text
    assert "/console/invitation/" not in html
    assert "The link has been shown" in html


# ------------------------------------------------------------------------------- roles


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("invited", [*INVITED, "primary-owner", "nonsense"])
async def test_each_role_invites_whom_the_table_says(
    console: Deployment, console_client: ConsoleClientOf, role: Role, invited: str
) -> None:
    client = await console_client(role)
    response = await client.post("/members/invite", {"email": "x@example.com", "role": invited})
    expected = 303 if invited in INVITES[role] else 422 if invited == "nonsense" else 403
    assert response.status_code == expected
    made = await console.db.fetchval(
        "SELECT count(*) FROM invitations WHERE account_id = $1", client.account_id
    )
    assert made == (expected == 303)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("invited", INVITED)
async def test_each_role_revokes_what_it_could_have_made(
    console: Deployment, console_client: ConsoleClientOf, role: Role, invited: Role
) -> None:
    owner = await console_client("owner")
    await _invite(owner, "x@example.com", invited)
    client = await console_client(role, account_id=owner.account_id)
    invitation = await console.db.fetchval(
        "SELECT id FROM invitations WHERE account_id = $1", owner.account_id
    )
    response = await client.post(f"/members/invitations/{invitation}/revoke")
    assert response.status_code == (303 if invited in INVITES[role] else 403)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("target", ROLES)
async def test_each_role_changes_and_removes_whom_the_table_says(
    console: Deployment, console_client: ConsoleClientOf, role: Role, target: Role
) -> None:
    if role == target == "primary-owner":
        client = await console_client(role)
        other = client.person
    else:
        client = await console_client(role)
        other = await make_person(console, client.account_id, target)
    manages = target in MANAGES[role]
    for wanted in ROLES:
        response = await client.post(f"/members/{other.user.id}/role", {"role": wanted})
        allowed = manages and wanted in MANAGES[role]
        assert response.status_code == (303 if allowed else 403), wanted
        if allowed:
            assert await _role_of(console, client, other.user.id) == wanted
            await console.db.execute(
                "UPDATE memberships SET role = $3::text::membership_role WHERE account_id = $1 AND user_id = $2",
                client.account_id,
                other.user.id,
                target,
            )
    assert await _role_of(console, client, other.user.id) == target
    response = await client.post(f"/members/{other.user.id}/remove")
    assert response.status_code == (303 if manages else 403)
    assert await _role_of(console, client, other.user.id) == (None if manages else target)


async def test_who_is_removed_or_made_less_is_so_at_the_next_request(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client()
    owner = await console_client("owner", account_id=client.account_id)
    assert (await owner.get("/api-keys/new")).status_code == 200
    response = await client.submit(f"/members/{owner.person.user.id}/role", {"role": "member"})
    assert "is member now" in (await client.follow(response)).text
    assert (await owner.get("/api-keys/new")).status_code == 403
    await client.submit(f"/members/{owner.person.user.id}/remove")
    assert (await owner.get("/metrics")).status_code == 404
    done = [action for action, _ in await activity_of(console, client.account_id)]
    assert done == ["membership.role_changed", "membership.removed"]


# ------------------------------------------------------------------------------- leaving


async def test_who_leaves_is_led_to_another_account_or_told_that_there_is_none(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client("member")
    response = await client.submit("/members/leave")
    assert response.headers["location"] == "/console/region/us"
    assert "You are in no account" in (await client.follow(response)).text
    assert (await client.get("/metrics")).status_code == 404
    assert (await activity_of(console, client.account_id))[-1][0] == "membership.left"


async def test_the_primary_owner_cannot_leave(console: Deployment, console_client: ConsoleClientOf) -> None:
    client = await console_client()
    response = await client.submit("/members/leave")
    assert response.status_code == 422
    assert "transfer the account first" in response.text
    assert await _role_of(console, client, client.person.user.id) == "primary-owner"
