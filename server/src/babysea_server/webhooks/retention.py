"""What becomes of deliveries that are not sent any more, and of those that were."""

import structlog

from babysea_server.db.pool import Database
from babysea_server.webhooks import store

_log = structlog.get_logger(__name__)

EVERY_S = 60.0
_IN_STEP = 1000
#: Of one call, so that it ends; the next goes on.
_STEPS_MAX = 200


class WebhookRetention:
    """Ends what waited too long for its endpoint, and deletes what is old, in short transactions.

    Any number of workers may do it at once: each passes by what another holds.
    """

    def __init__(self, db: Database, *, keep_days: int) -> None:
        self._db = db
        self._keep_days = keep_days

    async def run(self) -> None:
        """Do what there is to do, or as much of it as one call takes on."""
        expired = forgotten = 0
        for _ in range(_STEPS_MAX):
            step = await store.expire(self._db, limit=_IN_STEP)
            expired += step
            if step < _IN_STEP:
                break
        for _ in range(_STEPS_MAX):
            step = await store.forget(self._db, days=self._keep_days, limit=_IN_STEP)
            forgotten += step
            if step < _IN_STEP:
                break
        if expired or forgotten:
            _log.info("webhook_retention", deliveries_expired=expired, messages_deleted=forgotten)
