"""Settings: name and slug, the picture, and the account's end: handed over, or deleted."""

import io
import warnings
import zlib
from uuid import UUID

import pytest
from PIL import Image, ImageCms, PngImagePlugin
from tests.console.conftest import ConsoleClientOf
from tests.console.people import EVIL, signed_in, signed_up
from tests.console.support import ConsoleClient, activity_of, make_person
from tests.support import Deployment, make_account

from babysea_server.accounts.activity import OPERATOR
from babysea_server.accounts.naming import SlugTakenError, check_slug, rename
from babysea_server.accounts.pictures import EDGE, PictureRefusedError, square_png
from babysea_server.ledger.verify import verify


def _picture(format: str = "PNG", size: tuple[int, int] = (40, 20), color: str = "red") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", size, color).save(made, format)
    return made.getvalue()


# ------------------------------------------------------------------------------- name and slug


async def test_the_primary_owner_changes_name_and_slug_and_pages_move(
    console_client: ConsoleClientOf,
) -> None:
    client = await console_client()
    slug = f"acme-{client.account_id.hex[-10:]}"
    response = await client.submit("/settings", {"name": "  Acme   Studio ", "slug": slug.upper()})
    assert response.status_code == 303
    assert response.headers["location"] == f"/console/us/{slug}/settings"
    html = (await client.follow(response)).text
    assert "The account was saved." in html
    assert 'value="Acme Studio"' in html
    assert (await client.get("/settings")).status_code == 404
    done = [action for action, _ in await activity_of(client.deployment, client.account_id)]
    assert done == ["account.renamed", "account.slug_changed"]


async def test_what_stays_as_it_was_is_no_activity(console_client: ConsoleClientOf) -> None:
    client = await console_client()
    assert (await client.submit("/settings")).status_code == 303
    assert await activity_of(client.deployment, client.account_id) == []


@pytest.mark.parametrize("slug", ["", "-a", "a-", "a--b", "ä", "a b", "a/b", "..", "x" * 64, "a_b", "a\n"])
def test_a_slug_is_letters_digits_and_single_hyphens(slug: str) -> None:
    if slug.strip() == "a":
        assert check_slug(slug) == "a"
        return
    with pytest.raises(ValueError, match="single hyphens"):
        check_slug(slug)


async def test_what_cannot_be_a_name_is_shown_again_with_what_is_wrong(
    console_client: ConsoleClientOf,
) -> None:
    client = await console_client()
    response = await client.submit("/settings", {"name": "x" * 101, "slug": "a b"})
    assert response.status_code == 422
    assert "A name has 1 to 100 characters." in response.text
    assert "single hyphens" in response.text
    assert 'value="a b"' in response.text


async def test_a_slug_that_another_account_has_is_refused(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client, other = await console_client(), await console_client()
    response = await client.submit("/settings", {"slug": other.person.slug})
    assert response.status_code == 422
    assert "Another account of this region" in response.text
    with pytest.raises(SlugTakenError):
        await rename(console.db, client.account_id, name="x", slug=other.person.slug, actor=OPERATOR)
    assert await activity_of(console, client.account_id) == []


async def test_a_name_with_markup_is_text_everywhere(console_client: ConsoleClientOf) -> None:
    client = await console_client()
    await client.submit("/settings", {"name": EVIL})
    for path in ("/settings", "/settings/delete", "/settings/transfer", "/members", "/activity", "/profile"):
        assert "<script>alert" not in await client.page(path)


async def test_who_is_not_the_primary_owner_sees_no_form(console_client: ConsoleClientOf) -> None:
    client = await console_client("owner")
    html = await client.page("/settings")
    assert "Only the primary owner changes these." in html
    assert 'name="slug"' not in html
    assert "Delete account" not in html


# ------------------------------------------------------------------------------- picture


async def _upload(client: ConsoleClient, content: bytes, name: str = "x.png") -> int:
    response = await client.submit(
        "/settings", action="/settings/picture", files={"picture": (name, content)}
    )
    return response.status_code


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_a_picture_is_drawn_anew_as_a_square_png(console_client: ConsoleClientOf, format: str) -> None:
    client = await console_client()
    assert (await client.get("/picture")).status_code == 404
    assert await _upload(client, _picture(format)) == 303
    response = await client.get("/picture")
    assert response.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content)) as image:
        assert (image.format, image.size) == ("PNG", (EDGE, EDGE))
    assert "/picture" in await client.page("/settings")
    await client.submit("/settings", action="/settings/picture/remove")
    assert (await client.get("/picture")).status_code == 404
    done = [action for action, _ in await activity_of(client.deployment, client.account_id)]
    assert done == ["account.picture_changed", "account.picture_removed"]


