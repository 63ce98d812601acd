"""Notifications in the console: unread ones first, read by owners, with the channels that are set up."""

import re
from uuid import UUID

from tests.conftest import MakeDeployment
from tests.console.conftest import ConsoleClientOf
from tests.console.support import ConsoleClient, activity_of
from tests.console.webhook_log import make_endpoint
from tests.support import make_account

from babysea_server.accounts import notices
from babysea_server.console.notifications_store import Place

_LOW = "credits.low_balance"


async def _notify(client: ConsoleClient, *texts: str, kind: str = _LOW, **data: str) -> list[UUID]:
    db = client.deployment.db
    return [await notices.notify(db, client.account_id, kind, text, data) for text in texts]


def _listed(html: str) -> list[str]:
    return re.findall(r"<bdi[^>]*>(.*?)</bdi>", html.partition("</h1>")[2])


async def test_unread_notices_come_first_and_are_counted(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    ids = await _notify(client, "one", "two", "three", "four")
    await notices.mark_read(client.deployment.db, client.account_id, [ids[1], ids[3]])
    html = await client.page("/notifications")
    assert _listed(html) == ["three", "one", "four", "two"]
    assert re.findall(r'data-live="unread">(\d+)<', html) == ["2", "2"], "in the sidebar and above the page"
    assert _listed(await client.page("/notifications?show=unread")) == ["three", "one"]
    assert _listed(await client.page("/notifications?q=FOUR")) == ["four"]
    assert _listed(await client.page("/notifications?kind=webhook.disabled")) == []


async def test_pages_go_on_from_unread_to_read_ones(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    ids = await _notify(client, *(f"notice {number}" for number in range(60)))
    await notices.mark_read(client.deployment.db, client.account_id, ids[::2])
    seen, query = [], ""
    while True:
        html = await client.page(f"/notifications{query}")
        seen += _listed(html)
        following = re.search(r'rel="next" href="[^?]*([^"]*)"', html)
        if following is None:
            break
        query = following[1]
    odd, even = range(59, 0, -2), range(58, -1, -2)
    assert seen == [f"notice {number}" for number in (*odd, *even)]
    assert len(_listed(await client.page("/notifications?after=nonsense"))) == 25


async def test_a_notice_is_read_and_then_all_are(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    db = client.deployment.db
    first, *_ = await _notify(client, "one", "two", "three")
    response = await client.submit("/notifications", action=f"/notifications/{first}/read")
    assert _listed((await client.follow(response)).text) == ["three", "two", "one"]
    assert len(await notices.page(db, client.account_id, unread=True)) == 2
    await client.post(f"/notifications/{first}/read")
    response = await client.submit("/notifications", action="/notifications/read-all")
    html = (await client.follow(response)).text
    assert "2 notifications were marked as read." in html
    assert "/read-all" not in html
    await client.post("/notifications/read-all")
    assert [action for action, _ in await activity_of(client.deployment, client.account_id)] == [
        "notification.read",
        "notification.all_read",
    ]


async def test_a_notice_leads_to_what_it_is_about(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    endpoint = await make_endpoint(client.deployment.db, client.account_id)
    await _notify(client, "low")
    await _notify(client, "gone", kind="webhook.disabled", endpoint_id=str(UUID(int=5)))
    await _notify(client, "odd", kind="webhook.disabled", endpoint_id="../../settings")
    await _notify(client, "disabled", kind="webhook.disabled", endpoint_id=str(endpoint.id))
    await _notify(client, "new", kind="something.else")
    html = await client.page("/notifications")
    assert html.count("Open the endpoint</a>") == 1
    assert f'/webhook/{endpoint.id}">Open the endpoint</a>' in html
    assert '/billing">Open Billing</a>' in html
    assert "something.else" in html


async def test_a_member_reads_without_marking(console_client: ConsoleClientOf) -> None:
    client = await console_client("member")
    [notice] = await _notify(client, "one")
    html = await client.page("/notifications")
    assert "/read" not in html
    assert (await client.post(f"/notifications/{notice}/read")).status_code == 403
    assert (await client.post("/notifications/read-all")).status_code == 403
    assert len(await notices.page(client.deployment.db, client.account_id, unread=True)) == 1


async def test_a_notice_of_another_account_is_not_there(console_client: ConsoleClientOf) -> None:
    client, other = await console_client("owner"), await console_client("owner")
    [theirs] = await _notify(other, "theirs")
    assert "theirs" not in await client.page("/notifications")
    assert (await client.post(f"/notifications/{theirs}/read")).status_code == 404
    await client.post("/notifications/read-all")
    assert len(await notices.page(client.deployment.db, other.account_id, unread=True)) == 1


async def test_channels_say_what_is_set_up(
    console_client: ConsoleClientOf, make_deployment: MakeDeployment
) -> None:
    client = await console_client("owner")
    html = await client.page("/notifications")
    assert "The operator has set up no mail server" in html
    assert "No enabled endpoint is subscribed" in html
    await make_endpoint(client.deployment.db, client.account_id)
    assert "1 endpoint gets" in await client.page("/notifications")
    mailing = await make_deployment(
        worker=False, smtp_url="smtp://127.0.0.1:9?starttls=never", smtp_from="a@example.com"
    )
    account_id, _ = await make_account(mailing.db)
    reached = await console_client("owner", deployment=mailing, account_id=account_id)
    assert "The account has no e-mail address." in await reached.page("/notifications")
    await mailing.db.execute("UPDATE accounts SET email = 'ops@example.com' WHERE id = $1", account_id)
    assert "ops@example.com</span>, the account's address." in await reached.page("/notifications")


async def test_texts_are_never_markup_and_nothing_says_so(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    assert "Nothing to tell" in await client.page("/notifications")
    assert "You have read everything" in await client.page("/notifications?show=unread")
    evil = "<img src=x onerror=alert(1)>"
    await _notify(client, evil)
    await _notify(client, "x", kind=evil)
    html = await client.page(f"/notifications?show={evil}")
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "No notification matches" in await client.page("/notifications?q=nothing")


def test_a_place_survives_the_address() -> None:
    place = Place(True, UUID(int=7))
    assert Place.parse(str(place)) == place
    assert [
        Place.parse(text) for text in ("", "read", "new.x", "old.00000000-0000-0000-0000-000000000007")
    ] == [None] * 4
