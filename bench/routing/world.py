"""Providers as they truly are, by the second, and what becomes of an attempt there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations

PROVIDERS = ("a", "b", "c")
#: An attempt that takes longer has failed, and the operator pays for it.
TIMEOUT_S = 120.0
#: Spread of latencies: the standard deviation of their logarithm.
_SIGMA = 0.35

#: What a generation costs: the seconds until the customer has the output, those of failed attempts among them, ...
#: ... as many more when no provider made it ...
GAVE_UP_S = 60.0
#: ... and seconds for each credit that the operator paid for nothing: 10 for an attempt of usual price.
SECONDS_PER_CREDIT = 250.0


@dataclass(frozen=True, slots=True)
class State:
    """How one provider is at one moment. Shares are 0 to 1."""

    latency_s: float
    """The median."""
    failure: float = 0.01
    """Share of attempts that fail."""
    fails_after: float = 0.5
    """The part of the time that the output would have taken after which a failing attempt ends."""
    hang: float = 0.0
    """Share of attempts that never end."""
    billed: float = 0.0
    """Share of failures that have to be paid."""
    price: float = 0.04
    """Credits of an output, and of an attempt that is paid for nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt: how long it took, and the credits that were paid for nothing."""

    succeeded: bool
    seconds: float
    wasted: float


def attempt(state: State, luck: float, pace: float, bill: float) -> Outcome:
    """What becomes of an attempt.

    Args:
        luck, bill: uniform in 0 to 1.
        pace: standard normal.
    """
    if luck < state.hang:
        return Outcome(False, TIMEOUT_S, state.price)
    seconds = state.latency_s * math.exp(_SIGMA * pace)
    if luck < state.hang + state.failure:
        return Outcome(False, state.fails_after * seconds, state.price if bill < state.billed else 0.0)
    if seconds > TIMEOUT_S:
        return Outcome(False, TIMEOUT_S, state.price)
    return Outcome(True, seconds, 0.0)


@cache
def best_order(states: tuple[State, ...]) -> tuple[str, ...]:
    """The order with the least expected cost, for somebody who knows the states."""
    of = dict(zip(PROVIDERS, states, strict=True))
    return min(permutations(PROVIDERS), key=lambda order: _expected([of[name] for name in order]))


def _expected(chain: Sequence[State]) -> float:
    cost, reached = 0.0, 1.0
    for state in chain:
        mean_s = state.latency_s * math.exp(_SIGMA**2 / 2)
        fails = min(1.0, state.hang + state.failure)
        seconds = (
            state.hang * TIMEOUT_S + (fails - state.hang) * state.fails_after * mean_s + (1 - fails) * mean_s
        )
        wasted = (state.hang + (fails - state.hang) * state.billed) * state.price
        cost += reached * (seconds + wasted * SECONDS_PER_CREDIT)
        reached *= fails
    return cost + reached * GAVE_UP_S


# ------------------------------------------------------------------------------- scenarios


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to the providers. `at(t)` with t from 0 (the beginning) to 1 (the end)."""

    name: str
    title: str
    remark: str
    """Why a fixed order may be as good; empty where what is best changes and `fastest` has to win."""
    at: Callable[[float], Mapping[str, State]]
    every_s: float = 1.0
    """Mean time between two generations."""
    lasts_s: float = 90 * 60.0

    @property
    def drifts(self) -> bool:
        """Whether `fastest` has to be better than every fixed order."""
        return not self.remark


_A, _B, _C = State(4.0), State(6.0), State(9.0)


def _slope(t: float, before: float, after: float) -> float:
    return before + (after - before) * t


def _states(a: State = _A, b: State = _B, c: State = _C) -> Mapping[str, State]:
    return {"a": a, "b": b, "c": c}


def _within(t: float, start: float, end: float) -> bool:
    return start <= t < end


def _crossing(t: float) -> Mapping[str, State]:
    return _states(a=replace(_A, latency_s=_slope(t, 4, 12)), b=replace(_B, latency_s=_slope(t, 10, 3)))


def _outage(t: float) -> Mapping[str, State]:
    return _states(a=replace(_A, failure=1.0) if _within(t, 0.3, 0.55) else _A)


def _brown_out(t: float) -> Mapping[str, State]:
    return _states(a=replace(_A, latency_s=40.0) if _within(t, 0.3, 0.55) else _A)


def _flapping(t: float) -> Mapping[str, State]:
    return _states(a=replace(_A, failure=0.8, fails_after=1.0) if int(t * 18) % 2 else _A)


def _waste(t: float) -> Mapping[str, State]:
    return _states(
        a=replace(_A, failure=_slope(t, 0.01, 0.25), billed=_slope(t, 0, 1), price=_slope(t, 0.04, 0.16))
    )


def _improving(t: float) -> Mapping[str, State]:
    return _states(c=replace(_C, latency_s=1.5) if t >= 0.3 else replace(_C, latency_s=12.0))


def _failing(t: float) -> Mapping[str, State]:
    return _states(a=replace(_A, failure=_slope(t, 0.01, 0.6), hang=_slope(t, 0, 0.05)))


SCENARIOS = (
    Scenario("stable", "nothing changes", "nothing changes", lambda _: _states()),
    Scenario("crossing", "a slows down from 4 s to 12 s, b speeds up from 10 s to 3 s", "", _crossing),
    Scenario("outage", "a fails everything for a quarter of the time", "the breaker bridges it", _outage),
    Scenario("brown-out", "a takes ten times as long for a quarter of the time", "", _brown_out),
    Scenario("flapping", "a fails four times of five in every second five minutes", "", _flapping),
    Scenario("waste", "a fails more and more often, and bills what fails, at a rising price", "", _waste),
    Scenario("improving", "c, the slowest, becomes the fastest", "", _improving),
    Scenario("failing", "a fails, and hangs, more and more often", "", _failing),
    Scenario(
        "quiet",
        "the same over ten hours, with one generation in half a minute",
        "too little traffic",
        _improving,
        30.0,
        36000.0,
    ),
)
