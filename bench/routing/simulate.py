"""Thousands of generations through the server's own routing decisions, in a time that is only a number.

Real are the ranking, the router and the breaker's rules. The database's part (slots, window, the one probe) has twins
in memory; `tests/routing/test_rollup.py` holds the slots' twin against PostgreSQL.
"""

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import numpy as np

from babysea_server.routing.breaker import is_probed, ways
from babysea_server.routing.chain import EXPLORATION_SHARE, Router
from babysea_server.routing.health import LIMITS, REMEMBERED_S, Tally, Window
from babysea_server.routing.ranking import DECAYED, Rule, rank
from babysea_server.routing.statistics import (
    NO_SUCCESS,
    SLOT_S,
    WINDOW_S,
    Counts,
    Record,
    bucket_of,
    weight_of,
)
from bench.routing.world import (
    GAVE_UP_S,
    PROVIDERS,
    SECONDS_PER_CREDIT,
    Outcome,
    Scenario,
    State,
    attempt,
    best_order,
)

#: A ranking is computed this often, and reaches a process that much later.
RANKED_EVERY_S = 30.0
SEEN_AFTER_S = 5.0
_MODEL = "lab/model"
_START = datetime(2026, 4, 28, tzinfo=UTC)
_STATES_EVERY_S = 5.0
#: Older slots weigh less than a thousandth.
_HALF_LIVES = 12


class SlotLog:
    """The roll-up's twin: counts by slot, model left out. Times are seconds since some beginning."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[str, Counts]] = {}
        self._day: dict[str, Counts] = {}

    def add(
        self, provider: str, ended_at: float, bucket: int, failures: int = 0, wasted: int = 0, n: int = 1
    ) -> None:
        """Count `n` attempts that ended at the same time in the same way."""
        slot = self._slots.setdefault(int(ended_at // SLOT_S), {})
        for counts in (slot.setdefault(provider, Counts()), self._day.setdefault(provider, Counts())):
            counts.add(bucket, n, failures, wasted)

    def copy(self) -> "SlotLog":
        """One with the same counts."""
        other = SlotLog()
        for slot, by_provider in self._slots.items():
            other._slots[slot] = {name: _copied(counts) for name, counts in by_provider.items()}
        other._day = {name: _copied(counts) for name, counts in self._day.items()}
        return other

    def records(self, now: float, half_life_s: float | None) -> dict[str, Record]:
        """What `store.statistics` reads, by provider; without a half-life only the day."""
        for slot in [slot for slot in self._slots if slot * SLOT_S <= now - WINDOW_S]:
            for provider, counts in self._slots.pop(slot).items():
                self._day[provider].add_all(counts, -1.0)
        records = {provider: Record(day=counts) for provider, counts in self._day.items()}
        if half_life_s is None:
            return records
        oldest = int((now - _HALF_LIVES * half_life_s) // SLOT_S)
        for slot in range(oldest, int(now // SLOT_S) + 1):
            weight = weight_of(now - (slot + 0.5) * SLOT_S, half_life_s)
            for provider, counts in self._slots.get(slot, {}).items():
                records[provider].lately.add_all(counts, weight)
        return records


def _copied(counts: Counts) -> Counts:
    return Counts(counts.attempts, counts.failures, counts.wasted, dict(counts.latencies))


class Lately:
    """The twin of the breaker's window, and of what all processes know of probes."""

    def __init__(self) -> None:
        self._ended: deque[tuple[float, str, bool]] = deque()
        self._counts = {provider: [0, 0] for provider in PROVIDERS}
        self._last_failure: dict[str, datetime] = {}
        self._last_success: dict[str, datetime] = {}
        self._probed_at: dict[str, datetime] = {}
        self._window: tuple[float, Window] | None = None

    def add(self, provider: str, submitted_at: float, ended_at: float, succeeded: bool) -> None:
        """An attempt has ended."""
        self._ended.append((ended_at, provider, succeeded))
        self._counts[provider][succeeded] += 1
        if succeeded:
            submitted = moment(submitted_at)
            self._last_success[provider] = max(submitted, self._last_success.get(provider, submitted))
        else:
            self._last_failure[provider] = moment(ended_at)

    def choose(self, candidates: Sequence[str], now: float) -> str:
        """`Breaker.choose`, of one process."""
        window = self._read(now)
        for provider, as_probe in ways(candidates, window):
            if not as_probe or self._probe(provider, window, now):
                return provider
        return candidates[0]

    def _probe(self, provider: str, window: Window, now: float) -> bool:
        if is_probed(window, provider) or self._probed_at.get(provider, _START) > window.at:
            return False
        self._probed_at[provider] = moment(now)
        return True

    def _read(self, now: float) -> Window:
        if self._window is None or now - self._window[0] >= REMEMBERED_S:
            while self._ended and self._ended[0][0] <= now - LIMITS.window_s:
                _, provider, succeeded = self._ended.popleft()
                self._counts[provider][succeeded] -= 1
            tallies = {name: self._tally(name) for name in PROVIDERS}
            self._window = (now, Window(moment(now), tallies))
        return self._window[1]

    def _tally(self, provider: str) -> Tally:
        failures, successes = self._counts[provider]
        return Tally(
            failures,
            successes,
            self._last_failure.get(provider) if failures else None,
            self._last_success.get(provider) if successes else None,
            probed_at=self._probed_at.get(provider),
        )


