"""Counters of windows in Redis or Valkey."""

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from redis.exceptions import TimeoutError as RedisTimeoutError

from babysea_server.kit.redis import REDIS_FAULTS, open_redis
from babysea_server.limits.counters import KEEP_S, Addition, CountersUnavailableError

_TIMEOUT_S = 1.0
_CONNECTIONS_MAX = 8
_PROBE_KEEP_S = 60


class RedisCounters:
    """`WindowCounters` in a Redis or Valkey server, under keys that begin with `babysea:<region>:`.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        region: keeps regions apart that share a server.

    Raises:
        ValueError: the URL is none of these; the message does not repeat it.
    """

    def __init__(self, url: str, region: str) -> None:
        self._redis = open_redis(
            url, connections=_CONNECTIONS_MAX, answer_within_s=_TIMEOUT_S, connect_within_s=_TIMEOUT_S
        )
        self._prefix = f"babysea:{region}:"

    async def open(self) -> None:
        with suppress(CountersUnavailableError):
            await self.probe()

    async def close(self) -> None:
        await self._redis.aclose()

    async def add(self, additions: Sequence[Addition]) -> Sequence[int]:
        pipeline = self._redis.pipeline(transaction=False)
        for key, window, amount in additions:
            name = f"{self._prefix}{key}:{window}"
            pipeline.incrby(name, amount)
            pipeline.expire(name, KEEP_S)
        answers = await self._ask(pipeline.execute())
        return [int(count) for count in answers[::2]]

    async def probe(self) -> None:
        # A name of its own: of two processes that ask at once, each reads what it wrote itself.
        name, number = f"{self._prefix}probe:{uuid4()}", 7
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(name, number, ex=_PROBE_KEEP_S)
        pipeline.get(name)
        _, read = await self._ask(pipeline.execute())
        if read is None or int(read) != number:
            raise CountersUnavailableError("The cache does not hold what was just written.")

    async def _ask(self, asking: Awaitable[list[Any]]) -> list[Any]:
        try:
            return await asking
        except RedisTimeoutError as error:
            raise CountersUnavailableError("The cache did not answer in time.") from error
        except REDIS_FAULTS as error:
            raise CountersUnavailableError("The cache cannot be reached, or refuses to serve.") from error
