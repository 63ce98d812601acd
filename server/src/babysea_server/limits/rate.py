"""The request rate of accounts: so many requests a minute, over all keys and all API processes."""

import math

from babysea_server.kit.calls import Principal, RateWindow
from babysea_server.kit.clock import Clock
from babysea_server.limits.counters import WINDOW_S
from babysea_server.limits.windows import SharedWindows


class RateLimiter:
    """Counts requests per account against its plan's `requests_per_minute`.

    Of any number of requests in one window exactly the limit pass, as long as the counters answer; see
    `SharedWindows` for when they do not.
    """

    def __init__(self, windows: SharedWindows, clock: Clock) -> None:
        self._windows = windows
        self._clock = clock

    async def take(self, principal: Principal) -> RateWindow | None:
        """Count one request; None for a plan without limit, which is not counted at all."""
        limit = principal.plan.requests_per_minute
        if limit is None:
            return None
        window = self._windows.window(str(principal.account_id))
        position = window.used + 1
        # A window that is used up is known here, so a flood of requests asks nobody.
        if position <= limit:
            position = await self._windows.count(window)
        resets_at = (window.number + 1) * WINDOW_S
        return RateWindow(
            limit=limit,
            remaining=max(0, limit - position),
            resets_at=resets_at,
            retry_after_s=seconds_until(resets_at, self._clock),
            exceeded=position > limit,
        )


def seconds_until(unix_s: int, clock: Clock) -> int:
    """Whole seconds from now, at least 1."""
    return max(1, math.ceil(unix_s - clock.now().timestamp()))
