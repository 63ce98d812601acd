"""Turns: what all workers of a region do again and again, and each time only one of them needs to.

No worker leads. Whoever finds that the last turn is long enough ago takes the next one, in one statement; one that dies
in its turn is followed by whoever asks after it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from babysea_server.db.pool import Database

#: Somebody who asks a little early is let through, else turns would drift apart.
_CLAIM_SHARE = 0.9

_TAKE = """
INSERT INTO periodic_turns AS t (work, taken_at) VALUES ($1, now())
ON CONFLICT (work) DO UPDATE SET taken_at = excluded.taken_at
    WHERE t.taken_at <= excluded.taken_at - make_interval(secs => $2)
RETURNING true
"""


async def take_turn(db: Database, work: str, *, seconds: float) -> bool:
    """Take the turn at a work, unless somebody took one in the last `seconds`; whether it is the caller's."""
    return await db.fetchval(_TAKE, work, seconds * _CLAIM_SHARE) is True


def in_turn(
    db: Database, work: str, every_s: float, do: Callable[[], Awaitable[Any]]
) -> Callable[[], Awaitable[None]]:
    """`do`, when it is the caller's turn.

    Args:
        work: its name in the database.
        every_s: how often it is to be done, by all workers together.
    """

    async def turn() -> None:
        if await take_turn(db, work, seconds=every_s):
            await do()

    return turn
