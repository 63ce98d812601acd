"""Rankings in Redis or Valkey."""

from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec

from babysea_server.kit.redis import REDIS_FAULTS, open_redis
from babysea_server.routing.ranking import STALE_AFTER_S
from babysea_server.routing.rankings import RankingsUnavailableError, key_prefix

#: Being connected may take longer than an answer: it is done in the background.
_CONNECT_WITHIN_S = 1.0
_CONNECTIONS_MAX = 2
#: Values read with one command.
_READ_MAX = 500


class RedisRankings:
    """`RankingStore` in a Redis or Valkey server: a key for each model, and one that lists the models.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        answer_within_s: how long one answer may take.

    Raises:
        ValueError: the URL is none of these; the message does not repeat it.
    """

    def __init__(self, url: str, region: str, *, answer_within_s: float) -> None:
        self._redis = open_redis(
            url,
            connections=_CONNECTIONS_MAX,
            answer_within_s=answer_within_s,
            connect_within_s=_CONNECT_WITHIN_S,
        )
        self._prefix = key_prefix(region)
        self._list = f"predictive:rankings:{region}"

    async def publish(self, documents: Mapping[str, bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for model, document in documents.items():
            pipeline.set(self._prefix + model, document, ex=STALE_AFTER_S)
        pipeline.set(self._list, msgspec.json.encode(sorted(documents)), ex=STALE_AFTER_S)
        await self._ask(pipeline.execute())

    async def read(self) -> Mapping[str, bytes]:
        models = _models(await self._ask(self._redis.get(self._list)))
        found: dict[str, bytes] = {}
        for start in range(0, len(models), _READ_MAX):
            some = models[start : start + _READ_MAX]
            values = await self._ask(self._redis.mget([self._prefix + model for model in some]))
            found |= {model: value for model, value in zip(some, values, strict=True) if value is not None}
        return found

    async def close(self) -> None:
        await self._redis.aclose()

    async def _ask(self, asking: Awaitable[Any]) -> Any:
        try:
            return await asking
        except REDIS_FAULTS as error:
            raise RankingsUnavailableError(
                "The cache cannot be reached, or does not answer in time."
            ) from error


def _models(document: bytes | None) -> list[str]:
    if document is None:
        return []
    try:
        return msgspec.json.decode(document, type=list[str])
    except msgspec.DecodeError:
        return []
