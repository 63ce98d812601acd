"""Where rankings stand for all processes of a region, and what one API process knows of them."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

import asyncpg
import structlog

from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end
from babysea_server.routing import store
from babysea_server.routing.ranking import STALE_AFTER_S, Ranking, read_ranking

_log = structlog.get_logger(__name__)

#: A process reads the rankings this often.
REFRESH_EVERY_S = 5.0
#: An API process waits no longer for an answer of Redis; whoever publishes rankings or looks at them has more time.
BUDGET_S = 0.05
PATIENCE_S = 1.0


class RankingsUnavailableError(Exception):
    """The rankings could not be read or written now; the message has no addresses or credentials in it."""


class RankingStore(Protocol):
    """The rankings of one region as JSON documents by model. They may be lost at any time."""

    async def publish(self, documents: Mapping[str, bytes]) -> None:
        """Replace the documents of these models; those of others are forgotten when they are stale.

        Raises:
            RankingsUnavailableError
        """
        ...

    async def read(self) -> Mapping[str, bytes]:
        """All documents, by model; they may be anything.

        Raises:
            RankingsUnavailableError
        """
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


def key_prefix(region: str) -> str:
    """What the key of every ranking of a region begins with; the model's identifier follows."""
    return f"predictive:ranking:{region}:"


class PostgresRankings:
    """`RankingStore` in a table of the region's database."""

    def __init__(self, db: Database, region: str) -> None:
        self._db = db
        self._prefix = key_prefix(region)

    async def publish(self, documents: Mapping[str, bytes]) -> None:
        named = {self._prefix + model: document.decode() for model, document in documents.items()}
        try:
            await store.publish_rankings(self._db, named, keep_s=STALE_AFTER_S)
        except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
            raise RankingsUnavailableError("The database did not take the rankings.") from error

    async def read(self) -> Mapping[str, bytes]:
        try:
            rows = await store.read_rankings(self._db, self._prefix)
        except (DatabaseUnavailableError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
            raise RankingsUnavailableError("The database did not tell the rankings.") from error
        return {key.removeprefix(self._prefix): document.encode() for key, document in rows}

    async def close(self) -> None:
        pass  # the pool is its owner's


def ranking_store(
    db: Database, region: str, redis_url: str | None, *, answer_within_s: float = PATIENCE_S
) -> RankingStore:
    """The store that an installation uses: Redis where there is one, else the region's database.

    Args:
        answer_within_s: how long Redis may take for an answer.

    Raises:
        ValueError: the URL is none that can be used.
    """
    if redis_url is None:
        return PostgresRankings(db, region)
    # Imported here, as it takes a while and most installations have none.
    from babysea_server.routing.redis import RedisRankings

    return RedisRankings(redis_url, region, answer_within_s=answer_within_s)


class Rankings:
    """What one API process knows of the rankings: asked without waiting, read anew in the background.

    What is missing, stale or malformed is not there, and a store that does not answer leaves what was read last
    until that is stale: then every model has its own order.

    Args:
        every_s: pause between two readings.
    """

    def __init__(
        self,
        db: Database,
        region: str,
        clock: Clock,
        redis_url: str | None = None,
        *,
        every_s: float = REFRESH_EVERY_S,
    ) -> None:
        self._store = ranking_store(db, region, redis_url, answer_within_s=BUDGET_S)
        self._clock = clock
        self._every_s = every_s
        self._known: Mapping[str, Ranking] = {}
        self._away = False
        self._reading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin reading, at once."""
        self._reading = asyncio.create_task(self._read_on(), name="rankings")

    async def close(self) -> None:
        """Stop reading."""
        await end([self._reading])
        self._reading = None
        await self._store.close()

    def order(self, model: str) -> tuple[str, ...] | None:
        """The providers of a model, best first, as far as they are known; None without a current ranking."""
        ranking = self.ranking(model)
        return None if ranking is None else ranking.providers_ranked

    def ranking(self, model: str) -> Ranking | None:
        """The current ranking of a model."""
        found = self._known.get(model)
        return found if found is not None and found.is_current(self._clock.now()) else None

    async def refresh(self) -> None:
        """Read the rankings once; a failure leaves what is known."""
        try:
            documents = await self._store.read()
        except RankingsUnavailableError as error:
            if not self._away:
                _log.warning("rankings_away", error=str(error))
            self._away = True
            return
        if self._away:
            _log.info("rankings_back")
        self._away = False
        self._known = _rankings(documents)

    async def _read_on(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:
                _log.exception("rankings_not_read")
            await self._clock.sleep(self._every_s)


def _rankings(documents: Mapping[str, bytes]) -> Mapping[str, Ranking]:
    found = {model: read_ranking(document) for model, document in documents.items()}
    malformed = sorted(model for model, ranking in found.items() if ranking is None)
    if malformed:
        _log.warning("rankings_malformed", models=malformed[:10], count=len(malformed))
    return {model: ranking for model, ranking in found.items() if ranking is not None}
