"""Files that no generation names: those whose deletion is written down, and those that nobody knows of."""

import re
from collections.abc import Sequence
from uuid import UUID

import structlog

from babysea_server.db.pool import Database
from babysea_server.generations import store
from babysea_server.outputs.keys import InvalidKeyError
from babysea_server.outputs.store import ObjectStore, StorageError

_log = structlog.get_logger(__name__)

DELETIONS_EVERY_S = 15.0
SWEEP_EVERY_S = 3600.0
_BATCH = 1000
#: One file that the store refuses must not keep others; several at a time mean that the store is away.
_REFUSALS_MAX = 3
_PAGE = 1000
_PAGES_MAX = 200
_OUTPUT = re.compile(r"outputs/\d{4}/\d{2}/\d{2}/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/[^/]+")


class FileDeletions:
    """Deletes the files whose keys stand in `file_deletions`; what fails is tried again, with growing pauses."""

    def __init__(self, db: Database, files: ObjectStore) -> None:
        self._db = db
        self._files = files

    async def delete_due(self) -> None:
        """Delete what is due, in batches, until nothing is or the store fails."""
        while keys := await store.claim_file_deletions(self._db, limit=_BATCH):
            deleted = await self._delete(keys)
            if deleted:
                await store.forget_files(self._db, deleted)
            if len(deleted) < len(keys):
                return

    async def _delete(self, keys: Sequence[str]) -> Sequence[str]:
        """Those of the keys under which there is nothing any more."""
        try:
            await self._files.delete(keys)
            return keys
        except (StorageError, InvalidKeyError) as error:
            _log.warning("files_not_deleted", files=len(keys), error=str(error))
        deleted: list[str] = []
        refused = 0
        for key in keys:
            try:
                await self._files.delete([key])
                deleted.append(key)
            except (StorageError, InvalidKeyError) as error:
                _log.warning("file_not_deleted", key=key, error=str(error))
                refused += 1
                if refused == _REFUSALS_MAX:
                    break
        return deleted


class OrphanSweep:
    """Finds files that were stored for a generation and never settled: their worker was killed in between.

    Goes through the store day by day, once, page by page; the place is kept in the database, where workers take
    turns. A file is given up only when this database knows its generation, which is final and does not name it:
    what belongs to another installation, or is newer than a restored backup, is left alone.
    """

    def __init__(self, db: Database, files: ObjectStore) -> None:
        self._db = db
        self._files = files

    async def sweep(self) -> None:
        """Go on where the last sweep ended, up to the last day of which nothing can be in flight."""
        for _ in range(_PAGES_MAX):
            place = await store.claim_sweep(self._db)
            if place is None:
                return
            try:
                keys = await self._files.page(f"outputs/{place.day:%Y/%m/%d}", place.after, limit=_PAGE)
            except StorageError as error:
                _log.warning("files_not_listed", day=str(place.day), error=str(error))
                return
            owned = [(key, UUID(match[1])) for key in keys if (match := _OUTPUT.fullmatch(key))]
            orphans = await store.finish_sweep(
                self._db, place, owned, after=keys[-1] if len(keys) == _PAGE else None
            )
            if orphans:
                _log.warning("orphaned_files_found", day=str(place.day), files=orphans)
