"""What canceling and deleting share: reading first, and asking again where an answer was lost."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from babysea_server.db.pool import DatabaseUnavailableError
from babysea_server.generations.reading import Reader
from babysea_server.generations.service import generation_not_found
from babysea_server.kit.clock import Clock

_FOR_S = 5.0
_EVERY_S = 0.1

#: The server itself ended the call and rolled it back; it says nothing against the request.
_ROLLED_BACK = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
)

Value = TypeVar("Value")


async def before_change(reader: Reader, account_id: UUID, generation_id: UUID) -> Any:
    """The account's generation as it is before anything is changed.

    Raises:
        ApiError: there is none.
        DatabaseUnavailableError: with `sent=False`, since only a question was lost.
    """
    try:
        row = await reader.get(account_id, generation_id)
    except DatabaseUnavailableError as error:
        raise DatabaseUnavailableError(str(error), sent=False) from error
    if row is None:
        raise generation_not_found(generation_id)
    return row


async def repeated(ask: Callable[[], Awaitable[Value]], clock: Clock) -> tuple[Value, bool]:
    """The answer of a call that may be repeated, and whether an earlier answer was lost, so that the call may
    have taken effect before.

    Raises:
        DatabaseUnavailableError: with `sent=False` nothing was changed; else the outcome is not known, after
            five seconds of asking.
    """
    give_up_at = clock.monotonic() + _FOR_S
    lost = False
    while True:
        try:
            return await ask(), lost
        except DatabaseUnavailableError as error:
            lost = lost or error.sent
            last: Exception = error
        except asyncpg.StatementCompletionUnknownError as error:
            lost, last = True, error
        except _ROLLED_BACK as error:
            last = error
        if not lost or clock.monotonic() > give_up_at:
            raise DatabaseUnavailableError(f"no answer: {type(last).__name__}", sent=lost) from last
        await clock.sleep(_EVERY_S)
