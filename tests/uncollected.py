"""What code leaves behind that only a collection of garbage finds.

Collections in servers are rare, so what waits for one grows with the work: a worker once held tens of megabytes of it.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(*parts: type) -> Iterator[Callable[[], Counter[str]]]:
    """No collection but those of the returned function: it tells what kinds of `parts` it found, and how many."""

    def left_behind() -> Counter[str]:
        gc.collect()
        return Counter(type(found).__name__ for found in gc.garbage if isinstance(found, parts))

    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield left_behind
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
