"""Deletions that are written down happen in the end; files that nobody knows of are found, and only those."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from tests.generations import admitting

from babysea_server.db.pool import Database
from babysea_server.generations import files
from babysea_server.generations.files import FileDeletions, OrphanSweep
from babysea_server.ledger.verify import verify
from babysea_server.outputs.store import ObjectStore, StorageError, open_store


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(None, tmp_path)


class Refusing(ObjectStore):
    """A store that refuses some keys, or everything."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store._backend, name="refusing")
        self.refused: set[str] | None = set()
        self.calls = 0

    async def delete(self, keys: Sequence[str]) -> None:
        self.calls += 1
        if self.refused is None or self.refused & set(keys):
            raise StorageError("refused")
        await super().delete(keys)


async def queue(db: Database, store: ObjectStore, *keys: str) -> None:
    for key in keys:
        await store.put(key, b"x", "image/png")
        await db.execute("INSERT INTO file_deletions (key) VALUES ($1)", key)


async def rows(db: Database) -> list[tuple[str, int]]:
    found = await db.fetch("SELECT key, tries FROM file_deletions ORDER BY key")
    return [(row["key"], row["tries"]) for row in found]


async def present(store: ObjectStore, *keys: str) -> list[bool]:
    return [await store.size(key) is not None for key in keys]


async def again(db: Database) -> float:
    """Make everything due; how long the longest pause would have been, in seconds."""
    pause = await db.fetchval("SELECT extract(epoch FROM max(due_at) - now())::float8 FROM file_deletions")
    await db.execute("UPDATE file_deletions SET due_at = now()")
    return float(pause)


