"""The work behind rankings: counting attempts as they end, and ranking every model's providers anew."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import structlog

from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.kit.json import dumps
from babysea_server.routing import store
from babysea_server.routing.ranking import DECAYED, Rule, rank
from babysea_server.routing.rankings import RankingsUnavailableError, ranking_store
from babysea_server.routing.statistics import SLOT_S, WINDOW_S, Record

_log = structlog.get_logger(__name__)

#: Rankings are computed this often.
EVERY_S = 30.0
#: An attempt is counted when it has ended so long ago: statements take less to be committed.
LAG_S = 3.0
#: Somebody whose turn comes a little early is let through.
_CLAIM_SHARE = 0.9
#: A day in slots, and some more: what is left after that is done in the next turn.
_PIECES_MAX = WINDOW_S // SLOT_S + 12


class RankingJob:
    """Counts the attempts that have ended and publishes the rankings; one of all workers does it each time.

    Statistics, not books: an attempt whose end is committed more than `lag_s` after it happened is not counted.

    Args:
        failures: the failure classes that speak against a provider.
        rule: how much an attempt counts by its age.
        redis_url: where rankings are published; None: in the region's database.

    Raises:
        ValueError: the URL is none that can be used.
    """

    def __init__(
        self,
        db: Database,
        region: str,
        clock: Clock,
        *,
        failures: Collection[str],
        redis_url: str | None = None,
        rule: Rule = DECAYED,
        every_s: float = EVERY_S,
        lag_s: float = LAG_S,
    ) -> None:
        self._db = db
        self._failures = frozenset(failures)
        self._store = ranking_store(db, region, redis_url)
        self._rule = rule
        self._every_s = every_s
        self._lag_s = lag_s

    async def run(self) -> bool:
        """Count and rank, unless somebody has just done so; whether it was done.

        Raises:
            DatabaseUnavailableError, asyncpg.PostgresError: what had been counted by then stays counted.
        """
        at = await store.claim_ranking(self._db, seconds=self._every_s * _CLAIM_SHARE)
        if at is None:
            return False
        for _ in range(_PIECES_MAX):
            if not await store.roll_up(self._db, lag_s=self._lag_s, failures=self._failures):
                break
        records = await read_records(self._db, self._rule)
        documents = {model: dumps(rank(found, self._rule, at)) for model, found in records.items()}
        try:
            await self._store.publish(documents)
        except RankingsUnavailableError as error:
            _log.warning("rankings_not_published", error=str(error))
        await store.delete_old_slots(self._db)
        return True

    async def close(self) -> None:
        """Give back the connections to the cache."""
        await self._store.close()


async def read_records(
    db: Database, rule: Rule, model: str | None = None
) -> Mapping[str, Mapping[str, Record]]:
    """What is known of each provider, by model; of one model or of all.

    Raises:
        DatabaseUnavailableError, asyncpg.PostgresError
    """
    return _records(await store.statistics(db, half_life_s=rule.half_life_s or WINDOW_S, model=model))


def _records(rows: Iterable[Any]) -> Mapping[str, Mapping[str, Record]]:
    models: dict[str, dict[str, Record]] = {}
    for row in rows:
        record = models.setdefault(row["model"], {}).setdefault(row["provider"], Record())
        bucket = row["bucket"]
        record.day.add(bucket, row["attempts"], row["failures"], row["wasted"])
        record.lately.add(bucket, row["attempts_lately"], row["failures_lately"], row["wasted_lately"])
    return models
