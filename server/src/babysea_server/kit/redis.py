"""Connections to Redis or Valkey: bounded, and nothing is tried again."""

from collections.abc import Callable

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

#: Whatever a call to a server that is away, slow, or leaving in this moment may raise. RuntimeError is uvloop's word
#: for writing to a connection that has just been closed; the library lets it through.
REDIS_FAULTS = (RedisError, OSError, RuntimeError)


def open_redis(url: str, *, connections: int, answer_within_s: float, connect_within_s: float) -> Redis:
    """A client that connects when it is first used.

    Nothing is tried again: a number that was added twice would be wrong, and nobody waits so long.

    Args:
        url: `redis://`, `rediss://` or `unix://`.

    Raises:
        ValueError: the URL is none of these; the message does not repeat it.
    """
    try:
        pool = ConnectionPool.from_url(
            url,
            max_connections=connections,
            socket_timeout=answer_within_s,
            socket_connect_timeout=connect_within_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )
        # Connects to nothing yet, and finds out about unknown options.
        make: Callable[[], object] = pool.make_connection
        make()
    except (TypeError, ValueError):
        # Without the library's own words: they quote the parts of a URL whose password is not escaped.
        raise ValueError("not a redis://, rediss:// or unix:// URL that can be used") from None
    return Redis.from_pool(pool)
