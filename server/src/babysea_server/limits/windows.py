"""Counting in fixed windows, exactly over all processes, and without the others when they cannot be asked."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import structlog

from babysea_server.kit.batching import Batcher, ClosedError, QueueFullError, QueueTimeoutError
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end
from babysea_server.limits.counters import WINDOW_S, Addition, CountersUnavailableError, WindowCounters

#: How long the counters are left alone after they did not answer in time.
RETRY_S = 1.0
#: How long an answer that comes too late for its requests is still waited for.
_LATE_MAX_S = 2.0
#: Turns of the loop for what has arrived while the loop itself was busy: a slow process is not a slow store.
_GRACE_TURNS = 10
_QUEUE_MAX = 4096
_CATCH_UP = 500

_log = structlog.get_logger(__name__)


class Window:
    """One key's present window, as this process knows it."""

    __slots__ = ("key", "number", "others", "own", "shared")

    def __init__(self, key: str, number: int) -> None:
        self.key = key
        self.number = number
        self.own = 0
        """Counted in this process."""
        self.shared = 0
        """How many of `own` the counters certainly have."""
        self.others = 0
        """How many all other processes have counted, as far as it is known."""

    @property
    def used(self) -> int:
        """How many have been counted everywhere, at the least."""
        return self.others + self.own

    def confirm(self, amount: int, count: int) -> None:
        """Take over that `amount` has been added, which made `count`."""
        self.shared += amount
        self.others = max(self.others, count - self.shared)


class _Minute:
    """All windows of one number."""

    __slots__ = ("additions", "number", "windows")

    def __init__(self, number: int) -> None:
        self.number = number
        self.windows: dict[str, Window] = {}
        self.additions = 0
        """Additions of this process that were confirmed."""


