"""Taking a backup of a running installation."""

import asyncio
import hashlib
import os
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from babysea_server import __version__
from babysea_server.backups import files, programs
from babysea_server.backups.manifest import (
    FORMAT,
    MASTER_KEY,
    BackupError,
    Manifest,
    RegionPart,
    key_name,
    write,
)
from babysea_server.backups.places import databases
from babysea_server.master_key import load_master_key
from babysea_server.outputs.store import local_directory
from babysea_server.settings import Settings


async def take(settings: Settings, folder: Path, *, with_master_key: bool = False) -> Manifest:
    """Back up all regions into an empty folder, beside running processes or without them.

    Each region's database is dumped as of one moment, and its files are copied afterwards, so that each file which the
    dump names is there unless it was deleted in between. Nothing is changed.

    Args:
        with_master_key: put the master key, too, into the backup, in clear.

    Raises:
        BackupError, EmbeddedPostgresError, OSError
    """
    _prepare(folder)
    made_at = datetime.now(UTC)
    parts: dict[str, RegionPart] = {}
    directory = local_directory(settings.storage_url, settings.data_path)
    async with AsyncExitStack() as stack:
        for region, dsn in (await databases(stack, settings)).items():
            revision = await programs.revision(dsn)
            if revision is not None:
                parts[region] = await _region(region, dsn, revision, directory, folder)
    if not parts:
        raise BackupError(f"there is nothing to back up in regions {', '.join(settings.regions)}")
    if with_master_key:
        _write_key(settings, folder / MASTER_KEY)
    manifest = Manifest(
        format=FORMAT,
        made_at=made_at,
        version=__version__,
        master_key=key_name(load_master_key(settings)),
        storage=None if directory is not None else settings.storage_url,
        regions=parts,
    )
    await asyncio.to_thread(os.sync)
    write(folder, manifest)
    return manifest


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise BackupError(f"{folder} is not empty: every backup has a folder of its own")
    except (FileExistsError, NotADirectoryError):
        raise BackupError(f"{folder} is not a folder") from None


async def _region(region: str, dsn: str, revision: str, directory: Path | None, folder: Path) -> RegionPart:
    path = folder / f"{region}.dump"
    await programs.dump(dsn, path)
    count: int | None = None
    size: int | None = None
    if directory is not None:
        count, size = await files.copy(directory / region, folder / "files" / region)
    return RegionPart(
        dump=path.name,
        bytes=path.stat().st_size,
        sha256=await asyncio.to_thread(digest, path),
        revision=revision,
        files=count,
        file_bytes=size,
    )


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_key(settings: Settings, path: Path) -> None:
    text = settings.master_key or (settings.data_path / MASTER_KEY).read_text()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text.strip() + "\n")
