"""Why a model's providers would be tried in the order they would: the same decisions, told in words."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from babysea_server.routing.breaker import attempt_order, is_probed
from babysea_server.routing.chain import arrange
from babysea_server.routing.health import Status, Window
from babysea_server.routing.ranking import STALE_AFTER_S, Figures, Ranking


class ProviderExplained(Struct, frozen=True, kw_only=True):
    """One provider of the model. Figures are those of this moment; None where too little is known."""

    provider: str
    place: int | None
    """From 1, in the order that would be used; None: it cannot be called."""
    available: bool
    breaker: Status
    attempts: int | None
    success_rate: float | None
    wasted_rate: float | None
    p95_s: float | None
    score: float | None


class Explanation(Struct, frozen=True, kw_only=True):
    """What would become of a request for the model that leaves the order to the server."""

    model: str
    region: str
    order: list[str]
    """As attempts would be made now."""
    chain: list[str]
    """As the request would keep it; the breaker is asked before each attempt."""
    static_order: list[str]
    ranking: list[str] | None
    ranking_age_s: float | None
    exploration: float
    rule: str
    providers: list[ProviderExplained]
    reasons: list[str]


class Evidence(Struct, frozen=True, kw_only=True):
    """All that the decision rests on.

    `ranking` is the published one, stale or not; where it cannot be read, `fault` is a sentence that says why.
    """

    model: str
    region: str
    static_order: Sequence[str]
    ranking: Ranking | None
    figures: Sequence[Figures]
    window: Window
    exploration: float
    rule: str
    fault: str | None = None


def explain(evidence: Evidence, available: Callable[[str], bool]) -> Explanation:
    """The order that would be used now, and why."""
    ranking = evidence.ranking
    current = ranking is not None and ranking.is_current(evidence.window.at)
    ranked = ranking.providers_ranked if ranking is not None and current else None
    callable = [provider for provider in evidence.static_order if available(provider)]
    chain = arrange(callable, ranked)
    order = attempt_order(chain, lambda provider: _may_be_called(provider, evidence.window))
    age_s = None if ranking is None else (evidence.window.at - ranking.computed_at).total_seconds()
    return Explanation(
        model=evidence.model,
        region=evidence.region,
        order=list(order),
        chain=list(chain),
        static_order=list(evidence.static_order),
        ranking=None if ranking is None else list(ranking.providers_ranked),
        ranking_age_s=None if age_s is None else round(age_s, 1),
        exploration=evidence.exploration,
        rule=evidence.rule,
        providers=_providers(evidence, order, available),
        reasons=_reasons(evidence, chain, order, current=current, age_s=age_s),
    )


def _may_be_called(provider: str, window: Window) -> bool:
    status = window.status(provider)
    return status in ("unknown", "healthy") or (status == "recovering" and not is_probed(window, provider))


def _providers(
    evidence: Evidence, order: Sequence[str], available: Callable[[str], bool]
) -> list[ProviderExplained]:
    figures = {each.provider: each for each in evidence.figures}
    names = [*order, *(name for name in evidence.static_order if name not in order)]
    return [
        ProviderExplained(
            provider=name,
            place=order.index(name) + 1 if name in order else None,
            available=available(name),
            breaker=evidence.window.status(name),
            attempts=None if (found := figures.get(name)) is None else found.attempts,
            success_rate=None if found is None else round(found.success_rate, 4),
            wasted_rate=None if found is None else round(found.wasted_rate, 4),
            p95_s=None if found is None or found.p95_s is None else round(found.p95_s, 3),
            score=None if found is None else found.score,
        )
        for name in names
    ]


def _reasons(
    evidence: Evidence, chain: Sequence[str], order: Sequence[str], *, current: bool, age_s: float | None
) -> list[str]:
    reasons = [_why_ranked(evidence, current=current, age_s=age_s)]
    left_out = [name for name in evidence.static_order if name not in chain]
    if left_out:
        reasons.append(f"Not configured on this server, so left out: {', '.join(left_out)}.")
    if not chain:
        return [*reasons, "No provider can be called: a request would be refused with BSE4011."]
    if current and evidence.ranking is not None:
        unknown = [name for name in chain if name not in evidence.ranking.providers_ranked]
        if unknown:
            reasons.append(f"Too few attempts to be ranked, so behind the others: {', '.join(unknown)}.")
    reasons += _why_broken(chain, order, evidence.window)
    if len(chain) > 1 and evidence.exploration > 0:
        reasons.append(
            f"{evidence.exploration:.1%} of the requests begin with a random other provider, "
            "so that its figures stay fresh."
        )
    return reasons


def _why_ranked(evidence: Evidence, *, current: bool, age_s: float | None) -> str:
    if evidence.fault is not None:
        return f"The rankings cannot be read, so the model's own order stands: {evidence.fault}"
    if age_s is None:
        return "There is no ranking of this model, so its own order stands."
    if current:
        return f"The ranking ({evidence.rule}) was computed {max(0.0, age_s):.0f} s ago, so it decides."
    if age_s < 0:
        return "The ranking is of the future: some clock is wrong. The model's own order stands."
    return (
        f"The ranking was computed {age_s:.0f} s ago, and after {STALE_AFTER_S} s it is not used: "
        "the model's own order stands. Is a worker running?"
    )


def _why_broken(chain: Sequence[str], order: Sequence[str], window: Window) -> list[str]:
    reasons = []
    statuses = {name: window.status(name) for name in chain}
    for name, status in statuses.items():
        tally = window.tally(name)
        cause = (
            f"{tally.failures} of {tally.attempts} attempts failed in the last {window.limits.window_s:g} s"
        )
        if tally.needs_operator:
            cause = f"it refused the operator's credentials or funds ({tally.operator_failure})"
        if status == "degraded":
            reasons.append(f"{name} is degraded: {cause}. Attempts go elsewhere first.")
        elif status == "recovering":
            probed = "a probe is under way" if is_probed(window, name) else "the next attempt is its probe"
            reasons.append(f"{name} is recovering: {cause}; {probed}.")
    if "healthy" not in statuses.values() and "unknown" not in statuses.values():
        reasons.append(f"All providers are degraded or recovering: {order[0]} is tried all the same.")
    return reasons
