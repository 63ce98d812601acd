"""Authentication: the order of checks, each refusal, the cache and how it learns of changes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
from tests.keys.conftest import Counting, Door, MakeKey
from tests.support import ManualClock, eventually

from babysea_server.accounts.plans import load_plans
from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.pool import Database
from babysea_server.errors import ApiError
from babysea_server.keys import authenticate, store
from babysea_server.keys.allowlist import allows, check_allowlist, networks
from babysea_server.keys.authenticate import Authenticator
from babysea_server.keys.service import hash_of

NEVER_ISSUED = "bye_" + "x" * 40


async def test_a_key_says_who_calls_and_what_they_may_do(
    door: Door, make_key: MakeKey, account: UUID
) -> None:
    key = await make_key(name="mine", scopes=["account:read"])
    who = await door.enter(key)
    assert (who.region, who.account_id, who.apikey_id) == ("us", account, key.key.id)
    assert (who.apikey_name, who.apikey_prefix, set(who.scopes)) == ("mine", key.secret[:9], {"account:read"})
    assert (who.plan.name, who.plan.requests_per_minute, who.plan.generations_in_flight) == ("free", 60, 2)


async def test_without_a_bearer_header_it_is_bse1001_and_nobody_is_asked(door: Door) -> None:
    for header in (None, "", "Bearer", "Bearer ", "Basic YTpi", "Token bye_x", NEVER_ISSUED):
        with pytest.raises(ApiError) as refused:
            await door.authenticator.authenticate(header, "192.0.2.1")
        assert refused.value.spec.code == "BSE1001", header
    assert door.db.questions == 0


async def test_what_cannot_be_a_key_is_bse1002_and_nobody_is_asked(door: Door) -> None:
    lengths = ("x", "bye_", "bye_" + "x" * 39, "bye_" + "x" * 41)
    for secret in (*lengths, "eyb_" + "x" * 40, "bye_" + "é" * 40, "bye_" + "\ud800" * 40):
        assert await door.code(secret) == "BSE1002", secret
    assert door.db.questions == 0


async def test_an_unknown_key_is_bse1002_and_not_remembered(door: Door) -> None:
    for question in (1, 2, 3):
        assert await door.code(NEVER_ISSUED) == "BSE1002"
        assert door.db.questions == question
    assert door.authenticator._cache == {}


async def test_the_scheme_is_read_in_any_case(door: Door, make_key: MakeKey) -> None:
    key = await make_key()
    for scheme in ("bearer", "BEARER", "Bearer "):
        assert (
            await door.authenticator.authenticate(f"{scheme} {key.secret}", "192.0.2.1")
        ).apikey_id == key.key.id


@pytest.mark.parametrize(
    ("entry", "ip", "admitted"),
    [
        ("192.0.2.0/24", "192.0.2.77", True),
        ("192.0.2.0/24", "::ffff:192.0.2.77", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.0/24", "::ffff:192.0.3.1", False),
        ("::ffff:192.0.2.0/120", "192.0.2.77", True),
        ("::ffff:192.0.2.0/120", "::ffff:192.0.2.77", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:db8::/32", "192.0.2.1", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "", False),
        ("192.0.2.1", "unix:", False),
    ],
)
def test_an_allowlist_admits_its_addresses_only(entry: str, ip: str, admitted: bool) -> None:
    assert allows(ip, networks(check_allowlist([entry]))) is admitted


async def test_a_key_used_from_elsewhere_is_bse1007(door: Door, make_key: MakeKey) -> None:
    key = await make_key(allowlist=["10.0.0.0/8", "192.0.2.1"])
    assert await door.code(key, "192.0.2.1") == "accepted"
    assert await door.code(key, "192.0.2.2") == "BSE1007"


async def test_an_expired_key_is_bse1002_from_its_last_moment_on(door: Door, make_key: MakeKey) -> None:
    key = await make_key(expires_at=door.clock.now() + timedelta(seconds=2))
    assert await door.code(key) == "accepted"
    door.clock.advance(1.999)
    assert await door.code(key) == "accepted"
    door.clock.advance(0.001)
    assert await door.code(key) == "BSE1002"


async def test_a_rotated_key_works_until_its_grace_ends(door: Door, db: Database, make_key: MakeKey) -> None:
    key = await make_key()
    await db.execute(
        "UPDATE api_keys SET state = 'rotated', grace_until = $1", door.clock.now() + timedelta(hours=1)
    )
    assert await door.code(key) == "accepted"
    door.clock.advance(3599.9)
    assert await door.code(key) == "accepted"
    door.clock.advance(0.1)
    assert await door.code(key) == "BSE1002"


async def test_a_key_whose_account_is_gone_is_bse1008(door: Door, db: Database, make_key: MakeKey) -> None:
    key = await make_key()
    assert await door.code(key) == "accepted"
    await db.execute("DELETE FROM accounts")
    await door.becomes(key, "BSE1008")


async def test_the_checks_come_in_the_order_of_the_contract(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    elsewhere, soon = ["10.0.0.1"], door.clock.now() + timedelta(seconds=1)
    everything_wrong = await make_key(allowlist=elsewhere, expires_at=soon)
    allowlist_and_account = await make_key(allowlist=elsewhere)
    revoked = await make_key(allowlist=elsewhere)
    await db.execute("UPDATE api_keys SET state = 'revoked' WHERE id = $1", revoked.key.id)
    await db.execute("DELETE FROM accounts")
    door.clock.advance(1)
    assert await door.code(everything_wrong) == "BSE1002"
    assert await door.code(revoked) == "BSE1002"
    assert await door.code(allowlist_and_account) == "BSE1007"
    assert await door.code(allowlist_and_account, "10.0.0.1") == "BSE1008"


async def test_an_account_on_a_plan_that_is_not_in_the_file_may_do_nothing(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    key = await make_key()
    await db.execute("UPDATE accounts SET plan = 'bygone'")
    plan = (await door.enter(key)).plan
    assert (plan.name, plan.requests_per_minute, plan.generations_in_flight) == ("bygone", 0, 0)


# ------------------------------------------------------------------------------------------ the cache


async def test_concurrent_first_requests_ask_the_database_once(door: Door, make_key: MakeKey) -> None:
    key = await make_key()
    await asyncio.gather(*(door.enter(key) for _ in range(50)))
    assert door.db.questions == 1


async def test_a_known_key_is_believed_for_five_seconds(door: Door, make_key: MakeKey) -> None:
    key = await make_key()
    for seconds in (0, 2.5, 2.5):
        door.clock.advance(seconds)
        await door.enter(key)
    assert door.db.questions == 1
    door.clock.advance(0.001)
    await door.enter(key)
    assert door.db.questions == 2


async def test_a_new_key_works_at_once_even_after_it_was_tried(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    key = await make_key()
    await db.execute("UPDATE api_keys SET hash = sha256(hash)")
    assert await door.code(key) == "BSE1002"
    await db.execute("UPDATE api_keys SET hash = $1", hash_of(key.secret))
    assert await door.code(key) == "accepted"


async def test_a_change_is_heard_while_the_key_is_still_believed(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    for change, code in (
        ("UPDATE api_keys SET state = 'revoked' WHERE id = $1", "BSE1002"),
        ("UPDATE api_keys SET expires_at = '2001-01-01' WHERE id = $1", "BSE1002"),
        ("UPDATE api_keys SET state = 'rotated', grace_until = '2001-01-01' WHERE id = $1", "BSE1002"),
        ("UPDATE api_keys SET allowlist = '{10.0.0.1/32}' WHERE id = $1", "BSE1007"),
        ("DELETE FROM api_keys WHERE id = $1", "BSE1002"),
    ):
        key = await make_key()
        assert await door.code(key) == "accepted"
        await db.execute(change, key.key.id)
        await door.becomes(
            key, code
        )  # the clock stands still: without the notice it would be believed for ever


async def test_a_changed_plan_and_changed_scopes_are_heard(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    key = await make_key()
    await door.enter(key)
    await db.execute("UPDATE accounts SET plan = 'pro'")
    await db.execute("UPDATE api_keys SET scopes = '{health:read}'")

    async def heard() -> bool:
        who = await door.enter(key)
        return who.plan.name == "pro" and who.scopes == {"health:read"}

    await eventually(heard)


async def test_every_process_hears(door: Door, db: Database, make_key: MakeKey) -> None:
    other = Authenticator(db, "us", load_plans(), ManualClock())
    other.start()
    doors = [door, Door(other, ManualClock(), door.db)]
    await doors[1].listening()
    key = await make_key()
    assert [await each.code(key) for each in doors] == ["accepted"] * 2
    await db.execute("UPDATE api_keys SET state = 'revoked'")
    for each in doors:
        await each.becomes(key, "BSE1002")
    await other.close()


async def listening_backend(db: Database) -> int:
    pid: int = await db.fetchval(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'keys-listen' AND datname = current_database()"
    )
    return pid


async def test_a_process_that_stopped_hearing_refuses_a_revoked_key_within_a_second(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    key = await make_key()
    backend = await listening_backend(db)
    assert await door.code(key) == "accepted"
    os.kill(backend, signal.SIGSTOP)  # the connection stays, and nothing comes through it
    try:
        await db.execute("UPDATE api_keys SET state = 'revoked'")
        listener = door.authenticator._listener

        async def deaf() -> bool:
            return listener is not None and not listener.hearing

        await eventually(deaf)
        assert await door.code(key) == "accepted", "not heard, and less than a second old"
        door.clock.advance(1.001)
        assert await door.code(key) == "BSE1002"
    finally:
        os.kill(backend, signal.SIGCONT)


async def test_what_was_missed_while_cut_off_is_forgotten_when_hearing_again(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    key = await make_key()
    assert await door.code(key) == "accepted"
    await db.execute(
        "WITH cut AS (SELECT pg_terminate_backend($1)) UPDATE api_keys SET state = 'revoked' FROM cut",
        await listening_backend(db),
    )
    await door.becomes(key, "BSE1002")


async def test_a_notice_nobody_understands_makes_everything_be_asked_again(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    key = await make_key()
    await door.enter(key)
    await db.execute("SELECT pg_notify('keys_changed', 'garbage'), pg_notify('accounts_changed', 'garbage')")

    async def forgotten() -> bool:
        return door.authenticator._cache == {}

    await eventually(forgotten)
    await door.enter(key)
    assert door.db.questions == 2


async def test_the_cache_is_bounded_and_forgets_what_was_loaded_longest_ago(
    door: Door, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticate, "_CACHE_MAX", 3)
    keys = [await make_key() for _ in range(4)]
    for key in keys[:3]:
        await door.enter(key)
    door.clock.advance(5.001)
    await door.enter(keys[0])  # loaded anew: now the youngest
    await door.enter(keys[3])
    assert set(door.authenticator._cache) == {hash_of(keys[n].secret) for n in (2, 0, 3)}


# ------------------------------------------------------------------------------------------ faults


@pytest.fixture
async def deaf(dsn: str) -> AsyncIterator[Door]:
    """A door that hears nothing of changes."""
    db = Counting(dsn, name="deaf", size=2)
    await db.open()
    clock = ManualClock()
    yield Door(Authenticator(db, "us", load_plans(), clock), clock, db)
    await db.close()


async def test_without_the_database_known_keys_work_for_a_moment_and_others_are_bse5002(
    deaf: Door, make_key: MakeKey, postgres: EmbeddedPostgres, dsn: str
) -> None:
    known, unknown = await make_key(), await make_key()
    await deaf.enter(known)
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    database = urlsplit(dsn).path.removeprefix("/")
    try:
        await admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        await admin.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database
        )
        assert await deaf.code(known) == "accepted"
        assert await deaf.code(unknown) == "BSE5002"
        deaf.clock.advance(1.001)
        assert await deaf.code(known) == "BSE5002"
    finally:
        await admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        await admin.close()

    async def both_accepted() -> bool:
        return [await deaf.code(known), await deaf.code(unknown)] == ["accepted"] * 2

    await eventually(both_accepted)


async def test_a_database_that_does_not_answer_in_time_is_bse5002(
    dsn: str, db: Database, make_key: MakeKey
) -> None:
    key = await make_key()
    slow = Database(dsn, name="slow", size=1, statement_timeout_s=0.05)
    await slow.open()
    async with db.transaction() as locker:
        await locker.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ApiError) as refused:
            await Authenticator(slow, "us", load_plans(), ManualClock()).authenticate(
                f"Bearer {key.secret}", "192.0.2.1"
            )
    assert refused.value.spec.code == "BSE5002"
    assert int(refused.value.headers["retry-after"]) >= 1
    await slow.close()


async def test_a_caller_that_leaves_does_not_take_the_others_question_along(
    door: Door, make_key: MakeKey
) -> None:
    key = await make_key()
    first, second = (asyncio.create_task(door.enter(key)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).apikey_id == key.key.id
    assert door.db.questions == 1


# ------------------------------------------------------------------------------------------ last used


async def test_last_use_is_written_in_one_batch_by_and_by(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    keys = [await make_key() for _ in range(3)]
    for key in keys:
        await door.enter(key)
    assert await used(db) == []
    moment = door.clock.now()
    await turn(door, 0.2)

    async def written() -> bool:
        return await used(db) == [moment] * 3

    await eventually(written)


async def turn(door: Door, seconds: float) -> None:
    """Let the background writer's time come."""

    async def asleep() -> bool:
        return door.clock.sleeping > 0

    await eventually(asleep)
    door.clock.advance(seconds)