async def test_due_files_are_deleted_in_batches_and_forgotten(
    db: Database, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_BATCH", 3)
    keys = [f"outputs/{n}.png" for n in range(8)]
    await queue(db, store, *keys)
    await db.execute("INSERT INTO file_deletions (key) VALUES ('outputs/never-there.png')")
    await db.execute("UPDATE file_deletions SET due_at = now() + interval '1 h' WHERE key = $1", keys[7])
    await FileDeletions(db, store).delete_due()
    assert await present(store, *keys) == [False] * 7 + [True]
    assert await rows(db) == [(keys[7], 0)]


async def test_a_store_that_is_away_is_tried_again_with_growing_pauses(
    db: Database, store: ObjectStore
) -> None:
    keys = [f"outputs/{n}.png" for n in range(10)]
    await queue(db, store, *keys)
    away = Refusing(store)
    away.refused = None
    pauses = []
    for _ in range(4):
        await FileDeletions(db, away).delete_due()
        pauses.append(round(await again(db)))
    assert pauses == [60, 120, 240, 480]
    assert away.calls == 4 * 4  # the batch, then three files alone
    await FileDeletions(db, store).delete_due()
    assert await rows(db) == []
    assert not any(await present(store, *keys))


async def test_a_file_that_the_store_refuses_keeps_no_others(db: Database, store: ObjectStore) -> None:
    keys = [f"outputs/{n}.png" for n in range(6)]
    await queue(db, store, *keys)
    await db.execute("INSERT INTO file_deletions (key) VALUES ('../not a key')")
    refusing = Refusing(store)
    refusing.refused = {keys[3]}
    await FileDeletions(db, refusing).delete_due()
    assert await rows(db) == [("../not a key", 1), (keys[3], 1)]
    assert await present(store, *keys) == [False] * 3 + [True] + [False] * 2


# ----------------------------------------------------------------------------------------- orphans

TODAY = datetime.now(UTC)


def key(generation_id: UUID, *, days_ago: int, name: str = "a-0.png") -> str:
    day = TODAY - timedelta(days=days_ago)
    return f"outputs/{day:%Y/%m/%d}/{generation_id}/{name}"


async def begin(db: Database, *, days_ago: int) -> None:
    await db.execute("UPDATE file_sweep SET day = $1", (TODAY - timedelta(days=days_ago)).date())


async def ended(db: Database, account_id: UUID, status: str, output: str | None = None) -> UUID:
    """A generation that ended with this output; `{id}` in it stands for the generation."""
    ask = admitting.ask(account_id)
    await admitting.admit(db, [ask])
    if status != "pending":
        await admitting.settle(db, account_id, ask.generation_id, status)
    if output is not None:
        await db.execute(
            """UPDATE generations SET outputs = jsonb_build_array(jsonb_build_object('key', $2::text, 'bytes', 1))
               WHERE id = $1""",
            ask.generation_id,
            output.replace("{id}", str(ask.generation_id)),
        )
    return ask.generation_id


async def test_only_what_no_generation_of_ours_names_is_given_up(db: Database, store: ObjectStore) -> None:
    account = await admitting.account(db, 1000)
    named = await ended(
        db, account, "succeeded", key(UUID(int=0), days_ago=5).replace(str(UUID(int=0)), "{id}")
    )
    failed, canceled = await ended(db, account, "failed"), await ended(db, account, "canceled")
    pending = await ended(db, account, "pending")
    deleted = await ended(db, account, "failed")
    await db.fetch(
        "SELECT * FROM remove_generations_v1(ARRAY[$1::uuid], ARRAY[$2::uuid], false)", account, deleted
    )
    removed = await ended(db, account, "succeeded", "outputs/elsewhere.png")
    await db.execute("UPDATE generations SET files_removed_at = now() WHERE id = $1", removed)
    kept = [
        key(named, days_ago=5),
        key(pending, days_ago=5),
        key(uuid4(), days_ago=5),  # another installation's, or newer than a restored backup
        key(failed, days_ago=5).rpartition("/")[0] + "-not-ours/a-0.png",
        key(failed, days_ago=1),  # may still be in flight
    ]
    orphans = [
        key(named, days_ago=5, name="b-0.png"),  # of the worker before
        key(failed, days_ago=5),
        key(canceled, days_ago=4),
        key(canceled, days_ago=4, name="a-1.png"),
        key(deleted, days_ago=3),
        key(removed, days_ago=3),
    ]
    for each in (*kept, *orphans):
        await store.put(each, b"x", "image/png")
    await begin(db, days_ago=7)
    await OrphanSweep(db, store).sweep()
    assert {found for found, _ in await rows(db)} == set(orphans)
    await FileDeletions(db, store).delete_due()
    assert await present(store, *kept) == [True] * len(kept)
    assert await present(store, *orphans) == [False] * len(orphans)
    assert await verify(db) == []
    assert await db.fetchval("SELECT day FROM file_sweep") == (TODAY - timedelta(days=2)).date()


async def test_a_large_day_is_searched_page_by_page_and_goes_on_where_it_was(
    db: Database, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PAGE", 4)
    monkeypatch.setattr(files, "_PAGES_MAX", 2)
    account = await admitting.account(db, 1000)
    orphans = []
    for _ in range(21):
        orphans.append(key(await ended(db, account, "canceled"), days_ago=3))
        await store.put(orphans[-1], b"x", "image/png")
    await begin(db, days_ago=3)
    counts = []
    for _ in range(4):
        await OrphanSweep(db, store).sweep()
        counts.append(len(await rows(db)))
    assert counts == [8, 16, 21, 21]
    assert {found for found, _ in await rows(db)} == set(orphans)


async def test_workers_take_turns_and_a_dead_one_loses_its_turn(db: Database, store: ObjectStore) -> None:
    orphan = key(await ended(db, await admitting.account(db, 10), "canceled"), days_ago=3)
    await store.put(orphan, b"x", "image/png")
    await begin(db, days_ago=3)
    await db.execute("UPDATE file_sweep SET claimed_until = now() + interval '1 minute'")
    await OrphanSweep(db, store).sweep()
    assert await rows(db) == []
    await db.execute("UPDATE file_sweep SET claimed_until = now()")
    await OrphanSweep(db, store).sweep()
    assert await rows(db) == [(orphan, 0)]


async def test_a_store_that_cannot_be_listed_is_asked_again_later(db: Database, store: ObjectStore) -> None:
    class Away(ObjectStore):
        async def page(self, prefix: str, after: str, *, limit: int) -> list[str]:
            raise StorageError("no answer in time")

    await begin(db, days_ago=5)
    await OrphanSweep(db, Away(store._backend, name="away")).sweep()
    assert await db.fetchval("SELECT day FROM file_sweep") == (TODAY - timedelta(days=5)).date()
