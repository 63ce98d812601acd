"""How long `import babysea` takes beside `import httpx`: `python -m bench.imports`.

Each is imported by a new interpreter, in turns, so that a slow moment of the machine falls on both; the time of an
empty interpreter is taken off. Printed and never asserted.
"""

import subprocess
import sys
from statistics import median
from time import perf_counter

_STATEMENTS = {
    "nothing": "pass",
    "httpx": "import httpx",
    "babysea": "import babysea",
    "babysea and a client": "import babysea; babysea.BabySea('bye_x')",
}


def imports(turns: int = 30) -> str:
    """Measure and return the table in Markdown."""
    times: dict[str, list[float]] = {name: [] for name in _STATEMENTS}
    for turn in range(turns + 1):
        for name, statement in _STATEMENTS.items():
            started = perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            if turn:  # the first one warms up
                times[name].append(1000 * (perf_counter() - started))
    nothing = median(times.pop("nothing"))
    own = {name: median(taken) - nothing for name, taken in times.items()}
    rows = [f"| {name} | {taken:.0f} | {taken / own['httpx']:.2f} |" for name, taken in own.items()]
    return "\n".join(["| import | ms | of httpx |", "|---|---:|---:|", *rows])


if __name__ == "__main__":
    sys.stdout.write(f"{imports()}\n")
