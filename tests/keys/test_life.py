"""The life of a key: rotated, revoked, deleted, found; and how long every API process takes to know."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from tests.conftest import deployment_settings
from tests.keys.conftest import Door, MakeKey
from tests.support import ManualClock, eventually

from babysea_server.accounts import store as accounts
from babysea_server.accounts.plans import load_plans
from babysea_server.accounts.service import change_plan
from babysea_server.app.api import Api
from babysea_server.app.shared import build_shared
from babysea_server.db.pool import Database
from babysea_server.keys import service
from babysea_server.keys.service import GRACE_HOURS, AmbiguousPrefixError, KeyStateError
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import uuid7

# ------------------------------------------------------------------------------------------ rotation


async def test_a_replacement_has_everything_of_the_old_key_but_the_key(
    db: Database, make_key: MakeKey
) -> None:
    expires = await db.fetchval("SELECT now() + interval '1 year'")
    old = await make_key(
        name="mine",
        scopes=["health:read", "account:read"],
        allowlist=["10.0.0.1", "2001:db8::/32"],
        expires_at=expires,
    )
    rotation = await service.rotate(db, None, old.key.id)
    new = rotation.new.key
    for name in ("account_id", "name", "scopes", "allowlist", "expires_at"):
        assert getattr(new, name) == getattr(old.key, name), name
    assert rotation.new.secret != old.secret
    assert new.prefix == rotation.new.secret[:9]
    assert (new.state, new.grace_until, new.replaced_by, new.last_used_at) == ("active", None, None, None)
    assert (rotation.old.id, rotation.old.state, rotation.old.replaced_by) == (old.key.id, "rotated", new.id)
    assert await service.find(db, None, old.key.id) == rotation.old
    assert await service.find(db, None, new.id) == new


@pytest.mark.parametrize("hours", GRACE_HOURS)
async def test_the_grace_is_as_long_as_was_asked(db: Database, make_key: MakeKey, hours: int) -> None:
    rotation = await service.rotate(db, None, (await make_key()).key.id, grace_hours=hours)
    assert rotation.old.grace_until == rotation.new.key.created_at + timedelta(hours=hours)


async def test_other_lengths_are_refused_and_nothing_is_rotated(db: Database, make_key: MakeKey) -> None:
    key = (await make_key()).key
    for hours in (-1, 0, 2, 169):
        with pytest.raises(
            ValueError, match=f"a grace period has 1, 6, 12, 24, 48, 72, 168 hours, not {hours}"
        ):
            await service.rotate(db, None, key.id, grace_hours=hours)
    assert await service.find(db, None, key.id) == key


async def test_only_an_active_key_that_has_not_expired_is_rotated(db: Database, make_key: MakeKey) -> None:
    states = {
        "rotated": "state = 'rotated', grace_until = now() + interval '1 hour'",
        "expired": "expires_at = now()",
        "revoked": "state = 'revoked'",
    }
    for state, change in states.items():
        key = await make_key()
        await db.execute(f"UPDATE api_keys SET {change} WHERE id = $1", key.key.id)
        with pytest.raises(KeyStateError, match=f"key {key.key.id} is {state}"):
            await service.rotate(db, None, key.key.id)
    assert await db.fetchval("SELECT count(*) FROM api_keys") == len(states), "and nothing was made"


async def test_a_replacement_may_be_rotated_in_its_turn(db: Database, make_key: MakeKey) -> None:
    first = await service.rotate(db, None, (await make_key()).key.id)
    second = await service.rotate(db, None, first.new.key.id)
    assert second.old.id == first.new.key.id
    assert second.new.key.state == "active"


async def test_of_rotations_at_once_one_wins_and_the_others_are_told(db: Database, make_key: MakeKey) -> None:
    key = (await make_key()).key
    results = await asyncio.gather(
        *(service.rotate(db, None, key.id) for _ in range(8)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["KeyStateError"] * 7 + ["Rotation"]
    assert await db.fetchval("SELECT count(*) FROM api_keys") == 2


async def test_a_rotated_key_is_shown_as_expired_when_its_grace_is_over(
    db: Database, make_key: MakeKey
) -> None:
    old = (await service.rotate(db, None, (await make_key()).key.id)).old
    await db.execute("UPDATE api_keys SET grace_until = now() WHERE id = $1", old.id)
    assert (await service.find(db, None, old.id)).state == "expired"


async def test_a_rotated_key_that_expires_during_its_grace_ends_then(db: Database, make_key: MakeKey) -> None:
    soon = await db.fetchval("SELECT now() + interval '30 minutes'")
    rotation = await service.rotate(db, None, (await make_key(expires_at=soon)).key.id, grace_hours=1)
    assert rotation.old.ends_at == soon


# ------------------------------------------------------------------------------------------ revocation, deletion


async def test_a_key_is_revoked_in_any_state_and_again_changes_nothing(
    db: Database, make_key: MakeKey
) -> None:
    active, expired = (await make_key()).key, (await make_key()).key
    await db.execute("UPDATE api_keys SET expires_at = now() WHERE id = $1", expired.id)
    rotation = await service.rotate(db, None, (await make_key()).key.id)
    for key in (active, expired, rotation.old):
        revoked = [await service.revoke(db, None, key.id) for _ in range(2)]
        assert [each.state for each in revoked] == ["revoked", "revoked"]
    assert (await service.find(db, None, rotation.new.key.id)).state == "active"


async def test_a_deleted_key_is_gone_and_what_it_made_keeps_its_id(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    for state in ("active", "rotated", "revoked"):
        key = await make_key()
        assert await door.code(key) == "accepted"
        if state == "rotated":
            await service.rotate(db, None, key.key.id)
        elif state == "revoked":
            await service.revoke(db, None, key.key.id)
        assert (await service.delete(db, None, key.key.id)).state == state
        with pytest.raises(NotFoundError):
            await service.find(db, None, key.key.id)
        await door.becomes(key, "BSE1002")


async def test_a_missing_key_is_told_by_all_of_them(db: Database) -> None:
    missing = uuid7()
    for act in (service.rotate, service.revoke, service.delete, service.find):
        with pytest.raises(NotFoundError, match=f"no key {missing} in this region"):
            await act(db, None, missing)


async def test_an_accounts_keys_are_out_of_reach_for_another(
    db: Database, make_key: MakeKey, account: UUID
) -> None:
    key = (await make_key()).key
    other = (await accounts.create(db, name="B", plan="free")).id
    for act in (service.rotate, service.revoke, service.delete, service.find):
        with pytest.raises(NotFoundError, match=f"no key {key.id} in this region"):
            await act(db, other, key.id)
    assert await service.find(db, account, key.id) == key
    assert (await service.rotate(db, account, key.id)).old.id == key.id


# ------------------------------------------------------------------------------------------ prefixes


async def test_a_key_is_found_by_its_prefix_where_that_is_enough(db: Database, make_key: MakeKey) -> None:
    keys = [(await make_key()).key for _ in range(3)]
    assert await service.find_by_prefix(db, keys[1].prefix) == keys[1]
    with pytest.raises(NotFoundError, match="no key bye_-----"):
        await service.find_by_prefix(db, "bye_-----")
    await db.execute("UPDATE api_keys SET prefix = $1", keys[0].prefix)
    with pytest.raises(AmbiguousPrefixError) as ambiguous:
        await service.find_by_prefix(db, keys[0].prefix)
    assert all(str(key.id) in str(ambiguous.value) for key in keys)


# ------------------------------------------------------------------------------------------ what API processes know


async def test_a_changed_plan_holds_in_a_running_process(
    door: Door, db: Database, make_key: MakeKey, account: UUID
) -> None:
    key = await make_key()
    assert (await door.enter(key)).plan.name == "free"
    plans = load_plans()
    await change_plan(db, plans, account, plans["scale"])

    async def heard() -> bool:
        return (await door.enter(key)).plan == plans["scale"]

    await eventually(heard)


class Process:
    """An API with a clock of its own, asked over HTTP."""

    def __init__(self, api: Api, clock: ManualClock, client: httpx.AsyncClient, listeners: set[int]) -> None:
        self.api = api
        self.clock = clock
        self.listeners = listeners
        """Ids of the database's processes that it listens through."""
        self._client = client

    async def code(self, secret: str) -> str:
        response = await self._client.get("/v1/status", headers={"Authorization": f"Bearer {secret}"})
        return "accepted" if response.status_code == 200 else response.json()["error"]["code"]

    async def hears(self, *, expected: bool = True) -> None:
        async def as_expected() -> bool:
            listener = self.api.regions["us"].authenticator._listener
            return listener is not None and listener.hearing is expected

        await eventually(as_expected)


