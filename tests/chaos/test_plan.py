"""The plan of faults: drawn from a seed alone, and fair to every kind."""

import pytest
from tests.chaos.plan import PROVIDERS, QUIET_S, WAYS, Kind, draw


def test_a_seed_makes_the_same_faults_again_and_another_seed_others() -> None:
    assert draw(7, 120) == draw(7, 120)
    assert draw(7, 120) != draw(8, 120)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_before_any_comes_a_third_time(seed: int) -> None:
    counts = [sum(fault.kind is kind for fault in draw(seed, 120)) for kind in Kind]
    assert min(counts) >= 2
    assert max(counts) <= 3


@pytest.mark.parametrize("seconds", [10, 45, 120, 600])
def test_faults_begin_after_the_quiet_and_are_over_before_the_end(seconds: float) -> None:
    for seed in range(20):
        for fault in draw(seed, seconds):
            assert fault.at_s >= QUIET_S[0]
            assert fault.at_s + fault.lasts_s <= seconds - QUIET_S[1] + 0.1


def test_a_fault_names_what_it_meets() -> None:
    targets = {fault.kind: fault.target for seed in range(50) for fault in draw(seed, 120)}
    assert targets[Kind.KILL_API] in ("0", "1")
    assert targets[Kind.PROVIDER_BUSY] in PROVIDERS
    assert targets[Kind.HOLE] in WAYS
    assert targets[Kind.POSTGRES_CRASH] == ""


def test_kinds_that_cannot_be_made_are_not_planned() -> None:
    without = {Kind.DISK_FULL, Kind.STORAGE_FULL}
    assert not {fault.kind for fault in draw(1, 300, without=without)} & without
