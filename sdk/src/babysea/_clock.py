"""Time and chance, which tests replace."""

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """The machine's time; without sleepers, a client waits in the way of its own world."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    sleep: Callable[[float], None] | None = None
    sleep_async: Callable[[float], Awaitable[None]] | None = None
