"""Bringing files to the disk: a file that a customer is charged for must survive a power cut."""

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from babysea_server.kit.batching import Batcher

#: From so many files on, one call for the whole file system is cheaper than three for each file.
_TOGETHER_FROM = 3
_FOLDERS_REMEMBERED = 4096


class DiskSync:
    """Syncs files below one directory; what is asked for at the same time is synced together.

    On Linux many files are synced by one `syncfs`, which costs about as much as one file alone. Elsewhere, and
    for few files, each file is synced, and each folder whose entries are new.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entered_folders: set[Path] = set()
        """Folders whose own entry is known to be on the disk."""
        self._syncfs = _load_syncfs()
        self._batcher: Batcher[str, None] = Batcher(self._sync, calls_max=2, queue_max=100_000)

    async def sync(self, key: str) -> None:
        """Return when the file below the root, its entry and the folders above it are on the disk.

        Raises:
            OSError: the disk failed.
        """
        await self._batcher.submit(key)

    async def _sync(self, keys: Sequence[str]) -> list[None]:
        if self._syncfs is not None and len(keys) >= _TOGETHER_FROM:
            await asyncio.to_thread(_sync_all, self._syncfs, self._root)
        else:
            await asyncio.to_thread(self._sync_each, keys)
        return [None] * len(keys)

    def _sync_each(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._root / key
            _fsync(path)
            entered = []
            folder = path.parent
            while True:
                _fsync(folder)
                if folder == self._root or folder in self._entered_folders:
                    break
                entered.append(folder)
                folder = folder.parent
            if len(self._entered_folders) > _FOLDERS_REMEMBERED:
                self._entered_folders.clear()
            self._entered_folders.update(entered)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _load_syncfs() -> Callable[[int], int] | None:
    """`syncfs(2)`, which Python's standard library does not offer."""
    if sys.platform != "linux":
        return None
    try:
        syncfs: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    return syncfs


def _sync_all(syncfs: Callable[[int], int], root: Path) -> None:
    handle = os.open(root, os.O_RDONLY)
    try:
        if syncfs(handle) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(root))
    finally:
        os.close(handle)