def moment(t: float) -> datetime:
    """The moment `t` seconds after the beginning."""
    return _START + timedelta(seconds=t)


@dataclass(frozen=True, slots=True)
class Fortune:
    """All chance of one run, drawn before it: whoever decides, the same attempt at the same time ends alike."""

    arrivals: Sequence[float]
    luck: Sequence[Sequence[float]]
    pace: Sequence[Sequence[float]]
    bill: Sequence[Sequence[float]]
    history: SlotLog
    seed: int


def fortune(scenario: Scenario, seed: int) -> Fortune:
    """The chance of one run, and a day before it in which nothing changed."""
    random = np.random.default_rng([seed, sum(scenario.name.encode())])
    number = round(scenario.lasts_s / scenario.every_s)
    arrivals = WINDOW_S + np.sort(random.uniform(0, scenario.lasts_s, number))
    shape = (number, len(PROVIDERS))
    return Fortune(
        arrivals.tolist(),
        random.uniform(size=shape).tolist(),
        random.standard_normal(shape).tolist(),
        random.uniform(size=shape).tolist(),
        _history(scenario, random),
        seed,
    )


def _history(scenario: Scenario, random: np.random.Generator) -> SlotLog:
    """A day of the state in the beginning; the best provider had all but the explored requests."""
    states = scenario.at(0.0)
    first = best_order(tuple(states[name] for name in PROVIDERS))[0]
    log = SlotLog()
    for slot in range(WINDOW_S // SLOT_S):
        for provider in PROVIDERS:
            share = 1 - EXPLORATION_SHARE if provider == first else EXPLORATION_SHARE / 2
            for _ in range(random.poisson(share * SLOT_S / scenario.every_s)):
                draws = random.uniform(), random.standard_normal(), random.uniform()
                _count(log, provider, slot * SLOT_S, attempt(states[provider], *draws))
    return log


def _count(log: SlotLog, provider: str, ended_at: float, outcome: Outcome) -> None:
    if outcome.succeeded:
        log.add(provider, ended_at, bucket_of(outcome.seconds))
    else:
        log.add(provider, ended_at, NO_SUCCESS, 1, int(outcome.wasted > 0))


@dataclass(slots=True)
class _Generation:
    number: int
    arrived_at: float
    left: list[str]
    wasted: float = 0.0


@dataclass(slots=True)
class Result:
    """The cost of each generation in seconds, in the order of their arrival."""

    costs: list[float]
    attempts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PROVIDERS, 0))

    @property
    def mean(self) -> float:
        """Seconds for each generation."""
        return sum(self.costs) / len(self.costs)


