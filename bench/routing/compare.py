"""What every policy costs in every scenario: two tables and a picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import ceil
from statistics import mean, stdev

from babysea_server.routing.chain import EXPLORATION_SHARE
from babysea_server.routing.ranking import PUBLISHED
from bench.routing.plot import bars
from bench.routing.simulate import fastest, fixed, fortune, oracle
from bench.routing.world import PROVIDERS, SCENARIOS, Scenario

SHARES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds for each generation of one run, by who decided."""

    order: tuple[str, ...]
    """The fixed order that was best, with the breaker."""
    fixed: float
    alone: float
    """The best fixed order without the breaker."""
    oracle: float
    fastest: float
    published: float
    shares: Mapping[float, float]
    """`fastest`, by exploration share."""


def measure(number: int, seed: int, *, shares: Sequence[float] = SHARES) -> Costs:
    """One run of scenario `number` with one seed, under every policy."""
    scenario = SCENARIOS[number]
    chance = fortune(scenario, seed)
    by_order = {order: fixed(scenario, chance, order).mean for order in permutations(PROVIDERS)}
    best = min(by_order, key=lambda order: by_order[order])
    by_share = {share: fastest(scenario, chance, exploration=share).mean for share in shares}
    return Costs(
        order=best,
        fixed=by_order[best],
        alone=min(fixed(scenario, chance, order, breaker=False).mean for order in by_order),
        oracle=oracle(scenario, chance).mean,
        fastest=by_share.get(EXPLORATION_SHARE) or fastest(scenario, chance).mean,
        published=fastest(scenario, chance, rule=PUBLISHED).mean,
        shares=by_share,
    )


def regrets(runs: Sequence[Sequence[Costs]]) -> str:
    """The table of costs and regrets."""
    lines = [
        "| scenario | oracle | best fixed order, alone | with the breaker | `published` | `fastest` | "
        "`fastest` against the best fixed order | seeds in which it is better |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for scenario, costs in zip(SCENARIOS, runs, strict=True):
        regret = [each.fastest - each.fixed for each in costs]
        columns = [
            _named(scenario),
            _spread(costs, lambda each: each.oracle),
            _spread(costs, lambda each: each.alone),
            _spread(costs, lambda each: each.fixed),
            _spread(costs, lambda each: each.published),
            _spread(costs, lambda each: each.fastest),
            f"**{mean(regret):+.2f}** ± {_deviation(regret):.2f}",
            f"{sum(each < 0 for each in regret)} of {len(regret)}",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def explorations(runs: Sequence[Sequence[Costs]]) -> str:
    """The table of regrets against the oracle by exploration share."""
    shares = list(runs[0][0].shares)
    lines = [
        f"| scenario | {' | '.join(f'{share:.1%}' for share in shares)} |",
        f"|---|{'---:|' * len(shares)}",
    ]
    table = [[mean(each.shares[share] - each.oracle for each in costs) for share in shares] for costs in runs]
    for scenario, row in zip(SCENARIOS, table, strict=True):
        lines.append(f"| {_named(scenario)} | {' | '.join(_best_bold(row))} |")
    lines.append(
        f"| all, on average | {' | '.join(_best_bold([mean(row) for row in zip(*table, strict=True)]))} |"
    )
    return "\n".join(lines)


def picture(runs: Sequence[Sequence[Costs]]) -> str:
    """Regret against the oracle by scenario, for those who are compared."""
    compared: Mapping[str, Callable[[Costs], float]] = {
        "best fixed order in hindsight": lambda each: each.fixed,
        "published: 24 hours alike": lambda each: each.published,
        "fastest": lambda each: each.fastest,
    }
    groups = {
        scenario.name: [[of(each) - each.oracle for each in costs] for of in compared.values()]
        for scenario, costs in zip(SCENARIOS, runs, strict=True)
    }
    highest = max(mean(costs) for name, group in groups.items() for costs in (group[0], group[2]))
    return bars(
        "Regret against somebody who knows how every provider is",
        f"Seconds for each generation, mean of {len(runs[0])} seeds; the whisker is one standard deviation. "
        "A bar cut at the edge carries its figure.",
        list(compared),
        groups,
        top=ceil(highest),
    )


def _named(scenario: Scenario) -> str:
    return f"{scenario.name} ({scenario.remark})" if scenario.remark else scenario.name


def _spread(costs: Sequence[Costs], of: Callable[[Costs], float]) -> str:
    values = [of(each) for each in costs]
    return f"{mean(values):.2f} ± {_deviation(values):.2f}"


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _best_bold(row: Sequence[float]) -> list[str]:
    return [f"**{value:.2f}**" if value == min(row) else f"{value:.2f}" for value in row]
