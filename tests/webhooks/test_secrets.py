"""Signing secrets: what they look like, how they are sealed, and the change of the master key."""

import asyncio
import base64
import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.accounts import store as accounts
from babysea_server.db.pool import Database
from babysea_server.webhooks import endpoints
from babysea_server.webhooks.secrets import SealedSecretError, SecretBox, new_secret

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32


def test_a_secret_is_whsec_and_32_characters_whose_base64_is_24_random_bytes() -> None:
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    for secret in made:
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{32}", secret)
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 24


@given(st.text(max_size=200))
def test_what_is_sealed_opens_again_and_never_looks_the_same(text: str) -> None:
    box = SecretBox(NEW)
    one, two = box.seal(text), box.seal(text)
    assert one != two
    assert box.open(one) == box.open(two) == SecretBox(NEW).open(one) == text
    assert one.startswith(box.head)


def test_a_sealed_secret_does_not_hold_the_secret() -> None:
    secret = new_secret()
    assert secret.removeprefix("whsec_").encode() not in SecretBox(NEW).seal(secret)


def test_every_changed_byte_and_every_missing_one_is_noticed() -> None:
    box = SecretBox(NEW)
    sealed = box.seal(new_secret())
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(SealedSecretError):
            box.open(bytes(changed))
        with pytest.raises(SealedSecretError):
            box.open(sealed[:place])


def test_another_master_key_opens_nothing() -> None:
    with pytest.raises(SealedSecretError, match="another master key"):
        SecretBox(OTHER).open(SecretBox(NEW).seal("a"))


def test_a_box_opens_what_the_key_before_sealed_and_seals_with_the_new_one() -> None:
    box = SecretBox(NEW, old=OLD)
    assert box.open(SecretBox(OLD).seal("before")) == "before"
    assert SecretBox(NEW).open(box.seal("now")) == "now"
    assert SecretBox(NEW, old=NEW).open(box.seal("same")) == "same"


def test_a_short_master_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        SecretBox(b"short")
    with pytest.raises(ValueError, match="at least 32 bytes"):
        SecretBox(NEW, old=b"short")


def test_no_sentence_about_a_box_tells_a_key() -> None:
    assert "nnnn" not in repr(SecretBox(NEW))


# ------------------------------------------------------------------------------------------ the change of keys


@pytest.fixture
async def account(db: Database) -> UUID:
    return (await accounts.create(db, name="A", plan="free")).id


async def make(db: Database, box: SecretBox, account: UUID, count: int = 1) -> dict[UUID, str]:
    """Endpoints and their secrets."""
    made = [
        await endpoints.create(db, box, account, url=f"https://example.com/{number}")
        for number in range(count)
    ]
    return {each.endpoint.id: each.secret for each in made}


async def kept(db: Database, box: SecretBox) -> dict[UUID, str]:
    """All secrets of the region as this box opens them."""
    return {row["id"]: box.open(row["secret"]) for row in await db.fetch("SELECT * FROM webhook_endpoints")}


async def test_all_secrets_come_under_the_new_key_and_stay_the_same(
    db: Database, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_RESEAL_STEP", 3)  # more steps than one, and a last one that is full
    made = await make(db, SecretBox(OLD), account, 6)
    assert await endpoints.reseal(db, SecretBox(NEW, old=OLD)) == 6
    assert await kept(db, SecretBox(NEW)) == made


async def test_an_interrupted_change_goes_on_where_it_ended(db: Database, account: UUID) -> None:
    made = await make(db, SecretBox(NEW), account, 2)
    made |= await make(db, SecretBox(OLD), account, 3)
    done = await db.fetch("SELECT secret FROM webhook_endpoints ORDER BY id LIMIT 2")
    assert await endpoints.reseal(db, SecretBox(NEW, old=OLD)) == 3
    assert await endpoints.reseal(db, SecretBox(NEW, old=OLD)) == 0
    assert await db.fetch("SELECT secret FROM webhook_endpoints ORDER BY id LIMIT 2") == done
    assert await kept(db, SecretBox(NEW)) == made


async def test_what_an_old_server_sealed_after_a_change_is_found_by_the_next(
    db: Database, account: UUID
) -> None:
    made = await make(db, SecretBox(OTHER), account)
    assert await endpoints.reseal(db, SecretBox(NEW, old=OLD), SecretBox(OTHER)) == 1
    assert await kept(db, SecretBox(NEW)) == made


async def test_secrets_under_an_unknown_key_are_named_and_the_others_are_sealed_anew(
    db: Database, account: UUID
) -> None:
    [lost] = await make(db, SecretBox(OTHER), account)
    made = await make(db, SecretBox(OLD), account, 2)
    with pytest.raises(SealedSecretError, match=f"secrets of 1 endpoints .* for example of {lost}"):
        await endpoints.reseal(db, SecretBox(NEW, old=OLD))
    await endpoints.delete(db, None, lost)
    assert await kept(db, SecretBox(NEW)) == made
    assert await endpoints.reseal(db, SecretBox(NEW, old=OLD)) == 0


async def test_a_secret_rotated_meanwhile_is_not_lost(db: Database, account: UUID) -> None:
    """The endpoint's new secret wins over the change of the master key, whichever came first."""
    [endpoint] = await make(db, SecretBox(OLD), account)
    both = SecretBox(NEW, old=OLD)
    rotated, _ = await asyncio.gather(
        endpoints.rotate_secret(db, both, account, endpoint),
        endpoints.reseal(db, both),
        return_exceptions=True,
    )
    [secret] = (await kept(db, SecretBox(NEW))).values()
    if not isinstance(rotated, endpoints.EndpointStateError):
        assert isinstance(rotated, endpoints.EndpointSecret)
        assert secret == rotated.secret
