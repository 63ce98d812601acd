"""How late the event loop is: what holds it up holds up everything."""

from collections.abc import Callable

from babysea_server.kit.clock import Clock

_EVERY_S = 0.5


async def watch_lag(observe: Callable[[float], None], clock: Clock, *, every_s: float = _EVERY_S) -> None:
    """Measure how much later than asked a timer fires, in seconds, again and again; ends when it is cancelled."""
    while True:
        asked_at = clock.monotonic()
        await clock.sleep(every_s)
        observe(max(0.0, clock.monotonic() - asked_at - every_s))
