"""Issuing keys: their form, what is kept of them, what they may be given."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from tests.keys.conftest import MakeKey

from babysea_server.db.pool import Database
from babysea_server.keys import store
from babysea_server.keys.allowlist import check_allowlist
from babysea_server.keys.scopes import PRESETS, SCOPES, resolve_scopes
from babysea_server.keys.service import hash_of
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import uuid7


async def test_a_key_is_bye_and_forty_base64url_characters(make_key: MakeKey) -> None:
    issued = [await make_key() for _ in range(5)]
    assert all(re.fullmatch(r"bye_[A-Za-z0-9_-]{40}", key.secret) for key in issued)
    assert len({key.secret for key in issued}) == 5
    assert all(key.key.prefix == key.secret[:9] for key in issued)


async def test_only_the_hash_of_a_key_is_kept_anywhere(db: Database, make_key: MakeKey) -> None:
    issued = await make_key()
    assert hash_of(issued.secret) == hashlib.sha256(issued.secret.encode()).digest()
    assert (await store.by_hash(db, hash_of(issued.secret)))["id"] == issued.key.id
    tables = await db.fetch(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN ('public', 'sandbox')"
    )
    assert len(tables) > 5
    everything = ""
    for schema, table in tables:
        everything += await db.fetchval(
            f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {schema}.{table} t"
        )
    assert issued.key.prefix in everything
    assert issued.secret[9:] not in everything
    assert issued.secret not in repr(issued.key)


async def test_a_key_has_what_it_was_given(db: Database, account: UUID, make_key: MakeKey) -> None:
    expires = datetime(2030, 1, 31, tzinfo=UTC)
    issued = await make_key(
        name="n" * 100, scopes=["health:read"], allowlist=["10.1.2.3/8"], expires_at=expires
    )
    (stored,) = await store.of_account(db, account)
    assert stored == issued.key
    assert (stored.name, list(stored.scopes), list(stored.allowlist)) == (
        "n" * 100,
        ["health:read"],
        ["10.0.0.0/8"],
    )
    assert (stored.state, stored.expires_at, stored.last_used_at) == ("active", expires, None)


async def test_a_key_needs_a_name_of_1_to_100_characters_and_an_account(
    db: Database, make_key: MakeKey
) -> None:
    for name in ("", "n" * 101):
        with pytest.raises(ValueError, match="1 to 100 characters"):
            await make_key(name=name)
    with pytest.raises(ValueError, match="unknown scope all"):
        await make_key(scopes=["all"])
    missing = uuid7()
    with pytest.raises(NotFoundError, match=f"no account {missing} in this region"):
        await make_key(account_id=missing)
    assert await store.of_account(db, None) == []


async def test_keys_are_listed_by_account_oldest_first(
    db: Database, account: UUID, make_key: MakeKey
) -> None:
    issued = [await make_key(name=name) for name in "abc"]
    assert [key.name for key in await store.of_account(db, account)] == ["a", "b", "c"]
    assert [key.id for key in await store.of_account(db, None, limit=2)] == [key.key.id for key in issued[:2]]
    assert [key.name for key in await store.of_account(db, account, limit=2, offset=1)] == ["b", "c"]
    assert await store.of_account(db, uuid7()) == []


async def test_last_use_is_never_set_back(db: Database, account: UUID, make_key: MakeKey) -> None:
    key = (await make_key()).key
    moment = datetime(2026, 4, 28, tzinfo=UTC)
    await store.touch(db, [(key.id, moment), (uuid7(), moment)])
    await store.touch(db, [(key.id, moment - timedelta(seconds=1))])
    (stored,) = await store.of_account(db, account)
    assert stored.last_used_at == moment


# ------------------------------------------------------------------------------------------ scopes


def test_presets_hold_the_scopes_the_contract_gives_them() -> None:
    assert set(SCOPES) == {
        "generation:write", "generation:read", "generation:delete", "account:read", "health:read", "library:read",
    }  # fmt: skip
    assert {name: set(scopes) for name, scopes in PRESETS.items()} == {
        "full_access": set(SCOPES),
        "generate_only": {"generation:write", "generation:read", "library:read"},
        "read_only": {"generation:read", "account:read", "health:read", "library:read"},
        "monitor_only": {"health:read", "library:read"},
    }


def test_scopes_come_from_a_preset_or_from_a_custom_set() -> None:
    for preset, scopes in PRESETS.items():
        assert resolve_scopes(preset, []) == scopes
    assert resolve_scopes(None, ["library:read", "account:read", "library:read"]) == (
        "account:read",
        "library:read",
    )


@pytest.mark.parametrize(
    ("preset", "scopes", "message"),
    [
        ("everything", [], "unknown preset 'everything'; presets are full_access"),
        (None, ["account:write"], "unknown scope account:write; scopes are generation:write"),
        (None, [], "at least one scope"),
        ("read_only", ["account:read"], "either a preset or scopes"),
    ],
)
def test_other_scopes_are_refused(preset: str | None, scopes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_scopes(preset, scopes)


# ------------------------------------------------------------------------------------------ allowlists


@pytest.mark.parametrize(
    ("entry", "canonical"),
    [
        ("10.0.0.1", "10.0.0.1/32"),
        (" 10.1.2.3/8 ", "10.0.0.0/8"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("2001:db8::192.0.2.1", "2001:db8::c000:201/128"),
    ],
)
def test_an_allowlist_is_kept_in_canonical_form(entry: str, canonical: str) -> None:
    assert check_allowlist([entry]) == [canonical]


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "localhost",
        "10.0.0.0/33",
        "2001:db8::/129",
        "10.0.0",
        "1",
        "fe80::1%eth0",
        "10.0.0.1-10.0.0.9",
        "10.0.0.0/",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/0.0.0.255",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/²",
        "10.0.0.0/٨",
        "10.0.0.01",
        "[2001:db8::1]",
        "10.0.0.1:80",
        "10.0.0.1,10.0.0.2",
        "*",
    ],
)
def test_what_is_no_address_or_network_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address or network"):
        check_allowlist([entry])


def test_an_entry_in_several_notations_is_kept_once() -> None:
    entries = ["10.0.0.0/8", "10.1.2.3/8", "::ffff:10.0.0.0/104", "2001:db8::1", "2001:DB8:0::1/128"]
    assert check_allowlist(entries) == ["10.0.0.0/8", "2001:db8::1/128"]


def test_an_allowlist_has_at_most_fifty_entries() -> None:
    assert len(check_allowlist([f"10.0.0.{n}" for n in range(50)])) == 50
    with pytest.raises(ValueError, match="at most 50"):
        check_allowlist(["10.0.0.1"] * 51)
