"""How long the request log and its roll-ups are kept: days are made ahead and dropped when they are over."""

import structlog

from babysea_server.db.pool import Database
from babysea_server.telemetry import store

_log = structlog.get_logger(__name__)

#: How often a worker looks. Any number of workers may: they take turns, or find nothing to do.
EVERY_S = 3600.0
_AHEAD_DAYS = 2


class Retention:
    """The ends of the request log and of the roll-ups, in one region.

    Args:
        keep_days: whole days (UTC) that the request log is kept, beside today.
    """

    def __init__(self, db: Database, *, keep_days: int) -> None:
        self._db = db
        self._keep_days = keep_days

    async def run(self) -> None:
        """Make the next days' partitions, delete and condense old roll-ups in small steps, drop days that are over."""
        for ahead in range(_AHEAD_DAYS + 1):
            await store.make_day(self._db, ahead=ahead)
        while await store.forget_usage(self._db):
            pass
        while await store.condense_usage(self._db):
            pass
        # Last, because a reader that holds the log for long makes it fail; then the next turn does it.
        while dropped := await store.drop_day(self._db, keep_days=self._keep_days):
            _log.info("request_log_day_dropped", day=str(dropped))
