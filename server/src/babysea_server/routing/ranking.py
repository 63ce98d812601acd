"""Which provider is best for a model: a score made of success, waste and latency."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from babysea_server.routing.statistics import WINDOW_S, Counts, Record

#: Score = success rate - 0.5 x wasted rate - 0.3 x normalised p95 latency. Source: design, section 4.
WASTED_WEIGHT = 0.5
LATENCY_WEIGHT = 0.3
LATENCY_QUANTILE = 0.95
#: A provider with fewer attempts in the window is not ranked.
KNOWN_FROM = 5
#: A ranking that was computed longer ago is not used. As far ahead it is not either: some clock is wrong.
STALE_AFTER_S = 300
_DIGITS = 6


class Rule(Struct, frozen=True):
    """How much an attempt counts by its age. The score is made the same way under every rule.

    Recent attempts may be few: of a provider that is only explored, or of a model that is asked for once an hour.
    Then the whole window stands in for those that are missing.

    Args:
        half_life_s: an attempt counts half after so long; None: all of the window count alike.
        rates_from: so many recent attempts say how often it succeeds and wastes.
        latency_from: so many recent successes say how long it takes.
    """

    name: str
    half_life_s: float | None = None
    rates_from: float = 0.0
    latency_from: float = 1.0


#: The formula as it is published, over 24 hours.
PUBLISHED = Rule("published")
#: The same formula, on attempts that fade. Why, and by how much it is better: docs/routing.md.
DECAYED = Rule("decayed", half_life_s=180.0, rates_from=20.0, latency_from=8.0)
RULES: Mapping[str, Rule] = {rule.name: rule for rule in (PUBLISHED, DECAYED)}


class Figures(Struct, frozen=True, kw_only=True):
    """What a score is made of. Rates are 0 to 1; `p95_s` is None without a success."""

    provider: str
    attempts: int
    """In the whole window; the rates weigh them by the rule."""
    success_rate: float
    wasted_rate: float
    p95_s: float | None
    latency: float
    """p95 divided by that of the model's slowest known provider; 1 without a success."""
    score: float


class Ranking(Struct, frozen=True, kw_only=True):
    """The order of one model's known providers, best first, as it is published for all processes."""

    providers_ranked: tuple[str, ...]
    scores: dict[str, float]
    attempts_total: Annotated[int, Meta(ge=0)]
    window_hours: Annotated[int, Meta(ge=1)]
    computed_at: Annotated[datetime, Meta(tz=True)]

    def is_current(self, now: datetime) -> bool:
        """Whether it may still be used."""
        return abs((now - self.computed_at).total_seconds()) <= STALE_AFTER_S


def figures(records: Mapping[str, Record], rule: Rule) -> list[Figures]:
    """The known providers of one model, best first: by score, then the smaller p95, then the name."""
    known = {
        provider: record
        for provider, record in records.items()
        if record.day.attempts >= KNOWN_FROM and _judged(record.day) > 0
    }
    latencies = {provider: _p95_s(record, rule) for provider, record in known.items()}
    slowest = max((p95_s for p95_s in latencies.values() if p95_s is not None), default=None)
    scored = [
        _figures(provider, record, _rated(record, rule), latencies[provider], slowest)
        for provider, record in known.items()
    ]
    return sorted(scored, key=_best_first)


def rank(records: Mapping[str, Record], rule: Rule, computed_at: datetime) -> Ranking:
    """The ranking of one model."""
    order = figures(records, rule)
    return Ranking(
        providers_ranked=tuple(each.provider for each in order),
        scores={each.provider: each.score for each in order},
        attempts_total=round(sum(record.day.attempts for record in records.values())),
        window_hours=WINDOW_S // 3600,
        computed_at=computed_at,
    )


def read_ranking(document: str | bytes) -> Ranking | None:
    """The ranking in a JSON document; None when it is none."""
    try:
        ranking = msgspec.json.decode(document, type=Ranking)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    names = ranking.providers_ranked
    return ranking if len(set(names)) == len(names) else None


def _rated(record: Record, rule: Rule) -> Counts:
    """The attempts that the rates are taken from: the recent ones, filled up with the window's."""
    if rule.half_life_s is None:
        return record.day
    counts = Counts()
    counts.add_all(record.lately)
    missing = max(0.0, rule.rates_from - counts.attempts)
    counts.add_all(record.day, missing / max(missing, record.day.attempts))
    return counts


def _p95_s(record: Record, rule: Rule) -> float | None:
    """The recent p95, drawn towards the window's by the share of successes that are missing.

    Between the two on a logarithmic scale. A mixture of the successes themselves would not do: its p95 stays the
    old one until fewer than one success of twenty is old, and a provider that has become faster is not found.
    """
    of_day = record.day.quantile(LATENCY_QUANTILE)
    if rule.half_life_s is None or of_day is None:
        return of_day
    successes = record.lately.successes
    recent = record.lately.quantile(LATENCY_QUANTILE)
    if recent is None:
        return of_day
    share = min(1.0, successes / rule.latency_from)
    return float(recent**share * of_day ** (1 - share))


def _judged(counts: Counts) -> float:
    return counts.successes + counts.failures


def _figures(
    provider: str, record: Record, counts: Counts, p95_s: float | None, slowest: float | None
) -> Figures:
    success_rate = counts.successes / _judged(counts)
    wasted_rate = counts.wasted / counts.attempts
    latency = 1.0 if p95_s is None or slowest is None else p95_s / slowest
    score = success_rate - WASTED_WEIGHT * wasted_rate - LATENCY_WEIGHT * latency
    return Figures(
        provider=provider,
        attempts=round(record.day.attempts),
        success_rate=success_rate,
        wasted_rate=wasted_rate,
        p95_s=p95_s,
        latency=latency,
        score=round(score, _DIGITS),
    )


def _best_first(each: Figures) -> tuple[float, float, str]:
    return -each.score, float("inf") if each.p95_s is None else each.p95_s, each.provider