@pytest.fixture
async def processes(dsn: str, db: Database, tmp_path: Path) -> AsyncIterator[list[Process]]:
    """Two APIs on one database, whose clocks begin at the database's time."""

    async def listeners() -> set[int]:
        rows = await db.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'babysea-api-listen' "
            "AND datname = current_database()"
        )
        return {row["pid"] for row in rows}

    made: list[Process] = []
    for _ in range(2):
        before = await listeners()
        clock = ManualClock(await db.fetchval("SELECT now()"))
        api = Api(build_shared(deployment_settings(tmp_path), clock), {"us": dsn})
        await api.open()
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://localhost")
        process = Process(api, clock, client, set())
        await process.hears()
        process.listeners = await listeners() - before
        made.append(process)
    yield made
    for process in made:
        await process._client.aclose()
        await process.api.close()


async def test_a_revoked_key_is_refused_within_a_second_by_every_process_even_a_deaf_one(
    processes: list[Process], db: Database, make_key: MakeKey
) -> None:
    hearing, deaf = processes
    key = await make_key()
    for process in processes:
        assert await process.code(key.secret) == "accepted"
    for listener in deaf.listeners:
        os.kill(listener, signal.SIGSTOP)  # the connection stays, and nothing comes through it
    try:
        await service.revoke(db, None, key.key.id)

        async def refused() -> bool:
            return await hearing.code(key.secret) == "BSE1002"

        await eventually(refused)  # its clock stands still: it was told
        await deaf.hears(expected=False)
        deaf.clock.advance(1.001)
        assert await deaf.code(key.secret) == "BSE1002"
    finally:
        for listener in deaf.listeners:
            os.kill(listener, signal.SIGCONT)


async def test_after_rotation_both_keys_work_everywhere_and_after_the_grace_the_new_one(
    processes: list[Process], db: Database, make_key: MakeKey
) -> None:
    old = await make_key()
    assert [await process.code(old.secret) for process in processes] == ["accepted"] * 2
    rotation = await service.rotate(db, None, old.key.id, grace_hours=1)
    for process in processes:
        assert await process.code(rotation.new.secret) == "accepted"
        assert await process.code(old.secret) == "accepted"
        process.clock.advance(3590)
        assert await process.code(old.secret) == "accepted"
        process.clock.advance(70)  # the two clocks began a little before the grace
        assert await process.code(old.secret) == "BSE1002"
        assert await process.code(rotation.new.secret) == "accepted"
