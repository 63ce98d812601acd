"""Where a process's time goes: processor time of its own threads by step, told apart by the code that is on the stack.

Every few milliseconds of processor time the kernel interrupts the process (ITIMER_PROF), and what the main thread has
used since the last time is put to the account of the innermost frame that belongs to a step. Garbage collections are
timed by themselves, and so is each function that the loop hands to a thread. What is left of the process's time was
used by threads that are not Python's, such as those of the file store.

A signal that arrives inside compiled code is seen at the next line of Python. So a single sample may fall to the
neighbour; over thousands of them, steps of less than a few per cent are not worth reading.
"""

import asyncio
import functools
import gc
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import CodeType, FrameType
from typing import Any, NamedTuple

_EVERY_S = 0.004
_DEPTH_MAX = 60


class Step(NamedTuple):
    """Code of one step: a part of its file's path, and of its qualified name where not the whole file is meant."""

    name: str
    path: str
    function: str = ""


class Sampler:
    """Attributes this process's processor time to steps; one in a process, started on the main thread.

    Args:
        steps: the first that a frame matches has it; frames of no step are looked through.
        other: the name of what no step has.
    """

    def __init__(self, steps: Sequence[Step], *, other: str = "other") -> None:
        self._steps = steps
        self._other = other
        self._known: dict[CodeType, str | None] = {}
        self._main: dict[str, float] = defaultdict(float)
        self._threads: dict[str, float] = defaultdict(float)
        self._seen = self._collecting = self._begun = 0.0
        self.executor = _TimedExecutor(self._count)

    def start(self) -> None:
        """Begin, and have the running loop hand its work for threads to `executor`."""
        asyncio.get_running_loop().set_default_executor(self.executor)
        self._seen, self._begun = time.thread_time(), time.process_time()
        gc.callbacks.append(self._collected)
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)

    def stop(self) -> None:
        """Take no more samples."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        gc.callbacks.remove(self._collected)

    def seconds(self) -> Mapping[str, float]:
        """Processor time so far by step; threads of no Python code are `native threads`."""
        found = {**self._main}
        for name, seconds in self._threads.items():
            found[name] = found.get(name, 0.0) + seconds
        found["native threads"] = max(0.0, time.process_time() - self._begun - sum(found.values()))
        return found

    @property
    def main_s(self) -> float:
        """Processor time so far of the thread that runs the loop, which no second core can help."""
        return sum(self._main.values())

    def _sample(self, _signal: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self._main[self._step_of(frame)] += now - self._seen
        self._seen = now

    def _collected(self, phase: str, _info: Mapping[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._collecting = now
        else:
            self._main["garbage collection"] += now - self._collecting
            self._seen += now - self._collecting

    def _step_of(self, frame: FrameType | None) -> str:
        for _ in range(_DEPTH_MAX):
            if frame is None:
                break
            code = frame.f_code
            if code not in self._known:
                self._known[code] = self._match(code)
            if (name := self._known[code]) is not None:
                return name
            frame = frame.f_back
        return self._other

    def _match(self, code: CodeType) -> str | None:
        for step in self._steps:
            if step.path in code.co_filename and step.function in code.co_qualname:
                return step.name
        return None

    def _count(self, function: Callable[..., Any], seconds: float) -> None:
        code = getattr(function, "__code__", None)
        name = None if code is None else self._match(code)
        self._threads[name or self._other] += seconds


class _TimedExecutor(ThreadPoolExecutor):
    """The loop's usual threads, each call timed by its thread's own clock."""

    def __init__(self, count: Callable[[Callable[..., Any], float], None]) -> None:
        super().__init__()
        self._count_call = count

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `Executor.submit`."""

        def timed() -> Any:
            began = time.thread_time()
            try:
                return fn(*args, **kwargs)
            finally:
                self._count_call(_inner(fn), time.thread_time() - began)

        return super().submit(timed)


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `asyncio.to_thread` was asked to run: it hands over `context.run` with the function as first argument."""
    if isinstance(function, functools.partial):
        return _inner(function.args[0] if function.args else function.func)
    return getattr(function, "__func__", function)
