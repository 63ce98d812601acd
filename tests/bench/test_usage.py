"""What processes are said to use is what the kernel says of this one; samples fall to the code that ran."""

import asyncio
import os
import time

from bench.sampling import Sampler, Step
from bench.usage import children, cpu_s, memory


def _burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def _other(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def test_processor_time_falls_to_the_step_that_used_it() -> None:
    here = "tests/bench/test_usage"
    sampler = Sampler([Step("burn", here, "_burn"), Step("other step", here, "_other")])
    sampler.start()
    try:
        _burn(0.3)
        _other(0.1)
        await asyncio.to_thread(_burn, 0.1)
    finally:
        sampler.stop()
        asyncio.get_running_loop().set_default_executor(type(sampler.executor).__bases__[0]())
        sampler.executor.shutdown()
    found = sampler.seconds()
    assert found["burn"] > 2 * found["other step"] > 0
    assert 0.4 < sampler.main_s < 0.6 + found["burn"]
    assert sum(found.values()) >= 0.5


def test_a_process_is_described_by_the_kernel() -> None:
    before = cpu_s(os.getpid())
    _burn(0.1)
    assert cpu_s(os.getpid()) - before >= 0.08
    used = memory(os.getpid())
    assert 0 < used.pss <= used.rss <= used.peak
    assert os.getpid() in children(os.getppid())
