"""Deleting a final generation at its owner's wish: the record at once, its files with it or soon after."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import structlog

from babysea_server import errors
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.errors import ApiError
from babysea_server.generations import store
from babysea_server.generations.changes import before_change, repeated
from babysea_server.generations.reading import Reader
from babysea_server.generations.service import generation_not_found
from babysea_server.generations.store import FINAL
from babysea_server.kit.clock import Clock
from babysea_server.outputs.store import ObjectStore, StorageError

_log = structlog.get_logger(__name__)

#: A store that takes longer is left to the workers; the caller gets the answer.
_FILES_DEADLINE_S = 5.0
_NOTE_DEADLINE_S = 2.0


class Deleting:
    """Deletes generations of one region."""

    def __init__(self, db: Database, reader: Reader, files: ObjectStore, clock: Clock) -> None:
        self._db = db
        self._reader = reader
        self._files = files
        self._clock = clock

    async def delete(self, account_id: UUID, generation_id: UUID) -> int:
        """Delete the generation; returns how many of its files are gone already.

        Files that the store does not delete now are deleted by a worker, without a link to them meanwhile.

        Raises:
            ApiError: no such generation of this account, or it is in flight.
            DatabaseUnavailableError: with `sent=True` it may have been deleted.
        """
        row = await before_change(self._reader, account_id, generation_id)
        if row["status"] not in FINAL:
            raise ApiError(
                errors.GENERATION_IN_PROGRESS,
                f"The generation is {row['status']}; cancel it first, or wait until it is final.",
                details={"generation_status": row["status"]},
            )
        keys, lost = await repeated(lambda: store.delete(self._db, account_id, generation_id), self._clock)
        if keys is None:
            if not lost:  # somebody else's delete was first
                raise generation_not_found(generation_id)
            keys = store.file_keys(row)
        return await self._delete_files(generation_id, keys)

    async def _delete_files(self, generation_id: UUID, keys: Sequence[str]) -> int:
        if not keys:
            return 0
        try:
            async with asyncio.timeout(_FILES_DEADLINE_S):
                await self._files.delete(keys)
        except (StorageError, TimeoutError) as error:
            _log.warning(
                "files_not_deleted", generation_id=str(generation_id), files=len(keys), error=str(error)
            )
            return 0
        try:
            async with asyncio.timeout(_NOTE_DEADLINE_S):
                await store.forget_files(self._db, keys)
        except (DatabaseUnavailableError, asyncpg.PostgresError, TimeoutError) as error:
            # A worker deletes them once more, which changes nothing.
            _log.warning("files_not_forgotten", files=len(keys), error=type(error).__name__)
        return len(keys)
