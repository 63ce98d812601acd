"""What a run says about itself."""

from collections import Counter
from collections.abc import Iterator

from tests.chaos.run import Result


def report(result: Result) -> str:
    """The table of a run: faults made, what was counted, what was broken."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: Result) -> Iterator[str]:
    chaos = result.chaos
    yield f"seed {chaos.seed}, {chaos.seconds:g} s of load at {chaos.rate:g} requests/s"
    yield ""
    yield "faults made"
    made = Counter(fault.kind.value for fault in result.made)
    for kind, count in sorted(made.items()):
        yield f"  {kind:<36} {count}"
    for note in result.notes:
        yield f"  {note}"
    yield ""
    yield "counted"
    for name, value in result.counted.items():
        if isinstance(value, dict):
            yield f"  {name}"
            for key, number in sorted(value.items(), key=str):
                yield f"    {key!s:<34} {number}"
        elif isinstance(value, list):
            yield f"  {name}"
            yield from (f"    {each}" for each in value)
        else:
            yield f"  {name:<36} {value}"
    yield ""
    for breach in result.breaches:
        yield f"BROKEN  {breach}"
    if result.folder is not None:
        yield f"logs are in {result.folder}/logs"
    yield f"{'PASS' if result.passed else 'FAIL'}  seed {chaos.seed}"
