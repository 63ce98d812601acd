"""How hard the suite tries: `make test EFFORT=5` is the thorough run, whose numbers the documentation speaks of."""

import os

EFFORT = float(os.environ.get("EFFORT", "1"))


def effort(usual: int) -> int:
    """How many of something, where `usual` is enough for every change and more finds more; at least one."""
    return max(1, round(usual * EFFORT))
