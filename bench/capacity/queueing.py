"""The few formulas of queueing theory that the capacity model needs. Rates per second, times in seconds."""

from math import inf, log


def erlang_c(servers: int, offered: float) -> float:
    """The probability that an arrival waits, with `offered` Erlangs (rate x service time) on so many servers (M/M/c).

    By the recursion of Erlang B, which does not overflow. 1 where the load cannot be carried.

    Raises:
        ValueError: no server, or a negative load.
    """
    if servers < 1 or offered < 0:
        raise ValueError(f"no queue: {servers} servers, {offered} Erlangs")
    if offered >= servers:
        return 1.0
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def wait_s(rate: float, service_s: float, servers: int = 1) -> float:
    """The mean wait before service (M/M/c), infinite where the load cannot be carried."""
    offered = rate * service_s
    if offered >= servers:
        return inf
    return erlang_c(servers, offered) * service_s / (servers - offered)


def wait_percentile_s(rate: float, service_s: float, percent: float, servers: int = 1) -> float:
    """The wait that `percent` per cent of arrivals stay below (M/M/c); 0 where so many do not wait at all."""
    offered = rate * service_s
    if offered >= servers:
        return inf
    waits, beyond = erlang_c(servers, offered), 1 - percent / 100
    if waits <= beyond:
        return 0.0
    return log(waits / beyond) * service_s / (servers - offered)