def test_nothing_of_the_file_but_its_picture_is_kept() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", EVIL)
    made = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (30, 30)).save(made, "PNG", pnginfo=texts, icc_profile=profile)
    kept = square_png(made.getvalue() + EVIL.encode())
    assert b"script" not in kept
    assert b"iCCP" not in kept
    assert b"tEXt" not in kept


def _bomb() -> bytes:
    """A PNG of a few kilobytes that says it has 400 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = (20_000).to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(2000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<html><script>alert(1)</script>",
        _picture()[:60],
        _picture("JPEG")[:-200],
        _picture("BMP"),
        _bomb(),
    ],
    ids=["empty", "text", "svg", "html", "cut", "cut jpeg", "bmp", "bomb"],
)
def test_what_is_no_whole_picture_is_refused(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a server goes on after it
        with pytest.raises(PictureRefusedError):
            square_png(content)


async def test_a_picture_that_is_none_or_too_large_changes_nothing(console_client: ConsoleClientOf) -> None:
    client = await console_client()
    assert await _upload(client, b"<svg/>", "x.svg") == 422
    assert (await client.submit("/settings", action="/settings/picture")).status_code == 422
    assert await _upload(client, bytes(1024 * 1024 + 200_000)) == 413
    assert (await client.get("/picture")).status_code == 404


async def test_a_picture_is_seen_by_members_alone(
    console_client: ConsoleClientOf, stranger: ConsoleClient
) -> None:
    client, other = await console_client(), await console_client()
    await _upload(client, _picture())
    address = client.url("/picture")
    assert (await other.get(address)).status_code == 404
    assert (await stranger.get(address)).status_code == 303


# ------------------------------------------------------------------------------- transfer


async def test_a_transfer_makes_another_member_the_primary_owner(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client()
    heir = await make_person(console, client.account_id, "member", name="Heir")
    wrong = await client.submit("/settings/transfer", {"to": str(heir.user.id), "confirm": "other"})
    assert wrong.status_code == 422
    response = await client.submit("/settings/transfer", {"to": str(heir.user.id), "confirm": "Customer"})
    assert response.status_code == 303
    assert "Heir is the primary owner now." in (await client.follow(response)).text
    roles = await console.db.fetch(
        "SELECT user_id, role::text AS role FROM memberships WHERE account_id = $1", client.account_id
    )
    assert {row["user_id"]: row["role"] for row in roles} == {
        client.person.user.id: "owner",
        heir.user.id: "primary-owner",
    }
    assert (await client.get("/settings/transfer")).status_code == 403
    done = [action for action, _ in await activity_of(console, client.account_id)]
    assert done == ["account.transferred"]


async def test_an_account_goes_to_nobody_outside_of_it(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client, other = await console_client(), await console_client()
    await make_person(console, client.account_id, "owner")
    for to in (str(other.person.user.id), str(client.person.user.id), "", "x"):
        response = await client.submit("/settings/transfer", {"to": to, "confirm": "Customer"})
        assert response.status_code == 422
        assert "Choose another member." in response.text


async def test_a_personal_account_becomes_a_teams_and_its_mail_goes_along(console: Deployment) -> None:
    made = await signed_up(console)
    heir = await make_person(console, made.account.id, "owner")
    async with signed_in(console, made) as client:
        response = await client.submit(
            "/settings/transfer", {"to": str(heir.user.id), "confirm": made.account.name}
        )
        assert response.status_code == 303
    row = await console.db.fetchrow("SELECT is_personal, email FROM accounts WHERE id = $1", made.account.id)
    assert dict(row) == {"is_personal": False, "email": heir.user.email}


# ------------------------------------------------------------------------------- delete


async def _team(console: Deployment, client: ConsoleClient) -> None:
    await console.db.execute("UPDATE accounts SET is_personal = false WHERE id = $1", client.account_id)


async def _generation(console: Deployment, account_id: UUID, status: str = "succeeded") -> UUID:
    """A generation with a file, that was charged."""
    made: UUID = await console.db.fetchval(
        """INSERT INTO generations (id, account_id, apikey_id, model, media, inputs, provider_order, prediction_id,
               status, outputs, reserved, charged, completed_at, expires_at)
           SELECT gen_random_uuid(), $1, k.id, 'sandbox/image', 'image', '{"prompt": "a boat"}', '{sandbox}',
               gen_random_uuid(), $2::text::generation_status,
               CASE $2 WHEN 'succeeded' THEN jsonb_build_array(jsonb_build_object(
                   'key', 'outputs/' || k.id, 'content_type', 'image/png', 'bytes', 10, 'sha256', 'x')) END,
               0, 0, CASE $2 WHEN 'succeeded' THEN now() END, now() + interval '1 hour'
           FROM api_keys k WHERE k.account_id = $1 LIMIT 1 RETURNING id""",
        account_id,
        status,
    )
    await console.db.execute(
        "UPDATE accounts SET generations_total = generations_total + 1 WHERE id = $1", account_id
    )
    return made


async def test_a_deleted_account_is_gone_with_its_files_and_its_books_stay(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    account_id, key = await make_account(console.db)
    client = await console_client(account_id=account_id)
    member = await console_client("member", account_id=account_id)
    await _team(console, client)
    await _generation(console, account_id)
    page = await client.page("/settings/delete")
    for told in ("stop working at once", "links to the files", "$100", "ledger", "Activity"):
        assert told in page
    assert (await client.submit("/settings/delete", {"confirm": "customer"})).status_code == 422
    response = await client.submit("/settings/delete", {"confirm": "Customer"})
    assert response.status_code == 303
    assert response.headers["location"] == "/console/region/us"
    assert (await client.get("/metrics")).status_code == 404
    assert (await member.get("/metrics")).status_code == 404
    for table in ("accounts WHERE id", "generations WHERE account_id", "memberships WHERE account_id"):
        assert await console.db.fetchval(f"SELECT count(*) FROM {table} = $1", account_id) == 0
    queued = await console.db.fetchval(
        """SELECT count(*) FROM file_deletions
           WHERE key IN (SELECT 'outputs/' || id FROM api_keys WHERE account_id = $1)""",
        account_id,
    )
    assert queued == 1
    assert await console.db.fetchval("SELECT count(*) FROM ledger WHERE account_id = $1", account_id) == 1
    assert (await activity_of(console, account_id))[-1] == (
        "account.deleted",
        "The account “Customer” was deleted",
    )
    assert [each for each in await verify(console.db) if each.account == str(account_id)] == []
    answer = await console.client.get("/v1/status", headers={"authorization": f"Bearer {key}"})
    assert answer.json()["error"]["code"] == "BSE1008"


async def test_an_account_with_work_in_flight_or_a_subscription_stays(
    console: Deployment, console_client: ConsoleClientOf
) -> None:
    client = await console_client()
    await _team(console, client)
    kept = await _generation(console, client.account_id)
    running = await _generation(console, client.account_id, "pending")
    assert "1 generation is in flight" in await client.page("/settings/delete")
    response = await client.submit("/settings/delete", {"confirm": "Customer"})
    assert response.status_code == 422
    await console.db.execute("DELETE FROM generations WHERE id = $1", running)
    await console.db.execute(
        "INSERT INTO billing_customers (account_id, customer_id, subscription_id) VALUES ($1, $2, $2)",
        client.account_id,
        f"x-{client.account_id}",
    )
    response = await client.submit("/settings/delete", {"confirm": "Customer"})
    assert "Cancel that under Billing first" in response.text
    assert await console.db.fetchval("SELECT count(*) FROM generations WHERE id = $1", kept) == 1


async def test_a_personal_account_is_deleted_with_its_user_only(console: Deployment) -> None:
    made = await signed_up(console)
    async with signed_in(console, made) as client:
        assert "together with your user" in await client.page("/settings/delete")
        response = await client.post("/settings/delete", {"confirm": made.account.name})
        assert response.status_code == 422
        assert (await client.get("/metrics")).status_code == 200
