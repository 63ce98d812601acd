"""Attempts to sign in and to reset a password: so many a minute from one address, and for one e-mail address."""

import hashlib

from babysea_server.console.faults import too_many
from babysea_server.kit.clock import Clock
from babysea_server.limits.counters import WINDOW_S
from babysea_server.limits.guard import client_network
from babysea_server.limits.rate import seconds_until
from babysea_server.limits.windows import SharedWindows

PER_ADDRESS = 30
PER_EMAIL = 10


class Attempts:
    """Counts attempts before they are made, right or wrong, so that many at once are no way around it."""

    def __init__(self, windows: SharedWindows, clock: Clock) -> None:
        self._windows = windows
        self._clock = clock

    async def take(self, client_ip: str, email: str = "") -> None:
        """Count one.

        Raises:
            PageFaultError: 429, too many in this minute.
        """
        if network := client_network(client_ip):
            await self._count(f"ip:{network}", PER_ADDRESS)
        if email:
            digest = hashlib.sha256(email.strip().lower().encode("utf-8", "replace")).hexdigest()
            await self._count(f"email:{digest}", PER_EMAIL)

    async def _count(self, key: str, most: int) -> None:
        window = self._windows.window(key)
        if window.used >= most or await self._windows.count(window) > most:
            raise too_many(seconds_until((window.number + 1) * WINDOW_S, self._clock))

    async def close(self) -> None:
        """Stop."""
        await self._windows.close()
