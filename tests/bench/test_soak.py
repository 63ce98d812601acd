"""What a soak is judged by."""

from collections.abc import Sequence

from bench.soak import Sample, Table, bloat, judge, markdown, tenth
from bench.usage import Memory


def _memory(mib: float) -> Memory:
    size = int(mib * 2**20)
    return Memory(rss=size, pss=size, peak=size)


def _samples(
    *,
    worker_mib: Sequence[float] = (100.0,) * 100,
    p50_ms: float = 5.0,
    heap_mib: float = 20.0,
    refused: int = 0,
) -> list[Sample]:
    return [
        Sample(
            at=float(number),
            sent=number * 1000,
            settled=number * 1000,
            refused=refused,
            admission_p50_ms=p50_ms if number > 90 else 5.0,
            admission_p99_ms=10.0,
            end_to_end_p50_ms=20.0,
            end_to_end_p99_ms=40.0,
            api=_memory(80),
            worker=_memory(worker_mib[number - 1]),
            api_cpu_s=float(number),
            worker_cpu_s=float(number),
            postgres_cpu_s=float(number),
            wal_bytes=number,
            tables=[
                Table(
                    name="generations",
                    rows=10_000,
                    dead=0,
                    heap=int((heap_mib if number > 90 else 20.0) * 2**20),
                    indexes=10 * 2**20,
                ),
                Table(name="small", rows=10, dead=0, heap=8192 * number, indexes=0),
            ],
        )
        for number in range(1, 101)
    ]


def test_a_flat_run_is_sound() -> None:
    samples = _samples(
        worker_mib=[50.0 + min(number, 10) * 5 for number in range(100)]
    )  # warms up in the first tenth
    assert judge(samples) == []
    assert "second tenth" in markdown(samples)


def test_tenths_go_by_generations_and_not_by_time() -> None:
    samples = _samples()
    assert [sample.sent for sample in tenth(samples, 2)] == [*range(11_000, 21_000, 1000)]
    assert tenth(samples, 10)[-1] is samples[-1]


def test_each_breach_is_told() -> None:
    assert judge(_samples(worker_mib=[100.0 + number * 0.1 for number in range(100)])) == [
        "the memory of the worker grew by 7.9%"
    ]
    assert judge(_samples(p50_ms=8.0)) == ["admission_p50_ms is 1.60 times what it was"]
    assert judge(_samples(heap_mib=40.0)) == ["generations takes 1.67 times the space for each row"]
    assert judge(_samples(refused=3)) == ["3 requests were refused"]
    assert judge(_samples()[:1]) == ["too few samples to judge by"]


def test_small_tables_are_not_judged() -> None:
    samples = _samples()
    assert bloat(samples[0], samples[-1]) == {"generations": 1.0}
