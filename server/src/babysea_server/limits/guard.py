"""Failed authentications: whoever tries keys is answered only so often a minute."""

import ipaddress

from babysea_server.errors import AUTH_RATE_LIMITED, ApiError
from babysea_server.kit.clock import Clock
from babysea_server.limits.counters import WINDOW_S
from babysea_server.limits.rate import seconds_until
from babysea_server.limits.windows import SharedWindows, Window


class AuthGuard:
    """Limits the failed authentications of one client, an IPv4 address or an IPv6 network of 64 bits.

    Only failures are counted, so a request whose key is right asks nobody.

    Args:
        per_minute: failures that are answered as such in one window.
    """

    def __init__(self, windows: SharedWindows, clock: Clock, *, per_minute: int) -> None:
        self._windows = windows
        self._clock = clock
        self._per_minute = per_minute

    def check(self, client_ip: str) -> None:
        """Let the client pass, unless it has failed too often.

        Raises:
            ApiError: BSE1006.
        """
        if self._windows.quiet:
            return
        client = client_network(client_ip)
        window = None if client is None else self._windows.peek(client)
        if window is not None and window.used >= self._per_minute:
            raise self._too_many(window)

    async def failed(self, client_ip: str) -> None:
        """Count a failure. What is no address is not counted: it could be anybody.

        Raises:
            ApiError: BSE1006, in place of the failure's own answer, when there were too many.
        """
        client = client_network(client_ip)
        if client is None:
            return
        window = self._windows.window(client)
        if window.used >= self._per_minute or await self._windows.count(window) > self._per_minute:
            raise self._too_many(window)

    def _too_many(self, window: Window) -> ApiError:
        seconds = seconds_until((window.number + 1) * WINDOW_S, self._clock)
        return ApiError(
            AUTH_RATE_LIMITED,
            f"Too many invalid API keys came from this address; wait for {seconds} s.",
            details={"retry_after_seconds": seconds},
        )


def client_network(ip: str) -> str | None:
    """One subscriber's addresses: all of an IPv6 /64 are usually in one hand."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
