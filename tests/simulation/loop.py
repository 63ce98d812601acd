"""An event loop without a machine beneath it: time is a number, processes can die between any two steps.

Nothing here waits. When no step is ready the clock jumps to the next timer, so hours pass in milliseconds, and
the same beginning always has the same course.
"""

import asyncio
import heapq
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, ContextVar
from operator import attrgetter
from typing import Any, TypeVar, TypeVarTuple

Value = TypeVar("Value")
Arguments = TypeVarTuple("Arguments")

#: Steps of one run at most: one that takes more goes round in circles.
_STEPS_MAX = 3_000_000
_CLOSES_MAX = 20


class StalledError(Exception):
    """Nothing is ready and nothing will ever be; or it never ends."""


class Process:
    """A simulated process: everything that is done in its name stops with it, in the middle of anything.

    Args:
        name: for the trace, e.g. `worker-2`.
    """

    def __init__(self, name: str, loop: "SimLoop") -> None:
        self.name = name
        self.loop = loop
        self.alive = True
        self.steps = 0
        self.crash_after: int | None = None
        """Die instead of taking this step."""
        self.clock_offset_s = 0.0
        """How far its wall clock is from the true time."""
        self.cut_off_until = 0.0
        """Until then it does not reach the database."""
        self.waits_for_answers = False
        """What the database answered when the line was cut comes when it is whole again."""
        self.armed: tuple[str, Callable[[], None]] | None = None
        """What happens to it when a statement with these words has had an effect, before it hears of that."""
        self.frozen: deque[asyncio.Handle] | None = None
        """What is to be done when it goes on, while it stands still."""
        self._mourners: list[Callable[[], None]] = []

    def start(self, work: Coroutine[Any, Any, Value], *, name: str | None = None) -> "asyncio.Task[Value]":
        """Begin something in the name of this process."""
        context = Context()
        context.run(OWNER.set, self)
        return context.run(self.loop.create_task, work, name=name)

    def on_death(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Have somebody told when it dies; the returned call takes that back."""
        self._mourners.append(tell)

        def forget() -> None:
            with suppress(ValueError):
                self._mourners.remove(tell)

        return forget

    def die(self) -> None:
        """Never take another step: no `except`, no `finally`, like a killed process."""
        if not self.alive:
            return
        self.alive = False
        self.frozen = None
        mourners, self._mourners = self._mourners, []
        for tell in mourners:
            tell()

    def spoke(self, query: str) -> None:
        """A statement of it has had an effect."""
        if self.armed is not None and self.armed[0] in query:
            _, strike = self.armed
            self.armed = None
            strike()

    def freeze(self, seconds: float) -> None:
        """Stand still for a while, as a process that gets no processor; its clocks go on."""
        if self.alive and self.frozen is None:
            self.frozen = deque()
            self.loop.call_later(seconds, self._thaw, context=Context())

    def _thaw(self) -> None:
        held, self.frozen = self.frozen, None
        if held and self.alive:
            self.loop.resume(held)

    def takes(self, handle: asyncio.Handle) -> bool:
        """Whether this step of it is to be taken now."""
        if not self.alive:
            return False
        if self.frozen is not None:
            self.frozen.append(handle)
            return False
        self.steps += 1
        if self.steps == self.crash_after:
            self.die()
            return False
        return True


#: In whose name something runs; None is the world around the processes.
OWNER: ContextVar[Process | None] = ContextVar("owner", default=None)


_context_of: Callable[[asyncio.Handle], Context] = attrgetter("_context")


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, coro: Coroutine[Any, Any, Any], serial: int, **options: Any) -> None:
        self._serial = serial
        super().__init__(coro, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._serial


class SimLoop(base_events.BaseEventLoop):
    """See the module.

    Args:
        errors: is told what nobody caught.
        executor_delay_s: draws how long something handed to a thread takes.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, errors: Callable[[str], None], executor_delay_s: Callable[[], float]) -> None:
        super().__init__()
        self._now = 0.0
        self._steps = 0
        self._serial = 0
        self._over = False
        self._errors = errors
        self._executor_delay_s = executor_delay_s
        self._tasks: list[SimTask] = []
        self._prune_at = 1000
        self.set_exception_handler(self._uncaught)

    @property
    def steps(self) -> int:
        """Steps taken by everybody."""
        return self._steps

    @property
    def is_over(self) -> bool:
        """What is done now is done by the dead."""
        return self._over

    def time(self) -> float:
        return self._now

    def resume(self, handles: "deque[asyncio.Handle]") -> None:
        """Have these steps taken next, in their order."""
        self._ready.extend(handles)

    def create_task(
        self, coro: Generator[Any, None, Value] | Coroutine[Any, Any, Value], **options: Any
    ) -> "asyncio.Task[Value]":
        context: Context | None = options.get("context")
        owner = OWNER.get()
        if context is not None and owner is not None:
            context.run(OWNER.set, owner)
        self._serial += 1
        task = SimTask(coro, self._serial, loop=self, **options)  # type: ignore[arg-type]  # a coroutine it is
        if len(self._tasks) >= self._prune_at:
            self._tasks = [other for other in self._tasks if not other.done()]
            self._prune_at = 2 * len(self._tasks) + 1000
        self._tasks.append(task)
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[[*Arguments], Value], *args: *Arguments
    ) -> "asyncio.Future[Value]":
        """Done in one step, a little later."""
        future: asyncio.Future[Value] = self.create_future()

        def work() -> None:
            if future.done():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_later(self._executor_delay_s(), work)
        return future

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        if self._over:
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if self._over:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def end(self) -> None:
        """Bury what is left of the processes, without any of it having an effect, and close."""
        self._over = True
        tasks, self._tasks = self._tasks, []
        outside = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for task in tasks:
                if not task.done():
                    _close(task.get_coro())
        finally:
            events._set_running_loop(outside)
        self._ready.clear()
        self._scheduled.clear()
        self.close()

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)
        if not ready and not self._stopping:
            if not scheduled:
                raise StalledError("nothing is left to be done")
            self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now:
            ready.append(heapq.heappop(scheduled))
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = _context_of(handle).get(OWNER)
            if owner is None or owner.takes(handle):
                handle._run()
        self._steps += 1
        if self._steps > _STEPS_MAX:
            raise StalledError(f"no end after {_STEPS_MAX} steps")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers go when their time has come."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def _uncaught(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self._over:
            error = context.get("exception")
            self._errors(f"{context.get('message')}: {type(error).__name__}: {error}")


def _close(coro: Any) -> None:
    """End a coroutine wherever it stands; what it still wants to wait for, it does not get."""
    for _ in range(_CLOSES_MAX):
        try:
            coro.close()
        except BaseException:
            continue
        return
