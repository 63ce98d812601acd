"""Reading one generation: the commonest question, asked by everybody who waits, so it is asked in batches."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.generations import store
from babysea_server.kit.batching import Batcher, ClosedError, QueueFullError, QueueTimeoutError

_PATIENCE_S = 5.0

_Question = tuple[UUID, UUID]
"""Account and generation."""


class Reader:
    """Reads generations of one region; questions that arrive while one is under way go together."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._batcher: Batcher[_Question, Any] = Batcher(
            self._read, batch_max=256, calls_max=1, queue_max=4096, patience_s=_PATIENCE_S
        )

    async def get(self, account_id: UUID, generation_id: UUID) -> Any:
        """One generation of the account, or None: a foreign one looks exactly like a missing one.

        Raises:
            DatabaseUnavailableError: it cannot be read now.
        """
        try:
            return await self._batcher.submit((account_id, generation_id))
        except (QueueFullError, QueueTimeoutError, ClosedError) as error:
            raise DatabaseUnavailableError("too many reads are waiting", sent=False) from error

    async def close(self) -> None:
        """Answer what waits."""
        await self._batcher.close()

    async def _read(self, questions: Sequence[_Question]) -> list[Any]:
        rows = await store.by_ids(
            self._db, {account for account, _ in questions}, {id for _, id in questions}
        )
        found = {row["id"]: row for row in rows}
        answers = []
        for account_id, generation_id in questions:
            row = found.get(generation_id)
            answers.append(row if row is not None and row["account_id"] == account_id else None)
        return answers