class SharedWindows:
    """Counts by key in the present window, together with every other process on the same counters.

    Each count gets a position, and no position is given twice: the first of a window is 1 in exactly one process.
    When the counters do not answer in time, or fail, positions follow from what this process knows, and
    the counters are left alone until a probe in the background finds them back. What was counted meanwhile is
    added then. Each process also counts its additions in the store: a store that knows of fewer was started again
    empty, and gets everything once more.

    Args:
        name: of what is counted, for keys and logs.
        windows_max: keys that are remembered at once; the longest unused is forgotten first.
        timeout_s: the longest wait for the counters.
    """

    def __init__(
        self,
        name: str,
        counters: WindowCounters,
        clock: Clock,
        *,
        windows_max: int = 100_000,
        timeout_s: float,
    ) -> None:
        self._name = name
        self._counters = counters
        self._clock = clock
        self._windows_max = windows_max
        self._timeout_s = timeout_s
        self._minute = _Minute(0)
        self._process_key = f"{name}:process:{uuid4()}"
        # One call at a time, which takes everything that waits: a position is right because its addition has all
        # that were counted here before it.
        self._batcher: Batcher[Window, int] = Batcher(
            self._share,
            batch_max=_QUEUE_MAX,
            calls_max=1,
            queue_max=_QUEUE_MAX,
            patience_s=timeout_s + 1,  # a call in time never makes those behind it give up
        )
        self._adding: asyncio.Task[None] | None = None
        self._away = False
        self._lost = False
        """Whether the counters have forgotten since they were brought up to date last."""
        self._recovery: asyncio.Task[None] | None = None

    @property
    def recovering(self) -> bool:
        """Whether the counters are being left alone, or brought up to date afterwards."""
        return self._recovery is not None and not self._recovery.done()

    @property
    def quiet(self) -> bool:
        """Whether this process has counted nothing lately: then `peek` finds nothing."""
        return not self._minute.windows

    def peek(self, key: str) -> Window | None:
        """The key's present window if anything is known of it; asks nobody."""
        return self._minute.windows.get(key) if self._present() == self._minute.number else None

    def window(self, key: str) -> Window:
        """The key's present window, for `count`."""
        number = self._present()
        if number != self._minute.number:
            self._minute = _Minute(number)
        windows = self._minute.windows
        window = windows.pop(key, None)
        if window is None:
            window = Window(f"{self._name}:{key}", number)
            if len(windows) >= self._windows_max:
                windows.pop(next(iter(windows)))
        windows[key] = window  # at the end: the front is what was used longest ago
        return window

    async def count(self, window: Window) -> int:
        """Count one and return its position, from 1."""
        window.own += 1
        ordinal = window.own
        others = window.others
        if not self._away:
            try:
                others = await self._batcher.submit(window)
            except (CountersUnavailableError, QueueFullError, QueueTimeoutError, ClosedError):
                others = window.others
        return others + ordinal

    async def close(self) -> None:
        """Answer what waits, and stop."""
        await self._batcher.close()
        await end([self._recovery, self._adding])

    def _present(self) -> int:
        return int(self._clock.now().timestamp()) // WINDOW_S

    async def _share(self, waiting: Sequence[Window]) -> Sequence[int]:
        """Add what is not shared of each window; returns what others had counted before, for each.

        Raises:
            CountersUnavailableError: not in time; the call goes on by itself.
        """
        if self._away:
            raise CountersUnavailableError("The counters are left alone.")
        windows = list(dict.fromkeys(waiting))
        # Before anything is awaited: whoever counts from here on is in the next addition.
        additions = [Addition(window.key, window.number, window.own - window.shared) for window in windows]
        adding = self._adding = asyncio.create_task(
            self._add(self._minute, windows, additions), name="share-counts"
        )
        await asyncio.wait({adding}, timeout=self._timeout_s)
        for _ in range(_GRACE_TURNS):
            if adding.done():
                break
            await asyncio.sleep(0)
        if not adding.done():
            adding.add_done_callback(_retrieve)
            self._leave_alone("slow")
            raise CountersUnavailableError("The counters did not answer in time.")
        try:
            adding.result()
        except CountersUnavailableError:
            self._leave_alone("failed")
            raise
        return [window.others for window in waiting]

    async def _add(self, minute: _Minute, windows: Sequence[Window], additions: Sequence[Addition]) -> None:
        try:
            async with asyncio.timeout(_LATE_MAX_S):
                known, *counts = await self._counters.add(
                    [Addition(self._process_key, minute.number, 1), *additions]
                )
        except TimeoutError as error:
            raise CountersUnavailableError("The counters did not answer at all.") from error
        if known <= minute.additions:
            _log.warning("counters_lost", of=self._name)
            for window in minute.windows.values():
                window.shared = 0
            self._lost = True
            self._start_recovery()
        minute.additions = known
        for window, addition, count in zip(windows, additions, counts, strict=True):
            window.confirm(addition.amount, count)

    def _leave_alone(self, reason: str) -> None:
        _log.warning("counters_away", of=self._name, reason=reason)
        self._away = True
        self._start_recovery()

    def _start_recovery(self) -> None:
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._recover(), name=f"recover-{self._name}")

    async def _recover(self) -> None:
        while self._incomplete():
            while self._away:
                self._away = not await self._is_back()
            self._lost = False
            await self._catch_up()
        _log.info("counters_complete", of=self._name)

    def _incomplete(self) -> bool:
        return self._away or self._lost

    async def _catch_up(self) -> None:
        """Add what the counters lack; if they fail again, it goes along with each key's next request."""
        behind = [window for window in self._minute.windows.values() if window.own > window.shared]
        for start in range(0, len(behind), _CATCH_UP):
            batch = behind[start : start + _CATCH_UP]
            await asyncio.gather(*map(self._batcher.submit, batch), return_exceptions=True)

    async def _is_back(self) -> bool:
        await self._clock.sleep(RETRY_S)
        if self._adding is not None and not self._adding.done():
            await asyncio.wait({self._adding})
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._counters.probe()
        except (TimeoutError, CountersUnavailableError):
            return False
        return True


def _retrieve(adding: "asyncio.Task[None]") -> None:
    """Look at how a call ended that nobody waits for any more: its counts stay to be added again."""
    if not adding.cancelled():
        adding.exception()