async def used(db: Database) -> list[object]:
    return [
        row[0] for row in await db.fetch("SELECT last_used_at FROM api_keys WHERE last_used_at IS NOT NULL")
    ]


async def test_last_use_is_written_at_closing(door: Door, db: Database, make_key: MakeKey) -> None:
    await door.enter(await make_key())
    await door.authenticator.close()
    assert await used(db) == [door.clock.now()]


async def test_a_fault_while_writing_last_use_loses_nothing_and_ends_nothing(
    door: Door, db: Database, make_key: MakeKey
) -> None:
    await db.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'deadlock_detected'; END $$"""
    )
    await db.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE OF last_used_at ON api_keys FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    await door.enter(await make_key())
    moment = door.clock.now()
    await turn(door, 0.2)
    await turn(door, 0.2)
    await db.execute("DROP TRIGGER refuse ON api_keys")
    await turn(door, 0.2)

    async def written() -> bool:
        return await used(db) == [moment]

    await eventually(written)


async def test_processes_that_note_the_same_keys_do_not_block_each_other(
    db: Database, make_key: MakeKey
) -> None:
    moment = ManualClock().now()
    keys = [(await make_key()).key.id for _ in range(30)]
    notes = [
        [(key, moment + timedelta(seconds=n)) for key in (keys if n % 2 else reversed(keys))]
        for n in range(8)
    ]
    try:
        await asyncio.gather(*(store.touch(db, note) for note in notes))
    except asyncpg.DeadlockDetectedError:
        pytest.fail("deadlock")
    assert await used(db) == [moment + timedelta(seconds=7)] * 30