class _Run:
    """One run of one policy."""

    def __init__(
        self,
        scenario: Scenario,
        chance: Fortune,
        order: Callable[[float], Sequence[str]],
        *,
        breaker: bool,
        rule: Rule | None = None,
    ) -> None:
        self._scenario = scenario
        self._chance = chance
        self._order = order
        self._lately = Lately() if breaker else None
        self._log = chance.history.copy() if rule is not None else None
        self._rule = rule
        self._next_ranking = float(WINDOW_S)
        self._pending: tuple[float, tuple[str, ...]] | None = None
        self.ranked: tuple[str, ...] | None = None
        self._events: list[tuple[float, int, str, float, Outcome, _Generation]] = []
        self._result = Result([0.0] * len(chance.arrivals))
        self._step = -1
        self._states: Mapping[str, State] = {}

    def run(self) -> Result:
        """All generations, to their end."""
        for number, arrived_at in enumerate(self._chance.arrivals):
            self._until(arrived_at)
            self._advance(arrived_at)
            generation = _Generation(number, arrived_at, list(self._order(arrived_at)))
            self._submit(generation, arrived_at)
        self._until(float("inf"))
        return self._result

    def states(self, now: float) -> Mapping[str, State]:
        """How the providers are."""
        step = int((now - WINDOW_S) // _STATES_EVERY_S)
        if step != self._step:
            self._step = step
            self._states = self._scenario.at(min(1.0, step * _STATES_EVERY_S / self._scenario.lasts_s))
        return self._states

    def _until(self, now: float) -> None:
        while self._events and self._events[0][0] <= now:
            ended_at, _, provider, submitted_at, outcome, generation = heapq.heappop(self._events)
            self._advance(ended_at)
            self._ended(provider, submitted_at, ended_at, outcome, generation)

    def _submit(self, generation: _Generation, now: float) -> None:
        left = generation.left
        provider = left[0] if self._lately is None else self._lately.choose(left, now)
        left.remove(provider)
        self._result.attempts[provider] += 1
        n, at = generation.number, PROVIDERS.index(provider)
        chance = self._chance
        outcome = attempt(
            self.states(now)[provider], chance.luck[n][at], chance.pace[n][at], chance.bill[n][at]
        )
        event = (now + outcome.seconds, n, provider, now, outcome, generation)
        heapq.heappush(self._events, event)

    def _ended(
        self, provider: str, submitted_at: float, ended_at: float, outcome: Outcome, generation: _Generation
    ) -> None:
        if self._lately is not None:
            self._lately.add(provider, submitted_at, ended_at, outcome.succeeded)
        if self._log is not None:
            _count(self._log, provider, ended_at, outcome)
        generation.wasted += outcome.wasted
        if not outcome.succeeded and generation.left:
            self._submit(generation, ended_at)
            return
        cost = ended_at - generation.arrived_at + generation.wasted * SECONDS_PER_CREDIT
        self._result.costs[generation.number] = cost + (0.0 if outcome.succeeded else GAVE_UP_S)

    def _advance(self, now: float) -> None:
        """Rankings that were computed until now, as a process sees them."""
        if self._rule is None or self._log is None:
            return
        if self._pending is not None and now >= self._pending[0]:
            self.ranked, self._pending = self._pending[1], None
        while now >= self._next_ranking:
            at = self._next_ranking
            records = self._log.records(at, self._rule.half_life_s)
            order = rank(records, self._rule, moment(at)).providers_ranked
            self._pending = (at + SEEN_AFTER_S, order)
            self._next_ranking += RANKED_EVERY_S


def fixed(scenario: Scenario, chance: Fortune, order: Sequence[str], *, breaker: bool = True) -> Result:
    """An explicit order from beginning to end."""
    router = Router(lambda _: True)
    chain = router.chain(_MODEL, order, explicit=True)
    return _Run(scenario, chance, lambda _: chain, breaker=breaker).run()


def fastest(
    scenario: Scenario,
    chance: Fortune,
    *,
    rule: Rule = DECAYED,
    exploration: float = EXPLORATION_SHARE,
) -> Result:
    """`fastest`, as the server decides it; the model's own order is a, b, c."""
    router = Router(lambda _: True, lambda _: run.ranked, exploration=exploration, random=Random(chance.seed))
    run = _Run(
        scenario,
        chance,
        lambda _: router.chain(_MODEL, PROVIDERS, explicit=False),
        breaker=True,
        rule=rule,
    )
    return run.run()


def oracle(scenario: Scenario, chance: Fortune) -> Result:
    """Somebody who knows at each moment how every provider is, though not how an attempt will end."""

    def order(now: float) -> Sequence[str]:
        states = run.states(now)
        return best_order(tuple(states[name] for name in PROVIDERS))

    run = _Run(scenario, chance, order, breaker=False)
    return run.run()
