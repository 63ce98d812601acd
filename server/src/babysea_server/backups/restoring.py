"""Bringing a backup back, into a place where nothing is yet."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from babysea_server.backups import files, manifest, programs
from babysea_server.backups.manifest import BackupError, Manifest, RegionPart
from babysea_server.backups.places import databases
from babysea_server.backups.taking import digest
from babysea_server.db.migrate import migrate
from babysea_server.db.migrations import known_revisions
from babysea_server.db.pool import Database
from babysea_server.execution import store as execution
from babysea_server.ledger.verify import Difference, verify
from babysea_server.master_key import load_master_key
from babysea_server.outputs.store import local_directory, open_store
from babysea_server.settings import Settings

#: What becomes of what was in flight: past its hard limit it is only refunded, with a job at the provider it is waited
#: for, and the rest is asked for as if it had just been accepted.
_IN_FLIGHT = """
SELECT count(*) FILTER (WHERE expires_at <= now()) AS expired,
       count(*) FILTER (WHERE expires_at > now() AND submitted) AS resumed,
       count(*) FILTER (WHERE expires_at > now() AND NOT submitted) AS asked_again
FROM (SELECT expires_at, EXISTS (SELECT FROM attempts a WHERE a.generation_id = g.id AND a.outcome = 'pending')
                 AS submitted
      FROM generations g WHERE status IN ('pending', 'processing')) AS in_flight
"""


class Restored(msgspec.Struct, frozen=True):
    """What came of one region."""

    generations: int
    in_flight: Mapping[str, int]
    """Before anything was given up: `expired`, `resumed`, `asked_again`."""
    given_up: int
    missing: Sequence[str]
    """Keys of files that generations name and that are not there."""
    differences: Sequence[Difference]
    """What `ledger verify` finds."""


async def restore(
    settings: Settings, folder: Path, *, give_up: bool = False, new_master_key: bool = False
) -> dict[str, Restored]:
    """Restore the regions that this installation serves, check them, and leave them without a running process.

    Nothing is begun unless everything about the backup is right and the place is empty; each database is restored
    whole or not at all, then brought to this version's schema.

    Args:
        give_up: fail and refund what was in flight when the backup was taken.
        new_master_key: go on under another master key than the backup's.

    Raises:
        BackupError, EmbeddedPostgresError, StorageError, SettingsError, OSError
    """
    found = manifest.read(folder)
    chosen: dict[str, RegionPart] = {
        region: part for region, part in found.regions.items() if region in settings.regions
    }
    if not chosen:
        raise BackupError(
            f"the backup has regions {', '.join(found.regions)}, and none of them is served here"
        )
    directory = local_directory(settings.storage_url, settings.data_path)
    await asyncio.to_thread(_examine, found, chosen, folder, directory)
    _settle_key(settings, found, folder, new_master_key=new_master_key)
    served = msgspec.structs.replace(
        settings, regions=tuple(region for region in settings.regions if region in chosen)
    )
    async with AsyncExitStack() as stack:
        dsns = await databases(stack, served, make=True)
        for region, dsn in dsns.items():
            if not await programs.is_empty(dsn):
                raise BackupError(f"the database of region {region} is not empty: restore into an empty one")
        for region, dsn in dsns.items():
            await programs.load(dsn, folder / chosen[region].dump)
            await migrate(dsn)
            if directory is not None and chosen[region].files is not None:
                await files.copy(folder / "files" / region, directory / region)
        await asyncio.to_thread(os.sync)
        return await _all_checked(settings, dsns, give_up=give_up)


async def check(settings: Settings, *, give_up: bool = False) -> dict[str, Restored]:
    """Do the rest of a restore where PostgreSQL's own tools brought the databases back.

    Args:
        give_up: as for `restore`.

    Raises:
        BackupError: a worker runs on one of them, or did less than a lease ago.
        EmbeddedPostgresError, StorageError, DatabaseUnavailableError, OSError
    """
    async with AsyncExitStack() as stack:
        dsns = await databases(stack, settings)
        for region, dsn in dsns.items():
            await migrate(dsn)
            if left := await programs.lease_left_s(dsn):
                raise BackupError(
                    f"a worker holds work of region {region} for {left:.0f} s more: stop it, or try again then"
                )
        return await _all_checked(settings, dsns, give_up=give_up)


def _examine(found: Manifest, chosen: Mapping[str, RegionPart], folder: Path, directory: Path | None) -> None:
    for region, part in chosen.items():
        if part.revision not in known_revisions():
            raise BackupError(
                f"region {region} of the backup is at revision {part.revision}, made by a newer babysea-server "
                f"({found.version}) than this one: restore it with that"
            )
        if not (folder / part.dump).exists() or digest(folder / part.dump) != part.sha256:
            raise BackupError(f"{folder / part.dump} is not what it was when the backup was taken")
        if directory is not None and not files.is_bare(directory / region):
            raise BackupError(f"{directory / region} has files already: restore into an empty place")


def _settle_key(settings: Settings, found: Manifest, folder: Path, *, new_master_key: bool) -> None:
    """Have the master key in its place, or refuse: what is sealed under it would be lost without anybody noticing."""
    kept, given = settings.data_path / manifest.MASTER_KEY, folder / manifest.MASTER_KEY
    if settings.master_key is None and not kept.exists() and not new_master_key:
        if not given.exists():
            raise BackupError(
                f"the master key is not in the backup: put it into {kept} or MASTER_KEY, or go on without it "
                "with --new-master-key"
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(given.read_text().strip())
    if not new_master_key and manifest.key_name(load_master_key(settings)) != found.master_key:
        raise BackupError(
            "the master key is another one than the backup's: give the right one, or go on without it with "
            "--new-master-key"
        )


async def _all_checked(settings: Settings, dsns: Mapping[str, str], *, give_up: bool) -> dict[str, Restored]:
    return {region: await _checked(settings, region, dsn, give_up=give_up) for region, dsn in dsns.items()}


async def _checked(settings: Settings, region: str, dsn: str, *, give_up: bool) -> Restored:
    store = open_store(settings.storage_url, settings.data_path, prefix=region)
    db = Database(dsn, name="babysea-restore", size=2)
    await db.open()
    try:
        # The workers of then are gone: whoever starts takes their work over at once.
        await db.execute("DELETE FROM workers")
        await execution.reap(db)
        in_flight = dict((await db.fetch(_IN_FLIGHT))[0])
        given_up = await _give_up(db) if give_up else 0
        return Restored(
            generations=await db.fetchval("SELECT count(*) FROM generations"),
            in_flight=in_flight,
            given_up=given_up,
            missing=await files.missing(db, store),
            differences=await verify(db),
        )
    finally:
        await db.close()


async def _give_up(db: Database) -> int:
    """End everything in flight as if its hard limit were over: failed, refunded, and told to who subscribed."""
    await db.execute(
        "UPDATE generations SET expires_at = now() WHERE status IN ('pending', 'processing') AND expires_at > now()"
    )
    count = 0
    while ended := await execution.expire(db):
        count += ended
    return count
