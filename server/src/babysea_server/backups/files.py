"""The files of a region: copied with their folders, and compared with what the database names."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from babysea_server.db.pool import Database
from babysea_server.outputs.keys import is_key
from babysea_server.outputs.store import ObjectStore

_AT_ONCE = 64

_NAMED = """
SELECT f ->> 'key' AS key, (f ->> 'bytes')::bigint AS bytes
FROM generations CROSS JOIN LATERAL jsonb_array_elements(outputs) AS f
WHERE status = 'succeeded' AND files_removed_at IS NULL ORDER BY id
"""


async def copy(source: Path, target: Path) -> tuple[int, int]:
    """Copy all objects below a folder; returns how many and their bytes.

    What is being written just now, or deleted meanwhile, is left out: the database's dump, which is older, does not
    name the first, and the second is reported when it is restored.
    """
    for folder in (target.parent, target):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    count = size = 0
    names = _objects(source)
    while batch := list(islice(names, _AT_ONCE)):
        copied = await asyncio.to_thread(_copy, source, target, batch)
        count += len(copied)
        size += sum(copied)
    return count, size


def is_bare(folder: Path) -> bool:
    """Whether there is no file below a folder."""
    return not any(files for _, _, files in os.walk(folder))


async def missing(db: Database, store: ObjectStore) -> list[str]:
    """The keys of all files that generations name and the store does not have in full length.

    Raises:
        StorageError: the store cannot be asked.
    """
    found: list[str] = []
    async with db.connection() as connection, connection.transaction(readonly=True):
        await connection.execute("SET LOCAL statement_timeout = 0")
        batch: list[Any] = []
        async for row in connection.cursor(_NAMED, prefetch=1000):
            batch.append(row)
            if len(batch) == _AT_ONCE:
                found += await _missing(store, batch)
                batch = []
        return found + await _missing(store, batch)


async def _missing(store: ObjectStore, rows: list[Any]) -> list[str]:
    sizes = await asyncio.gather(*(store.size(row["key"]) for row in rows))
    return [row["key"] for row, size in zip(rows, sizes, strict=True) if size != row["bytes"]]


def _objects(root: Path) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        for name in names:
            key = str((Path(folder) / name).relative_to(root))
            if is_key(key):  # the drafts of files that are being written are none
                yield key


def _copy(source: Path, target: Path, keys: list[str]) -> list[int]:
    sizes = []
    for key in keys:
        to = target / key
        to.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / key, to)
        except FileNotFoundError:
            continue
        sizes.append(to.stat().st_size)
    return sizes
